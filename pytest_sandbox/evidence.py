"""What a candidate's run owes to the base's: rules on ids, outcomes and ends. Pure functions.

A sentence says what happened in the run, never what somebody meant by it.
"""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from pytest_sandbox import wire
from pytest_sandbox.baseline import Baseline
from pytest_sandbox.findings import Coverage, Finding
from pytest_sandbox.protection import Protection
from pytest_sandbox.results import Recorder, RunResult, TestResult, not_run
from pytest_sandbox.witness import Trusted, judge

#: Exit statuses of sessions; 20 to 23 are those of patches.
TAMPERED: Final = 24
UNPROVEN: Final = 25
#: A test that ran, at the base: no mark kept it from that, and none expected it to fail.
_RAN: Final = frozenset({"passed", "failed", "error"})
ABSENT: Final = "collected at the base, not with the patch"


@dataclass(frozen=True, slots=True)
class Absent:
    """Tests of the base that the candidate's run did not collect."""

    #: Gone.
    nodeids: tuple[str, ...] = ()
    #: As many others of the same function came in their place: parameters made anew each time.
    renamed: tuple[str, ...] = ()


def absent(
    base: Baseline,
    protection: Protection,
    collected: Iterable[str],
    failed: Collection[str] = (),
) -> Absent:
    """What the base collected, and the candidate's run did not.

    Args:
        collected: the ids of the candidate's run, each once.
        failed: its collectors that failed, which is told of already.
    """
    there = dict.fromkeys(collected)
    known = base.nodeids()
    new = Counter(_function(nodeid) for nodeid in there.keys() - set(known))
    gone = [
        nodeid
        for nodeid in known
        if nodeid not in there
        and not any(_below(nodeid, name) for name in failed)
        and not let_through(base, protection, nodeid)
    ]
    lost = Counter(_function(nodeid) for nodeid in gone)
    renamed = [
        nodeid
        for nodeid in gone
        if "[" in nodeid and new[_function(nodeid)] >= lost[_function(nodeid)]
    ]
    others = set(renamed)
    return Absent(tuple(n for n in gone if n not in others), tuple(renamed))


def let_through(base: Baseline, protection: Protection, nodeid: str) -> bool:
    """Whether the test's file is the candidate's own, as the user wanted it."""
    path = posixpath.normpath(posixpath.join(base.rootdir, nodeid.partition("::")[0]))
    return path in protection.kept


def _function(nodeid: str) -> str:
    return nodeid.partition("[")[0]


def _below(nodeid: str, collector: str) -> bool:
    if collector in ("", "."):
        return True
    return nodeid.startswith(collector) and nodeid[len(collector) :][:1] in ("", ":", "/")


def unran(
    base: Baseline, protection: Protection, nodeid: str, outcome: str, subtests: int = 0
) -> str:
    """What is wrong with a test that came to ``outcome`` by itself; "" where nothing is.

    Args:
        subtests: how many of its subtests were skipped, or expected to fail. Their names may hold
            what a patch changes, so they are only counted.
    """
    before = base.outcomes.get(nodeid)
    if before not in _RAN or let_through(base, protection, nodeid):
        return ""
    if outcome in ("skipped", "xfailed"):
        word = "skipped" if outcome == "skipped" else "an expected failure"
        return f"{word} with the patch; at the base it ran ({before})"
    known = base.subtests.get(nodeid, 0)
    if outcome == "passed" and subtests > known:
        return (
            f"{subtests} subtests were skipped or expected to fail with the patch; "
            f"at the base {known} were, and it ran ({before})"
        )
    return ""


def ended(
    deaths: Sequence[wire.Died],
    end: wire.End | None,
    items: Sequence[tuple[str, str]],
    left: Sequence[str],
    base: Baseline | None,
    *,
    counts: Callable[[str], bool] = lambda nodeid: True,
) -> tuple[Finding, ...]:
    """Ends of processes that no honest run has, and that left tests without a result.

    Args:
        items: node id and "file:line" of what was collected.
        left: ids of chosen tests without a result.
        base: what its run shows as well is no finding.
        counts: whether the result of this test matters.
    """
    known = frozenset(() if base is None else base.deaths)
    missing = [nodeid for nodeid in left if counts(nodeid)]
    found = []
    for died in deaths:
        between = died.cause in ("crash", "exit") and died.item is None and died.phase == "run"
        if between and known.isdisjoint({("crash", "run"), ("exit", "run")}):
            # What it left on disk, the process in its place may have read.
            text = "the test process ended between two tests, and another one took its place"
            found.append(unproven(text, ""))
        if died.cause != "protocol" and not (died.cause == "exit" and died.status == 0):
            continue
        nodeid, where = ("", "") if died.item is None else items[died.item]
        if (died.cause, nodeid or died.phase) in known:
            continue
        # Between two tests, with nothing left to do, nothing was withheld.
        if counts(nodeid) if nodeid else bool(missing) or died.phase not in ("run", "stop"):
            found.append(_tampered(died.message, nodeid, where))
    if end is not None and end.reason in ("finished", "exit") and end.exitstatus == 0 and missing:
        # What has no result at the base either, has none for a reason of its own.
        owed = missing if base is None else [n for n in missing if n in base.outcomes]
        if owed and ("end", "") not in known:
            number = f"{len(owed)} tests that were to run have" if len(owed) > 1 else "one has"
            text = f"the session ended with exit status 0, and {number} no result"
            found.append(_tampered(text, owed[0] if len(owed) == 1 else "", ""))
    return tuple(dict.fromkeys(found))


def contradiction(error: Exception) -> Finding:
    """The host's own reading of frames found what no agent sends."""
    return _tampered(str(error), "", "")


def _tampered(text: str, nodeid: str, where: str) -> Finding:
    event = wire.printable((text.strip().splitlines() or [""])[0], line=True)
    return Finding(layer="L3", verdict="tampered", event=event, nodeid=nodeid, where=where)


def unproven(event: str, nodeid: str, where: str = "") -> Finding:
    """Evidence that is missing, seen by the accounting."""
    return Finding(layer="L3", verdict="unproven", event=event, nodeid=nodeid, where=where)


def broken(recorder: Recorder, name: str, error: Exception) -> RunResult:
    """What came before the sandbox sent what no agent sends, and that it did."""
    recorder.broken(error)
    return replace(recorder.result(name), findings=(contradiction(error),))


def settled(result: RunResult, protection: Protection, base: Baseline) -> RunResult:
    """``result`` with what the base says about it: tests that are missing or were not run fail."""
    wrong: dict[str, str] = {}
    if comparable(result, base):
        collected = [nodeid for nodeid, _ in result.items]
        gone = absent(base, protection, collected, tuple(result.collection_errors))
        wrong = dict.fromkeys(gone.nodeids, ABSENT)
    tests = dict(result.tests)
    for nodeid, test in result.tests.items():
        text = unran(base, protection, nodeid, test.outcome, not_run(test.reports))
        if text:
            wrong[nodeid] = text
    where = dict(result.items)
    for nodeid, text in wrong.items():
        before = tests[nodeid].reports if nodeid in tests else ()
        tests[nodeid] = TestResult(nodeid, "failed", (*before, failing(text)))
    seen, coverage = witnessed(result, protection, base)
    return replace(
        result,
        tests=tests,
        protection=protection,
        baseline=base.told(),
        coverage=(*result.coverage, *coverage),
        findings=(
            *result.findings,
            *ended(result.deaths, result.end, result.items, result.left, base),
            *(unproven(text, nodeid, where.get(nodeid, "")) for nodeid, text in wrong.items()),
            *seen,
        ),
    )


def witnessed(
    result: RunResult,
    protection: Protection,
    base: Baseline,
    *,
    counts: Callable[[str], bool] = lambda nodeid: True,
) -> tuple[tuple[Finding, ...], tuple[Coverage, ...]]:
    """What the compiled witness has against tests that passed, and how many it looked at.

    Nothing, where it looked neither at this run nor at the base's.

    Args:
        counts: whether the result of this test matters.
    """
    if not (result.witness or base.witness):
        return (), ()
    known = base if comparable(result, base) else Baseline()
    trusted = Trusted(
        seen=known.witness,
        called=known.called,
        passed={nodeid for nodeid, outcome in known.outcomes.items() if outcome == "passed"},
    )
    findings, coverage = judge(
        [t.nodeid for t in result if t.outcome in ("passed", "xpassed") and counts(t.nodeid)],
        result.witness,
        trusted=trusted,
        changed=frozenset(protection.kept + protection.own_tests),
        sealed=frozenset(protection.sealed),
    )
    return findings, (coverage,)


def comparable(result: RunResult, base: Baseline) -> bool:
    """Whether node ids mean the same in both runs."""
    rootdir = result.hello.rootdir if result.hello else ""
    return result.end.reason != "usage" and rootdir == base.rootdir


def failing(text: str) -> wire.Report:
    """A report of the host's own, for a test that was not run."""
    return wire.Report(
        n=0, item=0, when="call", outcome="failed", duration=0.0, start=0.0, stop=0.0,
        longrepr=wire.LongRepr(text=text, message=text),
    )  # fmt: skip


def told(findings: Iterable[Finding]) -> Mapping[str, list[str]]:
    """Lines for people, by verdict."""
    lines: dict[str, list[str]] = {}
    for finding in findings:
        place = f" ({finding.where})" if finding.where else ""
        at = f"{finding.nodeid}{place}: " if finding.nodeid else ""
        lines.setdefault(finding.verdict, []).append(f"{finding.layer} {at}{finding.event}")
    return lines
