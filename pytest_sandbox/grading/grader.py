"""``Grader``: candidates graded in sandboxes, many at a time, each thing run once.

Everything is in the caller's event loop. Knows no pytest session and no file formats.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeVar

import platformdirs

from pytest_sandbox import __version__, assemble, inside, plan, registry
from pytest_sandbox.consumer import Phase
from pytest_sandbox.durations import Durations
from pytest_sandbox.errors import (
    BadInput,
    InfraError,
    ProtocolError,
    ProviderUnavailable,
    SandboxError,
    Unsupported,
)
from pytest_sandbox.evidence import contradiction, witnessed
from pytest_sandbox.grading import logs, planning
from pytest_sandbox.grading.asides import Asides
from pytest_sandbox.grading.blame import blamed
from pytest_sandbox.grading.budget import Budget, OverBudget
from pytest_sandbox.grading.closer import Closer
from pytest_sandbox.grading.compose import Unfit
from pytest_sandbox.grading.derivation import Derived, derive
from pytest_sandbox.grading.model import Candidate, Observed, Task, Verdict
from pytest_sandbox.grading.planning import Planner
from pytest_sandbox.grading.repositories import Repositories
from pytest_sandbox.grading.runs import Runs
from pytest_sandbox.grading.turns import Turns
from pytest_sandbox.grading.verdict import grade, judged, lasting, observed, settled
from pytest_sandbox.provider import Provider
from pytest_sandbox.results import RunResult, not_run
from pytest_sandbox.threads import in_thread

T = TypeVar("T")

#: Times that base and gold are run to see which tests are flaky.
REPEATS: Final = 3


class Grader:
    """Grades candidates; use it with ``async with``, from one event loop.

    Args:
        provider: a name, or an instance that is open already.
        workers: sandboxes in flight; more calls of ``grade`` wait.
        retries: times that an infrastructure failure is tried again before it is the verdict, and
            that tests without a result get a new sandbox within one run.
        reruns: times that a candidate which is not resolved is run again, in fresh sandboxes;
            runs that disagree make it ``flaky``.
        known: verdicts of earlier runs by key (``Verdict.record["key"]``); they cost nothing.
        on_verdict: told of each verdict once, before ``grade`` returns.
        cache: the folder of repositories and durations; this user's by default.
        options: those of ``run_tests``; a task's own come first.

    Raises:
        BadInput: one of these cannot be.
    """

    def __init__(
        self,
        provider: str | Provider = "local",
        *,
        workers: int = 4,
        retries: int = 2,
        reruns: int = 0,
        budget: Budget | None = None,
        known: Callable[[str], Verdict | None] = lambda key: None,
        on_verdict: Callable[[Task, Verdict], None] = lambda task, verdict: None,
        on_phase: Callable[[Phase], None] = lambda phase: None,
        cache: Path | None = None,
        **options: Any,
    ) -> None:
        counts = (("workers", workers, 1), ("retries", retries, 0), ("reruns", reruns, 0))
        planning.check(options, *counts)
        self._named = provider
        self._retries = retries
        self._reruns = reruns
        self._budget = budget or Budget()
        self._known = known
        self._on_verdict = on_verdict
        self._on_phase = on_phase
        self._options = {**options, "retries": retries}
        self._turns = Turns(workers)
        folder = cache or platformdirs.user_cache_path("pytest-sandbox")
        self._repositories = Repositories(folder / "repositories")
        self._durations = Durations(folder / "durations" / "tasks.json")
        self._running: dict[str, asyncio.Future[Verdict]] = {}
        self._resources = AsyncExitStack()
        self._provider: Provider
        self._planner: Planner
        self._runs: Runs
        self._asides: Asides
        self._closer: Closer

    async def __aenter__(self) -> Self:
        await self._resources.__aenter__()
        try:
            self._resources.enter_context(self._repositories)
            if isinstance(self._named, str):
                resolve = assemble.resolver(lambda name: self._options.get(name), {}, {})
                make = registry.factory(self._named, {}, assemble.account(resolve({})))
                opened = inside.provided(make, self._on_phase)
                self._provider = await self._resources.enter_async_context(opened)
                await self._provider.check()
            else:
                self._provider = self._named
            self._planner = Planner(self._repositories, self._provider, self._options)
            self._runs = Runs(
                self._provider,
                retries=self._retries,
                budget=self._budget,
                on_phase=self._on_phase,
            )
            self._asides = Asides(self._planner, self._runs, self._turns, self._budget)
            self._closer = Closer(
                self._planner, self._provider, assemble.host(),
                retries=self._retries, budget=self._budget, on_phase=self._on_phase,
            )  # fmt: skip
            self._resources.callback(self._durations.save)
        except BaseException:
            await self._resources.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._resources.__aexit__(kind, error, trace)

    async def grade(
        self, task: Task, candidate: Candidate | str | bytes | None, *, name: str = "candidate"
    ) -> Verdict:
        """What becomes of a candidate. Infrastructure trouble is a verdict too, but no score.

        Args:
            candidate: or its patch; None where nothing was predicted.
            name: of a candidate that is only a patch.

        Raises:
            OverBudget: nothing was started, as the budget is spent.
        """
        if not isinstance(candidate, Candidate):
            text = candidate.encode() if isinstance(candidate, str) else candidate
            candidate = Candidate(task_id=task.id, name=name, patch=text, source="")
        verdict = await self._grade(task, candidate)
        ids = planning.identity(task, candidate.patch)
        verdict = replace(verdict, record={**verdict.record, **ids})
        self._on_verdict(task, verdict)
        return verdict

    async def _grade(self, task: Task, candidate: Candidate) -> Verdict:
        fixed = partial(Verdict, task_id=task.id, candidate=candidate.name)
        unsupported = logs.unsupported(task)
        if unsupported is not None:
            return fixed(outcome="unsupported", reason=unsupported)
        if not task.fail_to_pass and not task.pass_to_pass:
            return fixed(outcome="base_broken", reason=_NOT_DERIVED)
        try:
            run, composed = await self._planned(self._planner.candidate, task, candidate)
        except Unfit as unfit:
            return fixed(outcome=unfit.outcome, reason=unfit.reason)
        except InfraError as error:
            return fixed(outcome="infra_error", reason=str(error))
        except BadInput as error:
            return fixed(outcome="base_broken", reason=str(error))
        key = planning.key(task, run)
        record: dict[str, Any] = {
            "key": key,
            "base": run.base.commit,
            "base_tree": run.base.id,
            "tree": run.candidate.id,
            "environment": run.environment.key,
            "provider": self._provider.name,
            "plugin": __version__,
            "restored": list(composed.protection.restored),
            "dropped": [list(pair) for pair in composed.protection.dropped],
            "kept": list(composed.protection.kept),
            "flagged": [list(pair) for pair in composed.protection.flagged],
            "own_tests": list(composed.protection.own_tests),
        }
        verdict = await self._once(key, task, candidate, run)
        verdict = replace(
            verdict,
            # It may be another task's, where all that decides is the same.
            task_id=task.id,
            candidate=candidate.name,
            applied=composed.applied,
            record={**verdict.record, **record},
        )
        return await self._asides.told(task, candidate, verdict, run)

    async def _planned(self, plan: Callable[..., T], *args: Any) -> T:
        """``plan(*args)`` in a thread; again where its repository could not be reached."""
        for attempt in range(self._retries):
            try:
                return await in_thread(plan, *args)
            except InfraError:
                await asyncio.sleep(2.0**attempt)
        return await in_thread(plan, *args)

    async def _once(self, key: str, task: Task, candidate: Candidate, run: plan.Run) -> Verdict:
        """The verdict for what is run: known, being found out by somebody else, or found out."""
        while key in self._running:
            waited = self._running[key]
            await asyncio.wait([waited])
            # If whoever ran it was cancelled, this one runs it.
            if not waited.cancelled():
                return replace(waited.result(), record={**waited.result().record, "shared": True})
        known = self._known(key)
        if known is not None and lasting(known, self._reruns):
            return replace(known, record={**known.record, "cached": True})
        future: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self._running[key] = future
        try:
            async with self._turns.turn(task.id, self.expected(task)):
                self._budget.check()
                verdict = await self._confirmed(task, candidate, run)
            future.set_result(verdict)
            return verdict
        finally:
            del self._running[key]
            if not future.done():
                future.cancel()

    async def _confirmed(self, task: Task, candidate: Candidate, run: plan.Run) -> Verdict:
        """The verdict, and whether fresh sandboxes say the same."""
        runs = [await self._ran(task, candidate, run)]
        while len(runs) <= self._reruns and not runs[-1].resolved and runs[-1].scored:
            if self._budget.spent:
                break
            runs.append(await self._ran(task, candidate, run))
        verdict = settled(runs)
        return replace(verdict, record={**verdict.record, "runs": len(runs)})

    async def _ran(self, task: Task, candidate: Candidate, run: plan.Run) -> Verdict:
        fixed = partial(Verdict, task_id=task.id, candidate=candidate.name)
        seen: Observed
        try:
            if task.unsupported is not None and task.log is not None:
                seen, record = await self._runs.log(run, task.log)
            else:
                result, record = await self._runs.run(run)
                seen = await self._compared(task, run, result)
        except OverBudget:
            raise
        except Unsupported as error:
            return fixed(outcome="unsupported", reason=str(error))
        except ProtocolError as error:
            return judged(fixed(outcome="tampered"), [contradiction(error)])
        except (InfraError, ProviderUnavailable) as error:
            return fixed(outcome="infra_error", reason=str(error))
        except SandboxError as error:
            return fixed(outcome="base_broken", reason=str(error))
        self._durations.note(_identity(task), record["seconds"])
        seen = replace(seen, seconds=record["seconds"])
        evidence: Literal["frames", "log"] = "frames" if task.unsupported is None else "log"
        verdict = grade(task, candidate.name, seen, evidence=evidence, record=record)
        if evidence == "log" and verdict.outcome == "no_tests":
            return replace(verdict, reason="its log names no test")
        if evidence == "frames":
            verdict = await blamed(self._planner, self._runs, task, run, verdict)
        if verdict.resolved and run.witness and evidence == "frames":
            verdict = await self._witnessed(task, run, result, verdict)
        if verdict.resolved and run.integrity == "full" and evidence == "frames":
            verdict = await self._closer.look(task, verdict, run, result)
        return verdict

    async def _witnessed(
        self, task: Task, run: plan.Run, result: RunResult, verdict: Verdict
    ) -> Verdict:
        """``verdict`` with what the compiled witness has against it."""
        assert run.protection is not None
        tests = (*verdict.fail_to_pass, *verdict.pass_to_pass)
        decided = frozenset(nodeid for test in tests for nodeid in test.nodeids)
        try:
            trusted = await in_thread(partial(self._planner.base, task, tests=True))
            base = await self._runs.base(run, trusted.candidate, result.tests)
        except OverBudget:
            raise
        except SandboxError as error:
            # Without the base, nothing can be said of what was seen.
            return replace(verdict, outcome="infra_error", reason=str(error))
        return judged(
            verdict, *witnessed(result, run.protection, base, counts=decided.__contains__)
        )

    async def _compared(self, task: Task, run: plan.Run, result: RunResult) -> Observed:
        """What a run said. The base is asked before anything is held against a candidate."""
        seen = observed(result)
        nodeids = {finding.nodeid for finding in seen.findings}
        nodeids |= {nodeid for nodeid, test in result.tests.items() if not_run(test.reports)}
        if not nodeids:
            return seen
        trusted = await in_thread(partial(self._planner.base, task, tests=True))
        return observed(result, await self._runs.base(run, trusted.candidate, nodeids))

    def expected(self, task: Task) -> float | None:
        """Seconds that a run of ``task`` took before; None where none is known."""
        return self._durations.expected(_identity(task))

    # ------------------------------------------------------------ derivation

    async def derive(self, task: Task, repeats: int = REPEATS) -> Derived:
        """What decides ``task``: from its base, that with its tests, and its gold patch.

        Args:
            repeats: times that each is run; tests that do not always pass or never are flaky.

        Raises:
            OverBudget: nothing was started, as the budget is spent.
        """
        broken = partial(Derived, task_id=task.id)
        if task.unsupported is not None:
            return broken(outcome="unsupported", reason=task.unsupported)
        if task.gold is None:
            return broken(outcome="gold_broken", reason="the task has no gold patch")
        gold = Candidate(task_id=task.id, name="gold", patch=task.gold, source=task.source)
        bases: list[plan.Run] = []
        try:
            for tests in (False, True):
                plan_base = partial(self._planner.base, task, tests=tests)
                bases.append(await self._planned(plan_base))
            fixed, _ = await self._planned(self._planner.candidate, task, gold)
        except Unfit as unfit:
            if unfit.outcome == "base_broken":
                return broken(outcome="base_broken", reason=unfit.reason)
            return broken(outcome="gold_broken", reason=f"{unfit.outcome}: {unfit.reason}")
        except InfraError as error:
            return broken(outcome="infra_error", reason=str(error))
        except BadInput as error:
            return broken(outcome="base_broken", reason=str(error))
        plain, tested = bases
        trees = [plain] if plain.candidate.id == tested.candidate.id else [plain, tested]
        jobs = [(run, run is not fixed) for run in (*trees, fixed) for _ in range(repeats)]
        try:
            seen = await _all(partial(self._observed, task, *job) for job in jobs)
        except OverBudget:
            raise
        except (InfraError, ProviderUnavailable) as error:
            return broken(outcome="infra_error", reason=str(error))
        except ProtocolError as error:
            return broken(outcome="gold_broken", reason=f"tampered: {error}")
        except SandboxError as error:
            return broken(outcome="base_broken", reason=str(error))
        return derive(task, seen[:repeats], seen[-2 * repeats : -repeats], seen[-repeats:])

    async def _observed(self, task: Task, run: plan.Run, despite_errors: bool) -> Observed:
        async with self._turns.turn(task.id, self.expected(task)):
            self._budget.check()
            result, record = await self._runs.run(run, despite_collection_errors=despite_errors)
        self._durations.note(_identity(task), record["seconds"])
        return observed(result)


#: Why a task without lists is not run at all.
_NOT_DERIVED: Final = (
    "the task has neither fail_to_pass nor pass_to_pass, so nothing says what a right patch does: "
    "`pytest FILE --sandbox-derive` runs its base and its gold patch, and writes them"
)


async def _all(calls: Iterable[Callable[[], Awaitable[T]]]) -> list[T]:
    """The results in their order; the first error ends the others, and is raised."""
    tasks = [asyncio.ensure_future(_awaited(call)) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for one in tasks:
            one.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _awaited(call: Callable[[], Awaitable[T]]) -> T:
    return await call()


def _identity(task: Task) -> str:
    """What durations are kept by."""
    return hashlib.sha256(f"{task.repo}\0{task.base}\0{task.id}".encode()).hexdigest()[:24]
