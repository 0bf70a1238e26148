"""Node ids taken apart, and tests drawn from them. Pure; knows no pytest."""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

_REST = re.compile(r"((?:[^\W\d]\w*::)*)([^\W\d]\w*)(\[.*)?", re.DOTALL)


@dataclass(frozen=True, slots=True, order=True)
class Function:
    """A test function, with all its parameters."""

    #: Relative to the top of the tree.
    path: str
    classes: tuple[str, ...]
    name: str

    @property
    def shown(self) -> str:
        """As a node id has it."""
        return "::".join((self.path, *self.classes, self.name))


def parse(nodeid: str, rootdir: str = "") -> tuple[Function, str] | None:
    """The function, and the parameters with their brackets; None for no test of a Python module.

    Args:
        rootdir: the folder that the id is relative to.
    """
    path, _, rest = nodeid.partition("::")
    match = _REST.fullmatch(rest)
    if match is None or not path.endswith(".py"):
        return None
    if rootdir:
        path = f"{rootdir}/{path}"
    classes = tuple(match[1].split("::")[:-1])
    return Function(path, classes, match[2]), match[3] or ""


def functions(nodeids: Iterable[str], rootdir: str = "") -> dict[Function, list[str]]:
    """The ids by their function, in order."""
    found: dict[Function, list[str]] = {}
    for nodeid in nodeids:
        parsed = parse(nodeid, rootdir)
        if parsed is not None:
            found.setdefault(parsed[0], []).append(nodeid)
    return found


def draw(
    tests: Mapping[Function, Sequence[str]],
    decisive: Collection[str],
    *,
    most: int,
    seconds: float,
    durations: Mapping[str, float],
    seed: str,
) -> dict[Function, list[str]]:
    """All functions with a decisive test, and as many others as there is room for.

    Args:
        most: ids of others.
        seconds: that others may take together.
        durations: seconds by id.
    """
    chosen = {
        function: list(ids)
        for function, ids in tests.items()
        if any(nodeid in decisive for nodeid in ids)
    }
    rest = sorted(function for function in tests if function not in chosen)
    random.Random(seed).shuffle(rest)  # noqa: S311 - a choice that can be made again
    room = most
    for function in rest:
        ids = tests[function]
        cost = sum(durations.get(nodeid, 0.0) for nodeid in ids)
        if len(ids) <= room and cost <= seconds:
            chosen[function] = list(ids)
            room -= len(ids)
            seconds -= cost
    return {function: chosen[function] for function in tests if function in chosen}
