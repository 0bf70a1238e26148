"""The first process of a sandbox: takes requests, reaps, watches limits, ends everything.

Its end is the end of the sandbox, so it does nothing that can block or fail: each request is
served by a process of its own (``shepherd``).
"""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from typing import Any

from pytest_sandbox.providers.local.inside import shepherd
from pytest_sandbox.providers.local.inside.linux import receive_message, send_message
from pytest_sandbox.providers.local.inside.watchdog import (
    MEMORY_PERIOD,
    DiskWatchdog,
    MemoryWatchdog,
)


def serve(request: dict[str, Any], channel: socket.socket) -> None:
    """Returns when the owner is gone or time is up; the caller must then exit."""
    deadline = time.monotonic() + request["ttl"]
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_read, False)
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    memory = MemoryWatchdog(request["memory"], "/run/pytest-sandbox/oom")
    disk = None
    if request["keep"]:
        disk = DiskWatchdog(
            "/sandbox", request["disk"] + request["base"], "/run/pytest-sandbox/disk"
        )
    shepherds: set[int] = set()
    foreign = True
    poller = select.poll()
    poller.register(channel, select.POLLIN)
    poller.register(wake_read, select.POLLIN)
    send_message(channel, {"ready": True}, [])
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            send_message(channel, {"end": "ttl"}, [])
            return
        wait = min(left, MEMORY_PERIOD if shepherds or foreign else 60.0)
        ready = {fd for fd, _ in poller.poll(wait * 1000 + 1)}
        if wake_read in ready:
            os.read(wake_read, 4096)
        foreign = _reap(shepherds, disk)
        if channel.fileno() in ready:
            order, fds = receive_message(channel)
            if order is None:
                return
            try:
                pid = os.fork()
            except OSError as error:
                _answer(fds, {"errno": error.errno})
                continue
            if pid == 0:
                signal.set_wakeup_fd(-1)
                channel.close()
                os.close(wake_read)
                os.close(wake_write)
                shepherd.serve(order, fds, request)
            shepherds.add(pid)
            for fd in fds:
                os.close(fd)
        if shepherds or foreign:
            ours = {1, *shepherds, *(disk.ours if disk else ())}
            try:
                memory.check(ours)
                if disk:
                    disk.check()
            except OSError:
                # No place for a notice or a process: the next look may do better, and an
                # exception here would end the sandbox.
                pass


def _reap(shepherds: set[int], disk: DiskWatchdog | None) -> bool:
    """Collects the dead; whether children other than shepherds are left."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        if pid == 0:
            return True
        if disk:
            try:
                disk.reaped(pid, status, {1, *shepherds})
            except OSError:
                pass  # Only the notice could not be written.
        shepherds.discard(pid)


def _answer(fds: list[int], message: dict[str, Any]) -> None:
    with socket.socket(fileno=fds[0]) as reply:
        try:
            send_message(reply, message, [])
        except OSError:
            pass
    for fd in fds[1:]:
        os.close(fd)
