"""A thread's work is over before anybody goes on, however they were cancelled."""

from __future__ import annotations

import asyncio
import threading
import time

import anyio
import pytest

from pytest_sandbox.threads import in_thread


@pytest.mark.parametrize("native", [True, False])
def test_a_cancel_waits_for_the_work(native: bool) -> None:
    begun = threading.Event()
    done: list[str] = []

    def work(name: str) -> None:
        begun.set()
        time.sleep(0.3)
        done.append(name)

    async def by_task() -> None:
        task = asyncio.create_task(in_thread(work, "a"))
        while not begun.is_set():
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def by_scope() -> None:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(in_thread, work, "a")
                while not begun.is_set():
                    await anyio.sleep(0.01)
                scope.cancel()

    async def main() -> None:
        await (by_task() if native else by_scope())
        assert done == ["a"]

    asyncio.run(main())


def test_an_error_is_raised_as_it_was() -> None:
    def work() -> int:
        raise LookupError("nothing")

    async def main() -> None:
        with pytest.raises(LookupError, match="nothing"):
            await in_thread(work)
        assert await in_thread(len, [1, 2]) == 2

    asyncio.run(main())
