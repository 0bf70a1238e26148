"""Runs that confirm another one: the same tree with other tests, each in a sandbox of its own.

Knows how runs are made, and not what their results are held against.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from pytest_sandbox import inside, plan, prepare
from pytest_sandbox.consumer import Phase, Selection, Usage
from pytest_sandbox.errors import CommandTimeout, ProtocolError
from pytest_sandbox.integrity import neutral
from pytest_sandbox.integrity.neutral import Neutral
from pytest_sandbox.integrity.values import Gate, Seen
from pytest_sandbox.provider import Command, Provider, Stream
from pytest_sandbox.results import Recorder, RunResult
from pytest_sandbox.runner import boundary, execute
from pytest_sandbox.workspace import Tree

#: Options of pytest that choose among tests, with a value in the same word or in the next.
_CHOOSING: Final = ("-k", "-m", "--deselect", "--ignore", "--ignore-glob")
_CHOOSING_ALONE: Final = frozenset({
    "--lf", "--last-failed", "--ff", "--failed-first", "--nf", "--new-first", "--sw",
    "--stepwise", "--sw-skip", "--stepwise-skip", "--co", "--collect-only", "--doctest-modules",
})  # fmt: skip

OnPhase = Callable[[Phase], None]


def with_files(run: plan.Run, tree: Tree, files: Mapping[str, bytes | None], name: str) -> plan.Run:
    """``run`` of ``tree`` with other files: None for those that are gone."""
    made = run.workspace.with_files(tree, files)
    protection = run.protection
    if protection is not None:
        gone = {path for path, content in files.items() if content is None}
        sealed = tuple(path for path in protection.sealed if path not in gone)
        added = tuple(sorted(set(files) - gone - set(sealed)))
        protection = replace(
            protection, tree=made, scored=made, sealed=(*sealed, *added), own_tests=(),
            fresh=() if tree.id == run.base.id else protection.fresh,
        )  # fmt: skip
    return replace(
        run, name=f"{name} of {run.name}", candidate=made, protection=protection, artifacts=(),
        keep="never", live=False, split=1,
    )  # fmt: skip


def arguments(run: plan.Run, files: Iterable[str], more: Sequence[str] = ()) -> tuple[str, ...]:
    """Those of ``run`` that do not choose tests, and ``files`` in place of what they name."""
    places = {"."}
    for entry in run.workspace.files(run.candidate):
        path = entry.path.decode("utf-8", "surrogateescape")
        while path and path not in places:
            places.add(path)
            path = posixpath.dirname(path)
    kept: list[str] = []
    value = False
    for arg in run.args:
        if value:
            value = False
        elif arg in _CHOOSING:
            value = True
        elif arg in _CHOOSING_ALONE or arg.startswith(_CHOOSING):
            continue
        elif arg.startswith("-"):
            kept.append(arg)
        elif posixpath.normpath(posixpath.join(run.cwd, arg.partition("::")[0])) not in places:
            kept.append(arg)  # the value of an option, as it seems
    named = [posixpath.relpath(path, run.cwd or ".") for path in files]
    return (*kept, *more, *named)


class _Everything(Recorder):
    """Runs what could be collected, and tells of its phases as of one."""

    def __init__(self, on_phase: OnPhase, on_usage: Callable[[Usage], None]) -> None:
        super().__init__(on_phase)
        self._on_usage = on_usage

    def phase(self, phase: Phase) -> None:
        if phase.announce:
            super().phase(phase)

    def used(self, usage: Usage) -> None:
        super().used(usage)
        self._on_usage(usage)

    async def select(self) -> Selection:
        self.choose(range(len(self._items)))
        return Selection(self._chosen)


async def tests(
    run: plan.Run,
    provider: Provider,
    host: inside.Host,
    on_phase: OnPhase,
    on_usage: Callable[[Usage], None],
) -> RunResult:
    """What becomes of all tests of ``run``.

    Raises:
        SandboxError: as ``runner.execute``.
    """
    recorder = _Everything(on_phase, on_usage)
    await execute(run, provider, recorder, host)
    return recorder.result(run.name)


async def values(
    run: plan.Run,
    asked: Neutral,
    provider: Provider,
    host: inside.Host,
    on_phase: OnPhase,
    on_usage: Callable[[Usage], None],
) -> Seen:
    """What the neutral run of ``run``'s tree says.

    Raises:
        ProtocolError: something else than values.
        SandboxError: as ``runner.execute``.
    """
    with boundary(run.name):
        return await _values(run, asked, provider, host, _Everything(on_phase, on_usage))


async def _values(
    run: plan.Run, asked: Neutral, provider: Provider, host: inside.Host, recorder: Recorder
) -> Seen:
    async with prepare.ready(run, provider, recorder, host) as sandbox:
        for command in run.build:
            await prepare.shell(command, "build", run, sandbox, recorder, secret=False)
        places = inside.Places.of(sandbox)
        gate = Gate(len(asked.asked))
        failed: list[ProtocolError] = []

        async def sink(stream: Stream, data: bytes) -> None:
            if stream == "stdout" and not failed:
                try:
                    gate.feed(data)
                except ProtocolError as error:
                    failed.append(error)

        env = inside.environment(run, places)
        held = sandbox.held if sandbox.demote else None
        if held:
            env = {
                held + key if key.startswith("LD_") or key == "GLIBC_TUNABLES" else key: value
                for key, value in env.items()
            }
        command_ = Command(
            argv=(*sandbox.demote, inside.python(run, places), "-B", "-c", neutral.boot()),
            cwd=posixpath.join(places.workspace, run.cwd),
            env=env,
            stdin=asked.program(places.workspace),
            timeout=run.limits.run,
        )
        try:
            await sandbox.exec(command_, sink)
        except CommandTimeout:
            pass  # what was said until then stands
        if failed:
            raise failed[0]
        return gate.seen()
