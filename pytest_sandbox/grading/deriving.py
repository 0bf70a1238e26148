"""``--sandbox-derive``: a pytest session whose items are tasks that get their lists of tests.

An item passes when the lists are in its file. Knows no predictions.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from _pytest.terminal import TerminalReporter

from pytest_sandbox import options, registry
from pytest_sandbox.errors import BadInput, InfraError, ProviderUnavailable, SandboxError
from pytest_sandbox.grading import sources, taskfile
from pytest_sandbox.grading.budget import OverBudget
from pytest_sandbox.grading.derivation import Derived
from pytest_sandbox.grading.engine import Engine
from pytest_sandbox.grading.items import ProblemItem, TasksOnly
from pytest_sandbox.grading.model import Task
from pytest_sandbox.grading.session import budget
from pytest_sandbox.portal import Task as Job
from pytest_sandbox.wire import printable

_PLUGIN = "pytest_sandbox_deriving"
#: Names of the properties that reports carry.
_SAID, _OUTCOME = "derived", "outcome"
#: Test ids that are named of each kind.
_NAMED = 20


def start(config: pytest.Config, *, others: registry.Factories) -> None:
    """Register the plugin; nothing is started yet.

    Raises:
        BadInput: the user's input cannot be used.
    """
    if config.option.sandbox_predictions:
        raise BadInput(
            "--sandbox-derive and --sandbox-predictions are two sessions: first derive what "
            "decides the tasks, then grade"
        )
    config.pluginmanager.register(Deriving(config, others), _PLUGIN)
    config.pluginmanager.register(TasksOnly(DerivedFile), f"{_PLUGIN}_only")


class Deriving:
    """One session's plugin. Owns the engine."""

    def __init__(self, config: pytest.Config, others: registry.Factories) -> None:
        self._config = config
        cli = lambda name: getattr(config.option, f"sandbox_{name}", None)  # noqa: E731
        self._chosen = options.resolve(cli=cli, environ=os.environ, table=options.GRADING)
        self._engine = Engine(
            config,
            others,
            lambda: {
                "workers": self._chosen["workers"],
                "budget": budget(config, self._chosen["budget"]),
            },
        )
        self._jobs: dict[str, Job[Derived]] = {}
        self._said: list[str] = []
        self._incomplete = False

    @pytest.hookimpl(tryfirst=True)
    def pytest_collect_file(
        self, file_path: Path, parent: pytest.Collector
    ) -> pytest.Collector | None:
        if not sources.is_task_file(file_path):
            return None
        return DerivedFile.of(parent, file_path, self._derive)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        option = self._config.option
        broken = session.testsfailed and not option.continue_on_collection_errors
        one_by_one = hasattr(self._config, "workerinput")
        elsewhere = self._config.pluginmanager.has_plugin("dsession")
        runs = not (option.collectonly or broken or one_by_one)
        mine = [item for item in session.items if isinstance(item, DerivedItem)]
        if runs and (mine or elsewhere):
            self._engine.ready(here=not elsewhere)
        if runs and not elsewhere:
            for item in mine:
                self._begin(item.task)
        return (yield)

    def _begin(self, task: Task) -> Job[Derived]:
        if task.source not in self._jobs:
            repeats = self._chosen["repeats"]
            self._jobs[task.source] = self._engine.start(lambda g: g.derive(task, repeats))
        return self._jobs[task.source]

    def _derive(self, task: Task) -> Derived:
        return self._begin(task).result()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        found = dict(report.user_properties) if report.when == "call" else {}
        if _SAID in found:
            self._said.append(str(found[_SAID]))
        self._incomplete |= found.get(_OUTCOME) in ("infra_error", "over_budget")

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        self._engine.close()
        if session.exitstatus == pytest.ExitCode.TESTS_FAILED and self._incomplete:
            session.exitstatus = InfraError.exit_status

    def pytest_terminal_summary(self, terminalreporter: TerminalReporter) -> None:
        if self._said and not hasattr(self._config, "workerinput"):
            terminalreporter.section("derived")
            for text in self._said:
                terminalreporter.write_line(text)


class NotDerived(Exception):
    """There are no lists that could be used."""


class DerivedFile(pytest.File):
    """A file that tasks are read from."""

    derive: Callable[[Task], Derived]

    @classmethod
    def of(
        cls, parent: pytest.Collector, path: Path, derive: Callable[[Task], Derived]
    ) -> DerivedFile:
        made: DerivedFile = cls.from_parent(parent, path=path)
        made.derive = derive
        return made

    def collect(self) -> Iterable[pytest.Item]:
        if self.path.suffix.lower() != ".toml" or not sources.is_own(self.path):
            yield ProblemItem.of(
                self,
                f"{self.path.name}: --sandbox-derive writes what it finds into a task file of "
                "this package's own format (TOML); this one belongs to whoever published it",
            )
            return
        try:
            yield DerivedItem.of(self, taskfile.read(self.path))
        except taskfile.TaskFileError as error:
            for problem in error.problems:
                yield ProblemItem.of(self, f"{problem.source}: {problem.message}")


class DerivedItem(pytest.Item):
    """One task."""

    task: Task
    derived: Derived | None = None

    @classmethod
    def of(cls, parent: DerivedFile, task: Task) -> DerivedItem:
        made: DerivedItem = cls.from_parent(parent, name=printable(task.id, line=True))
        made.task = task
        return made

    def runtest(self) -> None:
        assert isinstance(self.parent, DerivedFile)
        try:
            derived = self.derived = self.parent.derive(self.task)
        except (InfraError, ProviderUnavailable, OverBudget) as error:
            spent = isinstance(error, OverBudget)
            self.user_properties.append((_OUTCOME, "over_budget" if spent else "infra_error"))
            raise
        self.user_properties.append((_OUTCOME, derived.outcome))
        if derived.outcome != "derived":
            raise NotDerived(f"{derived.outcome}: {derived.reason}")
        taskfile.write(
            self.path,
            fail_to_pass=derived.fail_to_pass,
            pass_to_pass=derived.pass_to_pass,
            flaky=derived.flaky,
        )
        self.user_properties.append((_SAID, told(self.task.source, derived)))

    def repr_failure(self, excinfo: Any, style: Any = None) -> str:
        if not isinstance(excinfo.value, (NotDerived, SandboxError)):
            return str(super().repr_failure(excinfo))
        lines = [printable(str(excinfo.value))]
        if self.derived is not None:
            lines += _listed(self.derived)
        return "\n".join([*lines, "nothing was written"])

    def reportinfo(self) -> tuple[Path, None, str]:
        return self.path, None, self.name


def told(source: str, derived: Derived) -> str:
    """What was written, for a person."""
    counts = (
        f"{source}: {len(derived.fail_to_pass)} fail_to_pass, "
        f"{len(derived.pass_to_pass)} pass_to_pass, {len(derived.flaky)} flaky"
    )
    return "\n".join([counts, *_listed(derived)])


def _listed(derived: Derived) -> list[str]:
    lines = []
    for ids, what in (
        (derived.none_to_pass, "not collected at the base (in fail_to_pass)"),
        (derived.skip_to_pass, "skipped at the base (in fail_to_pass)"),
        (derived.flaky, "flaky, never scored"),
        (derived.pass_to_fail, "passes at the base, not with the gold patch: never scored"),
    ):
        lines += _lines(ids, what)
    return lines


def _lines(ids: Sequence[str], what: str) -> list[str]:
    shown = [f"  {what}: {printable(nodeid, line=True)}" for nodeid in ids[:_NAMED]]
    return shown + ([f"  and {len(ids) - _NAMED} more"] if len(ids) > _NAMED else [])
