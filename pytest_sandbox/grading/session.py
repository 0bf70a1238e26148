"""Grade mode: a pytest session whose items are candidates, all graded at the same time.

pytest's loop stays in charge of order and reports; what it waits for is under way already.
"""

from __future__ import annotations

import math
import os
import threading
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from _pytest.terminal import TerminalReporter

from pytest_sandbox import options, registry
from pytest_sandbox.errors import BadInput, InfraError, ProviderUnavailable, SandboxError
from pytest_sandbox.evidence import TAMPERED, UNPROVEN
from pytest_sandbox.grading import predictions, sources
from pytest_sandbox.grading.budget import Budget, OverBudget
from pytest_sandbox.grading.engine import Engine
from pytest_sandbox.grading.items import CandidateItem, ProblemItem, TaskFile, TasksOnly
from pytest_sandbox.grading.merging import Merged
from pytest_sandbox.grading.model import Candidate, Outcome, Task, Verdict
from pytest_sandbox.grading.outputs import Results, annotated
from pytest_sandbox.grading.planning import identity
from pytest_sandbox.portal import Task as Job
from pytest_sandbox.wire import printable

_PLUGIN = "pytest_sandbox_grading"


def start(config: pytest.Config, *, others: registry.Factories) -> None:
    """Read the predictions and register the plugin; nothing is started yet.

    Raises:
        BadInput: the user's input cannot be used.
    """
    cli = lambda name: getattr(config.option, f"sandbox_{name}", None)  # noqa: E731
    chosen = options.resolve(cli=cli, environ=os.environ, table=options.GRADING)
    directory = config.invocation_params.dir
    found: dict[str, list[Candidate]] = {}
    bad: list[str] = []
    for entry in predictions.read(*(Path(directory, name) for name in chosen["predictions"])):
        if isinstance(entry, Candidate):
            found.setdefault(entry.task_id, []).append(entry)
        else:
            bad.append(f"{entry.source}: {entry.message}")
    if not found:
        text = "there is no prediction in what --sandbox-predictions names"
        raise BadInput("\n".join([text, *bad[:10]]))
    grading = Grading(config, chosen, found, bad, others)
    config.pluginmanager.register(grading, _PLUGIN)
    config.pluginmanager.register(TasksOnly(TaskFile), f"{_PLUGIN}_only")


def budget(config: pytest.Config, amount: tuple[float | None, float | None]) -> Budget:
    """What this process may spend: with pytest-xdist, its part of the whole."""
    parts = getattr(config, "workerinput", {}).get("workercount", 1)
    dollars, seconds = (None if part is None else part / parts for part in amount)
    return Budget(dollars=dollars, seconds=seconds)


def _ungraded(task: Task, candidate: Candidate, error: SandboxError) -> Verdict:
    """What is said of a candidate that could not be graded."""
    outcome: Outcome = "base_broken"
    if isinstance(error, OverBudget):
        outcome = "over_budget"
    elif isinstance(error, (InfraError, ProviderUnavailable)):
        outcome = "infra_error"
    return Verdict(
        task_id=task.id,
        candidate=candidate.name,
        outcome=outcome,
        reason=str(error),
        record=identity(task, candidate.patch),
    )


class Grading:
    """One session's plugin. Owns the engine and the results."""

    def __init__(
        self,
        config: pytest.Config,
        chosen: Mapping[str, Any],
        candidates: Mapping[str, list[Candidate]],
        bad: list[str],
        others: registry.Factories,
    ) -> None:
        self._config = config
        self._chosen = chosen
        self._candidates = candidates
        self._bad = bad
        self._engine = Engine(config, others, self._settings)
        merged = [Path(config.invocation_params.dir, name) for name in chosen["merge"]]
        self._merged = Merged(merged) if merged else None
        #: By the task itself: two files may name theirs alike.
        self._jobs: dict[tuple[int, str], Job[Verdict]] = {}
        self._verdicts: list[Verdict] = []
        #: Where each task was read.
        self._sources: dict[str, str] = {}
        #: Task and candidate of the items that ran here or, with pytest-xdist, elsewhere.
        self._reported: set[tuple[str, str]] = set()
        self._lock = threading.Lock()
        folder = Path(config.invocation_params.dir, chosen["results"])
        worker = os.environ.get("PYTEST_XDIST_WORKER")
        name = "results.jsonl" if worker is None else f"results-{worker}.jsonl"
        self._results = Results(folder, name)
        if not config.option.collectonly:
            self._results.check()

    # ------------------------------------------------------------ collection

    @pytest.hookimpl(tryfirst=True)
    def pytest_collect_file(
        self, file_path: Path, parent: pytest.Collector
    ) -> pytest.Collector | None:
        if not sources.is_task_file(file_path):
            return None
        # Read when it is looked into: pytest makes nodes of its neighbours as well.
        return TaskFile.of(parent, file_path, self._read, self._of, self._judge)

    def _read(self, path: Path) -> Iterator[Task | str]:
        for entry in sources.find([path]):
            if isinstance(entry, Task):
                self._sources[entry.id] = entry.source
                yield entry
            else:
                yield f"{entry.source}: {entry.message}"

    def _of(self, task: str) -> Iterable[Candidate]:
        return self._candidates.get(task, ())

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(
        self, session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
    ) -> Generator[None, object, object]:
        """Predictions that cannot be read are items that fail; the share is taken of the rest."""
        items += [ProblemItem.of(session, problem) for problem in self._bad]
        collected = {id(item): number for number, item in enumerate(items)}
        result = yield
        if self._chosen["shard"] is not None:
            mine, of = self._chosen["shard"]
            # As they were collected: a plugin may have put them into an order of its own here.
            ranked = sorted(items, key=lambda item: collected.get(id(item), len(collected)))
            share = {id(item) for item in ranked[mine - 1 :: of]}
            others = [item for item in items if id(item) not in share]
            items[:] = [item for item in items if id(item) in share]
            config.hook.pytest_deselected(items=others)
        return result

    # ------------------------------------------------------------ running

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        # With xdist, this process only hands items out, or gets them one by one.
        option = self._config.option
        broken = session.testsfailed and not option.continue_on_collection_errors
        one_by_one = hasattr(self._config, "workerinput")
        elsewhere = self._config.pluginmanager.has_plugin("dsession")
        runs = self._merged is None and not (option.collectonly or broken or one_by_one)
        mine = [item for item in session.items if isinstance(item, CandidateItem)]
        if runs and (mine or elsewhere):
            self._engine.ready(here=not elsewhere)
        if runs and not elsewhere:
            for item in self._longest_first(mine):
                self._begin(item.task, item.candidate)
        return (yield)

    def _longest_first(self, items: Iterable[CandidateItem]) -> list[CandidateItem]:
        """By what their tasks took before; those of which nothing is known before all others."""
        tasks = {item.task.id: item.task for item in items}
        seconds = {name: self._engine.expected(task) for name, task in tasks.items()}

        def expected(item: CandidateItem) -> float:
            known = seconds[item.task.id]
            return math.inf if known is None else known

        return sorted(items, key=expected, reverse=True)

    def _begin(self, task: Task, candidate: Candidate) -> Job[Verdict]:
        key = (id(task), candidate.name)
        if key not in self._jobs:
            self._jobs[key] = self._engine.start(lambda grader: grader.grade(task, candidate))
        return self._jobs[key]

    def _judge(self, task: Task, candidate: Candidate) -> Verdict:
        if self._merged is None:
            try:
                return self._begin(task, candidate).result()
            except SandboxError as error:
                # Nobody graded it, and it is one of those that were asked for all the same.
                verdict = _ungraded(task, candidate, error)
            except Exception as error:
                # A mistake of ours: shown whole, and the candidate stays one that was asked for.
                text = f"{type(error).__name__}: {error}; this is a bug in pytest-sandbox"
                self._graded(task, _ungraded(task, candidate, InfraError(text)))
                raise
        else:
            verdict = self._merged.verdict(task, candidate)
        self._graded(task, verdict)
        return verdict

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        said = {name: str(value) for name, value in report.user_properties}
        if "candidate" in said:
            self._reported.add((said.get("task", ""), said["candidate"]))

    def _settings(self) -> dict[str, Any]:
        return {
            "workers": self._chosen["workers"],
            "reruns": self._chosen["reruns"],
            "budget": budget(self._config, self._chosen["budget"]),
            "known": self._results.known().get,
            "on_verdict": self._graded,
        }

    def _graded(self, task: Task, verdict: Verdict) -> None:
        with self._lock:
            self._verdicts.append(verdict)
            self._results.add(verdict)

    # ------------------------------------------------------------ the end

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        try:
            self._engine.close()
        finally:
            self._results.close()
        if hasattr(self._config, "workerinput"):
            return  # another process puts the results together
        if self._config.pluginmanager.has_plugin("dsession"):
            # Each worker has written to a file of its own, and so have earlier sessions.
            self._verdicts = [
                one
                for one in self._results.merged()
                if (one.task_id, one.candidate) in self._reported
            ]
        if self._verdicts:
            self._results.finish(self._verdicts, self._missing)
        if session.exitstatus == pytest.ExitCode.TESTS_FAILED:
            session.exitstatus = self._status(session.testsfailed)

    def _status(self, failed: int) -> int:
        """The exit status of a session with candidates that are not resolved."""
        outcomes = Counter(verdict.outcome for verdict in self._verdicts)
        if any(verdict.pending for verdict in self._verdicts):
            # Not the same as "some are unresolved": the numbers are not complete.
            return InfraError.exit_status
        if "tampered" in outcomes:
            return TAMPERED
        return UNPROVEN if outcomes["unproven"] == failed else pytest.ExitCode.TESTS_FAILED

    @property
    def _missing(self) -> list[str]:
        """Tasks without a prediction."""
        return [task for task in self._sources if task not in self._candidates]

    def _without_task(self) -> str:
        """What is said of predictions for tasks that are not here; "" for nothing."""
        strange = [task for task in self._candidates if task not in self._sources]
        # With pytest-xdist, tasks are read elsewhere.
        if not strange or self._config.pluginmanager.has_plugin("dsession"):
            return ""
        return (
            f"predictions for {len(strange)} tasks that are not among the arguments, such as "
            f"{strange[0]}"
        )

    def pytest_terminal_summary(self, terminalreporter: TerminalReporter) -> None:
        strange = self._without_task()
        if strange:
            terminalreporter.write_line(f"sandbox: {printable(strange, line=True)}")
        if not self._verdicts:
            return
        if os.environ.get("GITHUB_ACTIONS") == "true":
            for line in annotated(self._verdicts, sources=self._sources):
                terminalreporter.write_line(line)
        terminalreporter.section("sandbox grades")
        counts = Counter(verdict.outcome for verdict in self._verdicts)
        width = max(len(outcome) for outcome in counts)
        for outcome, number in counts.most_common():
            terminalreporter.write_line(f"{outcome:<{width}}  {number}")
        scored = [verdict for verdict in self._verdicts if verdict.scored]
        terminalreporter.write_line(
            f"resolved {counts['resolved']} of {len(self._verdicts)}"
            + (f" ({len(self._verdicts) - len(scored)} not scored)"
               if len(scored) != len(self._verdicts) else "")
            + (f"; {len(self._missing)} without a prediction" if self._missing else "")
        )  # fmt: skip
        terminalreporter.write_line(f"results: {self._results.folder}")
