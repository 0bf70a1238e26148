"""What /proc says of processes."""

from __future__ import annotations

import os


def stat(pid: int) -> tuple[int, str, str] | None:
    """Parent, state and start time of a process; None where there is no such."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return int(fields[1]), fields[0].decode(), fields[19].decode()
    except (OSError, IndexError, ValueError):
        return None


def alive(mark: str) -> bool:
    """Whether the process noted as "PID STARTTIME" still runs."""
    pid, _, started = mark.partition(" ")
    found = stat(int(pid))
    if found is not None:
        return found[1] not in "ZX" and (not started or found[2] == started)
    if os.path.exists("/proc/self/stat"):
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def descendants() -> list[int]:
    """All living processes below this one, nearest first; empty without /proc."""
    children: dict[int, list[int]] = {}
    try:
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []
    for pid in pids:
        found = stat(pid)
        if found is not None:
            children.setdefault(found[0], []).append(-pid if found[1] in "ZX" else pid)
    found_pids, queue = [], [os.getpid()]
    while queue:
        for pid in children.get(queue.pop(0), ()):
            if pid > 0:
                found_pids.append(pid)
            queue.append(abs(pid))
    return found_pids


def own_pid(pid: int) -> int:
    """The pid of a process as it sees it in its own namespace."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            for line in file:
                if line.startswith(b"NSpid:"):
                    return int(line.split()[-1])
        return pid
    except OSError:
        return 0
