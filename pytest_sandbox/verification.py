"""Mirror mode's part of the accounting: what the base has and the candidate's run does not.

Makes items that fail of tests that are missing, gathers findings, and tells of them at the end.
Knows no rules: those are in ``evidence``.
"""

from __future__ import annotations

import argparse
import posixpath
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from _pytest import main as pytest_main
from _pytest import mark as pytest_mark
from _pytest.terminal import TerminalReporter

from pytest_sandbox import baseline, evidence, items, wire
from pytest_sandbox.baseline import Baseline
from pytest_sandbox.consumer import Phase
from pytest_sandbox.feed import Feed, Known
from pytest_sandbox.findings import Coverage, Finding
from pytest_sandbox.inside import Host
from pytest_sandbox.items import RemoteItem
from pytest_sandbox.plan import Run
from pytest_sandbox.protection import Protection, withheld
from pytest_sandbox.provider import Provider
from pytest_sandbox.results import Recorder, RunResult, apart, not_run, place

#: Lines of one kind that the summary has.
_SHOWN = 20


class _Quiet:
    """The session's configuration, for a selection that nobody is told of."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self.hook = SimpleNamespace(pytest_deselected=lambda items: None)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._config, name)


class Verification:
    """One session's. Without a candidate it does nothing."""

    def __init__(self, run: Run, config: pytest.Config) -> None:
        self._run = run
        self._protection = run.protection
        self._config = config
        self.session: pytest.Session | None = None
        self._base: Baseline | None = None
        self._rootdir = ""
        self._layers: wire.Layers | None = None
        self._renamed: tuple[str, ...] = ()
        self._errors: list[str] = []
        self._names: list[str] = []
        self._places: list[tuple[str, str]] = []
        self._deaths: list[wire.Died] = []
        self._end: wire.End | None = None
        self._findings: dict[Finding, None] = {}
        #: Where a witness looks at the tests: everything, for what it says in the end.
        self._recorder = Recorder() if run.witness else None
        self._coverage: list[Coverage] = []
        #: Subtests that were skipped or expected to fail, by their test's number.
        self._not_run: Counter[int] = Counter()
        #: Tests that fail by what the base says alone.
        self._failed = 0

    @property
    def tampered(self) -> bool:
        return any(finding.verdict == "tampered" for finding in self._findings)

    # ------------------------------------------------------------ before the run

    async def ask(
        self, run: Run, provider: Provider, host: Host, feed: Feed
    ) -> tuple[Run, Baseline | None]:
        """Find out what the base says, where there is a candidate; None where nothing is asked.

        Returns:
            The run as it is once that is known, and what the base says.

        Raises:
            SandboxError: as ``baseline.obtain``.
        """
        if run.protection is None or self._config.option.collectonly:
            return run, None
        base = await baseline.obtain(
            run, provider, host,
            choose=self._choose, on_phase=feed.phase, on_usage=feed.used,
        )  # fmt: skip
        run, note = await baseline.informed(run, base)
        if note:
            feed.phase(Phase("create", note, announce=True))
        assert run.protection is not None
        feed.know(run.protection, base)
        return run, base

    def _choose(self, tree: Sequence[wire.Collected]) -> Collection[int]:
        """Which tests of the base have to be known: those that the command line leaves.

        Called in the event loop, while the session waits.
        """
        option = self._config.option
        assert self.session is not None
        made = items.Tree(self.session, mark_arguments="(" in (option.markexpr or ""))
        for frame in tree:
            made.add(frame)
        left: list[Any] = list(made.items)
        quiet: Any = _Quiet(self._config)
        try:
            pytest_main.pytest_collection_modifyitems(left, quiet)
            pytest_mark.pytest_collection_modifyitems(left, quiet)
        except pytest.UsageError:
            return ()  # an expression that is none: the session itself will say so
        failed = self._last_failed(option)
        chosen = [item.index for item in left if item.nodeid in failed]
        return chosen or [item.index for item in left]

    def _last_failed(self, option: argparse.Namespace) -> Collection[str]:
        cache = getattr(self._config, "cache", None)
        if cache is None or not getattr(option, "lf", False):
            return ()
        found = cache.get("cache/lastfailed", {})
        return found if isinstance(found, dict) else ()

    # ------------------------------------------------------------ what comes

    def take(self, event: wire.Frame) -> None:
        if self._recorder is not None:
            self._recorder.take(event)
        match event:
            case wire.Hello():
                self._rootdir = event.rootdir
            case wire.Layers():
                self._layers = event.and_of(self._layers)
            case wire.CollectReport(outcome="failed"):
                self._errors.append(event.nodeid)
            case wire.Collected():
                self._names += [item.nodeid for item in event.items]
                self._places += [(item.nodeid, place(item)) for item in event.items]
            case wire.Died():
                self._deaths.append(event)
            case wire.End():
                self._end = event

    def know(self, event: Known) -> None:
        match event:
            case Protection():
                self._protection = event
            case Baseline():
                self._base = event
            case Finding():
                self._findings[event] = None
            case Coverage():
                self._coverage.append(event)

    @property
    def _known(self) -> Baseline | None:
        """The base, where node ids mean the same there."""
        return self._base if self._base and self._base.rootdir == self._rootdir else None

    def complete(self, session: pytest.Session, found: list[RemoteItem]) -> list[RemoteItem]:
        """``found``, and at their places the tests of the base that are not there."""
        base, protection = self._known, self._protection
        if base is None or protection is None:
            return found
        names = apart(self._names)
        gone = evidence.absent(base, protection, names, self._errors)
        self._renamed = gone.renamed
        if not gone.nodeids:
            return found
        tree = items.Tree(session, mark_arguments="(" in (self._config.option.markexpr or ""))
        for frame in base.tree:
            tree.add(frame)
        missing = set(gone.nodeids)
        there = dict(zip(names, found, strict=True))
        behind: dict[int, list[RemoteItem]] = {}
        last = -1
        for name, item in zip(base.nodeids(), tree.items, strict=True):
            if name in missing:
                item.index = -1
                behind.setdefault(last, []).append(item)
            elif name in there:
                last = there[name].index
        result = behind.get(-1, [])
        for item in found:
            result += [item, *behind.get(item.index, ())]
        return result

    def report(self, item: RemoteItem, frame: wire.Report) -> pytest.TestReport:
        """The local report of one phase; a failing one where the base's says otherwise."""
        base, protection = self._known, self._protection
        if frame.subtest is not None:
            self._not_run[item.index] += not_run([frame])
        ran = frame.when == "teardown" or frame.subtest is not None
        if base is not None and protection is not None and not ran:
            outcome = frame.outcome if frame.wasxfail is None else f"x{frame.outcome}"
            words = {"xskipped": "xfailed"}
            subtests = self._not_run[item.index] if frame.when == "call" else 0
            text = evidence.unran(
                base, protection, item.nodeid, words.get(outcome, outcome), subtests
            )
            if text:
                return self._failing(item, text)
        return items.test_report(item, frame)

    def absent(self, item: RemoteItem) -> pytest.TestReport:
        """The report of a test that is not there."""
        return self._failing(item, evidence.ABSENT)

    def _failing(self, item: RemoteItem, text: str) -> pytest.TestReport:
        path, lineno, _ = item.location
        where = path if lineno is None else f"{path}:{lineno + 1}"
        self._findings[evidence.unproven(text, item.nodeid, where)] = None
        self._failed += 1
        return items.refused_report(item, text)

    # ------------------------------------------------------------ the end

    def finish(self, left: Sequence[int], error: Exception | None) -> None:
        """The run is over.

        Args:
            left: numbers of chosen tests without a result.
            error: the host's, where what came was no sequence of frames.
        """
        if self._protection is None:
            return
        if error is not None:
            self._findings[evidence.contradiction(error)] = None
        names = apart(self._names)
        found = evidence.ended(
            self._deaths, self._end, self._places, [names[index] for index in left], self._base
        )
        self._findings |= dict.fromkeys(found)
        if self._recorder is not None and self._end is not None:
            self._recorder.choose(range(len(self._names)))
            result = self._recorder.result(self._run.name)
            found, coverage = evidence.witnessed(result, self._protection, self._base or Baseline())
            self._findings |= dict.fromkeys(found)
            self._coverage += coverage

    def settled(self, result: RunResult) -> RunResult:
        """The result as the session has it."""
        if self._protection is None:
            return result
        settled = evidence.settled(result, self._protection, self._base or Baseline())
        findings = dict.fromkeys((*settled.findings, *self._findings))
        return replace(settled, findings=tuple(findings), coverage=tuple(self._coverage))

    def status(self, session: pytest.Session) -> int | None:
        """The exit status that findings make; None where they make none."""
        if self.tampered:
            return evidence.TAMPERED
        if session.exitstatus == 0 and self._findings:
            return evidence.UNPROVEN
        alone = self._failed and session.testsfailed == self._failed
        return evidence.UNPROVEN if alone and session.exitstatus == 1 else None

    def summary(self, reporter: TerminalReporter) -> None:
        """What was seen, in a section of its own; what could not be looked at, in a line each."""
        if self._protection is None:
            return
        lines = evidence.told(self._findings)
        if lines:
            reporter.section("sandbox: evidence")
        for verdict, found in lines.items():
            for line in found[:_SHOWN]:
                reporter.write_line(f"{verdict}: {line}")
            if len(found) > _SHOWN:
                reporter.write_line(f"{verdict}: {len(found) - _SHOWN} more")
        for note in [*self._withheld(reporter), *self._notes()]:
            reporter.write_line(f"sandbox: {wire.printable(note, line=True)}")

    def _withheld(self, reporter: TerminalReporter) -> list[str]:
        """Which changes did not run, where the candidate's own tests may have needed them."""
        assert self._protection is not None
        kept_out = withheld(self._protection)
        failed = {
            posixpath.normpath(posixpath.join(self._rootdir, report.nodeid.partition("::")[0]))
            for kind in ("failed", "error")
            for report in reporter.stats.get(kind, ())
        }
        if not kept_out or failed.isdisjoint(self._protection.own_tests):
            return []
        return [f"the candidate's own tests failed; of its changes, these did not run: {kept_out}"]

    def _notes(self) -> list[str]:
        notes = []
        base = self._base
        if base is not None:
            notes.append(base.told())
            if base.tree and self._known is None:
                notes.append(
                    "the base's node ids are relative to another folder, so they say nothing here"
                )
        if self._renamed:
            notes.append(
                f"{len(self._renamed)} tests have other parameters than at the base, such as "
                f"{self._renamed[0]}"
            )
        for one in self._coverage:
            more = f"; {one.note}" if one.note else ""
            notes.append(f"{one.layer} looked at {one.covered} of {one.of} passed tests{more}")
        if self._layers is not None:
            notes += [f"not {name} here: {why}" for name, why in self._layers.off.items()]
        return notes
