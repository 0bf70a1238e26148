"""Keeps the sum of what a sandbox uses below its limits, where the kernel does not."""

from __future__ import annotations

import os
import signal
import time

from pytest_sandbox.providers.local.inside import processes
from pytest_sandbox.providers.local.inside.usage import disk_usage

#: 20 times a second: 700 MB of limit were passed by some 50 MB before the kill.
MEMORY_PERIOD = 0.05
DISK_PERIOD = 2.0


class MemoryWatchdog:
    """Ends the largest processes, the untrusted ones first, when all together use too much."""

    def __init__(self, limit: int, notice: str) -> None:
        self._limit = limit
        self._notice = notice
        self._own_namespace = processes.user_namespace(os.getpid())

    def check(self, ours: set[int]) -> None:
        """Looks once; ``ours`` are the supervisor's processes, which do not count."""
        sizes = {pid: processes.resident(pid) for pid in processes.all_pids() if pid not in ours}
        if sum(sizes.values()) <= self._limit:
            return
        # Forked workers share most of their pages: count those once before killing anything.
        for pid in sizes:
            exact = processes.proportional(pid)
            if exact is not None:
                sizes[pid] = exact
        total = sum(sizes.values())
        if total <= self._limit:
            return
        inner = [p for p in sizes if processes.user_namespace(p) not in ("", self._own_namespace)]
        victims = sorted(inner or sizes, key=lambda pid: sizes[pid], reverse=True)
        left, killed = total, []
        for pid in victims:
            if left <= self._limit:
                break
            processes.send([pid], signal.SIGKILL)
            left -= sizes[pid]
            killed.append(f"{sizes[pid] >> 20} MiB")
        with open(self._notice, "a") as file:
            file.write(
                f"{total >> 20} MiB in use, {self._limit >> 20} MiB allowed: "
                f"killed {len(killed)} process(es) of {', '.join(killed[:8])}\n"
            )


class DiskWatchdog:
    """Ends the untrusted processes when a folder without a quota of its own grows too large."""

    def __init__(self, folder: str, limit: int, notice: str) -> None:
        self._folder = folder
        self._limit = limit
        self._notice = notice
        self._next = time.monotonic() + DISK_PERIOD
        self._measurer = 0
        self._started = 0.0

    @property
    def ours(self) -> set[int]:
        return {self._measurer} if self._measurer else set()

    def check(self) -> None:
        if self._measurer or time.monotonic() < self._next:
            return
        self._started = time.monotonic()
        self._measurer = os.fork()
        if self._measurer == 0:
            try:
                used, complete = disk_usage(self._folder)
                os._exit(1 if used > self._limit or not complete else 0)
            finally:
                os._exit(2)

    def reaped(self, pid: int, status: int, ours: set[int]) -> None:
        if pid != self._measurer:
            return
        self._measurer = 0
        took = time.monotonic() - self._started
        self._next = time.monotonic() + max(DISK_PERIOD, 10 * took)
        if os.waitstatus_to_exitcode(status) != 1:
            return
        own = processes.user_namespace(os.getpid())
        others = [p for p in processes.all_pids() if p not in ours]
        inner = [p for p in others if processes.user_namespace(p) not in ("", own)]
        processes.send(inner or others, signal.SIGKILL)
        with open(self._notice, "a") as file:
            file.write(
                f"more than {self._limit >> 20} MiB below {self._folder}, or nested too deep: "
                "killed\n"
            )
