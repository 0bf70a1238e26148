"""One run in several sandboxes: each collects everything and runs its share.

To the consumer it is one run: every test once, one collection, one end. What is not told is the
order in which tests of different shares are heard of. Knows no pytest objects and no provider.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import anyio

from pytest_sandbox import inside, plan, prepare, runner, wire
from pytest_sandbox.consumer import Consumer, Phase, Selection, Usage
from pytest_sandbox.durations import Durations
from pytest_sandbox.errors import CreateFailed, InfraError, ProviderUnavailable, Unsupported
from pytest_sandbox.provider import Provider
from pytest_sandbox.shares import shared


async def execute(
    run: plan.Run, provider: Provider, consumer: Consumer, host: inside.Host
) -> bytes | None:
    """``runner.execute``, in as many sandboxes as ``run.split`` says.

    Raises:
        Unsupported: the sandboxes collect different tests.
        SandboxError: as ``runner.execute``.
    """
    if run.split == 1:
        return await runner.execute(run, provider, consumer, host)
    with runner.boundary(run.name):
        plan.check(run, provider.name, provider.able)
        # Once, before all of them do.
        await prepare.prepared(run, provider, consumer, host)
        durations = _durations(run, host)
        try:
            await _Split(run, provider, consumer, host, durations).carry_out()
        finally:
            if durations is not None:
                durations.save()
    return None


def _durations(run: plan.Run, host: inside.Host) -> Durations | None:
    if host.durations is None or run.workspace.root is None:
        return None
    name = hashlib.sha256(str(run.workspace.root).encode("utf-8", "surrogateescape")).hexdigest()
    return Durations(host.durations / f"tests-{name[:24]}.json")


class _Split:
    """The run as a whole."""

    def __init__(
        self,
        run: plan.Run,
        provider: Provider,
        consumer: Consumer,
        host: inside.Host,
        durations: Durations | None,
    ) -> None:
        self._run = run
        self._provider = provider
        self._host = host
        self.consumer = consumer
        self.durations = durations
        self.parts = [_Part(self, number) for number in range(run.split)]
        #: The first part has its sandbox, so that those of others cannot keep it from one.
        self.begun = anyio.Event()
        self.chosen = anyio.Event()
        self.maxfail = 0

    async def carry_out(self) -> None:
        async with anyio.create_task_group() as tasks:
            for part in self.parts:
                tasks.start_soon(self._carry_out, part)
        ends = [part.end for part in self.parts if part.end is not None]
        bad = [end for end in ends if end.reason != "finished"]
        # Of several, the one that a single run would have come to first.
        end = bad[0] if bad else max(ends, key=lambda end: end.exitstatus or 0)
        await self.consumer.frame(end)

    async def _carry_out(self, part: _Part) -> None:
        with part.scope:
            if part.number == 0:
                await runner.execute(self._run, self._provider, part, self._host)
                self.begun.set()
                self.chosen.set()
                return
            await self.begun.wait()
            name = f"{self._run.name} (sandbox {part.number + 1} of {len(self.parts)})"
            run = replace(self._run, name=name)
            try:
                await runner.execute(run, self._provider, part, self._host)
            except (CreateFailed, ProviderUnavailable) as error:
                # Not one of those errors any more: others have begun.
                raise InfraError(f"{name}: there is no sandbox for it: {error}") from error

    async def choose(self) -> None:
        """Get the selection, once, and share it out."""
        selection = await self.consumer.select()
        nodeids = self.parts[0].nodeids
        names = [nodeids[item] for item in selection.items]
        known = [None if self.durations is None else self.durations.expected(n) for n in names]
        self.maxfail = selection.maxfail
        shares = shared(names, known, len(self.parts))
        for part, share in zip(self.parts, shares, strict=True):
            part.share = [selection.items[position] for position in share]
            if not part.share and part.number:
                part.scope.cancel()
        if not self.parts[0].share:
            self._give_all_to_first()
        self.chosen.set()

    def _give_all_to_first(self) -> None:
        """Whatever is first in order is the first part's, which has collected already."""
        for part in self.parts[1:]:
            if part.share:
                self.parts[0].share, part.share = part.share, []
                part.scope.cancel()
                return

    def stop_after(self, number: int) -> None:
        """A single run would not have come to what later parts do."""
        for part in self.parts[number + 1 :]:
            part.scope.cancel()


class _Part:
    """The consumer of one sandbox's run."""

    def __init__(self, whole: _Split, number: int) -> None:
        self._whole = whole
        self.number = number
        self.scope = anyio.CancelScope()
        self.nodeids: list[str] = []
        self.share: Sequence[int] = ()
        self.end: wire.End | None = None
        self._seconds: dict[int, float] = {}
        self._failing: set[int] = set()
        self._failures = 0

    def phase(self, phase: Phase) -> None:
        # All go through the same; a lost sandbox, or one that is left over, is told of each.
        if self.number == 0 or (phase.announce and phase.name in ("create", "close")):
            self._whole.consumer.phase(phase)

    def used(self, usage: Usage) -> None:
        self._whole.consumer.used(usage)

    async def select(self) -> Selection:
        if self.number == 0:
            await self._whole.choose()
        return Selection(self.share, self._whole.maxfail)

    async def frame(self, frame: wire.Frame) -> None:
        match frame:
            case wire.End():
                self.end = frame
                if frame.reason != "finished":
                    self._whole.stop_after(self.number)
                return
            case wire.Collected():
                self.nodeids += [item.nodeid for item in frame.items]
            case wire.Ready() if self.number:
                await self._whole.chosen.wait()
                self._compare()
            case wire.Report():
                seconds = self._seconds.get(frame.item, 0.0) + frame.duration
                self._seconds[frame.item] = seconds
                if frame.outcome == "failed":
                    self._failing.add(frame.item)
            case wire.Finish():
                self._through(frame.item)
        if self.number == 0 or not _of_collection(frame):
            await self._whole.consumer.frame(frame)
        if isinstance(frame, wire.Hello):
            self._whole.begun.set()

    def _through(self, item: int) -> None:
        if self._whole.durations is not None:
            self._whole.durations.note(self.nodeids[item], self._seconds.pop(item, 0.0))
        self._failures += item in self._failing
        if self._whole.maxfail and self._failures >= self._whole.maxfail:
            self._whole.stop_after(self.number)

    def _compare(self) -> None:
        first = self._whole.parts[0].nodeids
        if self.nodeids == first:
            return
        pairs = zip(first, self.nodeids, strict=False)
        differ = next(((one, two) for one, two in pairs if one != two), None)
        what = (
            f"{len(first)} and {len(self.nodeids)} tests"
            if differ is None
            else f"{differ[0]!r} in one is {differ[1]!r} in another"
        )
        raise Unsupported(
            f"these tests cannot be split over sandboxes, which collect different ones: {what}. "
            "Node ids that change from run to run do this; leave out --sandbox-split"
        )


def _of_collection(frame: wire.Frame) -> bool:
    """Whether a frame says what each sandbox says: once is enough."""
    if isinstance(frame, wire.Warned):
        return frame.when != "runtest"
    return isinstance(
        frame, (wire.Hello, wire.Collected, wire.CollectReport, wire.Ready, wire.Imports)
    )
