"""Verdicts in words, for people. What is shown of a sandbox's is made printable here."""

from __future__ import annotations

from pytest_sandbox.evidence import told as seen
from pytest_sandbox.grading.model import TestVerdict, Verdict
from pytest_sandbox.wire import printable

#: Expected tests that are named.
_NAMED = 20


def told(verdict: Verdict) -> str:
    """A verdict for a person: its outcome, why, and the expected tests that are not right."""
    lines = [f"{verdict.outcome}: {verdict.reason}" if verdict.reason else verdict.outcome]
    lines += [f"  {line}" for line in (*verdict.notes, *_evidence(verdict))]
    for title, tests in (
        ("FAIL_TO_PASS", verdict.fail_to_pass),
        ("PASS_TO_PASS", verdict.pass_to_pass),
    ):
        wrong = [test for test in tests if not test.passed]
        if tests:
            lines.append(f"{title}: {len(tests) - len(wrong)} of {len(tests)} passed")
        lines += [f"  {_line(test)}" for test in wrong[:_NAMED]]
        if len(wrong) > _NAMED:
            lines.append(f"  and {len(wrong) - _NAMED} more")
    if verdict.applied not in ("", "strict"):
        lines.append(f"the patch applied with {verdict.applied}")
    return printable("\n".join(lines))


def _evidence(verdict: Verdict) -> list[str]:
    """What was seen, and what could not be looked at."""
    found = [
        f"{kind}: {line}"
        for kind, lines in seen(verdict.findings).items()
        for line in [*lines[:_NAMED], *[f"{len(lines) - _NAMED} more"] * (len(lines) > _NAMED)]
    ]
    if found:
        found += [f"not {name}: {why}" for name, why in verdict.layers.items() if why]
    return found


def _line(test: TestVerdict) -> str:
    rule = f" ({test.rule})" if test.rule else ""
    return f"{test.status}  {test.expected}{rule}"
