"""Runs of which the base is known, and no more: those of mirror mode and of ``run_tests``.

A test is decisive that does not pass at the base. Knows no pytest objects.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from pytest_sandbox import inside, plan, split, wire
from pytest_sandbox.baseline import Baseline
from pytest_sandbox.consumer import Consumer, Phase, Selection, Usage
from pytest_sandbox.findings import Coverage, Finding
from pytest_sandbox.integrity.full import Confirmation, Confirmer, Passed
from pytest_sandbox.provider import Provider
from pytest_sandbox.results import Recorder, RunResult


class Feed(Consumer, Protocol):
    """A consumer that can be told what was found."""

    def know(self, event: Finding | Coverage, /) -> None: ...


async def execute(
    run: plan.Run, provider: Provider, feed: Feed, host: inside.Host, base: Baseline | None
) -> bytes | None:
    """``split.execute``; and where it passes, what more runs say of it goes to ``feed``.

    Args:
        base: None for a run that is trusted.

    Raises:
        SandboxError: as ``split.execute``.
    """
    if base is None or run.integrity != "full":
        return await split.execute(run, provider, feed, host)
    watched = _Watched(feed)
    artifacts = await split.execute(run, provider, watched, host)
    result = watched.result(run.name)
    found = await confirmed(
        run, result, base, provider, host, on_phase=feed.phase, on_usage=feed.used
    )
    events: list[Finding | Coverage] = [*found.findings, *found.coverage]
    for event in events:
        feed.know(event)
    return artifacts


class _Watched:
    """A consumer that lets everything through, and knows in the end whether the run passed."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self._recorder = Recorder()
        self._ended = False

    def phase(self, phase: Phase) -> None:
        self._consumer.phase(phase)

    def used(self, usage: Usage) -> None:
        self._consumer.used(usage)

    async def frame(self, frame: wire.Frame) -> None:
        self._recorder.take(frame)
        self._ended |= isinstance(frame, wire.End)
        await self._consumer.frame(frame)

    async def select(self) -> Selection:
        selection = await self._consumer.select()
        self._recorder.choose(selection.items)
        return selection

    def result(self, name: str) -> RunResult | None:
        """None for a run that did not come to its end."""
        return self._recorder.result(name) if self._ended else None


async def confirmed(
    run: plan.Run,
    result: RunResult | None,
    base: Baseline,
    provider: Provider,
    host: inside.Host,
    *,
    on_phase: Callable[[Phase], None] = lambda phase: None,
    on_usage: Callable[[Usage], None] = lambda usage: None,
) -> Confirmation:
    """What more runs say of one that passed; nothing of another one, nor of one that is trusted.

    Raises:
        SandboxError: as ``Confirmer.confirm``.
    """
    wanted = run.integrity == "full" and run.protection is not None
    if not wanted or result is None or not result.passed:
        return Confirmation()
    good = [test.nodeid for test in result if test.outcome == "passed"]
    passed = Passed(
        tests=good,
        decisive=frozenset(n for n in good if base.outcomes.get(n) != "passed"),
        rootdir=result.hello.rootdir if result.hello else "",
        durations={nodeid: result.tests[nodeid].duration for nodeid in good},
    )
    return await Confirmer(provider, host, on_phase, on_usage).confirm(run, passed)


def with_confirmation(result: RunResult, found: Confirmation) -> RunResult:
    """``result`` with what its confirmation says."""
    return replace(
        result,
        findings=(*result.findings, *found.findings),
        coverage=(*result.coverage, *found.coverage),
        usages=(*result.usages, *found.usages),
    )
