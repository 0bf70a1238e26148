"""The record on this machine of sandboxes that may exist, and whose owners are dead.

An entry is written before a sandbox is asked for and removed after it has ended, so whatever a
killed session leaves is in here. Knows no providers and no runs.
"""

from __future__ import annotations

import json
import os
import re
import socket
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
#: An entry is a few hundred bytes; anything larger is not ours.
_MAX_SIZE = 16_384
#: Seconds after a sandbox's own end until it is believed: clocks differ, and vendors are late.
_LATE = 3600.0


@dataclass(frozen=True, slots=True)
class Record:
    """What an entry says. Times are seconds since the epoch."""

    name: str
    provider: str
    sandbox_id: str | None
    host: str
    boot: str
    pid: int
    #: When the owner started, in the system's own unit; pids are used again.
    started: str
    created: float
    #: When the provider itself ends the sandbox.
    expires: float
    #: Left running on purpose.
    kept: bool = False


class Entry:
    """One sandbox's line in the ledger."""

    def __init__(self, path: Path, record: Record) -> None:
        self._path = path
        self._record = record

    @property
    def name(self) -> str:
        return self._record.name

    @property
    def provider(self) -> str:
        return self._record.provider

    @property
    def sandbox_id(self) -> str | None:
        return self._record.sandbox_id

    @property
    def expired(self) -> bool:
        """The provider has ended the sandbox itself by now, an hour ago or more."""
        return time.time() > self._record.expires + _LATE

    def created(self, sandbox_id: str) -> None:
        """The sandbox exists, under the provider's name for it."""
        self._record = replace(self._record, sandbox_id=sandbox_id)
        _write(self._path, self._record)

    @property
    def kept(self) -> bool:
        return self._record.kept

    def keep(self) -> None:
        """The sandbox is left running on purpose."""
        self._record = replace(self._record, kept=True)
        _write(self._path, self._record)

    def close(self) -> None:
        """The sandbox is gone. May be called again."""
        self._path.unlink(missing_ok=True)


class Ledger:
    """The entries in one folder; safe for any number of processes."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def open(self, name: str, *, provider: str, expires: float) -> Entry:
        """Enter a sandbox before it is created; it lives at most ``expires`` seconds.

        Raises:
            ValueError: ``name`` is not one of letters, digits, dots, dashes and underscores.
            OSError: the entry cannot be written, so the sandbox must not be created.
        """
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} cannot name a sandbox")
        now = time.time()
        record = Record(
            name=name,
            provider=provider,
            sandbox_id=None,
            host=_host(),
            boot=_boot(),
            pid=os.getpid(),
            started=_started(os.getpid()),
            created=now,
            expires=now + expires,
        )
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self._directory / f"{name}.json"
        _write(path, record)
        return Entry(path, record)

    def entries(self) -> list[Entry]:
        """All entries that can be read. Files that are none are left alone."""
        try:
            paths = sorted(self._directory.glob("*.json"))
        except OSError:
            return []
        found = []
        for path in paths:
            record = _read(path)
            if record is not None and f"{record.name}.json" == path.name:
                found.append(Entry(path, record))
        return found

    def orphans(self, *, kept: bool = False) -> list[Entry]:
        """Entries whose owner is dead: an ended process, or one before this machine's last boot.

        Entries of other machines (a shared home) count only a day after they expired.

        Args:
            kept: also sandboxes that are left running on purpose and may still run.
        """
        return [
            entry
            for entry in self.entries()
            if (entry.kept and (kept or _over(entry._record)))
            or (not entry.kept and _orphaned(entry._record))
        ]


def _orphaned(record: Record) -> bool:
    if record.host != _host():
        return time.time() > record.expires + 86_400
    if record.boot != _boot():
        return True
    return not _alive(record.pid, record.started)


def _over(record: Record) -> bool:
    return time.time() > record.expires + 60.0


def _alive(pid: int, started: str) -> bool:
    if started:
        return _started(pid) == started
    if os.name == "nt":  # no way to ask without ending it
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _started(pid: int) -> str:
    """The process's start in clock ticks since boot, "" where the system does not say."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "" if not Path("/proc/self/stat").exists() else "ended"
    fields = stat.rpartition(")")[2].split()
    return "ended" if fields[0] in ("Z", "X") else fields[19]


def _host() -> str:
    """What pids are counted by: this machine, or this container of it."""
    try:
        return f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _read(path: Path) -> Record | None:
    try:
        with path.open("rb") as file:
            data = json.loads(file.read(_MAX_SIZE + 1))
        record = Record(**data)
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    texts = (record.name, record.provider, record.host, record.boot, record.started)
    numbers: tuple[Any, ...] = (record.pid, record.created, record.expires)
    sound = (
        all(isinstance(text, str) for text in texts)
        and all(isinstance(number, (int, float)) and 0 < number < 1e15 for number in numbers)
        and isinstance(record.pid, int)
        and isinstance(record.sandbox_id, (str, type(None)))
        and isinstance(record.kept, bool)
        and _NAME.fullmatch(record.name) is not None
    )
    return record if sound else None


def _write(path: Path, record: Record) -> None:
    descriptor, scratch = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with open(descriptor, "w") as file:
            json.dump(asdict(record), file)
        os.replace(scratch, path)
    except BaseException:
        os.unlink(scratch)
        raise
