"""Prepared snapshots by key, on this machine: which there are, and which should go.

Only the records. The snapshots themselves are the providers', and removing one is the caller's.
"""

from __future__ import annotations

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
#: Bytes of snapshots kept; the least recently used go first.
MAX_BYTES = 10 * 1024**3
MAX_AGE = 30 * 86_400.0


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
        self, directory: Path, *, max_bytes: int = MAX_BYTES, max_age: float = MAX_AGE
    ) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        self._max_age = max_age

    def get(self, key: str) -> Prepared | None:
        """The record of ``key``; None when there is none, or none that can be read."""
        return self._read(self._path(key))

    def put(self, prepared: Prepared, paths: Iterable[str] = ()) -> None:
        """Keep a record, and the names of the files the snapshot's tree has.

        Raises:
            OSError: it cannot be written.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        names = "\0".join(paths).encode("utf-8", "surrogateescape")
        self._write(self._path(prepared.key).with_suffix(".paths"), names)
        self._write(self._path(prepared.key), json.dumps(asdict(prepared)).encode())

    def paths(self, key: str) -> tuple[str, ...]:
        """The files of the snapshot's tree, as given to ``put``."""
        try:
            data = self._path(key).with_suffix(".paths").read_bytes()
        except OSError:
            return ()
        return tuple(name for name in data.decode("utf-8", "surrogateescape").split("\0") if name)

    def touch(self, key: str) -> None:
        """``key`` has been used now."""
        known = self.get(key)
        if known is not None:
            used = replace(known, used=time.time())
            self._write(self._path(key), json.dumps(asdict(used)).encode())

    def remove(self, key: str) -> None:
        """Forget ``key``; one that is not there is fine."""
        self._path(key).unlink(missing_ok=True)
        self._path(key).with_suffix(".paths").unlink(missing_ok=True)

    def entries(self) -> list[Prepared]:
        """All records, the most recently used first."""
        found = [self._read(path) for path in self._directory.glob("*.json")]
        return sorted((f for f in found if f is not None), key=lambda f: f.used, reverse=True)

    def victims(self) -> list[Prepared]:
        """What has to go: unused for too long, or beyond the bound on all sizes together."""
        now = time.time()
        total = 0
        result = []
        for entry in self.entries():
            total += entry.size
            if total > self._max_bytes or now - entry.used > self._max_age:
                result.append(entry)
        return result

    def _path(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise ValueError(f"{key!r} is no key")
        return self._directory / f"{key}.json"

    def _read(self, path: Path) -> Prepared | None:
        try:
            data = json.loads(path.read_bytes())
            found = Prepared(**data)
        except (OSError, ValueError, TypeError):
            return None
        sound = (
            f"{found.key}.json" == path.name
            and isinstance(found.size, int)
            and all(isinstance(number, (int, float)) for number in (found.created, found.used))
            and all(
                isinstance(text, str)
                for text in (found.provider, found.snapshot, found.tree, found.reason,
                             found.repository)
            )
        )  # fmt: skip
        return found if sound else None

    def _write(self, path: Path, data: bytes) -> None:
        descriptor, scratch = tempfile.mkstemp(dir=self._directory, prefix=".new-")
        with open(descriptor, "wb") as file:
            file.write(data)
        os.replace(scratch, path)
