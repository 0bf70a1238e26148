"""Many candidates at an emulated vendor: none lost, nothing left, and the host's memory flat."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from pytest_sandbox.grading import Grader, Task, Verdict
from tests import tiny
from tests.emulators.running import Running

MIB = 1 << 20


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def graded(
    provider: str, task: Task, number: int, workers: int, seen: list[int]
) -> dict[str, Verdict]:
    """Verdicts by candidate; ``seen`` gets the memory in use at each."""
    options: dict[str, Any] = {"create_rate": 50.0} if provider == "e2b" else {}
    async with Grader(
        provider, workers=workers, on_verdict=lambda task, one: seen.append(resident()), **options
    ) as grader:
        calls = (grader.grade(task, tiny.candidate(one)) for one in range(number))
        return {verdict.candidate: verdict for verdict in await asyncio.gather(*calls)}


def at_vendor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, workers: int
) -> tuple[dict[str, Verdict], list[int]]:
    task = tiny.make(tmp_path / "repo")
    seen: list[int] = []
    with Running("e2b") as emulator:
        for name, value in emulator.env.items():
            monkeypatch.setenv(name, value)
        emulator.act("limits", concurrency=workers + 1, longest=3600)
        verdicts = asyncio.run(graded("e2b", task, number, workers, seen))
        assert emulator.live() == []
        assert emulator.unknown() == []
    assert len(verdicts) == len(seen) == number
    expected = {f"c{one:04}": tiny.outcome(one) for one in range(number)}
    assert {name: verdict.outcome for name, verdict in verdicts.items()} == expected
    # Each in a sandbox of its own.
    boxes = [verdict.record["sandboxes"][-1] for verdict in verdicts.values()]
    assert len(set(boxes)) == number
    return verdicts, seen


def test_a_few_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there, _ = at_vendor(tmp_path, monkeypatch, 12, 6)
    # Sandboxes of this machine say the same of the first of each kind.
    task = tiny.make(tmp_path / "again")
    here = asyncio.run(graded("local", task, 3, 2, []))
    for name, verdict in here.items():
        other = there[name]
        assert (other.outcome, other.reason) == (verdict.outcome, verdict.reason)
        assert (other.fail_to_pass, other.pass_to_pass) == (
            verdict.fail_to_pass, verdict.pass_to_pass,
        )  # fmt: skip


@pytest.mark.soak
def test_a_thousand_with_two_hundred_in_flight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, seen = at_vendor(tmp_path, monkeypatch, 1000, 200)
    assert max(seen[200:]) - seen[200] < 64 * MIB
