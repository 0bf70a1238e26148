"""docs/faults.md: the table of faults, stages and vendors, written from what the tests saw."""

# ruff: noqa: E501 - the rows of a page's tables

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.providers import faults
from tests.providers.faults import FAULTS, STAGES, VENDORS, Cell
from tests.providers.known import site

PATH = Path(__file__).parents[2] / "docs" / "faults.md"
NONE = "–"
#: Emulators of one vendor at the same time: most of the time is spent waiting.
SHARDS = 2

Seen = Mapping[Cell, str]

_FAULTS = {
    "429": "too many requests (gRPC: RESOURCE_EXHAUSTED)",
    "429, Retry-After": "the same, and when to come again",
    "503": "not available (gRPC: UNAVAILABLE)",
    "502 before": "a gateway fails before the request has its effect (gRPC: INTERNAL)",
    "504 after": "a gateway gives up after the request had its effect (DEADLINE_EXCEEDED)",
    "slow": "the answer takes 3 s longer",
    "reset before": "the connection is reset before the effect",
    "reset after": "the connection is reset after the effect, before the answer",
    "cut": "the connection is reset in the middle of a stream or an upload",
    "silent": "the connection stays, and nothing comes any more",
    "lost": "the vendor ends the sandbox",
    "idle end": "the vendor ends or pauses it for being idle",
    "expired token": "the key or the sandbox's token is refused",
    "out of memory": "what uses most memory is killed (E2B), the sandbox (Modal), its daemon "
    "(Daytona)",
    "list lag": "lists do not show what was made in the last minute",
    "not UTF-8": "the vendor mixes bytes that are no text into the output",
}
_STAGES = {
    "check": "the account is looked at before anything else",
    "find": "is there a prepared snapshot?",
    "create": "the order of a sandbox",
    "ready": "the first commands in a new sandbox",
    "upload": "files are sent",
    "set-up": "the environment is set up",
    "snapshot": "and kept",
    "collect": "the tests are collected",
    "run": "the tests run, and their results are streamed",
    "close": "the sandbox is ended",
    "list": "after a create without an answer, what it may have made is looked for",
}
_HEAD = """# What goes wrong at vendors, and what comes of it

Written by `python -m tests.providers.faults`, which lets each fault happen at each stage of a run at each
emulated vendor (`tests/emulators`). The runs are of a small project with passing, failing, skipped and
expectedly failing tests, and every test's result is known.

A cell says what came of it: first of a candidate with failing tests, where the fault strikes **once**; then, for
some faults, of a candidate that passes, where it strikes **always**, from that stage on.

| | |
|---|---|
| `right` | every test has the result it should have, and so has the run |
| `right*` | the same, after a new sandbox took over the tests that had no result yet |
| `infra` | the run ends with an infrastructure error (`InfraError`, `CreateFailed`, `ProviderUnavailable`), exit status 30 or 31: it says nothing about the tests |
| `killed` | the test process was killed for its memory, and the run says so: tests without a result are errors or failures, never passes. Whoever uses up the sandbox's memory fails, on every engine |
| `†` | a sandbox was left when the run was over; the ledger had it, and `pytest --sandbox-reap` ended it (otherwise the vendor does, at the end of its time) |
| `–` | there is no such fault at that place |

Nothing else is allowed: no wrong result, no run that takes longer than 90 s (240 s where a fault strikes always, or nobody answers; a snapshot may take as long as the vendor lets it), no sandbox that is
left and not in the ledger. A new sandbox is asked for once here (`--sandbox-retries=1`).

| fault | |
|---|---|
"""


def page(seen: Seen) -> str:
    """The page. Cells that nobody has seen have question marks."""
    parts = [_HEAD]
    parts += [f"| {fault} | {_FAULTS[fault]} |\n" for fault in FAULTS]
    parts += ["\n| stage | |\n|---|---|\n"]
    parts += [f"| {stage} | {_STAGES[stage]} |\n" for stage in STAGES]
    for vendor in VENDORS:
        parts += [f"\n## {vendor}\n\n| | {' | '.join(STAGES)} |\n", "|---" * (len(STAGES) + 1)]
        parts += ["|\n"]
        there = set(faults.cells(vendor))
        for fault in FAULTS:
            row = [Cell(vendor, fault, stage) for stage in STAGES]
            if there & set(row):
                words = [seen.get(cell, "?") if cell in there else NONE for cell in row]
                parts += [f"| {fault} | {' | '.join(words)} |\n"]
    return "".join(parts)


def read(text: str) -> dict[Cell, str]:
    """What a page says."""
    return dict(_read(text))


def _read(text: str) -> Iterator[tuple[Cell, str]]:
    vendor = ""
    for line in text.splitlines():
        if line.startswith("## "):
            vendor = line[3:]
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not vendor or len(cells) != len(STAGES) + 1 or cells[0] not in FAULTS:
            continue
        for stage, words in zip(STAGES, cells[1:], strict=True):
            if words != NONE:
                yield Cell(vendor, cells[0], stage), words


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(prog="python -m tests.providers.faults")
    parser.add_argument("--shard", nargs=2, metavar=("VENDOR", "N"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.shard is not None:
        _examine(options.shard[0], int(options.shard[1]))
        return
    command = [sys.executable, "-m", "tests.providers.faults", "--shard"]
    children = [
        subprocess.Popen([*command, vendor, str(number)], stdout=subprocess.PIPE, text=True)
        for vendor in VENDORS
        for number in range(SHARDS)
    ]
    seen: dict[Cell, str] = {}
    problems = []
    for child in children:
        output, _ = child.communicate()
        for line in output.splitlines():
            told: dict[str, Any] = json.loads(line)
            seen[Cell(**told["cell"])] = told["words"]
            problems += told["problems"]
        if child.returncode != 0:
            problems.append(f"{child.args!r} ended with {child.returncode}")
    PATH.write_text(page(seen))
    if problems:
        sys.exit("\n\n".join(problems))


def _examine(vendor: str, number: int) -> None:
    """One shard, told as lines of JSON."""

    def report(cell: Cell, words: str, problems: list[str]) -> None:
        told = {"cell": asdict(cell), "words": words, "problems": problems}
        print(json.dumps(told), flush=True)

    chosen = list(faults.cells(vendor))[number::SHARDS]
    with (
        tempfile.TemporaryDirectory() as folder,
        site(vendor, Path(folder)) as here,
        faults.hasty(),
    ):
        asyncio.run(faults.examine(here, chosen, report))
