"""What SWE-bench's own harness writes: ``report.json`` of an instance, and the run report.

As swebench 5.0.2 does: an instance without a verdict from its tests has no ``report.json``, and
is under ``error_ids``; it never leaves the denominator. Knows neither files nor GitHub.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from pathlib import PurePosixPath
from typing import Any, Final

from pytest_sandbox.grading.model import Outcome, TestVerdict, Verdict
from pytest_sandbox.wire import printable

SCHEMA_VERSION: Final = 2
#: Bytes of a part of a path; a file name has two of them, and file systems take 255.
_LONGEST: Final = 110

#: The tests ran, and say something about the patch.
_COMPLETED: Final[frozenset[Outcome]] = frozenset({
    "resolved", "partially_resolved", "unresolved", "regressed", "collection_error", "no_tests",
    "crashed", "tampered", "unproven", "flaky",
})  # fmt: skip
#: May be the environment's fault as well as the patch's. SWE-bench reports them apart.
_AMBIGUOUS: Final[frozenset[Outcome]] = frozenset({"timeout", "crashed", "no_tests", "flaky"})


def completed(verdict: Verdict) -> bool:
    """Whether the instance has a ``report.json``."""
    return verdict.outcome in _COMPLETED


def instance_report(verdict: Verdict) -> dict[str, Any]:
    """The content of ``report.json``."""
    report: dict[str, Any] = {
        "patch_is_None": verdict.outcome == "empty",
        "patch_exists": verdict.outcome != "empty",
        "patch_successfully_applied": completed(verdict),
        "resolved": verdict.resolved,
        "infra_failure": verdict.pending,
    }
    if verdict.pending:
        report["infra_failure_reason"] = verdict.reason
    if completed(verdict):
        nothing: dict[str, list[str]] = {"success": [], "failure": []}
        report["tests_status"] = {
            "FAIL_TO_PASS": _status(verdict.fail_to_pass),
            "PASS_TO_PASS": _status(verdict.pass_to_pass),
            "FAIL_TO_FAIL": dict(nothing),
            "PASS_TO_FAIL": dict(nothing),
        }
    return {verdict.task_id: report}


def run_report(verdicts: Iterable[Verdict], dataset: Collection[str]) -> dict[str, Any]:
    """The run report of one candidate name: a model's.

    Args:
        verdicts: one for each instance that it made a prediction for.
        dataset: the ids of all instances, also of those without a prediction.
    """
    by_id = {verdict.task_id: verdict for verdict in verdicts}

    def ids(*outcomes: Outcome) -> list[str]:
        return sorted(id for id, verdict in by_id.items() if verdict.outcome in outcomes)

    done = ids(*_COMPLETED)
    lists = {
        "completed": done,
        "resolved": ids("resolved"),
        "unresolved": [id for id in done if not by_id[id].resolved],
        "infra_failure": ids("infra_error", "over_budget"),
        "ambiguous_failure": ids(*_AMBIGUOUS),
        "empty_patch": ids("empty"),
        "error": [id for id in sorted(by_id) if id not in {*done, *ids("empty")}],
    }
    return {
        "total_instances": len({*dataset, *by_id}),
        "submitted_instances": len(by_id),
        **{f"{name}_instances": len(found) for name, found in lists.items()},
        "completed_ids": lists["completed"],
        "incomplete_ids": sorted(set(dataset) - set(by_id)),
        "empty_patch_ids": lists["empty_patch"],
        "submitted_ids": sorted(by_id),
        "resolved_ids": lists["resolved"],
        "unresolved_ids": lists["unresolved"],
        "infra_failure_ids": lists["infra_failure"],
        "ambiguous_failure_ids": lists["ambiguous_failure"],
        "failure_reasons": {
            id: by_id[id].outcome
            for id in sorted({*lists["infra_failure"], *lists["ambiguous_failure"]})
        },
        "error_ids": lists["error"],
        "schema_version": SCHEMA_VERSION,
    }


def instance_path(verdict: Verdict, run_id: str) -> PurePosixPath:
    """Where the harness, and what reads its folders, has the report of an instance."""
    model, instance = part(verdict.candidate), part(verdict.task_id)
    return PurePosixPath("logs/run_evaluation", part(run_id), model, instance, "report.json")


def run_path(model: str, run_id: str) -> PurePosixPath:
    return PurePosixPath(f"{part(model)}.{part(run_id)}.json")


def part(name: str) -> str:
    """``name`` as one part of a path, as the harness makes it; never one that leads elsewhere."""
    made = printable(name, line=True).replace("/", "__").replace("\\", "__").replace(":", "_")
    if len(made.encode()) > _LONGEST:
        digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:12]
        made = f"{made.encode()[: _LONGEST - 13].decode(errors='ignore')}-{digest}"
    return f"_{made}" if made in ("", ".", "..") else made


def _status(tests: Sequence[TestVerdict]) -> dict[str, list[str]]:
    return {
        "success": [test.expected for test in tests if test.passed],
        "failure": [test.expected for test in tests if not test.passed],
    }
