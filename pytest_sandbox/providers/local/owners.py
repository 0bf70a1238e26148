"""Notes beside each running sandbox of whose it is, and what may be ended by them.

A process is ours only if number, start time and boot are the ones noted.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import time
from pathlib import Path

NOTE = "owner.json"
#: Building failed for a reason that may pass.
PASSING_ERRORS = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EBUSY})


def start_time(pid: int) -> str | None:
    """Clock ticks from boot to the start of ``pid``; None when there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    # A zombie holds nothing any more and cannot be ended.
    return None if fields[0] in "ZX" else fields[19]


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def write(folder: Path, name: str, pids: list[int]) -> None:
    note = {
        "name": name,
        "boot": _boot(),
        "owner": [os.getpid(), start_time(os.getpid())],
        "processes": [[pid, start_time(pid)] for pid in pids],
    }
    part = folder / (NOTE + ".part")
    part.write_text(json.dumps(note))
    part.replace(folder / NOTE)


def folders_of(running: Path, name: str, sandbox_id: str | None) -> list[Path]:
    """Folders below ``running`` of sandboxes called so."""
    if not running.is_dir():
        return []
    found = []
    for folder in running.iterdir():
        if folder.name.startswith(".") or (sandbox_id and folder.name != sandbox_id):
            continue
        try:
            noted = json.loads((folder / NOTE).read_bytes())["name"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if noted == name:
            found.append(folder)
    return found


def end_processes(folder: Path) -> bool:
    """Kills what the note names and still runs; False when its owner is alive after all."""
    note = json.loads((folder / NOTE).read_bytes())
    if note["boot"] != _boot():
        return True
    owner, started = note["owner"]
    if started is not None and start_time(owner) == started:
        return False
    for pid, started in note["processes"]:
        _kill(pid, started)
    deadline = time.monotonic() + 5.0
    for pid, started in note["processes"]:
        while started and start_time(pid) == started and time.monotonic() < deadline:
            time.sleep(0.01)
    return True


def _kill(pid: int, started: str | None) -> None:
    try:
        # Held by descriptor, the number cannot come to mean another process meanwhile.
        fd = os.pidfd_open(pid)
    except OSError:
        return
    try:
        if started is not None and start_time(pid) == started:
            signal.pidfd_send_signal(fd, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
    finally:
        os.close(fd)
