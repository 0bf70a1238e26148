"""Frames added up to results: what happened to each test, and whether the run passed.

Pure data; knows neither pytest nor providers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from pytest_sandbox import wire
from pytest_sandbox.consumer import Phase, Selection, Usage
from pytest_sandbox.findings import Coverage, Finding

if TYPE_CHECKING:
    from pytest_sandbox.protection import Protection

Outcome = Literal["passed", "failed", "error", "skipped", "xfailed", "xpassed"]

_BAD: tuple[Outcome, ...] = ("failed", "error")


@dataclass(frozen=True, slots=True)
class TestResult:
    """One test: its outcome by pytest's words, and everything it reported."""

    __test__ = False

    nodeid: str
    outcome: Outcome
    reports: tuple[wire.Report, ...] = field(repr=False)

    @property
    def duration(self) -> float:
        """Seconds of set-up, call and teardown together."""
        return sum(report.duration for report in self.reports)

    @property
    def longrepr(self) -> str:
        """Why it failed or was skipped, with tracebacks; "" when it passed."""
        texts = [r.longrepr.text or r.longrepr.message for r in self.reports if r.longrepr]
        if self.outcome == "error" and not texts:
            texts = ["the sandbox sent no complete result for this test"]
        return "\n".join(texts)

    @property
    def sections(self) -> tuple[tuple[str, str], ...]:
        """Captured output: (heading, text) of the last phase that has any."""
        found = [tuple(report.sections) for report in self.reports if report.sections]
        return found[-1] if found else ()


@dataclass(frozen=True, slots=True)
class RunResult:
    """What became of one run.

    Index it by node id for one test's ``TestResult``; iterate for all of them.
    """

    name: str
    tests: Mapping[str, TestResult] = field(repr=False)
    #: Collectors that failed: node id to what went wrong.
    collection_errors: Mapping[str, str]
    warnings: tuple[wire.Warned, ...] = field(repr=False)
    output: str = field(repr=False)
    end: wire.End
    #: A tar of the artifacts asked for.
    artifacts: bytes | None = field(default=None, repr=False)
    #: Each sandbox that was used, that of set-up among them.
    usages: tuple[Usage, ...] = field(default=(), repr=False)
    #: The versions of Python and pytest there.
    hello: wire.Hello | None = field(default=None, repr=False)
    #: Set by a ``pytest_sandbox_verdict`` hook.
    verdict: bool | None = None
    #: What was seen that an honest run does not show; with any of it, the run has not passed.
    findings: tuple[Finding, ...] = ()
    #: What became of the candidate's changes; None where the tree is trusted as it is.
    protection: Protection | None = field(default=None, repr=False)
    #: What kept the tests from making results, and what this sandbox could not give, and why.
    layers: wire.Layers | None = None
    #: How much of the run further layers could look at.
    coverage: tuple[Coverage, ...] = ()
    #: Where the expected tests are from, in a line; "" where there was no run of the base.
    baseline: str = ""
    #: Processes that ended before their session did, as the supervisor saw them.
    deaths: tuple[wire.Died, ...] = field(default=(), repr=False)
    #: (node id, "file:line") of all that was collected.
    items: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    #: Tests that were to run, and whose end was not reported.
    left: tuple[str, ...] = ()
    #: What the compiled witness saw of each test, for ``witness.judge``.
    witness: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def cost(self) -> float | None:
        """Estimated US dollars for all its sandboxes; None where nobody asks for any."""
        costs = [usage.cost for usage in self.usages if usage.cost is not None]
        return sum(costs) if costs else None

    @property
    def passed(self) -> bool:
        """Every chosen test has a complete, good result, there is one, and nothing else failed."""
        if self.verdict is not None:
            return self.verdict
        return (
            self.end.reason == "finished"
            and bool(self.tests)
            and not self.failed
            and not self.collection_errors
            and not self.findings
        )

    @property
    def failed(self) -> tuple[TestResult, ...]:
        return tuple(test for test in self.tests.values() if test.outcome in _BAD)

    def __getitem__(self, nodeid: str) -> TestResult:
        try:
            return self.tests[nodeid]
        except KeyError:
            near = [known for known in self.tests if known.endswith(nodeid.split("::")[-1])]
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise KeyError(f"no test {nodeid!r} ran in {self.name}{hint}") from None

    def __iter__(self) -> Iterator[TestResult]:
        return iter(self.tests.values())

    def __len__(self) -> int:
        return len(self.tests)

    def __repr__(self) -> str:
        counts: dict[str, int] = {}
        for test in self:
            counts[test.outcome] = counts.get(test.outcome, 0) + 1
        text = ", ".join(f"{number} {outcome}" for outcome, number in counts.items())
        bad = "".join(f" {test.nodeid}" for test in self.failed[:3])
        if self.end.reason != "finished":
            text += f", ended by {self.end.reason}"
        verdicts = dict.fromkeys(finding.verdict for finding in self.findings)
        text += "".join(f", {verdict}" for verdict in verdicts)
        return f"<run of {self.name}: {text or 'no tests'}{'; failed:' + bad if bad else ''}>"

    def report(self) -> str:
        """The failing tests with their tracebacks, for people."""
        parts = [
            f"{one.verdict} ({one.layer}): {one.nodeid + ': ' if one.nodeid else ''}{one.event}"
            for one in self.findings
        ]
        if self.end.reason != "finished":
            parts.append(f"The run ended early ({self.end.reason}): {self.end.message}")
        for nodeid, text in self.collection_errors.items():
            parts.append(f"___ ERROR collecting {nodeid} ___\n{text}")
        for test in self.failed:
            parts.append(f"___ {test.outcome.upper()} {test.nodeid} ___\n{test.longrepr}")
            parts += [f"--- {heading} ---\n{text}" for heading, text in test.sections]
        if not self.tests and not parts:
            parts.append("No tests ran.")
        return "\n".join(parts)


class Recorder:
    """A consumer that keeps everything and, at the end, makes a ``RunResult`` of it."""

    def __init__(self, on_phase: Callable[[Phase], None] = lambda phase: None) -> None:
        self._on_phase = on_phase
        self._items: list[wire.Item] = []
        self._chosen: Sequence[int] = ()
        self._reports: dict[int, list[wire.Report]] = {}
        self._finished: set[int] = set()
        self._errors: dict[str, str] = {}
        self._warnings: list[wire.Warned] = []
        self._output: list[str] = []
        self._end: wire.End | None = None
        self._hello: wire.Hello | None = None
        self._usages: list[Usage] = []
        self._layers: wire.Layers | None = None
        self._deaths: list[wire.Died] = []
        self._witness: dict[int, str] = {}

    def phase(self, phase: Phase) -> None:
        self._on_phase(phase)

    def used(self, usage: Usage) -> None:
        self._usages.append(usage)

    async def frame(self, frame: wire.Frame) -> None:
        self.take(frame)

    def take(self, frame: wire.Frame) -> None:
        match frame:
            case wire.Hello():
                self._hello = frame
            case wire.Collected():
                self._items += frame.items
            case wire.CollectReport(outcome="failed"):
                self._errors[frame.nodeid] = frame.longrepr.text
            case wire.Report():
                self._reports.setdefault(frame.item, []).append(frame)
            case wire.Finish():
                self._finished.add(frame.item)
                if frame.witness:
                    self._witness[frame.item] = frame.witness
            case wire.Warned():
                self._warnings.append(frame)
            case wire.Output():
                self._output.append(frame.text)
            case wire.Layers():
                self._layers = frame.and_of(self._layers)
            case wire.Died():
                self._deaths.append(frame)
            case wire.End():
                self._end = frame

    async def select(self) -> Selection:
        """Everything; nothing where collection failed, as pytest itself does."""
        self.choose(() if self._errors else range(len(self._items)))
        return Selection(self._chosen)

    def choose(self, items: Sequence[int]) -> None:
        self._chosen = items

    def result(self, name: str, artifacts: bytes | None = None) -> RunResult:
        """Call after the ``End`` frame."""
        if self._end is None:
            raise RuntimeError(f"{name}: the run has not ended")
        names = apart(item.nodeid for item in self._items)
        tests: dict[str, TestResult] = {}
        for index in self._chosen:
            reports = tuple(self._reports.get(index, ()))
            outcome = outcome_of(reports, finished=index in self._finished)
            tests[names[index]] = TestResult(names[index], outcome, reports)
        places = (place(item) for item in self._items)
        return RunResult(
            name, tests, self._errors, tuple(self._warnings), "".join(self._output), self._end,
            artifacts, tuple(self._usages), self._hello, layers=self._layers,
            deaths=tuple(self._deaths), items=tuple(zip(names, places, strict=True)),
            left=tuple(names[index] for index in self._chosen if index not in self._finished),
            witness={names[index]: text for index, text in self._witness.items()},
        )  # fmt: skip

    def broken(self, error: Exception) -> None:
        """The run ended by what no agent sends: what came before is kept."""
        self._end = wire.End(n=0, reason="died", exitstatus=None, message=str(error))


def apart(nodeids: Iterable[str]) -> list[str]:
    """Node ids made different: pytest lets custom collectors repeat one."""
    found: dict[str, None] = {}
    copies: dict[str, int] = {}
    for nodeid in nodeids:
        # From the last copy on: one id may come a million times.
        known, copy = nodeid, copies.get(nodeid, 1)
        while known in found:
            copy += 1
            known = f"{nodeid} ({copy})"
        found[known] = None
        copies[nodeid] = copy
    return list(found)


def last_words(end: wire.End) -> str:
    """What says most of why a run ended, in a line; "" where nothing was said."""
    lines = end.message.strip().splitlines() or [""]
    # Before what it has against an option, pytest says how it is used.
    said = next((line for line in lines if " error: " in line), lines[0])[:200]
    # Behind a conftest.py that cannot be imported, there is a traceback.
    why = [line[1:].strip() for line in lines if line.startswith("E  ")]
    return f"{said} {why[-1][:200]}" if why else said


def place(item: wire.Item) -> str:
    """ "file:line" of a test."""
    return item.path if item.lineno is None else f"{item.path}:{item.lineno + 1}"


def outcome_of(reports: Sequence[wire.Report], *, finished: bool) -> Outcome:
    """A test's outcome from its reports, as pytest's summary counts it; the worst one wins.

    What is not complete is an error: a missing report never makes a test better.
    """
    if any(r.outcome == "failed" and r.when == "call" for r in reports):
        return "failed"
    if not finished or not complete(reports) or any(r.outcome == "failed" for r in reports):
        return "error"
    phases = {report.when: report for report in reports if report.subtest is None}
    # No call comes after a set-up that has not passed: what says so does not count.
    call = phases["call"] if phases["setup"].outcome == "passed" else phases["setup"]
    if call.wasxfail is not None:
        return "xfailed" if call.outcome == "skipped" else "xpassed"
    return call.outcome


def not_run(reports: Sequence[wire.Report]) -> int:
    """How many of a test's subtests were skipped, or expected to fail."""
    return sum(report.subtest is not None and report.outcome == "skipped" for report in reports)


def complete(reports: Sequence[wire.Report]) -> bool:
    """Whether every phase that a test goes through has been reported."""
    outcomes = {report.when: report.outcome for report in reports if report.subtest is None}
    needed = (
        {"setup", "call", "teardown"}
        if outcomes.get("setup") == "passed"
        else {"setup", "teardown"}
    )
    return needed <= set(outcomes)
