"""Tasks times candidates as items of the local session: each passes only if it is RESOLVED."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any

import pytest

from pytest_sandbox.errors import SandboxError
from pytest_sandbox.grading.model import Candidate, Task, Verdict
from pytest_sandbox.grading.words import told
from pytest_sandbox.wire import printable


class NotResolved(Exception):
    """A candidate's verdict is another one."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(f"{verdict.outcome}: {verdict.reason}".rstrip(": "))
        self.verdict = verdict


class TasksOnly:
    """The plugin that keeps a session to files of tasks: nothing beside them is imported.

    Args:
        kind: what such a file is collected as.
    """

    def __init__(self, kind: type[pytest.File]) -> None:
        self._kind = kind

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collect_file(
        self, file_path: Path, parent: pytest.Collector
    ) -> Generator[None, list[pytest.Collector], list[pytest.Collector]]:
        found = yield
        return [collector for collector in found if isinstance(collector, self._kind)]

    @pytest.hookimpl(tryfirst=True)
    def pytest_collect_directory(self, path: Path, parent: pytest.Collector) -> pytest.Collector:
        # Never a Package, which imports its __init__.py.
        directory: pytest.Dir = pytest.Dir.from_parent(parent, path=path)
        return directory


class TaskFile(pytest.File):
    """A file or folder that tasks are read from."""

    #: Set by whoever makes it: how it is read, and what the candidates are.
    entries: Callable[[Path], Iterable[Task | str]]
    candidates: Callable[[str], Iterable[Candidate]]
    judge: Callable[[Task, Candidate], Verdict]

    @classmethod
    def of(
        cls,
        parent: pytest.Collector,
        path: Path,
        entries: Callable[[Path], Iterable[Task | str]],
        candidates: Callable[[str], Iterable[Candidate]],
        judge: Callable[[Task, Candidate], Verdict],
    ) -> TaskFile:
        made: TaskFile = cls.from_parent(parent, path=path)
        made.entries, made.candidates, made.judge = entries, candidates, judge
        return made

    def collect(self) -> Iterable[pytest.Item]:
        for entry in self.entries(self.path):
            if isinstance(entry, str):
                yield ProblemItem.of(self, entry)
                continue
            for candidate in self.candidates(entry.id):
                yield CandidateItem.of(self, entry, candidate, self.judge)


class ProblemItem(pytest.Item):
    """A line that cannot be read: it fails, and the others run."""

    problem = ""

    @classmethod
    def of(cls, parent: pytest.Collector, problem: str) -> ProblemItem:
        made: ProblemItem = cls.from_parent(parent, name=printable(problem, line=True)[:60])
        made.problem = problem
        return made

    def runtest(self) -> None:
        raise pytest.UsageError(self.problem)

    def repr_failure(self, excinfo: Any, style: Any = None) -> str:
        return printable(self.problem)

    def reportinfo(self) -> tuple[Path, None, str]:
        return self.path, None, self.name


class CandidateItem(pytest.Item):
    """One candidate for one task."""

    task: Task
    candidate: Candidate
    verdict: Verdict | None = None

    @classmethod
    def of(
        cls,
        parent: TaskFile,
        task: Task,
        candidate: Candidate,
        judge: Callable[[Task, Candidate], Verdict],
    ) -> CandidateItem:
        name = printable(f"{task.id}[{candidate.name}]", line=True)
        made: CandidateItem = cls.from_parent(parent, name=name)
        made.task, made.candidate, made._judge = task, candidate, judge
        return made

    _judge: Callable[[Task, Candidate], Verdict]

    def runtest(self) -> None:
        verdict = self.verdict = self._judge(self.task, self.candidate)
        self.user_properties += [
            ("outcome", verdict.outcome), ("task", self.task.id), ("candidate", verdict.candidate),
        ]  # fmt: skip
        if verdict.evidence != "frames":
            self.user_properties.append(("evidence", verdict.evidence))
        if not verdict.resolved:
            raise NotResolved(verdict)

    def repr_failure(self, excinfo: Any, style: Any = None) -> str:
        error = excinfo.value
        if isinstance(error, NotResolved):
            return told(error.verdict)
        if isinstance(error, SandboxError):
            return printable(str(error))
        return str(super().repr_failure(excinfo))

    def reportinfo(self) -> tuple[Path, None, str]:
        return self.path, None, self.name
