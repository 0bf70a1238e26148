"""What runs of trusted trees said of variants and probes: made once, and kept for this user."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from pytest_sandbox import baseline, plan
from pytest_sandbox.integrity.canaries import Place
from pytest_sandbox.integrity.neutral import Site, Status
from pytest_sandbox.integrity.nodeids import Function
from pytest_sandbox.workspace import Tree

#: Part of every key: other variants or probes are other ones.
_FORMAT: Final = 2


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
