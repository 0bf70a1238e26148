"""What a mode does with a run: the contract between the runner and its consumers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from pytest_sandbox import wire

PhaseName = Literal["create", "set-up", "upload", "build", "collect", "run", "artifacts", "close"]


@dataclass(frozen=True, slots=True)
class Phase:
    """The run has come to ``name``; ``detail`` is the command, or the last line it wrote."""

    name: PhaseName
    detail: str = ""
    #: ``detail`` is a command that is about to run.
    announce: bool = False


@dataclass(frozen=True, slots=True)
class Selection:
    """Which collected items run, by number and in order; ``maxfail`` 0 for no limit."""

    items: Sequence[int]
    maxfail: int = 0


class Consumer(Protocol):
    """What a mode does with a run. Called in the event loop; slow is allowed, and slows the run."""

    def phase(self, phase: Phase) -> None: ...

    async def frame(self, frame: wire.Frame) -> None: ...

    async def select(self) -> Selection:
        """Called once, when collection is over."""
        ...
