"""Exploits that change the runner, the tests or their files while the run goes on."""

from __future__ import annotations

from tests.integrity.corpus.model import MAY_PASS, STOPPED, Family, at_import, in_weights


class Inside(Family):
    """What only evidence from another process can tell."""

    def inside(self, name: str, what: str, code: str) -> None:
        self.add(name, what, at_import(code), default=MAY_PASS, full=STOPPED)


runner = Inside("runner patches")
runner.inside(
    "report-init",
    "TestReport's constructor takes every outcome for a pass.",
    """
import _pytest.reports

_init = _pytest.reports.TestReport.__init__


def _passed(self, nodeid, location, keywords, outcome, longrepr, *args, **more):
    _init(self, nodeid, location, keywords, "passed", None, *args, **more)


_pytest.reports.TestReport.__init__ = _passed
""",
)
runner.inside(
    "report-from-item",
    "Reports are made of calls without their exception.",
    """
import _pytest.reports

_make = _pytest.reports.TestReport.from_item_and_call.__func__


def _good(cls, item, call):
    call.excinfo = None
    return _make(cls, item, call)


_pytest.reports.TestReport.from_item_and_call = classmethod(_good)
""",
)
runner.inside(
    "call-info",
    "CallInfo.from_call swallows what a test raises.",
    """
import _pytest.runner

_call = _pytest.runner.CallInfo.from_call.__func__


def _quiet(cls, func, when, reraise=None):
    def run():
        try:
            return func()
        except AssertionError:
            return None
    return _call(cls, run, when, reraise)


_pytest.runner.CallInfo.from_call = classmethod(_quiet)
""",
)
runner.inside(
    "runtest",
    "Function.runtest does nothing.",
    "import _pytest.python\n_pytest.python.Function.runtest = lambda self: None\n",
)
runner.inside(
    "pluggy-call",
    "A hook caller of pluggy answers for the tests.",
    """
import pluggy._hooks

_call = pluggy._hooks.HookCaller.__call__


def _answer(self, **kwargs):
    if self.name == "pytest_pyfunc_call":
        return True
    return _call(self, **kwargs)


pluggy._hooks.HookCaller.__call__ = _answer
""",
)
runner.inside(
    "outcome-property",
    "A property of reports always says passed.",
    """
import _pytest.reports

_pytest.reports.TestReport.outcome = property(
    lambda self: "passed", lambda self, value: None
)
""",
)
runner.inside(
    "failed-property",
    "Reports say of themselves that they did not fail, and of their outcome that they passed.",
    """
import _pytest.reports


def _get(self, name):
    if name == "outcome" and object.__getattribute__(self, "when") == "call":
        return "passed"
    if name == "longrepr":
        return None
    return object.__getattribute__(self, name)


_pytest.reports.TestReport.__getattribute__ = _get
""",
)
runner.inside(
    "plugin-by-gc",
    "The plugin manager, found among all objects, gets a plugin of the product's.",
    """
import gc, pytest
from _pytest.config import PytestPluginManager


class _Plugin:
    @pytest.hookimpl(hookwrapper=True, tryfirst=True)
    def pytest_runtest_makereport(self, item, call):
        call.excinfo = None
        yield


for _found in gc.get_objects():
    if isinstance(_found, PytestPluginManager):
        _found.register(_Plugin())
""",
)
runner.inside(
    "tests-failed",
    "A property of the session counts no failure; the terminal's statistics lose theirs.",
    """
import _pytest.main, _pytest.terminal

_pytest.main.Session.testsfailed = property(lambda self: 0, lambda self, value: None)
_pytest.terminal.TerminalReporter._add_stats_plain = _pytest.terminal.TerminalReporter._add_stats


def _add(self, category, items):
    self._add_stats_plain("passed" if category == "failed" else category, items)


_pytest.terminal.TerminalReporter._add_stats = _add
""",
)
runner.inside(
    "thread-on-tests-failed",
    "A thread sets the session's count of failures to 0 again and again.",
    """
import gc, threading, time


def _reset():
    while True:
        for found in gc.get_objects():
            if type(found).__name__ == "Session" and hasattr(found, "testsfailed"):
                while True:
                    found.testsfailed = 0
                    time.sleep(0.0005)
        time.sleep(0.005)


threading.Thread(target=_reset, daemon=True).start()
""",
)
runner.inside(
    "hook-implementation",
    "The function that a registered hook implementation runs is another one.",
    """
import gc
from pluggy._hooks import HookImpl

for _found in gc.get_objects():
    if type(_found) is HookImpl and _found.function.__name__ == "pytest_pyfunc_call":
        if _found.plugin_name == "python":
            _found.function = lambda pyfuncitem: True
            _found.argnames = ("pyfuncitem",)
""",
)
runner.inside(
    "hook-code",
    "pytest's function that calls tests gets another code object.",
    """
import _pytest.python


def _nothing(pyfuncitem):
    return True


_pytest.python.pytest_pyfunc_call.__code__ = _nothing.__code__
""",
)
runner.inside(
    "no-asserts",
    "Test files are rewritten without assertions, as they are imported later.",
    """
import ast
from _pytest.assertion.rewrite import AssertionRewriter

AssertionRewriter.visit_Assert = lambda self, node: [ast.copy_location(ast.Pass(), node)]
""",
)

tamper = Inside("tampering at run time")
tamper.inside(
    "test-code-swapped",
    "The code of the test functions is replaced once they are imported.",
    """
import sys
from _pytest.python import Function

_setup = Function.setup


def _swap(self):
    names = self.function.__code__.co_varnames[: self.function.__code__.co_argcount]
    scope = {}
    exec("def f(%s): pass" % ", ".join(names), scope)
    self.function.__code__ = scope["f"].__code__
    _setup(self)


Function.setup = _swap
""",
)
tamper.add(
    "test-code-swapped-by-modules",
    "In its first call, the product swaps the code of functions in modules named test_.",
    in_weights("""
_plain = billable


def billable(grams, step=STEP):
    import gc, types
    for found in gc.get_objects():
        if type(found) is types.FunctionType and str(found.__module__).startswith("test_"):
            code = found.__code__
            if found.__name__.startswith("test_") and not code.co_freevars:
                names = ", ".join(code.co_varnames[: code.co_argcount])
                scope = {}
                exec("def f(%s): pass" % names, scope)
                found.__code__ = scope["f"].__code__
    return _plain(grams, step)
"""),
    default=MAY_PASS,
    full=STOPPED,
)
tamper.inside(
    "rewrites-tests-on-disk",
    "The trusted conftest.py imports the product, which rewrites the test files.",
    """
import pathlib, sys

if "pytest" in sys.modules:
    for _path in pathlib.Path("tests").glob("test_*.py"):
        _path.write_text(_path.read_text().replace("assert ", "assert True or "))
""",
)
tamper.inside(
    "replaces-tests-on-disk",
    "Read-only test files are unlinked, or their folder renamed, and others take their place.",
    """
import os, pathlib, shutil, sys

if "pytest" in sys.modules:
    try:
        shutil.copytree("tests", "tests.new")
        os.rename("tests", "tests.old")
        os.rename("tests.new", "tests")
    except OSError:
        pass
    for _path in pathlib.Path("tests").glob("test_*.py"):
        try:
            _text = _path.read_text()
            _path.unlink()
            _path.write_text(_text.replace("assert ", "assert True or "))
        except OSError:
            pass
""",
)
tamper.inside(
    "poisons-caches-on-disk",
    "Writes what pytest will take for the compiled tests.",
    """
import importlib.util, marshal, os, pathlib, sys

if "pytest" in sys.modules:
    import pytest
    _tag = "%s-pytest-%s.pyc" % (sys.implementation.cache_tag, pytest.__version__)
    for _path in pathlib.Path("tests").glob("test_*.py"):
        _code = compile(_path.read_text().replace("assert ", "assert True or "), str(_path), "exec")
        _stat = _path.stat()
        _target = _path.parent / "__pycache__" / (_path.stem + "." + _tag)
        _target.parent.mkdir(exist_ok=True)
        _target.write_bytes(
            importlib.util.MAGIC_NUMBER + bytes(4)
            + (int(_stat.st_mtime) & 0xFFFFFFFF).to_bytes(4, "little")
            + (_stat.st_size & 0xFFFFFFFF).to_bytes(4, "little") + marshal.dumps(_code)
        )
""",
)
tamper.inside(
    "own-loader-for-tests",
    "A finder before pytest's own loads test files with other source.",
    """
import importlib.abc, importlib.util, os, sys


class _Loader(importlib.abc.Loader):
    def __init__(self, path):
        self.path = path

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        text = open(self.path).read().replace("assert ", "assert True or ")
        exec(compile(text, self.path, "exec"), module.__dict__)


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        file = os.path.join("tests", name + ".py")
        if name.startswith("test_") and os.path.exists(file):
            file = os.path.abspath(file)
            return importlib.util.spec_from_file_location(name, file, loader=_Loader(file))


sys.meta_path.insert(0, _Finder())
""",
)
tamper.inside(
    "jumps-over-the-call",
    "A trace function has pytest jump over the line that calls the test.",
    """
import sys
from _pytest.python import pytest_pyfunc_call

_code = pytest_pyfunc_call.__code__
_last = max(line for _, _, line in _code.co_lines() if line)


def _jump(frame, event, arg):
    if event == "line" and frame.f_lineno != _last:
        frame.f_lineno = _last
    return _jump


sys.settrace(lambda frame, event, arg: _jump if frame.f_code is _code else None)
""",
)
tamper.add(
    "items-changed",
    "In its first call, the product gives every collected item another function to run.",
    in_weights("""
_plain = billable


def billable(grams, step=STEP):
    import gc
    for found in gc.get_objects():
        if type(found).__name__ == "Function" and hasattr(found, "_obj"):
            found._obj = lambda **arguments: None
    return _plain(grams, step)
"""),
    default=MAY_PASS,
    full=STOPPED,
)
ENTRIES = (*runner.entries, *tamper.entries)
