"""Whoever makes failures pass makes the sentinels pass, and the supervisor hears of it."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from pytest_sandbox import wire
from tests.agent.support import EDGES, run_agent

#: Made by a module that the tests import.
EXPLOITS = {
    "reports": """
        from _pytest import reports
        genuine = reports.TestReport.from_item_and_call.__func__
        def made(cls, item, call):
            report = genuine(cls, item, call)
            report.outcome, report.longrepr = "passed", None
            return report
        reports.TestReport.from_item_and_call = classmethod(made)
    """,
    "calls": """
        from _pytest import runner
        genuine = runner.CallInfo.from_call.__func__
        def made(cls, func, when, *args, **kwargs):
            call = genuine(cls, func, when, *args, **kwargs)
            call.excinfo = None
            return call
        runner.CallInfo.from_call = classmethod(made)
    """,
    "functions": """
        from _pytest import python
        python.Function.runtest = lambda self: None
    """,
    "assertions": """
        from _pytest.assertion import rewrite
        import builtins
        class Never(Exception):
            pass
        def made(self):
            try:
                self.ihook.pytest_pyfunc_call(pyfuncitem=self)
            except Exception:
                pass
        from _pytest import python
        python.Function.runtest = made
    """,
}
#: Made by its first call.
LATER = {
    "code": """
        import gc, types
        def nothing(): pass
        def call():
            for found in gc.get_objects():
                if type(found) is types.FunctionType and found.__module__ == "test_it":
                    if found.__name__.startswith("test_"):
                        found.__code__ = nothing.__code__
    """,
    "items": """
        import gc
        def call():
            for found in gc.get_objects():
                if "Function" in type(found).__name__ and hasattr(found, "_obj"):
                    found._obj = lambda **arguments: None
    """,
}
LOADER = """
    import importlib.util, sys
    class Loader:
        def __init__(self, path): self.path = path
        def create_module(self, spec): return None
        def exec_module(self, module):
            text = open(self.path).read().replace("assert ", "assert True or ")
            exec(compile(text, self.path, "exec"), module.__dict__)
    class Finder:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name == "test_it":
                return importlib.util.spec_from_file_location(name, "test_it.py",
                                                              loader=Loader("test_it.py"))
    sys.meta_path.insert(0, Finder)
"""
TESTS = """
    import pytest
    import product

    @pytest.mark.parametrize("number", range(4))
    def test_it(number):
        assert product.VALUE == number

    class TestIn:
        def test_passes(self):
            assert True

    @pytest.fixture(autouse=True)
    def counted():
        COUNT.append(1)
        yield

    COUNT = []

    def test_fixtures_ran_for_tests_only():
        assert len(COUNT) == 6
"""


@pytest.mark.parametrize("pair", EDGES, ids=str)
@pytest.mark.parametrize("exploit", EXPLOITS)
def test_what_makes_failures_pass_is_seen(
    tmp_path: Path, exploit: str, pair: tuple[str, tuple[str, ...]]
) -> None:
    product = dedent(EXPLOITS[exploit]) + "VALUE = 9\n"
    files = {"product.py": product, "test_it.py": TESTS}
    story = run_agent(tmp_path, files, pair=pair, hardened=True)
    deaths = [frame for frame in story.frames if isinstance(frame, wire.Died)]
    assert {death.cause for death in deaths} == {"protocol"}
    assert "a test that fails was reported as passed" in deaths[0].message
    assert deaths[0].item is not None


@pytest.mark.parametrize("pair", EDGES, ids=str)
@pytest.mark.parametrize("exploit", LATER)
def test_what_is_done_to_all_tests_is_done_to_them(
    tmp_path: Path, exploit: str, pair: tuple[str, tuple[str, ...]]
) -> None:
    tests = """
        import product, pytest
        def test_a():
            product.call()
        @pytest.mark.parametrize("number", range(20))
        def test_b(number):
            assert False
    """
    files = {"product.py": dedent(LATER[exploit]), "test_it.py": tests}
    story = run_agent(tmp_path, files, pair=pair, hardened=True)
    assert "a test that fails was reported as passed" in story.all(wire.Died)[0].message


@pytest.mark.parametrize("pair", EDGES, ids=str)
def test_a_module_that_pytest_did_not_load(
    tmp_path: Path, pair: tuple[str, tuple[str, ...]]
) -> None:
    files = {"test_a.py": LOADER + "\n    def test_a(): pass\n", "test_it.py": TESTS}
    story = run_agent(tmp_path, {**files, "product.py": "VALUE = 9\n"}, pair=pair, hardened=True)
    assert "something else than pytest loaded test_it.py" in story.all(wire.Died)[0].message


@pytest.mark.parametrize("pair", EDGES, ids=str)
def test_honest_sessions_do_not_notice(tmp_path: Path, pair: tuple[str, tuple[str, ...]]) -> None:
    files = {"product.py": "VALUE = 2\n", "test_it.py": TESTS}
    plain = run_agent(tmp_path, files, pair=pair)
    hardened = run_agent(tmp_path, files, pair=pair, hardened=True)
    assert not [frame for frame in hardened.frames if isinstance(frame, wire.Died)]
    assert plain.outcomes == hardened.outcomes
