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


def proportional(pid: int) -> tuple[int, int] | None:
    """Bytes of (private, shared) memory, pages of several processes by share; None: unknown."""
    values = {}
    for line in read_small(f"/proc/{pid}/smaps_rollup").splitlines():
        name, _, rest = line.partition(b":")
        if name in (b"Pss", b"Pss_Shmem"):
            values[name] = int(rest.split()[0]) * 1024
    if b"Pss" not in values:
        return None
    shared = values.get(b"Pss_Shmem", 0)
    return values[b"Pss"] - shared, shared


def memory_files(pid: int, seen: set[int]) -> int:
    """Bytes in memory files that ``pid`` has open, but for those with an inode ``seen`` before.

    They need not be mapped to take up memory, and no tmpfs limits them.
    """
    total = 0
    folder = f"/proc/{pid}/fd"
    try:
        for name in os.listdir(folder):
            if os.readlink(f"{folder}/{name}").startswith("/memfd:"):
                status = os.stat(f"{folder}/{name}")
                if status.st_ino not in seen:
                    seen.add(status.st_ino)
                    total += status.st_blocks * 512
    except OSError:
        pass
    return total


def segments() -> dict[int, int]:
    """Bytes in memory of each System V shared memory segment of this IPC namespace, by id."""
    try:
        with open("/proc/sysvipc/shm", "rb") as file:
            rows = [line.split() for line in file.readlines()[1:]]
    except OSError:
        return {}
    return {int(row[1]): int(row[14]) for row in rows if len(row) > 14}


def user_namespace(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/user")
    except OSError:
        return ""
