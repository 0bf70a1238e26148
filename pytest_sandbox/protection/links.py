"""Where the symbolic links of a tree lead. Pure: knows paths only."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final, NamedTuple

#: Links on the way to one place.
_HOPS: Final = 40


class Way(NamedTuple):
    """From a link to what it stands for."""

    #: A path of the tree; there may be nothing.
    end: str
    #: Further links on the way.
    over: tuple[str, ...] = ()


def ways(targets: Mapping[str, str]) -> dict[str, Way]:
    """Where links lead, by path; not those that leave the tree or go round in circles.

    Args:
        targets: what is written in each.
    """
    found = {path: _way(path, targets) for path in targets}
    return {path: way for path, way in found.items() if way is not None}


def below(folder: str, paths: Collection[str]) -> list[str]:
    """What of ``paths`` lies in ``folder``, at any depth."""
    return [path for path in paths if path.startswith(f"{folder}/")]


def _way(path: str, targets: Mapping[str, str]) -> Way | None:
    at: list[str] = []
    todo = path.split("/")[::-1]
    over: list[str] = []
    while todo:
        part = todo.pop()
        if part in ("", "."):
            continue
        if part == "..":
            if not at:
                return None
            at.pop()
            continue
        at.append(part)
        link = "/".join(at)
        target = targets.get(link)
        if target is None:
            continue
        if target.startswith("/") or len(over) == _HOPS:
            return None
        over.append(link)
        at.pop()
        todo += target.split("/")[::-1]
    return Way("/".join(at), tuple(over[1:]))
