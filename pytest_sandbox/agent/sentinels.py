"""Tests that have to fail, run among the others: who makes failures pass makes these pass too.

Each looks like the test that it is run before, to whoever asks pytest for names and places.
"""

from __future__ import annotations

import ast
import os
from typing import Any

import _pytest.runner
import pytest
from _pytest.assertion import rewrite
from _pytest.fixtures import FuncFixtureInfo

#: Of them in a session at most; each takes some milliseconds.
MOST = 8
_SOURCES = (
    "def {2}():\n    found = {0}\n    assert found == {0} + {1}\n",
    "def {2}():\n    found = [{0}]\n    assert found[0] < 0, 'not {1}'\n",
    "def {2}():\n    raise ValueError({0} + {1})\n",
)
# Bound early: what is tested may replace them.
_urandom, _compile, _parse, _sorted = os.urandom, compile, ast.parse, sorted
_LOADER = rewrite.AssertionRewritingHook


class Sentinels:
    """Those of a session. All are there before the first test: what goes for all tests meets them.

    Args:
        items: tests by number, in the order in which they will run.
    """

    def __init__(self, items: Any) -> None:
        functions = [n for n, item in items.items() if isinstance(item, pytest.Function)]
        keyed = _sorted((_urandom(8), number) for number in functions)
        self._before = {number: _made(items[number]) for _, number in keyed[:MOST]}

    def before(self, number: int, item: Any) -> str:
        """What pytest makes of the one before this test; "" where there is none."""
        sentinel = self._before.pop(number, None)
        if sentinel is None:
            return ""
        try:
            reports = _pytest.runner.runtestprotocol(sentinel, log=False, nextitem=item)
            calls = [report for report in reports if report.when == "call"]
        except Exception:  # noqa: BLE001 - hooks may raise anything
            return "other"
        if len(calls) != 1 or hasattr(calls[0], "wasxfail"):
            return "other"
        outcome = calls[0].outcome
        return outcome if outcome in ("passed", "failed") else "other"


def foreign(items: Any) -> str:
    """The name of a test module that somebody else than pytest loaded; "" without one."""
    for module in {item.getparent(pytest.Module): None for item in items}:
        if type(module) is not pytest.Module or module.config.option.assertmode != "rewrite":
            continue
        spec = getattr(module.obj, "__spec__", None)
        if spec is not None and type(spec.loader) is not _LOADER:
            return str(module.nodeid)
    return ""


def _made(item: Any) -> Any:
    """One before ``item``; None where a plugin's nodes do not admit it."""
    try:
        return _like(item)
    except Exception:  # noqa: BLE001 - whatever it is, the tests can do without
        return None


def _like(item: Any) -> Any:
    first, second, which = (int.from_bytes(_urandom(3), "big") + 1 for _ in range(3))
    name = getattr(item, "originalname", None) or ""
    name = name if name.isidentifier() else "test"
    source = _SOURCES[which % len(_SOURCES)].format(first, second, name)
    path = str(getattr(item, "path", None) or item.fspath)
    tree = _parse(source)
    rewrite.rewrite_asserts(tree, source.encode(), path, item.config)
    scope: dict[str, Any] = {"__name__": getattr(getattr(item, "module", None), "__name__", "")}
    exec(_compile(tree, path, "exec", dont_inherit=True), scope)  # noqa: S102
    nothing = FuncFixtureInfo(argnames=(), initialnames=(), names_closure=[], name2fixturedefs={})
    return Function.from_parent(
        item.parent, name=item.name, callobj=scope[name], fixtureinfo=nothing
    )


class Function(pytest.Function):
    def setup(self) -> None:
        # Older pytests look a method up again, by its name.
        test = self.obj
        super().setup()
        self.obj = test

    def repr_failure(self, excinfo: Any, style: Any = None) -> Any:
        # The other styles parse the whole test file, and nobody reads this.
        return self._repr_failure_py(excinfo, style="native")
