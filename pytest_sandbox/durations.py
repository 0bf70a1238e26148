"""How long things took, by key, in a file of this machine's cache: to start the longest first.

A cache and nothing more: lost, torn or of another version, it is as if nothing had been recorded.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

#: Keys that one file keeps, the newest.
_MOST: Final = 50_000
#: Characters of a key; one that is longer is not kept.
_LONGEST: Final = 1000
#: Bytes of a file that is read at all.
_MAX_FILE: Final = 32 << 20


class Durations:
    """Seconds by key. Sessions at the same time may lose each other's, and nothing else."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, float] | None = None
        self._new: dict[str, float] = {}

    def expected(self, key: str) -> float | None:
        """Seconds; None where nothing is known."""
        if self._known is None:
            self._known = _read(self._path)
        return self._new.get(key, self._known.get(key))

    def note(self, key: str, seconds: float) -> None:
        """``key`` took so long. Half of what is known stays: one slow run is not the rule."""
        if len(key) > _LONGEST:
            return
        before = self.expected(key)
        self._new[key] = round(seconds if before is None else (before + seconds) / 2, 3)

    def save(self) -> None:
        """Keep what was noted, where that is possible."""
        if not self._new:
            return
        found: Mapping[str, float] = {**_read(self._path), **self._new}
        kept = dict(list(found.items())[-_MOST:])
        new = self._path.with_name(f".{self._path.name}.{os.getpid()}.new")
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            new.write_text(json.dumps(kept), encoding="ascii")
            new.replace(self._path)
        with suppress(OSError):
            new.unlink(missing_ok=True)
        self._new = {}
        self._known = kept


def _read(path: Path) -> dict[str, float]:
    try:
        if path.stat().st_size > _MAX_FILE:
            return {}
        found = json.loads(path.read_text(encoding="ascii"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {
        key: float(value)
        for key, value in found.items()
        if isinstance(value, (int, float)) and math.isfinite(value) and 0 <= value < 1e9
    }
