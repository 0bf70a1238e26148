"""Mirror mode: the sandbox's tests as items of the local session.

pytest's own loop stays in charge. This plugin replaces collection by what the sandbox
collected, and running an item by waiting for its reports. Knows no provider and no git.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack
from pathlib import PurePosixPath
from typing import NamedTuple

import pytest
from _pytest._code.code import ReprExceptionInfo, ReprTracebackNative
from _pytest.terminal import TerminalReporter

from pytest_sandbox import inside, items, reaper, wire
from pytest_sandbox.consumer import Phase, Selection, Usage, bill
from pytest_sandbox.endings import ending, heeded
from pytest_sandbox.errors import ProtocolError, SandboxError
from pytest_sandbox.fallback import first_able
from pytest_sandbox.feed import Event, Feed, Known
from pytest_sandbox.integrity import execute
from pytest_sandbox.items import RemoteItem
from pytest_sandbox.patience import checked
from pytest_sandbox.plan import Run
from pytest_sandbox.portal import Portal, Task
from pytest_sandbox.progress import Progress
from pytest_sandbox.provider import Provider
from pytest_sandbox.results import Recorder, complete
from pytest_sandbox.runner import boundary
from pytest_sandbox.verification import Verification


class RemoteInternalError(Exception):
    """pytest in the sandbox had an internal error; the text is its own."""


class Way(NamedTuple):
    """A provider, and the run as it is made for it."""

    run: Run
    provider: Callable[[], Provider]


class Mirror:
    """One session's plugin. Owns the event loop and, through it, the run."""

    def __init__(
        self,
        config: pytest.Config,
        ways: Mapping[str, Way],
        host: inside.Host,
        *,
        notes: list[str],
        on_artifacts: Callable[[bytes], str],
    ) -> None:
        self._config = config
        self._ways = ways
        self._run, self._make_provider = next(iter(ways.values()))
        self._host = host
        self._notes = notes
        self._on_artifacts = on_artifacts
        self._feed = Feed()
        self._resources = ExitStack()
        self._reporter: TerminalReporter | None = None
        self._progress = Progress(None, quiet=True)
        self._portal: Portal | None = None
        self._task: Task[bytes | None] | None = None
        self._end: wire.End | None = None
        self._over = False
        self._greeted = self._ready = False
        self._exit: tuple[str, int] | None = None
        self._broken: ProtocolError | None = None
        self._chosen: list[int] = []
        self._verification = Verification(self._run, config)
        self._reports: dict[int, list[wire.Report]] = {}
        self._finished: set[int] = set()
        self._usages: list[Usage] = []
        # Only kept where somebody asks for it: it doubles the memory of a run.
        verdicts = config.hook.pytest_sandbox_verdict.get_hookimpls()
        self._recorder = Recorder() if verdicts else None

    # ------------------------------------------------------------ pytest's hooks

    def pytest_report_header(self) -> list[str]:
        return [f"sandbox: {self._run.name} · {self._isolation}", *self._notes]

    @property
    def _isolation(self) -> str:
        return self._make_provider().capabilities.isolation

    @pytest.hookimpl
    def pytest_collection(self, session: pytest.Session) -> bool:
        reporter = self._config.pluginmanager.get_plugin("terminalreporter")
        assert reporter is None or isinstance(reporter, TerminalReporter)
        self._reporter = reporter
        self._progress = Progress(reporter, quiet=self._config.option.verbose < 0)
        if reporter is not None and not reporter.isatty and self._config.option.verbose > 0:
            reporter.write_line("")  # pytest has written "collecting ... "
        self._verification.session = session
        self._start()
        self._collect(session)
        return True

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        """The selection is final now: the sandbox may start."""
        mine = [item.index for item in session.items if isinstance(item, RemoteItem)]
        chosen = [index for index in mine if index >= 0]
        broken = session.testsfailed and not self._config.option.continue_on_collection_errors
        if self._config.option.collectonly or broken:
            chosen = []
        if self._recorder is not None:
            self._recorder.choose(chosen)
        self._chosen = chosen
        self._feed.choose(Selection(chosen, self._config.getoption("maxfail")))
        result = yield
        if chosen or not self._over:
            self._drain()
        return result

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> bool | None:
        if not isinstance(item, RemoteItem):
            return None
        ihook = item.ihook
        ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        if item.index < 0:
            ihook.pytest_runtest_logreport(report=self._verification.absent(item))
            ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
            return True
        seen = self._report_waiting(item)
        while item.index not in self._finished and not self._over:
            self._handle(self._next())
            seen += self._report_waiting(item)
        if item.index not in self._finished or not complete(seen):
            self._without_result(item, seen)
        ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(
        self, report: pytest.TestReport, config: pytest.Config
    ) -> tuple[str, str, str] | None:
        if not isinstance(report, items.SubtestReport):
            return None
        return items.subtest_status(report, quiet=config.option.verbose < 1)

    @pytest.hookimpl(tryfirst=True)
    def pytest_internalerror(
        self, excrepr: object, excinfo: pytest.ExceptionInfo[BaseException]
    ) -> None:
        """Show the sandbox's traceback in place of ours, which only passed it on."""
        error = excinfo.value
        if isinstance(error, RemoteInternalError) and isinstance(excrepr, ReprExceptionInfo):
            excrepr.reprtraceback = ReprTracebackNative([str(error)])

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(
        self, session: pytest.Session, exitstatus: int
    ) -> Generator[None, object, object]:
        try:
            self._close()
        finally:
            left = [index for index in self._chosen if index not in self._finished]
            self._verification.finish(left, self._broken)
            result = yield
        status = self._verification.status(session)
        if status is not None:
            session.exitstatus = status
        if self._recorder is not None and self._end is not None:
            verdict = self._config.hook.pytest_sandbox_verdict(
                result=self._verification.settled(self._recorder.result(self._run.name))
            )
            if verdict is not None and session.exitstatus in (0, 1):
                session.exitstatus = pytest.ExitCode(0 if verdict else 1)
        return result

    def pytest_terminal_summary(self, terminalreporter: TerminalReporter) -> None:
        self._verification.summary(terminalreporter)
        text = bill(self._usages)
        if text:
            terminalreporter.write_line(f"sandbox: {text}")

    # ------------------------------------------------------------ the run

    def _start(self) -> None:
        found = self._config.hook.pytest_sandbox_providers()
        others = {name: make for names in found for name, make in names.items()}
        self._resources.enter_context(heeded())
        self._portal = self._resources.enter_context(Portal())
        self._task = self._portal.start(self._main, others)
        self._task.on_done(self._feed.done)

    async def _main(self, others: dict[str, Callable[[], Provider]]) -> bytes | None:
        self._feed.phase(Phase("create"))
        with boundary(self._run.name):
            await reaper.at_start(self._host, others, self._tell)
            return await first_able(tuple(self._ways), self._on, self._tell)

    async def _on(self, name: str) -> bytes | None:
        run, make = self._ways[name]
        async with inside.provided(make, self._feed.phase) as provider:
            await checked(provider)
            run, base = await self._verification.ask(run, provider, self._host, self._feed)
            return await execute(run, provider, self._feed, self._host, base)

    def _tell(self, text: str) -> None:
        self._feed.phase(Phase("create", text, announce=True))

    def _next(self) -> Event:
        return self._feed.next(self._progress.tick)

    def _collect(self, session: pytest.Session) -> None:
        markexpr: str = self._config.option.markexpr or ""
        tree = items.Tree(session, mark_arguments="(" in markexpr)
        deselected = 0
        while True:
            event = self._next()
            if isinstance(event, wire.Collected):
                tree.add(event)
            self._handle(event)
            if isinstance(event, wire.Ready):
                self._ready = True
                deselected = event.deselected
                break
            if self._over:
                self._stop_session()
        self._progress.clear()
        hook = self._config.hook
        found = self._verification.complete(session, tree.items)
        session.items = list(found)
        hook.pytest_collectreport(report=items.collected_report(found))
        if deselected:
            self._count_deselected(session, deselected)
        hook.pytest_collection_modifyitems(
            session=session, config=self._config, items=session.items
        )
        hook.pytest_collection_finish(session=session)
        session.testscollected = len(session.items)

    def _count_deselected(self, session: pytest.Session, number: int) -> None:
        """The sandbox's own pytest left some out; count them as a direct run does."""
        if self._reporter is not None:
            self._reporter._numcollected += number
        self._config.hook.pytest_deselected(items=[items.unnamed(session)] * number)

    def _handle(self, event: Event) -> None:
        hook = self._config.hook
        if isinstance(event, Task):
            self._finish(event)
            return
        if isinstance(event, Usage):
            self._usages.append(event)
            return
        if isinstance(event, Phase):
            self._progress.phase(event)
            hook.pytest_sandbox_phase(phase=event)
            return
        if isinstance(event, Known):
            self._verification.know(event)
            return
        self._verification.take(event)
        if self._recorder is not None:
            self._recorder.take(event)
        hook.pytest_sandbox_frame(frame=event)
        match event:
            case wire.Hello():
                self._hello(event)
            case wire.CollectReport():
                hook.pytest_collectreport(report=items.collect_report(event))
            case wire.Report():
                self._reports.setdefault(event.item, []).append(event)
            case wire.Finish():
                self._finished.add(event.item)
            case wire.Warned():
                kwargs = items.warning(event, str(self._config.rootpath))
                hook.pytest_warning_recorded.call_historic(kwargs=kwargs)
            case wire.Output() if self._reporter is not None:
                self._progress.clear()
                # Past the writer, which does not see it in a direct run and measures each line.
                self._reporter._tw._file.write(event.text)
                self._reporter._tw.flush()
            case wire.InternalError():
                raise RemoteInternalError(event.text)
            case wire.End():
                self._end = event

    def _hello(self, hello: wire.Hello) -> None:
        again, self._greeted = self._greeted, True
        if again:
            return  # a process that died was replaced; its test says so
        self._adopt_rootdir(hello.rootdir)
        if self._config.option.verbose >= 0 and self._reporter is not None:
            self._progress.clear()
            self._reporter.write_line(
                f"sandbox: Python {hello.python}, pytest-{hello.pytest}"
                + (f", plugins: {', '.join(hello.plugins)}" if hello.plugins else "")
            )

    def _adopt_rootdir(self, rootdir: str) -> None:
        """Node ids are relative to the rootdir found there, which an ini of the target decides."""
        top = self._run.workspace.root
        path = PurePosixPath(rootdir)
        if top is not None and not path.is_absolute() and ".." not in path.parts:
            self._config._rootpath = top / path

    def _report_waiting(self, item: RemoteItem) -> list[wire.Report]:
        waiting = self._reports.pop(item.index, [])
        if waiting:
            self._progress.clear()
        for frame in waiting:
            item.ihook.pytest_runtest_logreport(report=self._verification.report(item, frame))
        return waiting

    def _without_result(self, item: RemoteItem, seen: list[wire.Report]) -> None:
        """The run is over, or the sandbox claims to be through with a test it was silent on."""
        if item.index not in self._finished and not seen:
            self._stop_session()
        if any(report.outcome == "failed" for report in seen):
            return  # bad enough as it is
        text = f"the sandbox sent no complete result for {item.nodeid}"
        item.ihook.pytest_runtest_logreport(report=items.failed_report(item, text))

    def _drain(self) -> None:
        """Wait for what comes after the last test: warnings, artifacts, the end itself."""
        while not self._over:
            self._handle(self._next())
        self._progress.clear()
        if self._exit is not None or (self._end is not None and self._end.reason != "finished"):
            self._stop_session()

    def _finish(self, task: Task[bytes | None]) -> None:
        self._over = True
        try:
            artifacts = task.result()
        except SandboxError as error:
            self._exit = (str(error), error.exit_status)
            if isinstance(error, ProtocolError) and self._run.protection is not None:
                # A finding, which has its status at the end; with another, nothing would be shown.
                self._broken, self._exit = error, (str(error), 1)
            return
        if artifacts is not None and self._reporter is not None:
            try:
                text = self._on_artifacts(artifacts)
            except (SandboxError, OSError) as error:
                self._exit = (f"the artifacts cannot be kept: {error}", 31)
                return
            self._progress.clear()
            self._reporter.write_line(text)

    def _stop_session(self) -> None:
        """The run ended where tests were still expected: end the session, and say why."""
        self._progress.clear()
        if self._exit is not None:
            self._leave(*self._exit)
        end = self._end
        if end is None:
            self._leave(f"{self._run.name}: the sandbox ended without a word", 31)
            return
        if end.reason == "usage" and not self._ready:
            said = end.message.strip()
            raise pytest.UsageError(f"pytest in the sandbox refused to start:\n{said}")
        self._leave(*ending(end))

    def _leave(self, text: str, status: int) -> None:
        first, _, rest = text.partition("\n")
        if rest and self._reporter is not None:
            self._reporter.write_line("")
            self._reporter.write_line(text)
        raise pytest.exit.Exception(first, returncode=status)

    def _close(self) -> None:
        """End the sandbox; a second Ctrl-C leaves it to the reaper, and says so."""
        try:
            if self._task is not None and not self._over:
                self._progress.phase(Phase("close"))
                self._task.cancel(self._progress.tick)
            self._resources.close()
        except KeyboardInterrupt:
            if self._portal is not None:
                self._portal.abandon()
            text = "sandbox left behind; `pytest --sandbox-reap` ends it"
            raise pytest.exit.Exception(text, returncode=2) from None
        finally:
            for event in self._feed.rest():
                if isinstance(event, Phase) and event.announce:
                    self._progress.phase(event)
                elif isinstance(event, Usage):
                    self._usages.append(event)
            self._progress.clear()
            self._run.workspace.close()

    def pytest_unconfigure(self) -> None:
        # A session that was refused before it began has no end of its own.
        self._run.workspace.close()
