"""Keeps the sum of what a sandbox uses below its limits, where the kernel does not."""

from __future__ import annotations

import os
import signal
import time

from pytest_sandbox.providers.local.inside import linux, processes
from pytest_sandbox.providers.local.inside.usage import disk_usage

#: 20 times a second: 700 MB of limit were passed by some 50 MB before the kill.
MEMORY_PERIOD = 0.05
#: Every so many of those looks, also at memory that belongs to no process.
HIDDEN_EVERY = 4
DISK_PERIOD = 2.0


class MemoryWatchdog:
    """Ends the largest processes, the untrusted ones first, when all together use too much."""

    def __init__(self, limit: int, notice: str) -> None:
        self._limit = limit
        self._notice = notice
        self._own_namespace = processes.user_namespace(os.getpid())
        self._looks = 0
        self._files: dict[int, int] = {}
        self._segments: dict[int, int] = {}

    def check(self, ours: set[int]) -> None:
        """Looks once; ``ours`` are the supervisor's processes, which do not count."""
        pids = [pid for pid in processes.all_pids() if pid not in ours]
        if self._looks % HIDDEN_EVERY == 0:
            seen: set[int] = set()
            self._files = {pid: processes.memory_files(pid, seen) for pid in pids}
            self._segments = processes.segments()
        self._looks += 1
        sizes = {pid: processes.resident(pid) + self._files.get(pid, 0) for pid in pids}
        if sum(sizes.values()) + sum(self._segments.values()) <= self._limit:
            return
        # Forked workers share most of their pages: count those once before killing anything.
        for pid in sizes:
            exact = processes.proportional(pid)
            if exact is not None:
                # Memory files may be mapped as well; then they are part of what is shared.
                sizes[pid] = exact[0] + max(exact[1], self._files.get(pid, 0))
        in_segments = sum(self._segments.values())
        if sum(sizes.values()) + in_segments > self._limit:
            self._kill(sizes, in_segments)

    def _kill(self, sizes: dict[int, int], in_segments: int) -> None:
        total = left = sum(sizes.values()) + in_segments
        inner = [p for p in sizes if processes.user_namespace(p) not in ("", self._own_namespace)]
        killed = []
        for pid in sorted(inner or sizes, key=lambda pid: sizes[pid], reverse=True):
            if left <= self._limit:
                break
            processes.send([pid], signal.SIGKILL)
            left -= sizes[pid]
            killed.append(f"{sizes[pid] >> 20} MiB")
        # They outlive the processes that made them, and would get the next ones killed.
        for number in processes.segments():
            linux.remove_segment(number)
        self._segments = {}
        self._looks = 0
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
