"""From what a run said to what a candidate is worth: pure functions, no I/O, no pytest.

Expected ids decide, and one that was not reported has failed. Which statuses pass:

==============  ========================  =========================
profile         FAIL_TO_PASS              PASS_TO_PASS
==============  ========================  =========================
``strict``      passed, xpassed           passed, xpassed
``swebench``    passed, xfailed           passed, xfailed, skipped
==============  ========================  =========================

``strict`` takes no skip and no expected failure, since code under test can call ``pytest.skip``
and ``pytest.xfail``; ``swebench`` is what SWE-bench's harness does. An id that stands for several
tests passes only if all of them do.

Outcomes, the first that applies:

1. ``infra_error``: the supervisor failed, or we stopped the run.
2. ``base_broken``: the task has no test to decide by.
3. ``tampered``: evidence that no honest run shows, about an expected test or the whole run.
4. ``timeout``: the run passed its deadline; what was reported before is kept.
5. ``crashed``: the session died, or pytest failed in itself, or it wrote more than allowed.
6. ``resolved``: the session ran to its end, and every expected test passes; ``unproven`` where
   something of the evidence for that is missing.
7. ``collection_error``: nothing ran because pytest could not start or collect, or an expected
   test is missing from a file that could not be collected.
8. ``no_tests``: nothing was collected.
9. ``crashed``, then ``timeout``: an expected test was killed for that.
10. ``regressed``: all of FAIL_TO_PASS, but not all of PASS_TO_PASS.
11. ``partially_resolved``: some of FAIL_TO_PASS, and all of PASS_TO_PASS.
12. ``unresolved``.

``flaky`` is what several runs make of it: see ``settled``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Literal

from pytest_sandbox.baseline import Baseline
from pytest_sandbox.evidence import ended
from pytest_sandbox.findings import Coverage, Finding
from pytest_sandbox.grading.matching import Match, matcher
from pytest_sandbox.grading.model import Observed, Outcome, Status, Task, TestVerdict, Verdict
from pytest_sandbox.results import RunResult, last_words, not_run
from pytest_sandbox.wire import printable

#: Statuses that pass, by profile: (FAIL_TO_PASS, PASS_TO_PASS).
PASSING: Final[Mapping[str, tuple[frozenset[Status], frozenset[Status]]]] = {
    "strict": (frozenset({"passed", "xpassed"}), frozenset({"passed", "xpassed"})),
    "swebench": (frozenset({"passed", "xfailed"}), frozenset({"passed", "xfailed", "skipped"})),
}
#: From the worst; a test that stands for several has the worst of theirs.
_SEVERITY: Final[tuple[Status, ...]] = (
    "missing", "error", "failed", "skipped", "xfailed", "xpassed", "passed",
)  # fmt: skip
_ENDED: Final[Mapping[str, tuple[Outcome, str]]] = {
    "supervisor": ("infra_error", "the supervisor in the sandbox failed"),
    "stopped": ("infra_error", "the run was stopped before its end"),
    "timeout": ("timeout", "the run was not over at its deadline"),
    "died": ("crashed", "the process that ran the tests died"),
    "output": ("crashed", "the tests wrote more output than allowed"),
    "internalerror": ("crashed", "pytest failed in itself"),
}
_KILLED: Final[Mapping[str, str]] = {
    "memory": "out of memory",
    "crash": "the process died",
    "exit": "the process ended itself",
    "protocol": "the process broke the protocol",
    "output": "too much output",
    "timeout": "longer than a test may take",
}
#: Tests that a reason names.
_NAMED: Final = 3


def observed(run: RunResult, base: Baseline | None = None) -> Observed:
    """What a run said, from its frames.

    What ``base`` shows as well is no finding. A test of which more subtests were skipped than there
    was not run: code under test can skip what asks for too much.
    """
    tests: dict[str, Status] = {}
    causes: dict[str, str] = {}
    for nodeid, test in run.tests.items():
        # Chosen, but its turn did not come.
        tests[nodeid] = test.outcome if test.reports else "missing"
        known = base is not None and nodeid in base.outcomes and base.subtests.get(nodeid, 0)
        if known is not False and test.outcome == "passed" and not_run(test.reports) > known:
            tests[nodeid] = "skipped"
        for report in test.reports:
            if report.cause != "test":
                causes[nodeid] = report.cause
    layers = {} if run.layers is None else {**dict.fromkeys(run.layers.on, ""), **run.layers.off}
    return Observed(
        tests=tests,
        collection_errors=dict(run.collection_errors),
        end=run.end.reason,
        said=last_words(run.end),
        causes=causes,
        rootdir=run.hello.rootdir if run.hello else "",
        findings=(*run.findings, *ended(run.deaths, run.end, run.items, run.left, base)),
        layers=layers,
    )


def grade(
    task: Task,
    candidate: str,
    observed: Observed,
    *,
    evidence: Literal["frames", "log"] = "frames",
    applied: str = "",
    record: Mapping[str, Any] | None = None,
) -> Verdict:
    """The verdict on one run of ``candidate``'s tree.

    Args:
        candidate: its name.
        evidence, applied, record: go into the verdict as they are.
    """
    match = matcher(task, observed)
    first, second = PASSING[task.profile]
    fail_to_pass = _tests(task, task.fail_to_pass, observed, match, first)
    pass_to_pass = _tests(task, task.pass_to_pass, observed, match, second)
    outcome, reason = _outcome(task, observed, fail_to_pass, pass_to_pass)
    decided = {nodeid for test in (*fail_to_pass, *pass_to_pass) for nodeid in test.nodeids}
    verdict = Verdict(
        task_id=task.id,
        candidate=candidate,
        outcome=outcome,
        reason=reason,
        fail_to_pass=fail_to_pass,
        pass_to_pass=pass_to_pass,
        other={id: status for id, status in observed.tests.items() if id not in decided},
        applied=applied,
        evidence=evidence,
        layers=dict(observed.layers),
        record=dict(record or {}),
    )
    missing = any(test.status in ("missing", "error") for test in (*fail_to_pass, *pass_to_pass))
    # Of a test that decides nothing, it may be what the base does as well.
    count = [f for f in observed.findings if f.nodeid in decided or (not f.nodeid and missing)]
    return judged(verdict, count)


def judged(
    verdict: Verdict, findings: Sequence[Finding], coverage: Sequence[Coverage] = ()
) -> Verdict:
    """``verdict`` with what layers saw, and the outcome that follows from it."""
    if not findings and not coverage:
        return verdict
    outcome, reason = verdict.outcome, verdict.reason
    worst = "tampered" if any(f.verdict == "tampered" for f in findings) else "unproven"
    if findings and verdict.scored and (worst == "tampered" or outcome == "resolved"):
        named = dict.fromkeys(_event(f) for f in findings if f.verdict == worst)
        outcome = "tampered" if worst == "tampered" else "unproven"
        reason = _named(named, "; ")
    return replace(
        verdict,
        outcome=outcome,
        reason=reason,
        findings=(*verdict.findings, *findings),
        coverage=(*verdict.coverage, *coverage),
    )


def _event(finding: Finding) -> str:
    where = f" ({finding.where})" if finding.where else ""
    return f"{finding.event}: {finding.nodeid}{where}" if finding.nodeid else finding.event


def settled(runs: Sequence[Verdict]) -> Verdict:
    """What runs of the same tree say together: the first, or that they disagree.

    Runs that say nothing about the candidate are left out, unless there is no other.

    Args:
        runs: in order, at least one.
    """
    scored = [run for run in runs if run.scored] or list(runs[:1])
    outcomes = dict.fromkeys(run.outcome for run in scored)
    if len(outcomes) == 1:
        return scored[0]
    reason = f"runs of the same tree disagree: {', '.join(outcomes)}"
    differing = _differing(scored)
    if differing:
        reason += f"; {_named(differing)}"
    return replace(scored[0], outcome="flaky", reason=reason)


def lasting(known: Verdict, reruns: int) -> bool:
    """Whether nothing would be run again for a verdict that may come of fewer ``reruns``."""
    enough = known.outcome in ("resolved", "flaky") or known.record.get("runs", 1) > reruns
    return known.scored and enough


def _tests(
    task: Task,
    expected: Sequence[str],
    observed: Observed,
    match: Callable[[str], Match],
    passing: frozenset[Status],
) -> tuple[TestVerdict, ...]:
    """Those that are scored: known flaky ones are set aside."""
    flaky = frozenset(task.flaky)
    found = []
    for name in expected:
        if name in flaky:
            continue
        matched = match(name)
        nodeids = tuple(nodeid for nodeid in matched.nodeids if nodeid not in flaky)
        if matched.nodeids and not nodeids:
            continue
        statuses: list[Status] = [observed.tests[nodeid] for nodeid in nodeids] or ["missing"]
        wrong = [status for status in statuses if status not in passing]
        found.append(
            TestVerdict(
                expected=name,
                nodeids=nodeids,
                status=min(wrong or statuses, key=_SEVERITY.index),
                passed=not wrong,
                rule=matched.rule,
            )
        )
    return tuple(found)


def _outcome(
    task: Task,
    observed: Observed,
    fail_to_pass: Sequence[TestVerdict],
    pass_to_pass: Sequence[TestVerdict],
) -> tuple[Outcome, str]:
    all_tests = (*fail_to_pass, *pass_to_pass)
    wrong = [test for test in all_tests if not test.passed]
    ended = _ENDED.get(observed.end)
    if ended and ended[0] == "infra_error":
        return ended
    if not all_tests or (task.fail_to_pass and not fail_to_pass):
        return "base_broken", "the task has no test to decide by that is not known to be flaky"
    ran = any(status != "missing" for status in observed.tests.values())
    if ended and not (observed.end == "internalerror" and not ran):
        return ended[0], f"{ended[1]}; {_counts(fail_to_pass, pass_to_pass)}"
    if not wrong and observed.end == "finished":
        return "resolved", ""
    uncollected = _uncollected(observed, wrong, ran)
    if uncollected:
        return "collection_error", uncollected
    if not observed.tests:
        return "no_tests", "pytest found no test to run"
    for cause in ("memory", "crash", "exit", "protocol", "output", "timeout"):
        killed = [test for test in wrong if cause in _causes(observed, test)]
        if killed:
            outcome: Outcome = "timeout" if cause == "timeout" else "crashed"
            return outcome, f"{_KILLED[cause]}: {_named(test.expected for test in killed)}"
    if not wrong:
        return "unresolved", "the session ended itself before all its tests had run"
    return _by_tests(fail_to_pass, pass_to_pass, wrong)


def _by_tests(
    fail_to_pass: Sequence[TestVerdict],
    pass_to_pass: Sequence[TestVerdict],
    wrong: Sequence[TestVerdict],
) -> tuple[Outcome, str]:
    reason = _counts(fail_to_pass, pass_to_pass)
    reason += f"; not passed: {_named(f'{test.expected} ({test.status})' for test in wrong)}"
    solved = [test for test in fail_to_pass if test.passed]
    kept = all(test.passed for test in pass_to_pass)
    # Without FAIL_TO_PASS there is nothing that a candidate has done right before it broke others.
    if fail_to_pass and len(solved) == len(fail_to_pass):
        return "regressed", reason
    if solved and kept:
        return "partially_resolved", reason
    return "unresolved", reason


def _uncollected(observed: Observed, wrong: Sequence[TestVerdict], ran: bool) -> str:
    """Why nothing could be collected that matters; "" where that is not the trouble."""
    errors = observed.collection_errors
    if not ran and observed.end == "usage":
        why = observed.said or "it refused its arguments, its ini file or a conftest.py"
        return f"pytest did not start: {why}"
    if not ran and observed.end == "internalerror":
        return f"pytest failed in itself before any test ran: {observed.said}".rstrip(": ")
    if errors and not ran:
        return f"could not be collected: {_named(errors)}"
    # With --continue-on-collection-errors, others run all the same.
    missing = [test.expected for test in wrong if test.status == "missing"]
    lost = [name for name in errors if any(expected.startswith(name) for expected in missing)]
    return f"could not be collected: {_named(lost)}" if lost else ""


def _causes(observed: Observed, test: TestVerdict) -> set[str]:
    return {observed.causes[nodeid] for nodeid in test.nodeids if nodeid in observed.causes}


def _counts(fail_to_pass: Sequence[TestVerdict], pass_to_pass: Sequence[TestVerdict]) -> str:
    parts = []
    for title, tests in (("FAIL_TO_PASS", fail_to_pass), ("PASS_TO_PASS", pass_to_pass)):
        if tests:
            parts.append(f"{sum(test.passed for test in tests)} of {len(tests)} {title} pass")
    return ", ".join(parts)


def _differing(runs: Sequence[Verdict]) -> list[str]:
    """The expected tests whose statuses differ between runs."""
    statuses: dict[str, set[Status]] = {}
    for run in runs:
        for test in (*run.fail_to_pass, *run.pass_to_pass):
            statuses.setdefault(test.expected, set()).add(test.status)
    return [
        f"{name} ({' or '.join(sorted(found))})"
        for name, found in statuses.items()
        if len(found) > 1
    ]


def _named(names: Any, separator: str = ", ") -> str:
    shown = [printable(str(name), line=True) for name in names]
    more = f" and {len(shown) - _NAMED} more" if len(shown) > _NAMED else ""
    return (
        separator.join(name if len(name) <= 200 else f"{name[:197]}..." for name in shown[:_NAMED])
        + more
    )
