"""What GitHub Actions shows of verdicts: annotations, and the summary of the step.

GitHub shows 10 errors, 10 warnings and 10 notices of a step and 50 annotations of a job; those
after that vanish without a word, so they are added up here. Annotations are lines of the log,
and a name must not become one of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

from pytest_sandbox.grading.model import Verdict
from pytest_sandbox.grading.outputs.markdown import LIMIT, summary
from pytest_sandbox.wire import printable

#: Annotations of one level that GitHub shows of one step.
SHOWN: Final = 10
#: Less is not worth a summary.
_LEAST: Final = 4096

Level = Literal["error", "warning", "notice"]


def annotated(
    verdicts: Sequence[Verdict], *, sources: Mapping[str, str] | None = None, shown: int = SHOWN
) -> list[str]:
    """Lines for the log: an error for each candidate that is not resolved, a warning for each
    that has no score; the last of a level stands for all that GitHub would not show.

    Args:
        sources: where each task was read, by its id: ``Task.source``.
        shown: lines of one level, at least 1.
    """
    ordered = sorted(verdicts, key=lambda verdict: (verdict.task_id, verdict.candidate))
    failed = [verdict for verdict in ordered if verdict.scored and not verdict.resolved]
    unscored = [verdict for verdict in ordered if not verdict.scored]
    return [
        *_level("error", failed, sources or {}, shown),
        *_level("warning", unscored, sources or {}, shown),
    ]


def append_summary(
    environ: Mapping[str, str], verdicts: Sequence[Verdict], *, missing: Sequence[str] = ()
) -> bool:
    """Add the page to the step's summary; False where there is none, or no room in it.

    Args:
        environ: names the file in GITHUB_STEP_SUMMARY.

    Raises:
        OSError: it cannot be written.
    """
    name = environ.get("GITHUB_STEP_SUMMARY")
    if not name:
        return False
    path = Path(name)
    # What others of the same step wrote counts as well.
    used = path.stat().st_size if path.exists() else 0
    room = LIMIT - used - 2
    if room < _LEAST:
        return False
    page = summary(verdicts, missing=missing, limit=room)
    with path.open("a", encoding="utf-8", newline="\n") as file:
        file.write(f"\n{page}\n")
    return True


def command(level: Level, message: str, **properties: str) -> str:
    """One workflow command, on one line, whatever the texts hold."""
    given = ",".join(f"{name}={_property(value)}" for name, value in properties.items() if value)
    return f"::{level}{' ' if given else ''}{given}::{_data(message)}"


def _level(
    level: Level, verdicts: Sequence[Verdict], sources: Mapping[str, str], shown: int
) -> list[str]:
    single = verdicts if len(verdicts) <= shown else verdicts[: shown - 1]
    lines = []
    for verdict in single:
        file, line = _place(sources.get(verdict.task_id, ""))
        title = f"{verdict.outcome}: {verdict.task_id} [{verdict.candidate}]"
        reason = "; ".join((verdict.reason or verdict.outcome, *verdict.notes))
        lines.append(command(level, reason[:1000], file=file, line=line, title=title[:200]))
    rest = verdicts[len(single) :]
    if rest:
        counts = Counter(verdict.outcome for verdict in rest)
        text = ", ".join(f"{number} {outcome}" for outcome, number in counts.most_common())
        named = ", ".join(f"{v.task_id} [{v.candidate}]"[:100] for v in rest[:5])
        more = ", ..." if len(rest) > 5 else ""
        lines.append(command(level, f"{text}: {named}{more}", title=f"{len(rest)} more candidates"))
    return lines


def _place(source: str) -> tuple[str, str]:
    """File and line of "tasks.jsonl:12" or "task.toml"."""
    file, colon, line = source.rpartition(":")
    return (file, line) if colon and line.isdecimal() else (source, "")


def _data(text: str) -> str:
    text = printable(text).replace("%", "%25")
    return text.replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(printable(text, line=True)).replace(":", "%3A").replace(",", "%2C")
