"""Whose mistake it is that nothing ran: the candidate's, or that of whoever wrote the task.

Knows no session and no file formats.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from pytest_sandbox import plan
from pytest_sandbox.baseline import Baseline
from pytest_sandbox.errors import SandboxError
from pytest_sandbox.grading.model import Task, Verdict
from pytest_sandbox.grading.planning import Planner
from pytest_sandbox.grading.runs import Runs
from pytest_sandbox.threads import in_thread

#: Ends of a run that says what pytest made of the task's arguments.
_SAID: Final = ("finished", "usage", "internalerror")


async def blamed(
    planner: Planner, runs: Runs, task: Task, run: plan.Run, verdict: Verdict
) -> Verdict:
    """``verdict``, or "base_broken" where pytest runs as little without the candidate.

    A base that cannot be collected is no mistake by itself: its tests may import what only a
    right candidate brings. Tests that pass at the base, or with the gold patch, tell.
    """
    if verdict.outcome not in ("collection_error", "no_tests"):
        return verdict
    try:
        trusted, gold = await in_thread(planner.trusted, task)
        base = await runs.base(run, trusted, ())
        if not _nothing(base):
            return verdict
        certain = bool(task.pass_to_pass) or (gold is None and base.end == "usage")
        if (base.errors or not certain) and (
            gold is None or not _nothing(await runs.base(run, gold, ()))
        ):
            return verdict
    except SandboxError as error:
        # Without the base, nobody can be blamed.
        return replace(verdict, outcome="infra_error", reason=str(error))
    why = base.trouble or "it finds no test"
    reason = f"pytest runs nothing without a candidate either: {why}"
    return replace(verdict, outcome="base_broken", reason=reason)


def _nothing(base: Baseline) -> bool:
    return base.end in _SAID and not base.nodeids()
