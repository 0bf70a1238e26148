"""Verdicts as a CTRF document (ctrf.io): one test for each candidate of each task.

Knows neither files nor GitHub.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from pytest_sandbox import __version__
from pytest_sandbox.findings import Finding
from pytest_sandbox.grading.model import TestVerdict, Verdict
from pytest_sandbox.wire import printable

#: Of the specification as it is published.
SPEC_VERSION: Final = "0.0.0"

Status = Literal["passed", "failed", "other"]


def document(verdicts: Sequence[Verdict], *, start: float, stop: float) -> dict[str, Any]:
    """The report.

    Args:
        start, stop: of the whole session, in seconds since 1970.
    """
    tests = [_test(verdict) for verdict in verdicts]
    counts = dict.fromkeys(("passed", "failed", "skipped", "pending", "other"), 0)
    for test in tests:
        counts[test["status"]] += 1
    return {
        "reportFormat": "CTRF",
        "specVersion": SPEC_VERSION,
        "reportId": str(uuid.uuid4()),
        "generatedBy": "pytest-sandbox",
        "results": {
            "tool": {"name": "pytest-sandbox", "version": __version__},
            "summary": {
                "tests": len(tests),
                **counts,
                "suites": len({verdict.task_id for verdict in verdicts}),
                "start": round(start * 1000),
                "stop": round(stop * 1000),
                "duration": max(0, round((stop - start) * 1000)),
            },
            "tests": tests,
        },
    }


def _test(verdict: Verdict) -> dict[str, Any]:
    seconds = verdict.record.get("seconds", 0)
    found: dict[str, Any] = {
        "name": _line(f"{verdict.task_id}[{verdict.candidate}]"),
        "status": _status(verdict),
        "rawStatus": verdict.outcome,
        "duration": round(seconds * 1000) if isinstance(seconds, (int, float)) else 0,
        "suite": [_line(verdict.task_id)],
        "extra": {
            "candidate": _line(verdict.candidate),
            "applied": _line(verdict.applied),
            "evidence": verdict.evidence,
            "FAIL_TO_PASS": _counted(verdict.fail_to_pass),
            "PASS_TO_PASS": _counted(verdict.pass_to_pass),
            "findings": [_finding(finding) for finding in verdict.findings],
            "layers": {_line(name): _line(why) for name, why in verdict.layers.items()},
        },
    }
    if verdict.reason:
        found["message"] = printable("; ".join((verdict.reason, *verdict.notes)))
    return found


def _status(verdict: Verdict) -> Status:
    if verdict.resolved:
        return "passed"
    # No score: neither passed nor failed, but counted.
    return "failed" if verdict.scored else "other"


def _counted(tests: Sequence[TestVerdict]) -> Mapping[str, Any]:
    wrong = [test for test in tests if not test.passed]
    return {
        "total": len(tests),
        "passed": len(tests) - len(wrong),
        "failing": [{"id": _line(test.expected), "status": test.status} for test in wrong],
    }


def _finding(finding: Finding) -> Mapping[str, str]:
    return {
        "layer": finding.layer,
        "verdict": finding.verdict,
        "event": _line(finding.event),
        "test": _line(finding.nodeid),
        "where": _line(finding.where),
    }


def _line(text: str) -> str:
    return printable(text, line=True)
