"""A second look at what is resolved, with the layers of ``--sandbox-integrity=full``.

Knows no session and no file formats.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import anyio

from pytest_sandbox import inside, plan
from pytest_sandbox.consumer import Phase, Usage
from pytest_sandbox.errors import InfraError, ProviderUnavailable, SandboxError
from pytest_sandbox.grading.budget import Budget
from pytest_sandbox.grading.model import Task, Verdict
from pytest_sandbox.grading.planning import Planner
from pytest_sandbox.grading.verdict import judged
from pytest_sandbox.integrity import Confirmation, Confirmer, Passed, Unseen
from pytest_sandbox.provider import Provider
from pytest_sandbox.results import RunResult
from pytest_sandbox.threads import in_thread


class Closer:
    """Looks closer, on one provider.

    Args:
        retries: times that an infrastructure failure is tried again.
    """

    def __init__(
        self,
        planner: Planner,
        provider: Provider,
        host: inside.Host,
        *,
        retries: int,
        budget: Budget,
        on_phase: Callable[[Phase], None],
    ) -> None:
        self._planner = planner
        self._retries = retries
        self._budget = budget

        def used(usage: Usage) -> None:
            budget.add(usage)

        self._confirmer = Confirmer(provider, host, on_phase, used)

    async def look(self, task: Task, verdict: Verdict, run: plan.Run, result: RunResult) -> Verdict:
        """``verdict``, which is "resolved", as more runs of the same tree leave it.

        Where these cannot be had, nothing can be said of the candidate: "infra_error".
        """
        attempt = 0
        while True:
            try:
                passed = await in_thread(self._passed, task, verdict, result)
                found = await self._confirmer.confirm(run, passed)
            except SandboxError as error:
                again = isinstance(error, (InfraError, ProviderUnavailable))
                if not again or attempt == self._retries or self._budget.spent:
                    return replace(verdict, outcome="infra_error", reason=str(error))
                await anyio.sleep(2.0**attempt)
                attempt += 1
                continue
            record = {**verdict.record, "confirmation": _observations(found)}
            return replace(judged(verdict, found.findings, found.coverage), record=record)

    def _passed(self, task: Task, verdict: Verdict, result: RunResult) -> Passed:
        trusted, gold = self._planner.trusted(task)
        names = {
            kind: [n for test in tests for n in test.nodeids if n in result.tests]
            for kind, tests in (("f", verdict.fail_to_pass), ("p", verdict.pass_to_pass))
        }
        tests = dict.fromkeys((*names["f"], *names["p"]))
        good = [n for n in tests if result.tests[n].outcome == "passed"]
        return Passed(
            tests=good,
            decisive=frozenset(names["f"]),
            rootdir=result.hello.rootdir if result.hello else "",
            durations={n: result.tests[n].duration for n in good},
            trusted=trusted,
            gold=gold,
            unseen=Unseen(
                held_out=task.held_out,
                before=task.differential_setup,
                calls=task.differential,
            ),
        )


def _observations(found: Confirmation) -> dict[str, object]:
    costs = [usage.cost for usage in found.usages if usage.cost is not None]
    return {
        "seconds": round(found.seconds - found.calibration, 3),
        "calibration_seconds": found.calibration,
        "sandboxes": [usage.sandbox_id for usage in found.usages],
        "cost": sum(costs) if costs else None,
        "seed": found.seed,
    }
