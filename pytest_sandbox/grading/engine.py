"""What grades during a session: event loop, provider and grader, started when first needed.

Knows no items and no results.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import pytest
from _pytest.terminal import TerminalReporter

from pytest_sandbox import assemble, fallback, inside, options, reaper, registry
from pytest_sandbox.endings import heeded
from pytest_sandbox.errors import BadInput, SandboxError
from pytest_sandbox.grading.grader import Grader
from pytest_sandbox.grading.model import Task
from pytest_sandbox.portal import Portal
from pytest_sandbox.portal import Task as Job
from pytest_sandbox.provider import Provider

T = TypeVar("T")

#: What is no matter of a candidate's run.
_NOT_GIVEN = {"provider", "repo", "base", "patch", "artifact_dir"}
#: Options that only a run by itself has, and why.
_OF_ONE_RUN = {
    "split": "shares one suite among sandboxes; candidates are graded at the same time by "
    "--sandbox-workers",
    "keep": "leaves the sandbox of one run for a look at it, not those of many candidates: run "
    "the one by itself, with --sandbox-repo, --sandbox-base and --sandbox-patch",
    "artifact": "brings files back from one run; of candidates there are results only: run "
    "the one by itself, with --sandbox-repo, --sandbox-base and --sandbox-patch",
    "artifact_dir": "is where files of one run are put; of candidates there are results only, in "
    "--sandbox-results",
}


class Engine:
    """Owns the event loop, and through it the provider and the grader.

    Args:
        others: providers that other plugins bring.
        settings: makes the grader's arguments, when it is made.

    Raises:
        BadInput: an option cannot be used, or there is no such provider.
    """

    def __init__(
        self,
        config: pytest.Config,
        others: registry.Factories,
        settings: Callable[[], Mapping[str, Any]],
    ) -> None:
        self._config = config
        self._others = others
        self._settings = settings
        cli = lambda name: getattr(config.option, f"sandbox_{name}", None)  # noqa: E731
        self._run = options.resolve(cli=cli, environ=os.environ)
        for name, why in _OF_ONE_RUN.items():
            if self._run[name] != options.BY_NAME[name].default:
                raise BadInput(f"{options.BY_NAME[name].flag} {why}")
        self._run["provider"] = config.option.sandbox or self._run["provider"]
        registry.factory(fallback.names(self._run["provider"])[0], others)
        self._resources = ExitStack()
        self._under_way: set[asyncio.Task[Any]] = set()
        self._started: tuple[Grader, Portal] | None = None

    def ready(self, *, here: bool) -> None:
        """Start, or end the session with what is in the way of all that it would do.

        Args:
            here: whether this process grades. With pytest-xdist others do: then it is only found
                out, once and before the first candidate, whether they can.
        """
        with _leaving(self._config):
            self._grader()
        if not here:
            self.close()
            self._started = None
            self._resources.enter_context(heeded())

    def start(self, call: Callable[[Grader], Awaitable[T]]) -> Job[T]:
        """Start what ``call`` makes of the grader, in the loop."""
        grader, portal = self._grader()
        return portal.start(self._followed, call, grader)

    async def _followed(self, call: Callable[[Grader], Awaitable[T]], grader: Grader) -> T:
        task = asyncio.current_task()
        assert task is not None
        self._under_way.add(task)
        try:
            return await call(grader)
        finally:
            self._under_way.discard(task)

    async def _cancel(self) -> None:
        under_way = list(self._under_way)
        for task in under_way:
            task.cancel()
        if under_way:
            await asyncio.wait(under_way)

    def expected(self, task: Task) -> float | None:
        """Seconds that a run of ``task`` took before; None where none is known."""
        return self._grader()[0].expected(task)

    def _grader(self) -> tuple[Grader, Portal]:
        if self._started is None:
            self._resources.enter_context(heeded())
            portal = self._resources.enter_context(Portal())
            portal.run(reaper.at_start, assemble.host(), self._others, lambda text: None)
            grader = Grader(self._opened(portal), **self._settings(), **self._given())
            self._resources.enter_context(portal.hold(grader))
            self._started = grader, portal
        return self._started

    def _opened(self, portal: Portal) -> Provider:
        *before, last = fallback.names(self._run["provider"])
        for name in before:
            try:
                return self._open(portal, name)
            except fallback.UNABLE:
                continue
        return self._open(portal, last)

    def _open(self, portal: Portal, name: str) -> Provider:
        make = registry.factory(name, self._others, assemble.account(self._run))
        held = portal.hold(inside.provided(make, lambda phase: None))
        provider = self._resources.enter_context(held)
        portal.run(provider.check)
        return provider

    def _given(self) -> dict[str, Any]:
        """What the user said on the command line or in the environment, as given."""
        found = {}
        for name in set(assemble.OPTION_NAMES) - _NOT_GIVEN:
            value = getattr(self._config.option, f"sandbox_{name}", None)
            if value in (None, []):
                value = os.environ.get(options.BY_NAME[name].variable)
            if value not in (None, [], ""):
                found[name] = value
        if "retries" in found:  # the grader's own, which takes a number
            found["retries"] = self._run["retries"]
        return found

    def close(self) -> None:
        """End everything; what is still running is cancelled, as after -x or Ctrl-C."""
        try:
            if self._started is not None:
                self._started[1].run(self._cancel)
        finally:
            self._resources.close()


@contextmanager
def _leaving(config: pytest.Config) -> Iterator[None]:
    """An error in the block ends the session with its sentence and its exit status."""
    try:
        yield
    except SandboxError as error:
        text = str(error)
        reporter = config.pluginmanager.get_plugin("terminalreporter")
        if "\n" in text and isinstance(reporter, TerminalReporter):
            reporter.write_line("")
            reporter.write_line(text)
        raise pytest.exit.Exception(text.partition("\n")[0], returncode=error.exit_status) from None
