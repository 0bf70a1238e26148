"""What was seen of a run that an honest one does not show. Frozen data; no I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: The layers of docs/integrity.md.
Layer = Literal["L0", "L1", "L2", "L3", "L4", "L5", "L6", "L7"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One event. It is about the run, never about what somebody meant."""

    layer: Layer
    #: "tampered" for hard evidence, "unproven" where evidence is missing or runs disagree.
    verdict: Literal["tampered", "unproven"]
    #: What happened: "the process ended with status 0 before the session finished".
    event: str
    #: The test it was seen at, or "".
    nodeid: str = ""
    #: "file:line", or "" where there is none.
    where: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """How much of a run a layer could look at."""

    layer: Layer
    covered: int
    of: int
    #: What stands against more of it, or which part of the layer this sandbox cannot give.
    note: str = ""
