"""What /proc says of the processes of this PID namespace, and how to end a tree of them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable

PAGE = os.sysconf("SC_PAGE_SIZE")


def all_pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def read_small(path: str) -> bytes:
    """The first 4 KiB of a file, or nothing: the process may be gone."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(fd, 4096)
    except OSError:
        return b""
    finally:
        os.close(fd)


def parent_and_state(pid: int) -> tuple[int, str] | None:
    # The name, in brackets, may contain anything.
    rest = read_small(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    return (int(rest[1]), rest[0].decode()) if len(rest) > 1 else None


def descendants(root: int) -> set[int]:
    """Living processes below ``root``; zombies do not count."""
    children: dict[int, list[int]] = {}
    dead: set[int] = set()
    for pid in all_pids():
        known = parent_and_state(pid)
        if known is None:
            continue
        children.setdefault(known[0], []).append(pid)
        if known[1] in "ZX":
            dead.add(pid)
    found: set[int] = set()
    queue = [root]
    while queue:
        for child in children.get(queue.pop(), ()):
            if child not in found:
                found.add(child)
                queue.append(child)
    return found - dead


def send(pids: Iterable[int], number: int) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


def end_tree(root: int, reap: Callable[[], object], *, patience: float = 8.0) -> bool:
    """Kills everything below ``root``, which must be a subreaper; False when some would not die.

    Stopping first keeps a fork bomb from growing faster than it is read.
    """
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        stopped: set[int] = set()
        while True:
            new = descendants(root) - stopped
            if not new or time.monotonic() > deadline:
                break
            send(new, signal.SIGSTOP)
            stopped |= new
        if not stopped:
            reap()
            return True
        send(stopped, signal.SIGKILL)
        time.sleep(0.002)
        reap()
    return False


def resident(pid: int) -> int:
    """Bytes of memory in use, shared pages included."""
    fields = read_small(f"/proc/{pid}/statm").split()
    return int(fields[1]) * PAGE if len(fields) > 1 else 0


def proportional(pid: int) -> int | None:
    """Bytes of memory in use, shared pages by share; None where that cannot be read."""
    for line in read_small(f"/proc/{pid}/smaps_rollup").splitlines():
        if line.startswith(b"Pss:"):
            return int(line.split()[1]) * 1024
    return None


def user_namespace(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/user")
    except OSError:
        return ""
