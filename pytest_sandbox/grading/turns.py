"""Whose turn it is: places for a few of many, fair to tasks, and the longest first.

Knows no run.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

#: (minus the seconds expected, order of coming, told when it is its turn)
_Waiting = tuple[float, int, asyncio.Future[None]]


class Turns:
    """At most ``places`` at a time, in one event loop.

    A place that gets free goes to the task with the fewest in flight; of those, to what is expected
    to take longest; of those, to whoever came first. What nothing is known of may be the longest.
    """

    def __init__(self, places: int) -> None:
        self._free = places
        self._order = count()
        self._waiting: dict[str, list[_Waiting]] = {}
        self._flying: Counter[str] = Counter()

    @asynccontextmanager
    async def turn(self, task: str, expected: float | None = None) -> AsyncIterator[None]:
        """A place for the block.

        Args:
            expected: seconds; None where nothing is known.
        """
        told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        longest = -(math.inf if expected is None else expected)
        heapq.heappush(self._waiting.setdefault(task, []), (longest, next(self._order), told))
        self._hand_out()
        try:
            await told
        except asyncio.CancelledError:
            if told.done() and not told.cancelled():
                self._give_back(task)
            raise
        try:
            yield
        finally:
            self._give_back(task)

    def _give_back(self, task: str) -> None:
        self._free += 1
        self._flying[task] -= 1
        if not self._flying[task]:
            del self._flying[task]
        self._hand_out()

    def _hand_out(self) -> None:
        while self._free:
            for task in list(self._waiting):
                line = self._waiting[task]
                while line and line[0][2].done():  # cancelled
                    heapq.heappop(line)
                if not line:
                    del self._waiting[task]
            if not self._waiting:
                return
            task = min(
                self._waiting, key=lambda name: (self._flying[name], *self._waiting[name][0][:2])
            )
            _, _, told = heapq.heappop(self._waiting[task])
            self._free -= 1
            self._flying[task] += 1
            told.set_result(None)
