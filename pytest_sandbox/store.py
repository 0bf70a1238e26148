"""Prepared snapshots by key, on this machine: which there are, and which should go.

Only the records. The snapshots themselves are the providers', and removing one is the caller's.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

_KEY = re.compile(r"[0-9a-f]{16,128}")
#: A record is some hundred bytes; anything larger is not ours.
_MAX_RECORD = 65_536
#: Bytes of snapshots kept; the least recently used go first.
MAX_BYTES = 10 * 1024**3
MAX_AGE = 30 * 86_400.0
#: Seconds after its last use in which a snapshot may still be read by a run.
IN_USE = 2 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A snapshot of a base tree with its environment. Times are seconds since the epoch."""

    key: str
    provider: str
    snapshot: str
    #: Bytes; 0 where the provider does not say.
    size: int
    #: Content address of the tree that is in it.
    tree: str
    reason: str
    repository: str
    created: float
    used: float

    @classmethod
    def new(
        cls,
        *,
        key: str,
        provider: str,
        snapshot: str,
        size: int,
        tree: str,
        reason: str,
        repository: str,
    ) -> Self:
        now = time.time()
        return cls(
            key=key, provider=provider, snapshot=snapshot, size=size, tree=tree, reason=reason,
            repository=repository, created=now, used=now,
        )  # fmt: skip


class PreparedStore:
    """Records in one folder, one file a key; safe for any number of processes."""

    def __init__(
        self,
        directory: Path,
        *,
        max_bytes: int = MAX_BYTES,
        max_age: float = MAX_AGE,
        in_use: float = IN_USE,
    ) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        self._max_age = max_age
        self._in_use = in_use

    def get(self, key: str) -> Prepared | None:
        """The record of ``key``; None when there is none, or none that can be read."""
        known = self._read(self._path(key))
        # Without the names, files of the snapshot's tree could not be told from what set-up made.
        return known if known is not None and self._names(known).is_file() else None

    def put(self, prepared: Prepared, paths: Iterable[str] = ()) -> None:
        """Keep a record, and the names of the files the snapshot's tree has.

        Raises:
            OSError: it cannot be written.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        names = "\0".join(paths).encode("utf-8", "surrogateescape")
        self._write(self._names(prepared), names)
        self._write(self._path(prepared.key), json.dumps(asdict(prepared)).encode())

    def paths(self, prepared: Prepared) -> tuple[str, ...]:
        """The files of the snapshot's tree, as given to ``put``.

        Raises:
            OSError: they are not known any more.
        """
        text = self._names(prepared).read_bytes().decode("utf-8", "surrogateescape")
        return tuple(name for name in text.split("\0") if name)

    def touch(self, key: str) -> None:
        """``key`` has been used now. Where that cannot be written, it only goes earlier."""
        known = self.get(key)
        if known is not None:
            used = replace(known, used=time.time())
            try:
                self._write(self._path(key), json.dumps(asdict(used)).encode())
            except OSError:
                return

    def remove(self, key: str) -> None:
        """Forget ``key``; one that is not there is fine."""
        self._path(key).unlink(missing_ok=True)
        for names in self._directory.glob(f"{key}-*.paths"):
            names.unlink(missing_ok=True)

    def entries(self) -> list[Prepared]:
        """All records, the most recently used first."""
        found = [self._read(path) for path in self._directory.glob("*.json")]
        return sorted((f for f in found if f is not None), key=lambda f: f.used, reverse=True)

    def victims(self) -> list[Prepared]:
        """What has to go: unused for too long, or beyond the bound on all sizes together.

        Never what was used a short while ago: a run may be reading it, here or in another
        session, and would see its files vanish.
        """
        now = time.time()
        total = 0
        result = []
        for entry in self.entries():
            total += entry.size
            idle = now - entry.used
            if idle > self._max_age or (total > self._max_bytes and idle >= self._in_use):
                result.append(entry)
        return result

    def _path(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise ValueError(f"{key!r} is no key")
        return self._directory / f"{key}.json"

    def _names(self, prepared: Prepared) -> Path:
        # Of one snapshot, not of the key: two sessions may prepare the same at the same time.
        digest = hashlib.sha256(prepared.snapshot.encode("utf-8", "surrogateescape")).hexdigest()
        return self._path(prepared.key).with_name(f"{prepared.key}-{digest[:16]}.paths")

    def _read(self, path: Path) -> Prepared | None:
        try:
            with path.open("rb") as file:
                data = json.loads(file.read(_MAX_RECORD + 1))
            found = Prepared(**data)
        except (OSError, ValueError, TypeError, RecursionError):
            return None
        sound = (
            isinstance(found.key, str)
            and _KEY.fullmatch(found.key) is not None
            and f"{found.key}.json" == path.name
            and isinstance(found.size, int)
            and all(
                isinstance(number, (int, float)) and 0 <= number < 1e15
                for number in (found.size, found.created, found.used)
            )
            and all(
                isinstance(text, str)
                for text in (found.provider, found.snapshot, found.tree, found.reason,
                             found.repository)
            )
        )  # fmt: skip
        return found if sound else None

    def _write(self, path: Path, data: bytes) -> None:
        descriptor, scratch = tempfile.mkstemp(dir=self._directory, prefix=".new-")
        try:
            with open(descriptor, "wb") as file:
                file.write(data)
            os.replace(scratch, path)
        except BaseException:
            os.unlink(scratch)
            raise
