"""The corpus as candidates of one task, graded by ``Grader`` in sandboxes of the local engine."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from pytest_sandbox.grading import Candidate, Grader, Task, Verdict
from pytest_sandbox.grading.taskfile import read
from tests.integrity.corpus.model import Entry
from tests.integrity.corpus.patches import FOLDER, Made, make, repository

MIB = 1 << 20
#: Of the environment that the candidates run in.
PYTEST = "9.0.2"
#: Candidates that attack the machine end soon.
HOSTILE_SECONDS = 8.0


@dataclass(frozen=True, slots=True)
class Corpus:
    """The repository of the base, the task, and a patch for each entry."""

    repo: Path
    task: Task
    made: Sequence[Made]


@cache
def task_file() -> Task:
    """The task as it stands in its file."""
    return read(FOLDER / "task.toml")


def build(folder: Path, entries: Iterable[Entry]) -> Corpus:
    """The base in ``folder``, and the patches of ``entries`` against it."""
    repo = repository(folder)
    task = replace(task_file(), repo=str(repo), timeout=60.0)
    words = {
        "@IDS@": repr([*task.fail_to_pass, *task.pass_to_pass]),
        "@FAILING@": repr(list(task.fail_to_pass)),
        "@TAG@": str(sys.implementation.cache_tag),
        "@PYTEST@": PYTEST,
    }
    return Corpus(repo, task, make(repo, entries, words))


def grade(corpus: Corpus, venv: str, **options: Any) -> Mapping[str, Verdict]:
    """What becomes of each, by family and name; two sandboxes at a time.

    Args:
        options: for the ``Grader``, such as ``integrity="full"``.
    """

    async def main() -> list[Verdict]:
        limits: dict[str, Any] = {"memory": 512 * MIB, "disk": 128 * MIB, "processes": 64}
        async with Grader(workers=4, venv=venv, retries=0, **limits, **options) as grader:
            return await asyncio.gather(*(
                grader.grade(_task(corpus.task, made.entry), _candidate(corpus.task, made))
                for made in corpus.made
            ))  # fmt: skip

    verdicts = asyncio.run(main())
    return {key(made.entry): verdict for made, verdict in zip(corpus.made, verdicts, strict=True)}


def key(entry: Entry) -> str:
    """How an entry is called."""
    return f"{entry.family}: {entry.name}"


def _task(task: Task, entry: Entry) -> Task:
    return replace(task, timeout=HOSTILE_SECONDS) if entry.kind == "hostile" else task


def _candidate(task: Task, made: Made) -> Candidate:
    return Candidate(task_id=task.id, name=key(made.entry), patch=made.patch, source="corpus")
