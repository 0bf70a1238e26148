"""What else is told of a candidate: no part of its verdict, and run in sandboxes of its own."""

from __future__ import annotations

import glob
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final

from pytest_sandbox import plan
from pytest_sandbox.errors import BadInput, SandboxError
from pytest_sandbox.grading.budget import Budget
from pytest_sandbox.grading.compose import Unfit
from pytest_sandbox.grading.model import Candidate, Status, Task, Verdict
from pytest_sandbox.grading.planning import Planner
from pytest_sandbox.grading.runs import Runs
from pytest_sandbox.grading.turns import Turns
from pytest_sandbox.grading.verdict import grade, observed
from pytest_sandbox.protection import named
from pytest_sandbox.threads import in_thread

#: Files that pytest looks for tests in, by its default.
_TEST_FILE: Final = re.compile(r"(?:^|/)(?:test_[^/]*|[^/]*_test)\.py$")


class Asides:
    """Runs what nobody is scored by, where there is something to tell."""

    def __init__(self, planner: Planner, runs: Runs, turns: Turns, budget: Budget) -> None:
        self._planner = planner
        self._runs = runs
        self._turns = turns
        self._budget = budget

    async def told(
        self, task: Task, candidate: Candidate, verdict: Verdict, run: plan.Run
    ) -> Verdict:
        """``verdict`` with all of it. What an earlier verdict's record has is not run again."""
        made = run.protection
        if made is None or task.unsupported is not None or not verdict.scored:
            return verdict
        record = dict(verdict.record)
        if record.get("own_tree") != made.tree.id:
            results = await self._own_tests(task, run)
            record |= {"own_tree": made.tree.id, "own_results": results}
        notes: tuple[str, ...] = ()
        if made.configuration and not verdict.resolved and not verdict.findings:
            found = await self._configured(task, candidate, made.configuration, record)
            record["own_configuration"] = found
            if found is not None and found["resolved"]:
                notes = (f"passes only with its own configuration: {named(made.configuration)}",)
        return replace(verdict, record=record, notes=notes)

    async def _own_tests(self, task: Task, run: plan.Run) -> dict[str, Status]:
        """What tests say that the candidate brought.

        They run apart: in the same process, they could mend the code for the task's tests.
        """
        assert run.protection is not None
        files = tuple(path for path in run.protection.own_tests if _TEST_FILE.search(path))
        if not files or self._budget.spent:
            return {}
        tree = run.protection.tree
        alone = replace(run, candidate=tree, args=files, name=f"own tests of {run.name}")
        try:
            async with self._turns.turn(task.id, None):
                result, _ = await self._runs.run(alone)
        except SandboxError:
            return {}
        return dict(observed(result).tests)

    async def _configured(
        self, task: Task, candidate: Candidate, files: tuple[str, ...], record: Mapping[str, Any]
    ) -> dict[str, Any] | None:
        """Whether it is resolved once its own configuration is in force; None: not known."""
        unprotect = tuple(map(glob.escape, files))
        try:
            plan_it = partial(self._planner.candidate, task, candidate, unprotect=unprotect)
            run, _ = await in_thread(plan_it)
            known: dict[str, Any] = record.get("own_configuration") or {}
            if known.get("tree") == run.candidate.id:
                return known
            if self._budget.spent:
                return None
            run = replace(run, name=f"{run.name}, with its own configuration")
            async with self._turns.turn(task.id, None):
                result, _ = await self._runs.run(run)
        except (Unfit, BadInput, SandboxError):
            return None
        seen = grade(task, candidate.name, observed(result))
        return {"tree": run.candidate.id, "files": list(files), "resolved": seen.resolved}
