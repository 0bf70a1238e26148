"""The hardened start of a worker: pytest is imported before the tree is where Python looks.

Runs in a Python that was started outside of the tree, and only of environments that are trusted:
what it makes of ``sys`` is what ``python -m pytest`` in the tree would have made of it.
"""

from __future__ import annotations

import os
import site
import sys
from copy import copy
from importlib import machinery
from typing import Any, Callable, Iterable

#: What runs the tests. Where one of them is what is tested, it cannot be trusted as well.
RUNNER = ("pytest", "_pytest", "pluggy", "iniconfig")
#: Loaded before any program, so always the standard library's.
_STARTUP = frozenset({
    "__main__", "abc", "builtins", "codecs", "encodings", "genericpath", "io", "os", "posixpath",
    "site", "sitecustomize", "stat", "sys", "usercustomize", "zipimport",
})  # fmt: skip
#: Folders that many an environment has by mistake, and many a candidate adds.
_COMMON = frozenset({
    "benchmarks", "conftest", "docs", "examples", "scripts", "setup", "test", "testing", "tests",
    "tools",
})  # fmt: skip
_BUILTIN: Any = (machinery.BuiltinImporter, machinery.FrozenImporter, machinery.PathFinder)


def harden(plan: dict[str, Any]) -> list[str]:
    """Import the runner, then let Python look where it would in a direct run.

    Returns:
        The parts of the runner that the tree under test provides itself.
    """
    tree = _Tree(plan["workspace"], plan["cwd"])
    first = []
    if sys.path[:1] == [""]:  # with PYTHONSAFEPATH it is not there
        del sys.path[0]
        first.append(plan["cwd"])
    try:
        _without(tree, _import_runner)
        imported = True
    except ImportError:
        _forget(RUNNER)
        imported = False
    os.chdir(plan["cwd"])
    given = plan["pythonpath"]
    if given is not None:
        os.environ["PYTHONPATH"] = given
    if given:
        first += map(os.path.abspath, given.split(os.pathsep))
    sys.path[:] = dict.fromkeys([*first, *sys.path])
    outside = [entry for entry in sys.path if not tree.holds(entry)]
    hidden = {name for name in plan["fresh"] if _elsewhere(name, outside)}
    if hidden:
        sys.path_hooks.insert(0, _hook(tree, hidden))
        sys.path_importer_cache.clear()
    if given:
        site.execsitecustomize()
    if not imported:
        return [name for name in RUNNER if tree.provides(name)]
    found = [name for name in _loaded() if name not in _STARTUP and tree.provides(name)]
    # What is tested is the tree's. The runner goes on with what it has.
    _set_aside(found)
    return [name for name in found if name in RUNNER[:2]]


class _Tree:
    """What is below the workspace, and not of the environment."""

    def __init__(self, *roots: str) -> None:
        self._roots = tuple(_folder(root) for root in roots)
        prefix = _folder(sys.prefix)
        self._environment = prefix if prefix.startswith(self._roots) else None
        self._names: set[str] | None = None
        self._finders: list[Any] = []

    def holds(self, path: str) -> bool:
        folder = _folder(path or os.curdir)
        if self._environment is not None and folder.startswith(self._environment):
            return False
        return folder.startswith(self._roots)

    def provides(self, name: str) -> bool:
        """Whether ``import name`` would find a module of the tree, had it not been imported."""
        if self._names is None:
            self._look()
        assert self._names is not None
        if name not in self._names and not self._finders:
            return False
        for finder in sys.meta_path:
            spec = finder.find_spec(name, None)
            if spec is not None:
                places = [spec.origin] if spec.has_location else spec.submodule_search_locations
                return any(self.holds(place) for place in places or () if place)
        return False

    def _look(self) -> None:
        """Note what its folders on sys.path hold, which is sooner done than asking for each."""
        self._finders = [finder for finder in sys.meta_path if finder not in _BUILTIN]
        self._names = set()
        for entry in filter(self.holds, sys.path):
            try:
                names = os.listdir(entry)
            except OSError:
                continue
            self._names.update(name.partition(".")[0] for name in names)


def _folder(path: str) -> str:
    return os.path.join(os.path.realpath(path), "")


def _without(tree: _Tree, action: Callable[[], None]) -> None:
    """Do something while nothing of the tree can be imported."""
    path, finders = list(sys.path), list(sys.meta_path)
    sys.path[:] = [entry for entry in path if not tree.holds(entry)]
    sys.meta_path[:] = [finder for finder in finders if finder in _BUILTIN]
    try:
        action()
    finally:
        sys.path[:], sys.meta_path[:] = path, finders


def _import_runner() -> None:
    import pytest  # noqa: F401
    from _pytest.config import default_plugins

    for name in default_plugins:
        __import__(f"_pytest.{name}")


def _elsewhere(name: str, outside: list[str]) -> bool:
    """Whether a name that the candidate adds is one of the standard library or environment."""
    if name in _COMMON:
        return False
    return name in sys.builtin_module_names or (
        machinery.PathFinder.find_spec(name, outside) is not None
    )


def _hook(tree: _Tree, hidden: set[str]) -> Callable[[str], Any]:
    """Finders that do not see modules of the tree by which it would replace others."""

    class Finder(machinery.FileFinder):
        def find_spec(self, fullname: str, target: Any = None) -> Any:
            return None if fullname in hidden else super().find_spec(fullname, target)

    make = Finder.path_hook(
        (machinery.ExtensionFileLoader, machinery.EXTENSION_SUFFIXES),
        (machinery.SourceFileLoader, machinery.SOURCE_SUFFIXES),
        (machinery.SourcelessFileLoader, machinery.BYTECODE_SUFFIXES),
    )

    def hook(path: str) -> Any:
        if not tree.holds(path):
            raise ImportError("not of the tree", path=path)
        return make(path)

    return hook


def _loaded() -> list[str]:
    return [name for name in sys.modules if "." not in name]


def _forget(names: Iterable[str]) -> None:
    for name in _below(names):
        del sys.modules[name]


def _set_aside(names: Iterable[str]) -> None:
    """Make the names free for others; whoever has the modules can still import parts of them."""
    for name in _below(names):
        module = sys.modules.pop(name)
        spec = copy(getattr(module, "__spec__", None))
        if spec is not None:
            # What relative imports in the module start from.
            spec.name = f"_runners_{name}"
            module.__spec__, module.__package__ = spec, spec.parent
            sys.modules[spec.name] = module


def _below(names: Iterable[str]) -> list[str]:
    tops = frozenset(names)
    return [name for name in sys.modules if name.partition(".")[0] in tops]
