"""Runs on one provider: an environment is prepared once, and what was lost is run again.

Knows neither tasks nor candidates.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from time import monotonic
from typing import Any, TypeVar

import anyio

from pytest_sandbox import assemble, baseline, plan, prepare, wire
from pytest_sandbox.baseline import Baseline
from pytest_sandbox.consumer import Phase, PhaseName, Selection, Usage
from pytest_sandbox.errors import InfraError, ProviderUnavailable
from pytest_sandbox.grading import logs
from pytest_sandbox.grading.budget import Budget, OverBudget
from pytest_sandbox.grading.model import Log, Observed
from pytest_sandbox.provider import Provider
from pytest_sandbox.results import Recorder, RunResult, apart
from pytest_sandbox.runner import boundary, execute
from pytest_sandbox.workspace import Tree

T = TypeVar("T")


class Runs:
    """Carries out runs.

    Args:
        retries: times that an infrastructure failure is tried again.
    """

    def __init__(
        self,
        provider: Provider,
        *,
        retries: int,
        budget: Budget,
        on_phase: Callable[[Phase], None],
    ) -> None:
        self._provider = provider
        self._retries = retries
        self._budget = budget
        self._on_phase = on_phase
        self._preparing: dict[str, anyio.Lock] = {}

    async def run(
        self, run: plan.Run, *, despite_collection_errors: bool = False
    ) -> tuple[RunResult, dict[str, Any]]:
        """What came out, and what is to be recorded of how.

        Args:
            despite_collection_errors: run what could be collected; pytest runs nothing then.

        Raises:
            OverBudget: it was stopped because nothing more may be spent.
            SandboxError: as ``execute``; InfraError and ProviderUnavailable after all tries.
        """
        recorders: list[_Recorder] = []

        async def once(affordable: plan.Run) -> RunResult:
            recorders.append(_Recorder(self._on_phase, self._budget, despite_collection_errors))
            return await self._once(affordable, recorders[-1])

        result = await self._patiently(run, once, lambda result: result.end.reason)
        return result, recorders[-1].record() | {
            "python": result.hello.python if result.hello else None,
            "pytest": result.hello.pytest if result.hello else None,
            "packages": result.hello.packages if result.hello else [],
            "end": result.end.reason,
        }

    async def base(self, run: plan.Run, tree: Tree, nodeids: Collection[str]) -> Baseline:
        """What a trusted tree says of some tests, from the cache where it has been asked before.

        Raises:
            SandboxError: as ``execute``.
        """

        def chosen(found: Sequence[wire.Collected]) -> list[int]:
            ids = apart(item.nodeid for frame in found for item in frame.items)
            return [number for number, nodeid in enumerate(ids) if nodeid in nodeids]

        recorder = _Recorder(self._on_phase, self._budget, False)
        return await baseline.obtain(
            run, self._provider, assemble.host(), tree=tree, choose=chosen,
            on_phase=self._on_phase, on_usage=recorder.used,
        )  # fmt: skip

    async def log(self, run: plan.Run, log: Log) -> tuple[Observed, dict[str, Any]]:
        """``run``, for what its official command says.

        Raises:
            Unsupported: the package that reads it is not there, or does not know it.
            OverBudget, SandboxError: as ``run``.
        """
        recorders: list[_Recorder] = []

        async def once(affordable: plan.Run) -> Observed:
            recorders.append(_Recorder(self._on_phase, self._budget, False))
            with boundary(run.name):
                return await logs.run(
                    affordable, log, self._provider, recorders[-1], assemble.host()
                )

        seen = await self._patiently(run, once, lambda seen: seen.end)
        return seen, recorders[-1].record() | {"end": seen.end}

    async def _patiently(
        self,
        run: plan.Run,
        once: Callable[[plan.Run], Awaitable[T]],
        end: Callable[[T], str],
    ) -> T:
        attempt = 0
        while True:
            affordable = self._affordable(run)
            try:
                result = await once(affordable)
            except (InfraError, ProviderUnavailable):
                if attempt == self._retries or self._budget.spent:
                    raise
                await anyio.sleep(2.0**attempt)
                attempt += 1
                continue
            if end(result) == "timeout" and affordable is not run:
                raise OverBudget(
                    f"{run.name}: stopped where the budget ended, before its own time limit; it "
                    "has no score. Raise --sandbox-budget"
                )
            return result

    def _affordable(self, run: plan.Run) -> plan.Run:
        """The run, with no longer to live than may be paid for."""
        left = self._budget.left
        if left is None or left >= run.limits.run:
            return run
        return replace(run, limits=replace(run.limits, run=max(1.0, left)))

    async def _once(self, run: plan.Run, recorder: Recorder) -> RunResult:
        # One of many that need the same environment prepares it; the others wait, and use it.
        lock = self._preparing.setdefault(run.environment.key, anyio.Lock())
        with boundary(run.name):
            async with lock:
                plan.check(run, self._provider.name, self._provider.able)
                await prepare.prepared(run, self._provider, recorder, assemble.host())
            await execute(run, self._provider, recorder, assemble.host())
        return recorder.result(run.name)


class _Recorder(Recorder):
    """Pays for each sandbox as it ends, also where nothing comes of the run."""

    def __init__(
        self,
        on_phase: Callable[[Phase], None],
        budget: Budget,
        despite_errors: bool,
    ) -> None:
        super().__init__(on_phase)
        self._budget = budget
        self._despite_errors = despite_errors
        self._started = self._since = monotonic()
        self._in: PhaseName | None = None
        self._seconds: dict[str, float] = {}

    def phase(self, phase: Phase) -> None:
        super().phase(phase)
        if phase.name != self._in:
            self._leave()
            self._in = phase.name

    def _leave(self) -> None:
        now = monotonic()
        if self._in is not None:
            self._seconds[self._in] = self._seconds.get(self._in, 0.0) + now - self._since
        self._since = now

    def used(self, usage: Usage) -> None:
        super().used(usage)
        self._budget.add(usage)

    def record(self) -> dict[str, Any]:
        """What the run took, once it is over."""
        self._leave()
        costs = [usage.cost for usage in self._usages if usage.cost is not None]
        return {
            "seconds": round(monotonic() - self._started, 3),
            "phases": {name: round(seconds, 3) for name, seconds in self._seconds.items()},
            "sandboxes": [usage.sandbox_id for usage in self._usages],
            "sandbox_seconds": round(sum(usage.seconds for usage in self._usages), 3),
            "cost": sum(costs) if costs else None,
        }

    async def select(self) -> Selection:
        if not self._despite_errors:
            return await super().select()
        self.choose(range(len(self._items)))
        return Selection(self._chosen)
