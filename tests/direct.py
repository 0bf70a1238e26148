"""A direct run of pytest in a repository, as data: what a sandboxed run is compared with.

It knows nothing of sandboxes. The recording is done by direct_plugin.py in the target's process.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

_PLUGIN = Path(__file__).with_name("direct_plugin.py")
_MODULE = "pytest_direct_recorder"
#: Plugins of the host's own environment that would change a target's run.
_BLOCKED = ("pytest_sandbox", "randomly")


class Phase(NamedTuple):
    """One report of an item: its phase, its outcome, and whether an xfail mark had a say."""

    when: str
    outcome: str
    wasxfail: bool
    subtest: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """One report in full. ``wasxfail`` is the reason; None where no xfail mark had a say."""

    nodeid: str
    when: str
    outcome: str
    wasxfail: str | None
    subtest: str | None
    text: str
    sections: tuple[tuple[str, str], ...]
    properties: tuple[tuple[str, Any], ...]

    @property
    def phase(self) -> Phase:
        return Phase(self.when, self.outcome, self.wasxfail is not None, self.subtest)


@dataclass(frozen=True, slots=True)
class Warned:
    """One warning; ``nodeid`` is empty outside of tests."""

    when: str
    nodeid: str
    category: str
    message: str


@dataclass(frozen=True, slots=True)
class NotCollected:
    """A collector that failed or was skipped, with its traceback or reason."""

    nodeid: str
    outcome: str
    text: str


@dataclass(frozen=True)
class DirectRun:
    """A finished, crashed or timed-out direct run.

    ``exit_status`` is the process's own: negative where a signal ended it. ``collected`` holds
    node ids in the order in which they run, repeated where several items share one.
    """

    exit_status: int
    timed_out: bool
    finished: bool
    collected: tuple[str, ...]
    deselected: tuple[str, ...]
    reports: tuple[Report, ...]
    not_collected: tuple[NotCollected, ...]
    warnings: tuple[Warned, ...]
    stdout: str
    stderr: str

    @cached_property
    def outcomes(self) -> dict[str, tuple[Phase, ...]]:
        """Each node id's reports in order; items that share an id follow one another, and
        each starts with its own ``setup``."""
        found: dict[str, tuple[Phase, ...]] = {}
        for report in self.reports:
            found[report.nodeid] = (*found.get(report.nodeid, ()), report.phase)
        return found

    @cached_property
    def labels(self) -> dict[str, list[str]]:
        """Each node id's outcomes in pytest's words, see :func:`labels`."""
        return {nodeid: labels(phases) for nodeid, phases in self.outcomes.items()}

    @property
    def collect_errors(self) -> dict[str, str]:
        """The text of each collection error, by node id."""
        return {c.nodeid: c.text for c in self.not_collected if c.outcome == "failed"}

    @property
    def summary(self) -> str:
        """pytest's last line without its frame and duration: ``1 failed, 2 passed``."""
        lines = [line for line in self.stdout.splitlines() if line.strip()]
        return lines[-1].strip("= ").rsplit(" in ", 1)[0] if lines else ""


def labels(phases: Sequence[Phase]) -> list[str]:
    """What pytest's summary counts for an item: passed, failed, error, skipped, xfailed, xpassed.

    More than one where more than one report counts: a failed call and an error in teardown, or
    several items of one id. Subtests are left out; pytest counts them apart.
    """
    found = []
    for phase in phases:
        if phase.subtest is not None:
            continue
        if phase.outcome == "skipped":
            found.append("xfailed" if phase.wasxfail else "skipped")
        elif phase.outcome == "failed":
            found.append("failed" if phase.when == "call" else "error")
        elif phase.outcome == "passed" and phase.when == "call":
            found.append("xpassed" if phase.wasxfail else "passed")
        elif phase.outcome != "passed":
            found.append(phase.outcome)
    return found


def run_direct(
    repo: Path,
    python: str,
    args: Sequence[str],
    *,
    pythonpath: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    timeout: float = 300,
) -> DirectRun:
    """Runs ``python -m pytest ARGS`` in the repository and returns all it reported.

    The environment holds PATH, HOME, a UTF-8 locale and what ``env`` adds, nothing else of the
    caller's. ``pythonpath`` is relative to the repository; ``timeout`` is in seconds, after which
    the process group is killed and ``timed_out`` is set.
    """
    scratch = Path(tempfile.mkdtemp(prefix="direct-"))
    try:
        shutil.copyfile(_PLUGIN, scratch / f"{_MODULE}.py")
        record = scratch / "record.jsonl"
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(scratch),
            "LANG": "C.UTF-8",
            "PYTHONDONTWRITEBYTECODE": "1",
            "DIRECT_RECORD": str(record),
            "PYTHONPATH": os.pathsep.join([str(scratch), *(str(repo / p) for p in pythonpath)]),
            **(env or {}),
        }
        blocked = [part for name in _BLOCKED for part in ("-p", f"no:{name}")]
        command = [python, "-m", "pytest", "-p", _MODULE, *blocked, *args]
        with (scratch / "out").open("w+b") as out, (scratch / "err").open("w+b") as err:
            process = subprocess.Popen(
                command,
                cwd=repo,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
            timed_out = False
            try:
                process.wait(timeout)
            except subprocess.TimeoutExpired:
                timed_out = True
            finally:
                # Also what the tests left behind, which would outlive the caller's own run.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            out.seek(0)
            err.seek(0)
            stdout, stderr = (
                out.read().decode("utf-8", "replace"),
                err.read().decode("utf-8", "replace"),
            )
        lines = record.read_text("ascii").splitlines() if record.exists() else []
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return read_record(lines, process.returncode, timed_out, stdout, stderr)


def read_record(
    lines: Sequence[str], exit_status: int, timed_out: bool, stdout: str, stderr: str
) -> DirectRun:
    kinds: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        entry = json.loads(line)
        kinds.setdefault(entry.pop("kind"), []).append(entry)
    for entry in kinds.get("report", ()):
        entry["sections"] = tuple((name, text) for name, text in entry["sections"])
        entry["properties"] = tuple((name, value) for name, value in entry["properties"])
    return DirectRun(
        exit_status=exit_status,
        timed_out=timed_out,
        finished="finish" in kinds,
        collected=tuple(n for entry in kinds.get("collected", ()) for n in entry["nodeids"]),
        deselected=tuple(n for entry in kinds.get("deselected", ()) for n in entry["nodeids"]),
        reports=tuple(Report(**entry) for entry in kinds.get("report", ())),
        not_collected=tuple(NotCollected(**entry) for entry in kinds.get("collect", ())),
        warnings=tuple(Warned(**entry) for entry in kinds.get("warning", ())),
        stdout=stdout,
        stderr=stderr,
    )
