"""How tests are shared out: in their order, by how long they took, cut where it hurts least. Pure.

Tests that stand together often share a fixture, and sometimes count on each other.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Final

#: What a cut costs, in parts of a share: how uneven shares may become for a better place.
_IN_CLASS: Final = 0.25
_IN_FILE: Final = 0.1
_BETWEEN_CLASSES: Final = 0.05
_IN_PARAMETERS: Final = 0.05


def shared(nodeids: Sequence[str], seconds: Sequence[float | None], parts: int) -> list[range]:
    """Positions of ``nodeids`` for each of ``parts``, in their order; some may be empty.

    Args:
        seconds: what each is expected to take; None where that is not known.
    """
    known = [one for one in seconds if one is not None]
    # Never nothing: what takes no time at all still has its place.
    usual = sum(known) / len(known) if known and sum(known) else 1.0
    costs = [max(usual if one is None else one, usual / 1000) for one in seconds]
    before = [0.0, *accumulate(costs)]
    share = before[-1] / parts
    cuts = [0]
    for number in range(1, parts):
        ideal = share * number
        cuts.append(_best(nodeids, before, ideal, share, cuts[-1]))
    cuts.append(len(nodeids))
    return [range(cuts[number], cuts[number + 1]) for number in range(parts)]


def _best(
    nodeids: Sequence[str], before: Sequence[float], ideal: float, share: float, least: int
) -> int:
    """The position near ``ideal`` where a cut costs least."""
    low = bisect_left(before, ideal - share * _IN_CLASS)
    high = bisect_right(before, ideal + share * _IN_CLASS)
    near = bisect_left(before, ideal)
    places = range(max(least, min(low, near - 1)), max(least, min(high, len(nodeids))) + 1)
    return min(
        places,
        key=lambda place: abs(before[place] - ideal) + share * _harm(nodeids, place),
    )


def _harm(nodeids: Sequence[str], place: int) -> float:
    if place in (0, len(nodeids)):
        return 0.0
    first, second = (nodeids[at].partition("[")[0].split("::") for at in (place - 1, place))
    if first[0] != second[0]:
        return 0.0
    if first[:-1] != second[:-1]:
        return _BETWEEN_CLASSES
    same = _IN_PARAMETERS if first == second else 0.0
    return same + (_IN_CLASS if len(first) > 2 else _IN_FILE)
