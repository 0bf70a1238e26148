"""The folder that a grading session leaves: results, reports and a page for people.

Knows no pytest.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytest_sandbox.errors import BadInput
from pytest_sandbox.grading.model import Verdict
from pytest_sandbox.grading.outputs import ctrf, github, markdown, swebench_report
from pytest_sandbox.grading.outputs.results import NAME, Entry, Writer, by_key, latest, read


class Results:
    """Owns ``results.jsonl`` of one folder; the reports beside it are written at the end.

    Args:
        folder: made with the first verdict, or by ``check``.
        name: of the file; each process of pytest-xdist has one of its own.
    """

    def __init__(self, folder: Path, name: str = NAME) -> None:
        self.folder = folder
        self._path = folder / name
        self._writer: Writer | None = None
        self._started = time.time()

    def check(self) -> None:
        """Make the folder, and see that results can be written there.

        Raises:
            BadInput: they cannot.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
            if self._path.exists():
                self._path.open("ab").close()
        except OSError as error:
            raise BadInput(
                f"--sandbox-results {self.folder}: nothing can be written there "
                f"({error.strerror or error}); name a folder that can be made or is there"
            ) from None

    def known(self) -> dict[str, Verdict]:
        """Verdicts of this and earlier sessions by key, of all files in the folder.

        Raises:
            BadInput: a file cannot be read.
        """
        return by_key(self._entries())

    def add(self, verdict: Verdict) -> None:
        """Keep a verdict, whatever happens next.

        Raises:
            OSError: it could not be written.
        """
        if self._writer is None:
            self._writer = Writer(self._path)
        self._writer.add(verdict)

    def finish(
        self,
        verdicts: Sequence[Verdict],
        missing: Sequence[str] = (),
        *,
        environ: Mapping[str, str] = os.environ,
        run_id: str = "pytest-sandbox",
    ) -> None:
        """Write the reports on ``verdicts``, and the step's summary where there is one.

        Args:
            missing: ids of tasks without a prediction.
            run_id: what SWE-bench's reports call the run.

        Raises:
            OSError: something could not be written.
        """
        self.close()
        ordered = latest(Entry(verdict, "") for verdict in verdicts)
        self.folder.mkdir(parents=True, exist_ok=True)
        found = ctrf.document(ordered, start=self._started, stop=time.time())
        _write(self.folder / "ctrf-report.json", _json(found))
        _write(self.folder / "summary.md", markdown.summary(ordered, missing=missing))
        self._swebench(ordered, missing, run_id)
        github.append_summary(environ, ordered, missing=missing)

    def merged(self) -> list[Verdict]:
        """The last verdict on each candidate, of all files in the folder: several processes',
        or several machines' whose files were put together.

        Raises:
            BadInput: a file cannot be read.
        """
        return latest(self._entries())

    def close(self) -> None:
        """Safe to call twice."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _entries(self) -> list[Entry]:
        paths = sorted(self.folder.glob("results*.jsonl"))
        entries, _ = read(*paths)
        return sorted(entries, key=lambda entry: entry.time)

    def _swebench(self, verdicts: Sequence[Verdict], missing: Sequence[str], run_id: str) -> None:
        dataset = {*missing, *(verdict.task_id for verdict in verdicts)}
        by_model: dict[str, list[Verdict]] = {}
        for verdict in verdicts:
            by_model.setdefault(verdict.candidate, []).append(verdict)
            path = self.folder / swebench_report.instance_path(verdict, run_id)
            if swebench_report.completed(verdict):
                path.parent.mkdir(parents=True, exist_ok=True)
                _write(path, _json(swebench_report.instance_report(verdict)))
            else:
                # Of an earlier session, about another patch.
                path.unlink(missing_ok=True)
        for model, mine in by_model.items():
            report = swebench_report.run_report(mine, dataset)
            _write(self.folder / swebench_report.run_path(model, run_id), _json(report))


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=True) + "\n"


def _write(path: Path, text: str) -> None:
    """All of it or nothing: somebody may be reading the one of the last session."""
    new = path.with_name(f".{path.name[:100]}.{os.getpid()}.new")
    try:
        new.write_text(text, encoding="utf-8", newline="\n")
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
