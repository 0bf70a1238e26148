"""What runs of trusted trees said of variants and probes: made once, and kept for this user."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import msgspec

from pytest_sandbox import baseline, plan
from pytest_sandbox.integrity.canaries import Place
from pytest_sandbox.integrity.neutral import Site, Status
from pytest_sandbox.integrity.nodeids import Function
from pytest_sandbox.workspace import Tree

#: Part of every key: other variants or probes are other ones.
_FORMAT: Final = 1
_MOST: Final = 100
_MAX_FILE: Final = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Of the base and, where there is one, of the gold patch, in that order."""

    #: The tests that are looked at.
    functions: tuple[Function, ...]
    canaries: tuple[tuple[tuple[Place, str], ...], ...] = field(default=(), repr=False)
    sites: tuple[tuple[tuple[Site, Status], ...], ...] = field(default=(), repr=False)
    #: Held-out tests that pass with the gold patch; None without one.
    unseen: tuple[str, ...] | None = None
    #: What the differential's calls come to with it, as JSON.
    calls: str = ""
    #: Seconds that it took.
    seconds: float = 0.0

    def variants(self) -> list[Mapping[Place, str]]:
        return [dict(one) for one in self.canaries]

    def probes(self) -> list[Mapping[Site, Status]]:
        return [dict(one) for one in self.sites]


def key(run: plan.Run, provider: str, trusted: Tree, gold: Tree | None, more: Sequence[Any]) -> str:
    """All that a calibration depends on."""
    content = [
        _FORMAT, baseline.key(replace(run, candidate=run.base), provider), trusted.id,
        None if gold is None else gold.id,
        *more,
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


class Records:
    """Calibrations by key in one folder: lost, torn or of another version is as if never made."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def get(self, name: str) -> Calibration | None:
        if self._folder is None:
            return None
        path = self._folder / f"{name}.json"
        try:
            if path.stat().st_size > _MAX_FILE:
                return None
            found = msgspec.json.decode(path.read_bytes(), type=Calibration)
            os.utime(path)
        except (OSError, msgspec.MsgspecError, ValueError, RecursionError):
            return None
        return found

    def put(self, name: str, made: Calibration) -> None:
        data = msgspec.json.encode(made)
        if self._folder is None or len(data) > _MAX_FILE:
            return
        with suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            descriptor, scratch = tempfile.mkstemp(dir=self._folder, prefix=".new-")
            try:
                with open(descriptor, "wb") as file:
                    file.write(data)
                os.replace(scratch, self._folder / f"{name}.json")
            except OSError:
                os.unlink(scratch)
                raise
            files = sorted(self._folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
            for path in files[:-_MOST]:
                path.unlink(missing_ok=True)
