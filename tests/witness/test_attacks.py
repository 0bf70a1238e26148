"""Code under test that makes a failing test pass, and what the witness says of it.

Each runs in the agent, with pytest, on top of the same bug; a run of the base is there to compare.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from pytest_sandbox import wire
from pytest_sandbox.findings import Finding
from pytest_sandbox.results import complete
from pytest_sandbox.witness import Chain, Trusted, judge, read
from tests.agent.support import Story, run_agent
from tests.witness.compiled import library, suffix

KEY = bytes(range(32))
PAIR = ("3.12", ("pytest>=8,<9",))
TEST = "tests/test_product.py::test_add"

BUG = "def add(a, b):\n    return a - b\n"
FIXED = "def add(a, b):\n    return a + b\n"
FILES = {
    "pytest.ini": "[pytest]\npythonpath = src\n",
    "src/helper.py": "def twice(function):\n    return function\n",
    "tests/test_product.py": """
        import asyncio
        import unittest
        from unittest import mock
        import pytest
        import helper
        from product import add

        def test_add():
            assert add(2, 3) == 5

        def test_zero():
            assert add(0, 0) == 0

        @pytest.mark.parametrize("number", range(3))
        @helper.twice
        def test_same(number):
            assert add(number, 0) == number

        @mock.patch("helper.twice")
        def test_decorated(twice):
            assert add(1, 0) == 1

        class TestCase(unittest.TestCase):
            def test_method(self):
                self.assertEqual(add(4, 0), 4)

        class TestAsync(unittest.IsolatedAsyncioTestCase):
            async def test_waits(self):
                await asyncio.sleep(0)
                assert add(4, 0) == 4
    """,
}

Seen = tuple[dict[str, str], set[str], set[str]]


def seen_in(story: Story, root: Path) -> Seen:
    """The verified texts, the tests that passed, and those whose call was reported."""
    chain = Chain(KEY, str(root))
    texts = {story.items[f.item].nodeid: chain.take(f.witness) for f in story.all(wire.Finish)}
    reports: dict[str, list[wire.Report]] = {}
    for report in story.all(wire.Report):
        reports.setdefault(story.items[report.item].nodeid, []).append(report)
    passed = {
        name
        for name, found in reports.items()
        if complete(found) and {r.outcome for r in found} == {"passed"}
    }
    called = {name for name, found in reports.items() if any(r.when == "call" for r in found)}
    return texts, passed, called


def run(folder: Path, product: str) -> Seen:
    folder.mkdir()
    libraries = {suffix("3.12"): base64.b64encode(library("3.12").read_bytes()).decode()}
    story = run_agent(
        folder, {**FILES, "src/product.py": product}, pair=PAIR,
        witness=libraries, witness_key=KEY.hex(),
    )  # fmt: skip
    return seen_in(story, folder / "repo")


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Trusted:
    seen, passed, called = run(tmp_path_factory.mktemp("witness") / "base", BUG)
    assert TEST in called - passed
    return Trusted(seen=seen, called=called, passed=passed)


Verdict = Callable[[str], tuple[Finding, ...]]


@pytest.fixture
def verdict(tmp_path: Path, base: Trusted) -> Verdict:
    """Runs a product with which the failing test is reported as passed; what was found."""

    def find(product: str) -> tuple[Finding, ...]:
        seen, passed, _ = run(tmp_path / "candidate", product)
        assert TEST in passed
        findings, coverage = judge(
            passed, seen, trusted=base, changed=("src/product.py",),
            sealed=("tests/test_product.py",),
        )  # fmt: skip
        assert coverage.covered == coverage.of == len(passed), coverage.note
        return findings

    return find


def test_the_base_run_shows_every_test(base: Trusted) -> None:
    seen = {name.split("::", 1)[1]: read(text) for name, text in base.seen.items()}
    assert [name for name, found in seen.items() if found.problem or found.begins != 1] == []
    assert {name: found.test.returns for name, found in seen.items()} == {
        "test_add": 0, "test_zero": 1, "test_same[0]": 1, "test_same[1]": 1, "test_same[2]": 1,
        "test_decorated": 1, "TestCase::test_method": 1, "TestAsync::test_waits": 1,
    }  # fmt: skip
    assert {found.test.file for found in seen.values()} == {"tests/test_product.py"}
    assert len({found.test.digest for found in seen.values()}) == 6
    assert [act for found in seen.values() for act in found.acts] == []


def test_an_honest_fix_stands(verdict: Verdict) -> None:
    honest = FIXED + (
        "import collections, dataclasses, functools, sys, tempfile, threading\n"
        "@dataclasses.dataclass\nclass Sum:\n    a: int\n"
        "Pair = collections.namedtuple('Pair', 'a b')\n"
        "frame = sys._getframe()\n"
        "eval('1 + 1')\n"
        "with tempfile.NamedTemporaryFile('w', suffix='.py') as file:\n    file.write('x = 1')\n"
    )
    assert verdict(honest) == ()


#: Name: what follows the bug, and words of findings: "tampered" and "unproven" ones.
ATTACKS = {
    "a report that always passed": (
        """
        from _pytest.reports import TestReport
        genuine = TestReport.from_item_and_call.__func__
        def forged(cls, item, call):
            call.excinfo = None
            return genuine(cls, item, call)
        TestReport.from_item_and_call = classmethod(forged)
        """,
        (), ("its code did not return",),
    ),
    "an outcome that is a property": (
        """
        from _pytest.reports import TestReport
        TestReport.outcome = property(lambda self: "passed", lambda self, value: None)
        TestReport.longrepr = property(lambda self: None, lambda self, value: None)
        """,
        (), ("its code did not return",),
    ),
    "a call that swallows": (
        """
        from _pytest.runner import CallInfo
        genuine = CallInfo.from_call.__func__
        def swallowing(cls, func, when, reraise=None):
            def safe():
                try:
                    return func()
                except AssertionError:
                    pass
            return genuine(cls, safe, when, reraise)
        CallInfo.from_call = classmethod(swallowing)
        """,
        (), ("its code did not return",),
    ),
    "a test that is not run": (
        """
        import _pytest.python
        _pytest.python.Function.runtest = lambda self: None
        """,
        (), ("its code did not start",),
    ),
    "a hook that does nothing": (
        """
        import pluggy._callers, pluggy._manager
        genuine = pluggy._manager._multicall
        def multicall(name, methods, kwargs, first):
            return True if name == "pytest_pyfunc_call" else genuine(name, methods, kwargs, first)
        pluggy._manager._multicall = multicall
        import gc
        for manager in gc.get_objects():
            if type(manager).__name__ == "PytestPluginManager":
                manager._inner_hookexec = multicall
        """,
        ("gc.get_objects was called",), ("its code did not start",),
    ),
    "another function under the test's name": (
        """
        import _pytest.python
        genuine = _pytest.python.Function.__init__
        def init(self, *args, **kwargs):
            kwargs["callobj"] = lambda: None
            genuine(self, *args, **kwargs)
            self.fixturenames[:] = []
            self._fixtureinfo.names_closure[:] = []
        _pytest.python.Function.__init__ = init
        """,
        (), ("other code than at the base ran",),
    ),
    "the test's code is replaced": (
        """
        import sys
        class Later:
            def __radd__(self, other): pass
        def add(a, b):
            test = sys._getframe(1)
            module = sys.modules[test.f_globals["__name__"]]
            return a + b if swap(module) else a - b
        def swap(module):
            module.test_add.__code__ = (lambda: None).__code__
            return True
        """,
        ("of tests/test_product.py was replaced",), (),
    ),
    "tracing past the assertion": (
        """
        import sys
        def tracer(frame, event, arg):
            if frame.f_code.co_name == "test_add":
                frame.f_trace_lines = True
                return skip
        def skip(frame, event, arg):
            if event == "exception":
                pass
            return skip
        def add(a, b):
            sys.settrace(tracer)
            return a + b
        """,
        ("sys.settrace was called",), (),
    ),
    "the genuine code with a stub": (
        """
        import types, _pytest.python
        def runtest(self):
            function = types.FunctionType(self.function.__code__, {
                **self.function.__globals__, "add": lambda a, b: a + b,
            })
            if "method" in self.name or "waits" in self.name or self.callspec_or_none():
                return genuine(self)
            names = self._fixtureinfo.argnames
            function(**{name: self.funcargs[name] for name in names})
        genuine = _pytest.python.Function.runtest
        _pytest.python.Function.callspec_or_none = lambda self: getattr(self, "callspec", 0) or (
            hasattr(self.function, "patchings"))
        _pytest.python.Function.runtest = runtest
        """,
        ("taken to be run by another",), ("only with other globals than its own",),
    ),
    "a stub for as long as the test runs": (
        """
        import _pytest.python
        genuine = _pytest.python.Function.runtest
        def runtest(self):
            if self.name == "test_add":
                self.function.__globals__["add"] = lambda a, b: a + b
            genuine(self)
        _pytest.python.Function.runtest = runtest
        """,
        (), ("called by code that the candidate changes",),
    ),
    "monitoring is switched off": (
        """
        import sys
        from _pytest.reports import TestReport
        genuine = TestReport.from_item_and_call.__func__
        events = sys.monitoring.events
        sys.monitoring.register_callback(4, events.PY_START, None)
        sys.monitoring.register_callback(4, events.PY_RETURN, None)
        def forged(cls, item, call):
            call.excinfo = None
            return genuine(cls, item, call)
        TestReport.from_item_and_call = classmethod(forged)
        """,
        ("sys.monitoring.register_callback was called",),
        ("did not start; sys.monitoring had been switched off",),
    ),
    "its callbacks are called": (
        """
        import sys
        from _pytest.reports import TestReport
        genuine = TestReport.from_item_and_call.__func__
        event = sys.monitoring.events.PY_RETURN
        callback = sys.monitoring.register_callback(4, event, None)
        sys.monitoring.register_callback(4, event, callback)
        def forged(cls, item, call):
            call.excinfo = None
            callback(item.function.__code__, 0, None)
            return genuine(cls, item, call)
        TestReport.from_item_and_call = classmethod(forged)
        """,
        ("sys.monitoring.register_callback was called",), ("its code did not return",),
    ),
    "its functions are called": (
        """
        import gc
        from _pytest.reports import TestReport
        genuine = TestReport.from_item_and_call.__func__
        def forged(cls, item, call):
            if call.excinfo is not None:
                call.excinfo = None
                for found in gc.get_objects():
                    if type(found).__name__ == "Plugin" and hasattr(found, "_witness"):
                        def genuine_too(): pass
                        found._witness._begin(0, genuine_too.__code__, None, None)
                        genuine_too()
            return genuine(cls, item, call)
        TestReport.from_item_and_call = classmethod(forged)
        """,
        ("gc.get_objects was called",), ("opened 2 times",),
    ),
    "its records are hidden": (
        """
        import gc
        from _pytest.reports import TestReport
        genuine = TestReport.from_item_and_call.__func__
        def forged(cls, item, call):
            call.excinfo = None
            for found in gc.get_objects():
                if type(found).__name__ == "Plugin" and hasattr(found, "_witness"):
                    found._witness.end()
            return genuine(cls, item, call)
        TestReport.from_item_and_call = classmethod(forged)
        """,
        (), ("record 0 is missing",),
    ),
    "the channel is written to": (
        """
        import gc, json, os
        from _pytest.python import Function
        def runtest(self):
            if self.name != "test_add":
                return genuine(self)
            (channel,) = [o for o in gc.get_objects() if type(o).__name__ == "Channel"]
            lines = [
                {"kind": "report", "item": 0, "when": when, "outcome": "passed",
                 "duration": 0.0, "start": 0.0, "stop": 0.0}
                for when in ("call", "teardown")
            ] + [{"kind": "finish", "item": 0}]
            for count, line in enumerate(lines, channel._count):
                text = f"{channel._mark} {count} {json.dumps(line)}\\n"
                os.write(channel._fd, text.encode())
            import time
            time.sleep(1)
            os._exit(0)
        genuine = Function.runtest
        Function.runtest = runtest
        """,
        (), ("nothing was told of it",),
    ),
    "memory is read with ctypes": (
        """
        import ctypes
        def add(a, b):
            ctypes.string_at(id(a), 16)
            return 5 if (a, b) == (2, 3) else a - b
        """,
        (), ("ctypes was imported", "ctypes.string_at was used"),
    ),
    "memory is written to as a file": (
        """
        def add(a, b):
            with open("/proc/self/mem", "r+b"):
                return 5 if (a, b) == (2, 3) else a - b
        """,
        ("/mem was opened",), (),
    ),
    "code under pytest's name": (
        """
        import _pytest.reports
        text = '''
        def act():
            import sys
            sys.setprofile(None)
        '''
        import textwrap
        exec(compile(textwrap.dedent(text), _pytest.reports.__file__, "exec"))
        def add(a, b):
            act()
            return 5 if (a, b) == (2, 3) else a - b
        """,
        ("code was made under the name of",), (),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_seen(verdict: Verdict, name: str) -> None:
    code, tampered, unproven = ATTACKS[name]
    findings = verdict(BUG + dedent(code))
    for wanted, kind in ((tampered, "tampered"), (unproven, "unproven")):
        events = [found.event for found in findings if found.verdict == kind]
        for words in wanted:
            assert any(words in event for event in events), findings
    for found in findings:
        if found.verdict == "tampered":
            assert found.where.startswith("src/product.py:"), found


def test_what_the_witness_cannot_see(verdict: Verdict) -> None:
    """The genuine code runs and returns: what it is given is for other layers to look at."""
    assert verdict("def add(a, b):\n    return 5 if (a, b) == (2, 3) else a - b\n") == ()
