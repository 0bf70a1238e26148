"""What was collected, and where the project's packages came from."""

from __future__ import annotations

import os
import sys
from typing import Any, Iterator

from .texts import NAME_LIMIT, short
from .values import Values, line_number

try:
    from _pytest.mark import _is_matchable_function_attribute as matchable
except ImportError:

    def matchable(name: str) -> bool:
        return True


def describe(items: list[Any], values: Values) -> Iterator[dict[str, Any]]:
    """Tests and their collectors, in frames of a sensible size."""
    known: dict[int, int] = {}
    count = 0
    nodes: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for item in items:
        parent = -1
        for node in item.listchain()[1:-1]:
            number = known.get(id(node))
            if number is None and type(node).__name__ == "Instance":
                known[id(node)] = number = parent  # pytest 6 only, and never shown
            if number is None:
                known[id(node)] = number = count
                count += 1
                nodes.append(_node(node, parent))
            parent = number
        found.append(_item(item, parent, values))
        if len(found) == 200 or len(nodes) >= 1000:
            yield {"nodes": nodes, "items": found}
            nodes, found = [], []
    if nodes or found:
        yield {"nodes": nodes, "items": found}


def _node(node: Any, parent: int) -> dict[str, Any]:
    return {
        "parent": parent,
        "type": short(type(node).__name__),
        "name": short(node.name, NAME_LIMIT),
        "nodeid": short(node.nodeid, NAME_LIMIT),
    }


def _item(item: Any, parent: int, values: Values) -> dict[str, Any]:
    path, lineno, domain = item.location
    marks = [_mark(mark, values) for mark in item.iter_markers()]
    keywords = set(item.listextrakeywords())
    function = getattr(item, "function", None)
    if function is not None:
        names = getattr(function, "__dict__", ())
        keywords.update(name for name in names if matchable(name))
    return {
        **_node(item, parent),
        "path": short(path, NAME_LIMIT),
        "lineno": line_number(lineno) if lineno is not None else None,
        "domain": short(domain, NAME_LIMIT),
        "marks": marks[:256],
        "keywords": sorted(short(word, 4096) for word in keywords)[:1024],
    }


def _mark(mark: Any, values: Values) -> dict[str, Any]:
    kwargs = {}
    for key, value in list(mark.kwargs.items())[:64]:
        if value is None or type(value) in (str, int, float, bool):
            kwargs[short(key)] = values.scalar(value)
    return {"name": short(mark.name), "kwargs": kwargs}


def origins(packages: list[str]) -> dict[str, list[str]]:
    """The files or folders that imported packages came from."""
    paths = {}
    for name in packages:
        module = sys.modules.get(name)
        if module is None:
            continue
        file = getattr(module, "__file__", None)
        try:
            files = [file] if file else list(getattr(module, "__path__", ()))
            files = [short(os.path.realpath(path), NAME_LIMIT) for path in files[:64]]
        except Exception as error:  # noqa: BLE001 - a module may be any object
            files = [f"<{type(error).__name__}>"]
        paths[short(name)] = files
    return paths


def packages() -> list[str]:
    """What is installed, as ``pip freeze`` would say it, from the names of metadata folders.

    To read what is in them would take longer than many a suite.
    """
    found: dict[str, str] = {}
    for folder in filter(None, sys.path):
        try:
            names = os.listdir(folder)
        except OSError:
            continue
        for name in names:
            stem, kind = os.path.splitext(name)
            project, _, version = stem.partition("-")
            if kind in (".dist-info", ".egg-info") and version:
                # An egg's has the version of Python behind its own.
                found.setdefault(project.replace("_", "-"), version.partition("-py")[0])
    return [short(f"{name}=={found[name]}") for name in sorted(found)[:2048]]


def installed(manager: Any) -> list[str]:
    """Installed plugins, named as pytest names them in its header."""
    found: list[str] = []
    for _, dist in manager.list_plugin_distinfo():
        name = f"{dist.project_name}-{dist.version}"
        name = name[7:] if name.startswith("pytest-") else name
        if name not in found:
            found.append(name)
    return [short(name) for name in found[:512]]
