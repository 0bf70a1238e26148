"""``full``: what passed is run again, in ways in which only a right product passes.

Each way in a sandbox of its own, from the same snapshot, and first once on trees that are
trusted. Knows no pytest and no verdict rules.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Any, Final

import anyio

from pytest_sandbox import inside, plan
from pytest_sandbox.consumer import Phase, Usage
from pytest_sandbox.errors import ProtocolError
from pytest_sandbox.findings import Coverage, Finding
from pytest_sandbox.integrity import apart, judging, nodeids, unseen
from pytest_sandbox.integrity.canaries import Canaries, Names, Place
from pytest_sandbox.integrity.material import Material
from pytest_sandbox.integrity.neutral import Neutral, Site, Status, statuses
from pytest_sandbox.integrity.nodeids import Function
from pytest_sandbox.integrity.records import Calibration, key
from pytest_sandbox.integrity.unseen import Unseen
from pytest_sandbox.kept import Kept
from pytest_sandbox.provider import Provider
from pytest_sandbox.results import RunResult
from pytest_sandbox.runner import boundary
from pytest_sandbox.threads import in_thread
from pytest_sandbox.workspace import Tree

#: Tests beside the decisive ones, and the least seconds that they may take together.
MOST: Final = 200
_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """What came of looking closer at a run that passed."""

    findings: tuple[Finding, ...] = ()
    coverage: tuple[Coverage, ...] = ()
    #: Seconds that it took, and those of it that calibration took.
    seconds: float = 0.0
    calibration: float = 0.0
    usages: tuple[Usage, ...] = ()
    #: With which the tests beside the decisive ones were drawn.
    seed: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Passed:
    """A run that passed, as far as it matters here."""

    #: Ids of tests, in any order.
    tests: Sequence[str]
    #: Those that failed at the base.
    decisive: Collection[str] = ()
    #: What ids are relative to.
    rootdir: str = ""
    #: Seconds by id.
    durations: Mapping[str, float] | None = None
    #: The base with tests that the candidate has not seen; the run's base when None.
    trusted: Tree | None = None
    #: ``trusted`` with the patch that is known to be right.
    gold: Tree | None = None
    unseen: Unseen = field(default_factory=Unseen)
    #: None for one that is the same for the same base.
    seed: str | None = None


class Confirmer:
    """Confirms runs on one provider, from one event loop; what many need is calibrated once."""

    def __init__(
        self,
        provider: Provider,
        host: inside.Host,
        on_phase: Callable[[Phase], None] = lambda phase: None,
        on_usage: Callable[[Usage], None] = lambda usage: None,
    ) -> None:
        self._provider = provider
        self._host = host
        self._on_phase = on_phase
        self._on_usage = on_usage
        folder = None if host.baselines is None else host.baselines.parent / "calibrations"
        self._records = Kept(folder, Calibration)
        self._locks: dict[str, anyio.Lock] = {}
        self._known: dict[str, Calibration] = {}

    async def confirm(self, run: plan.Run, passed: Passed) -> Confirmation:
        """What more runs of the same tree say of it.

        Raises:
            SandboxError: as ``runner.execute``: nothing can be said, and it may be tried again.
        """
        made = await _Confirming(self, run, passed).confirm()
        if run.witness:
            return made
        note = "pytest-sandbox[witness] is not installed"
        missing = Coverage(layer="L4", covered=0, of=len(set(passed.tests)), note=note)
        return replace(made, coverage=(missing, *made.coverage))

    async def calibration(
        self, name: str, make: Callable[[], Awaitable[Calibration]]
    ) -> tuple[Calibration, bool]:
        """From memory, the cache or made now; and whether it was made now."""
        async with self._locks.setdefault(name, anyio.Lock()):
            known = self._known.get(name) or self._records.get(name)
            if known is not None:
                self._known[name] = known
                return known, False
            made = await make()
            self._known[name] = made
            self._records.put(name, made)
            return made, True

    async def tests(self, run: plan.Run, usages: list[Usage]) -> RunResult:
        """A run of tests."""
        return await apart.tests(
            run, self._provider, self._host, self._on_phase, self._used(usages)
        )

    async def values(self, run: plan.Run, asked: Neutral, usages: list[Usage]) -> Any:
        """A neutral run."""
        return await apart.values(
            run, asked, self._provider, self._host, self._on_phase, self._used(usages)
        )

    def _used(self, usages: list[Usage]) -> Callable[[Usage], None]:
        def used(usage: Usage) -> None:
            usages.append(usage)
            self._on_usage(usage)

        return used

    @property
    def provider(self) -> str:
        """Its name."""
        return self._provider.name

    def tell(self, text: str) -> None:
        """Say it to whoever waits."""
        self._on_phase(Phase("create", text, announce=True))


class _Confirming:
    """One run on its way to being confirmed."""

    def __init__(self, confirmer: Confirmer, run: plan.Run, passed: Passed) -> None:
        self._confirmer = confirmer
        self._run = replace(run, witness={})
        self._passed = passed
        self._trusted = passed.trusted or run.base
        self._usages: list[Usage] = []
        text = passed.seed or hashlib.sha256(run.base.id.encode()).hexdigest()[:16]
        self._seed = text
        self._material: Material

    async def confirm(self) -> Confirmation:
        started = monotonic()
        passed = self._passed
        tests = tuple(sorted(set(passed.tests)))
        self._material = await in_thread(
            Material.read, self._run, self._trusted, tests, passed.rootdir
        )
        decisive = sorted(set(passed.decisive) & set(passed.tests))
        more = [self._seed, list(tests), decisive, passed.rootdir, passed.unseen.identity()]
        name = key(self._run, self._confirmer.provider, self._trusted, passed.gold, more)
        calibration, made = await self._confirmer.calibration(name, self._calibrate)
        spent = monotonic() - started if made else 0.0
        judge = judging.Judge(
            calibration=calibration,
            functions={f: self._material.tests.get(f, []) for f in calibration.functions},
            unsolved=self._unsolved(),
            gold=passed.gold is not None,
            tests=len(tests),
            seed=self._seed,
        )
        found: list[tuple[tuple[Finding, ...], tuple[Coverage, ...]]] = []

        async def add(layer: Callable[[judging.Judge], Awaitable[judging.Judged]]) -> None:
            found.append(await layer(judge))

        with boundary(self._run.name):
            async with anyio.create_task_group() as tasks:
                for layer in self._layers:
                    tasks.start_soon(add, layer)
        found.sort(key=lambda pair: pair[1][0].layer if pair[1] else "")
        return Confirmation(
            findings=tuple(finding for findings, _ in found for finding in findings),
            coverage=tuple(one for _, coverage in found for one in coverage),
            seconds=round(monotonic() - started, 3),
            calibration=round(spent, 3),
            usages=tuple(self._usages),
            seed=self._seed,
        )

    @property
    def _layers(self) -> Sequence[Callable[[judging.Judge], Awaitable[judging.Judged]]]:
        layers = [self._canaries, self._neutral]
        if self._passed.unseen.held_out:
            layers.append(self._held_out)
        if self._passed.unseen.calls and self._passed.gold is not None:
            layers.append(self._differential)
        return layers

    def _unsolved(self) -> frozenset[Function]:
        return frozenset(nodeids.functions(self._passed.decisive, self._passed.rootdir))

    def _canaries_of(self, functions: Collection[Function]) -> Canaries:
        unsolved = self._unsolved()
        unknown = unsolved if self._passed.gold is None else frozenset[Function]()
        return self._material.canaries(functions, unsolved, unknown)

    # ------------------------------------------------------------ calibration

    async def _calibrate(self) -> Calibration:
        started = monotonic()
        self._confirmer.tell(
            "the tests are tried in other ways at the base first, once, to know what that tells"
        )
        passed, material = self._passed, self._material
        # Of a test that changes the clock, there is no telling.
        longest = self._run.limits.run
        given = passed.durations or {}
        durations = {n: time if time < longest else 0.0 for n, time in given.items()}
        chosen = tuple(nodeids.draw(
            material.tests, frozenset(passed.decisive), most=MOST,
            seconds=max(_SECONDS, sum(durations.values()) / 2), durations=durations,
            seed=self._seed,
        ))  # fmt: skip
        variants: dict[int, tuple[tuple[Place, str], ...]] = {}
        sites: dict[int, tuple[tuple[Site, Status], ...]] = {}
        trees = [self._trusted, *([] if passed.gold is None else [passed.gold])]
        neutral = await in_thread(material.neutral, chosen)
        made = await in_thread(self._canaries_of, chosen)

        async def of(number: int, tree: Tree) -> None:
            outcomes = await self._outcomes(self._of(tree), made)
            variants[number] = tuple(sorted(outcomes.items()))
            found = await self._statuses(self._of(tree), neutral)
            sites[number] = tuple(sorted(found.items()))

        for number, tree in enumerate(trees):
            await of(number, tree)
        held_out, calls = None, ""
        if passed.gold is not None and passed.unseen:
            if passed.unseen.held_out:
                result = await self._unseen_tests(self._of(passed.gold))
                held_out = tuple(sorted(_passing(result)))
            calls = json.dumps(await self._calls(self._of(passed.gold)))
        return Calibration(
            functions=chosen,
            canaries=tuple(variants[number] for number in range(len(trees))),
            sites=tuple(sites[number] for number in range(len(trees))),
            unseen=held_out,
            calls=calls,
            seconds=round(monotonic() - started, 3),
        )

    def _of(self, tree: Tree) -> plan.Run:
        """The run of a tree that is trusted, started as the candidate's is."""
        protection = self._run.protection
        if protection is not None:
            protection = replace(
                protection, tree=tree, scored=tree, kept=(), restored=(), dropped=(), flagged=(),
                own_tests=(), fresh=(),
            )  # fmt: skip
        label = "the base" if tree is self._trusted else "the gold patch"
        name = f"{label} for {self._run.name}"
        return replace(self._run, name=name, candidate=tree, protection=protection)

    # ------------------------------------------------------------ the layers

    async def _canaries(self, judge: judging.Judge) -> judging.Judged:
        """L5, and once more where it is not a contradiction that speaks against the run."""
        seen: list[Mapping[Place, str]] = []
        for _ in range(2):
            # Other names each time.
            made = await in_thread(self._canaries_of, judge.calibration.functions)
            try:
                seen.append(await self._outcomes(self._run, made))
            except ProtocolError as error:
                return judge.broken("L5", error)
            if not judge.doubts_canaries(seen):
                break
        return judge.of_canaries(seen)

    async def _neutral(self, judge: judging.Judge) -> judging.Judged:
        """L6, and once more where runs disagree."""
        seen: list[Mapping[Site, Status]] = []
        neutral = await in_thread(self._material.neutral, judge.calibration.functions)
        for _ in range(2):
            try:
                seen.append(await self._statuses(self._run, neutral))
            except ProtocolError as error:
                return judge.broken("L6", error)
            if not judge.doubts_neutral(seen, neutral):
                break
        return judge.of_neutral(seen, neutral)

    async def _held_out(self, judge: judging.Judge) -> judging.Judged:
        try:
            result = await self._unseen_tests(self._run)
        except ProtocolError as error:
            return judge.broken("L7", error)
        return judge.held_out(_passing(result), list(result.tests), result.collection_errors)

    async def _differential(self, judge: judging.Judge) -> judging.Judged:
        try:
            found = await self._calls(self._run)
        except ProtocolError as error:
            return judge.broken("L7", error)
        return judge.differential(self._passed.unseen.calls, found)

    # ------------------------------------------------------------ runs

    async def _outcomes(self, run: plan.Run, made: Canaries) -> dict[Place, str]:
        if not made.files:
            return {}
        changed: dict[str, bytes | None] = dict.fromkeys(self._material.gone)
        changed |= made.files
        other = await in_thread(_planned, run, changed, "canaries", made.files, made.names)
        result = await self._confirmer.tests(other, self._usages)
        rootdir = result.hello.rootdir if result.hello else ""
        found: dict[Place, str] = {}
        for nodeid, test in result.tests.items():
            parsed = nodeids.parse(nodeid, rootdir)
            place = None if parsed is None else made.place(*parsed)
            if place is not None:
                found[place] = test.outcome if test.reports else "missing"
        return found

    async def _statuses(self, run: plan.Run, neutral: Neutral) -> dict[Site, Status]:
        if not neutral.asked:
            return {}
        changed: dict[str, bytes | None] = dict.fromkeys(self._material.gone)
        other = await in_thread(apart.with_files, run, run.candidate, changed, "the neutral run")
        seen = await self._confirmer.values(other, neutral, self._usages)
        return statuses(neutral, seen)

    async def _unseen_tests(self, run: plan.Run) -> RunResult:
        files: Mapping[str, bytes | None] = dict(self._passed.unseen.held_out)
        other = await in_thread(_planned, run, files, "held-out tests", list(files), None)
        return await self._confirmer.tests(other, self._usages)

    async def _calls(self, run: plan.Run) -> list[str]:
        calls = self._passed.unseen.calls
        if not calls:
            return []
        paths = (self._run.cwd, *self._material.pythonpath)
        asked = unseen.asked(calls, self._passed.unseen.before, paths)
        other = replace(run, name=f"the differential of {run.name}", artifacts=(), keep="never")
        seen = await self._confirmer.values(other, asked, self._usages)
        return unseen.results(seen, len(calls))


def _planned(
    run: plan.Run,
    changed: Mapping[str, bytes | None],
    name: str,
    files: Collection[str],
    names: Names | None,
) -> plan.Run:
    made = apart.with_files(run, run.candidate, changed, name)
    more = () if names is None else names.options()
    return replace(made, args=apart.arguments(made, _tests(files), more))


def _tests(files: Collection[str]) -> list[str]:
    return sorted(path for path in files if path.endswith(".py") and "conftest" not in path)


def _passing(result: RunResult) -> set[str]:
    return {nodeid for nodeid, test in result.tests.items() if test.outcome == "passed"}
