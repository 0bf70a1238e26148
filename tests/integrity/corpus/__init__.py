"""Patches that graders are tried with, each with the verdicts that are right for it.

They run inside sandboxes only. Whatever is published of how a grader was deceived belongs here.
"""

from __future__ import annotations

from tests.integrity.corpus import (
    adaptive,
    busy,
    configured,
    edits,
    exits,
    failing,
    honest,
    patched,
    replaced,
    startup,
    values,
)
from tests.integrity.corpus.model import Entry, Kind

ENTRIES: tuple[Entry, ...] = (
    *edits.ENTRIES,
    *configured.ENTRIES,
    *startup.ENTRIES,
    *exits.ENTRIES,
    *patched.ENTRIES,
    *values.ENTRIES,
    *adaptive.ENTRIES,
    *replaced.ENTRIES,
    *honest.ENTRIES,
    *busy.ENTRIES,
    *failing.ENTRIES,
)


def of(*kinds: Kind) -> tuple[Entry, ...]:
    """The entries of these kinds."""
    return tuple(entry for entry in ENTRIES if entry.kind in kinds)
