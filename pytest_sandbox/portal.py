"""The one bridge between pytest's main thread and the event loop.

Knows nothing of what is being run. Waiting is done so that Ctrl-C gets through at any time.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from time import monotonic
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from anyio.from_thread import BlockingPortal, start_blocking_portal

T = TypeVar("T")

#: Seconds that ``abandon`` gives the loop's tasks to let go.
_LETTING_GO = 3.0


class Task(Generic[T]):
    """A coroutine under way in the loop."""

    def __init__(
        self, portal: BlockingPortal, function: Callable[..., Awaitable[T]], args: tuple[Any, ...]
    ) -> None:
        self._over = threading.Event()
        self._future: Future[T] = portal.start_task_soon(self._main, function, args)

    async def _main(self, function: Callable[..., Awaitable[T]], args: tuple[Any, ...]) -> T:
        try:
            return await function(*args)
        finally:
            self._over.set()

    def on_done(self, callback: Callable[[Task[T]], None]) -> None:
        """Call ``callback`` when it is over, in the loop's thread."""
        self._future.add_done_callback(lambda _: callback(self))

    def result(self) -> T:
        """Wait for the result; signals interrupt it on every platform."""
        while True:
            try:
                # A wait without limit cannot be interrupted on Windows.
                return self._future.result(0.5)
            except FutureTimeout:
                if self._future.done():
                    raise

    def cancel(self, idle: Callable[[], None] = lambda: None) -> None:
        """Cancel it, and wait until everything it has to undo is undone.

        Args:
            idle: called a few times a second meanwhile.
        """
        # The future counts as cancelled at once; the event is set by the coroutine itself.
        self._future.cancel()
        while not self._over.wait(0.2):
            idle()


class Portal:
    """An event loop in a thread of its own, for as long as the ``with`` block lasts."""

    def __init__(self) -> None:
        self._context: AbstractContextManager[BlockingPortal] = start_blocking_portal("asyncio")

    def __enter__(self) -> Self:
        self._portal = self._context.__enter__()
        self._loop = self._portal.call(asyncio.get_running_loop)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._context.__exit__(kind, error, traceback)

    def start(self, function: Callable[..., Awaitable[T]], *args: Any) -> Task[T]:
        """Start ``function(*args)`` in the loop."""
        return Task(self._portal, function, args)

    def hold(self, manager: AbstractAsyncContextManager[T]) -> AbstractContextManager[T]:
        """An async context manager, for use in this thread."""
        return self._portal.wrap_async_context_manager(manager)

    def run(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Run to the end; Ctrl-C cancels it, waits for its clean-up, and is raised then."""
        task = self.start(function, *args)
        try:
            return task.result()
        except BaseException:
            task.cancel()
            raise

    def abandon(self) -> None:
        """Break off everything in the loop, clean-up that waits for something included.

        The loop ends by it, so that no thread keeps the process; at worst after three seconds.
        """
        deadline = monotonic() + _LETTING_GO
        while not self._loop.is_closed() and monotonic() < deadline:
            try:
                # Not by anyio's scopes: clean-up is shielded from those.
                self._loop.call_soon_threadsafe(self._break_off)
            except RuntimeError:
                break  # closed meanwhile
            threading.Event().wait(0.05)

    def _break_off(self) -> None:
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
