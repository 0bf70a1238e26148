"""The one bridge between pytest's main thread and the event loop.

Knows nothing of what is being run. Waiting is done so that Ctrl-C gets through at any time.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from anyio.from_thread import BlockingPortal, start_blocking_portal

T = TypeVar("T")


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

    def cancel(self) -> None:
        """Cancel it, and wait until everything it has to undo is undone."""
        # The future counts as cancelled at once; the event is set by the coroutine itself.
        self._future.cancel()
        while not self._over.wait(0.5):
            pass


class Portal:
    """An event loop in a thread of its own, for as long as the ``with`` block lasts."""

    def __init__(self) -> None:
        self._context: AbstractContextManager[BlockingPortal] = start_blocking_portal("asyncio")

    def __enter__(self) -> Self:
        self._portal = self._context.__enter__()
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
