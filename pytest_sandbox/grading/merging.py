"""Results of other sessions put together: the shards of several machines as one.

A result counts for the task and the patch it was given for, as they are now. Runs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytest_sandbox.errors import BadInput
from pytest_sandbox.grading.model import Candidate, Task, Verdict
from pytest_sandbox.grading.outputs import Entry, read
from pytest_sandbox.grading.planning import identity


class Merged:
    """The last score of each candidate among the results in some folders, at any depth.

    Raises:
        BadInput: there are none, or they cannot be read.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self._named = ", ".join(str(folder) for folder in folders)
        paths = [
            path for folder in folders for path in sorted(folder.rglob("results*.jsonl"))
        ]  # fmt: skip
        paths += [folder for folder in folders if folder.is_file()]
        if not paths:
            raise BadInput(
                f"--sandbox-merge: there is no results.jsonl in {self._named}; name the folders "
                "that --sandbox-results of the shards was"
            )
        entries, _ = read(*paths)
        self._found: dict[tuple[Any, ...], Verdict] = {}
        for entry in sorted(entries, key=_order):
            verdict = entry.verdict
            named = (verdict.task_id, verdict.candidate)
            ids = tuple(verdict.record.get(name) for name in ("task", "patch"))
            self._found[*named, *ids] = verdict

    def verdict(self, task: Task, candidate: Candidate) -> Verdict:
        """What became of ``candidate``; ``infra_error`` where nothing is known of it."""
        ids = identity(task, candidate.patch)
        found = self._found.get((task.id, candidate.name, ids["task"], ids["patch"]))
        if found is not None:
            return found
        named = (task.id, candidate.name)
        other = any(key[:2] == named for key in self._found)
        why = "what is there is of another task or patch" if other else "there is none"
        return Verdict(
            task_id=task.id,
            candidate=candidate.name,
            outcome="infra_error",
            reason=f"no result for it in {self._named}: {why}; run its shard (again)",
            record=ids,
        )


def _order(entry: Entry) -> tuple[bool, str]:
    """The last one counts, but what is no score never replaces one."""
    return not entry.verdict.pending, entry.time
