"""Work in a thread that no cancellation leaves behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, TypeVarTuple, Unpack

import anyio
import anyio.to_thread

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


async def in_thread(function: Callable[[Unpack[Ts]], T], *args: *Ts) -> T:
    """Call ``function`` in a thread; a cancel takes effect when it is through.

    asyncio's own cancel goes through anyio's shields, and does not stop a thread, which would
    then make what nobody removes.
    """
    result: list[T] = []
    failed: list[Exception] = []

    async def work() -> None:
        with anyio.CancelScope(shield=True):
            try:
                result.append(await anyio.to_thread.run_sync(function, *args))
            except Exception as error:  # noqa: BLE001 - raised again below, as it was
                failed.append(error)

    async with anyio.create_task_group() as group:
        group.start_soon(work)
    if failed:
        raise failed[0]
    return result[0]
