"""What passes from the event loop to pytest's thread, and the selection that goes back.

Knows nothing of what is done with it on either side.
"""

from __future__ import annotations

import asyncio
import queue
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from threading import Lock

from pytest_sandbox import wire
from pytest_sandbox.baseline import Baseline
from pytest_sandbox.consumer import Phase, Selection, Usage
from pytest_sandbox.findings import Coverage, Finding
from pytest_sandbox.portal import Task
from pytest_sandbox.protection import Protection

#: Batches waiting for pytest's loop; beyond, the stream from the sandbox waits.
_BACKLOG = 200

#: What is known of a run besides its frames.
Known = Protection | Baseline | Finding | Coverage
Event = Phase | Usage | Known | wire.Frame | Task[bytes | None]


class Feed:
    """The consumer: passes everything from the event loop to pytest's thread.

    Frames that came together pass together: to wake a thread costs more than a frame does.
    """

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[list[Event]] = queue.SimpleQueue()
        self._selection: Future[Selection] = Future()
        # The loop's side. Locked, as a task that is cancelled is done in the other thread.
        self._lock = Lock()
        self._gathered: list[Event] = []
        # The side of pytest's thread.
        self._batch: deque[Event] = deque()

    def phase(self, phase: Phase) -> None:
        self._pass_on(phase)

    async def frame(self, frame: wire.Frame) -> None:
        if not self._gathered:
            # Runs when all of what was just read has been decoded.
            asyncio.get_running_loop().call_soon(self._pass_on)
        with self._lock:
            self._gathered.append(frame)
        # Polled: the consuming side is another thread, and hardly ever behind.
        while self._queue.qsize() > _BACKLOG:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    def used(self, usage: Usage) -> None:
        self._pass_on(usage)

    def know(self, *known: Known) -> None:
        """A baseline comes before the first frame, what was seen at any time."""
        self._pass_on(*known)

    async def select(self) -> Selection:
        return await asyncio.wrap_future(self._selection)

    def done(self, task: Task[bytes | None]) -> None:
        self._pass_on(task)

    def _pass_on(self, *last: Event) -> None:
        """Hand over what was gathered, and ``last`` after it."""
        with self._lock:
            events = [*self._gathered, *last]
            self._gathered.clear()
            if events:
                self._queue.put(events)

    def choose(self, selection: Selection) -> None:
        if not self._selection.done():
            self._selection.set_result(selection)

    def next(self, idle: Callable[[], None]) -> Event:
        """The next event; calls ``idle`` a few times a second meanwhile."""
        while not self._batch:
            try:
                self._batch += self._queue.get(timeout=0.2)
            except queue.Empty:
                idle()
        return self._batch.popleft()

    def rest(self) -> Iterator[Event]:
        """What has come meanwhile."""
        yield from self._batch
        while not self._queue.empty():
            yield from self._queue.get()
