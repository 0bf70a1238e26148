"""Verdicts as a Markdown page for people, such as GitHub's summary of a step.

Names, ids and reasons come from patches and sandboxes. They are shown in code spans only, where
Markdown knows no links, mentions, HTML or formulas. Knows neither files nor environments.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeVar

from pytest_sandbox.findings import Finding
from pytest_sandbox.grading.model import TestVerdict, Verdict
from pytest_sandbox.wire import printable

#: GitHub refuses a step's summary that is longer: "supports content up to a size of 1024k".
LIMIT: Final = 1024 * 1024
#: Expected tests that are named for one candidate.
_NAMED: Final = 20
_TICKS: Final = re.compile("`+")
_T = TypeVar("_T")


def summary(verdicts: Sequence[Verdict], *, missing: Sequence[str] = (), limit: int = LIMIT) -> str:
    """The page: counts, a table of all candidates, and the tests that are not right.

    What has no room is counted instead. At most ``limit`` bytes in UTF-8, for limits of 2 KiB
    and more.

    Args:
        missing: ids of tasks that nobody made a prediction for.
    """
    ordered = sorted(verdicts, key=lambda verdict: (verdict.task_id, verdict.candidate))
    page = _Page(limit)
    page.add(_head(ordered, len(missing)))
    table = "| task | candidate | outcome | FAIL_TO_PASS | PASS_TO_PASS | why |\n"
    page.add(f"{table}| --- | --- | --- | --- | --- | --- |\n")
    page.each(_row, ordered, "| {} more | | | | | |\n")
    page.add("\n")
    wrong = [verdict for verdict in ordered if not verdict.resolved]
    page.each(_details, wrong, "\nDetails of {} more left out.\n")
    if missing:
        page.add("\nWithout a prediction:\n\n")
        page.each(lambda task: f"- {code(task)}\n", sorted(missing), "- {} more\n")
    return page.text


def code(text: str, limit: int = 200, *, cell: bool = False) -> str:
    """``text`` as a code span, whatever is in it.

    Args:
        limit: characters that are shown of it.
        cell: it is for a table's row, which is split before anything else is looked at.
    """
    # What is escaped gets longer, never shorter: no need to look at more of it.
    shown = printable(text[: limit + 1], line=True).replace("\t", " ")
    if len(shown) > limit:
        shown = f"{shown[: limit - 1]}…"
    if cell:
        shown = shown.replace("|", "\\|")
    longest = max((len(run) for run in _TICKS.findall(shown)), default=0)
    fence = "`" * (longest + 1)
    # Of a text with a blank at both ends, Markdown takes one off each.
    pad = " " if not shown.strip(" ") or shown[0] in "` " or shown[-1] in "` " else ""
    return f"{fence}{pad}{shown or ' '}{pad}{fence}"


class _Page:
    """Text that grows up to a limit."""

    #: Bytes kept for the lines that say what was left out.
    _RESERVE = 512

    def __init__(self, limit: int) -> None:
        self._left = limit - self._RESERVE
        self._parts: list[str] = []

    @property
    def text(self) -> str:
        return "".join(self._parts)

    def add(self, part: str) -> bool:
        size = len(part.encode())
        if size > self._left:
            return False
        self._left -= size
        self._parts.append(part)
        return True

    def each(self, made: Callable[[_T], str], things: Sequence[_T], more: str) -> None:
        """As many as there is room for; ``more`` is formatted with the number left out."""
        for number, thing in enumerate(things):
            if not self.add(made(thing)):
                self._parts.append(more.format(len(things) - number))
                self._left = 0
                return


def _head(verdicts: Sequence[Verdict], missing: int) -> str:
    counts = Counter(verdict.outcome for verdict in verdicts)
    unscored = sum(not verdict.scored for verdict in verdicts)
    line = f"**{counts['resolved']} of {len(verdicts)} resolved**"
    line += f", {unscored} not scored" if unscored else ""
    line += f", {missing} tasks without a prediction" if missing else ""
    rows = "".join(f"| {outcome} | {number} |\n" for outcome, number in sorted(counts.items()))
    return f"## Sandbox grades\n\n{line}\n\n| outcome | candidates |\n| --- | ---: |\n{rows}\n"


def _row(verdict: Verdict) -> str:
    outcome = verdict.outcome if verdict.evidence == "frames" else f"{verdict.outcome} (from a log)"
    cells = [
        code(verdict.task_id, 100, cell=True),
        code(verdict.candidate, 100, cell=True),
        f"**{outcome}**" if verdict.resolved else outcome,
        _counted(verdict.fail_to_pass),
        _counted(verdict.pass_to_pass),
        code(verdict.reason, 160, cell=True) if verdict.reason else "",
    ]
    return f"| {' | '.join(cells)} |\n"


def _counted(tests: Sequence[TestVerdict]) -> str:
    return f"{sum(test.passed for test in tests)}/{len(tests)}" if tests else ""


def _details(verdict: Verdict) -> str:
    lines = [f"### {code(verdict.task_id)}, {code(verdict.candidate)}: {verdict.outcome}", ""]
    if verdict.reason:
        lines += [f"Why: {code(verdict.reason, 2000)}", ""]
    lines += [line for note in verdict.notes for line in (f"Note: {code(note, 2000)}", "")]
    lines += _seen(verdict.findings)
    for title, tests in (
        ("FAIL_TO_PASS", verdict.fail_to_pass),
        ("PASS_TO_PASS", verdict.pass_to_pass),
    ):
        lines += _wrong(title, [test for test in tests if not test.passed])
    return "\n".join([*lines, ""])


def _seen(findings: Sequence[Finding]) -> Iterable[str]:
    if not findings:
        return
    yield "Seen in the run:"
    yield ""
    for finding in findings[:_NAMED]:
        parts = [finding.event, finding.nodeid, finding.where]
        shown = ", ".join(code(part) for part in parts if part)
        yield f"- {finding.verdict}, {finding.layer}: {shown}"
    if len(findings) > _NAMED:
        yield f"- {len(findings) - _NAMED} more"
    yield ""


def _wrong(title: str, tests: Sequence[TestVerdict]) -> Iterable[str]:
    if not tests:
        return
    yield f"{title}, not passed:"
    yield ""
    for test in tests[:_NAMED]:
        rule = f" ({test.rule}: {len(test.nodeids)} tests)" if test.rule else ""
        yield f"- {test.status} {code(test.expected)}{rule}"
    if len(tests) > _NAMED:
        yield f"- {len(tests) - _NAMED} more"
    yield ""
