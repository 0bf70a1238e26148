"""What a run of the base says: which tests there are, and what becomes of each.

Made once per base, and kept in this user's cache. Knows no pytest and no verdict.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic
from typing import Any, Final

from pytest_sandbox import __version__, inside, plan, wire
from pytest_sandbox.consumer import Phase, Selection, Usage
from pytest_sandbox.errors import ProtocolError
from pytest_sandbox.kept import Kept
from pytest_sandbox.protection import named, with_tests
from pytest_sandbox.provider import Provider
from pytest_sandbox.results import Outcome, Recorder, RunResult, apart, last_words, not_run
from pytest_sandbox.split import execute
from pytest_sandbox.threads import in_thread
from pytest_sandbox.workspace import Tree

#: Part of every key.
_FORMAT: Final = 2
#: Ends that would be the same the next time.
_LASTING: Final = ("finished", "usage", "exit")
#: Files that are, or may be, what is tested.
_CODE: Final = frozenset({".py", ".pyi", ".pyx", ".pxd", ".pyw", ".so", ".pyd"})
#: Collectors that a sentence names.
_NAMED: Final = 3

#: Which of what was collected is to run, by number.
Choose = Callable[[Sequence[wire.Collected]], Collection[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """What the base says of its tests. As trusted as the base is, and no more."""

    #: What was collected, numbered through.
    tree: tuple[wire.Collected, ...] = field(default=(), repr=False)
    #: What became of those that ran, by node id; a repeated id has "(2)" behind it.
    outcomes: Mapping[str, Outcome] = field(default_factory=dict, repr=False)
    #: How many subtests of each were skipped or expected to fail, where any were.
    subtests: Mapping[str, int] = field(default_factory=dict, repr=False)
    #: Collectors that failed, with what went wrong.
    errors: Mapping[str, str] = field(default_factory=dict, repr=False)
    #: (cause, node id or phase) of processes that ended before their session did.
    deaths: tuple[tuple[str, str], ...] = ()
    #: What the compiled witness saw of each, where there was one.
    witness: Mapping[str, str] = field(default_factory=dict, repr=False)
    #: Those whose call was reached.
    called: frozenset[str] = field(default=frozenset(), repr=False)
    #: What node ids are relative to: a folder of the repository.
    rootdir: str = ""
    #: Why its run ended, as ``wire.End.reason`` says; "" where there was none to its end.
    end: str = ""
    #: Why the base cannot tell everything, in a line; "" where it can.
    trouble: str = ""
    #: Seconds that it took to make.
    seconds: float = 0.0
    #: It was made in an earlier session.
    cached: bool = False

    def nodeids(self) -> list[str]:
        """The ids that were collected, in order, each once."""
        return apart(item.nodeid for frame in self.tree for item in frame.items)

    def files(self) -> frozenset[str]:
        """The files of the repository that its tests are in.

        Of Python's, those that pytest itself takes for test modules: docstrings are part of what is
        tested, and so are modules of which a linter makes items.
        """
        nodes = [node for frame in self.tree for node in frame.nodes]
        found = set()
        for item in (item for frame in self.tree for item in frame.items):
            path = item.nodeid.partition("::")[0]
            kinds = _kinds(item, nodes)
            text = posixpath.splitext(path)[1] not in _CODE and "DoctestModule" not in kinds
            if text or "Module" in kinds:
                found.add(posixpath.normpath(posixpath.join(self.rootdir, path)))
        return frozenset(found)

    def told(self) -> str:
        """One line for people."""
        text = f"{len(self.nodeids())} tests at the base"
        text += ", known from an earlier run" if self.cached else f", {self.seconds:.1f} s"
        if self.trouble:
            text += f"; expected ids partly from the candidate's own collection: {self.trouble}"
        return text


def _kinds(item: wire.Item, nodes: Sequence[wire.Node]) -> Iterator[str]:
    """The types of the collectors above a test."""
    number = item.parent
    while number >= 0:
        yield nodes[number].type
        number = nodes[number].parent


async def informed(run: plan.Run, base: Baseline) -> tuple[plan.Run, str]:
    """``run`` as it is once it is known which files hold the tests of its base.

    Returns:
        And a line that says what runs as at the base because of that; "" for nothing.
    """
    before = run.protection
    if before is None:
        return run, ""
    protection = await in_thread(with_tests, run.workspace, before, base.files())
    if protection is before:
        return run, ""
    more = sorted(set(protection.restored) - set(before.restored))
    note = f"tests of the base are in {named(more)}: as at the base, too" if more else ""
    note += " (--sandbox-unprotect lets a file through)" if more else ""
    return replace(run, candidate=protection.tree, protection=protection), note


def everything(tree: Sequence[wire.Collected]) -> Collection[int]:
    """All tests of ``tree``."""
    return range(sum(len(frame.items) for frame in tree))


async def obtain(
    run: plan.Run,
    provider: Provider,
    host: inside.Host,
    *,
    tree: Tree | None = None,
    choose: Choose = everything,
    on_phase: Callable[[Phase], None] = lambda phase: None,
    on_usage: Callable[[Usage], None] = lambda usage: None,
) -> Baseline:
    """What the base of ``run`` says, from the cache or from a run of its own.

    Args:
        tree: what is as trusted as the base, such as the base with a task's tests.
        choose: which of its tests have to be known; all of them are collected in any case.

    Raises:
        SandboxError: as ``split.execute``.
    """
    base = of(run, tree or run.base)
    if base is None:
        return Baseline()
    store = Kept(host.baselines, Baseline)
    name = key(base, provider.name)
    known = store.get(name)
    if known is not None:
        ids = known.nodeids()
        if all(ids[number] in known.outcomes for number in choose(known.tree)):
            return replace(known, cached=True)
    text = "the base's own tests run first, once, to know which there are and what they do"
    on_phase(Phase("create", text, announce=True))
    recorder = _Recorder(on_phase, on_usage, choose)
    started = monotonic()
    try:
        await execute(base, provider, recorder, host)
    except ProtocolError as error:
        return Baseline(trouble=f"the base's own run broke the protocol: {error}")
    result = recorder.result(base.name)
    found = _made(result, recorder.tree, monotonic() - started)
    if known is not None:
        found = replace(
            found,
            outcomes={**known.outcomes, **found.outcomes},
            subtests={**known.subtests, **found.subtests},
            deaths=tuple(dict.fromkeys((*known.deaths, *found.deaths))),
            witness={**known.witness, **found.witness},
            called=known.called | found.called,
        )
    if result.end.reason in _LASTING:
        store.put(name, found)
    return found


def of(run: plan.Run, tree: Tree) -> plan.Run | None:
    """The run of the base that answers for ``run``; None where it has nothing that was named."""
    args = _arguments(run, tree)
    if args is None:
        return None
    protection = run.protection
    if protection is not None:
        # Started in the same way, so that what a test can do is the same.
        protection = replace(
            protection, tree=tree, scored=tree, kept=(), restored=(), dropped=(),
            flagged=(), own_tests=(), fresh=(),
        )  # fmt: skip
    return replace(
        run, name=f"the base of {run.name}", candidate=tree, protection=protection, args=args,
        artifacts=(), keep="never", live=False,
    )  # fmt: skip


def _arguments(run: plan.Run, base: Tree) -> tuple[str, ...] | None:
    """Those of ``run`` without the files that only the candidate has."""
    if all(arg.startswith("-") for arg in run.args):
        return run.args
    there, added = _places(run, base), _places(run, run.candidate)
    kept = []
    named = left_out = False
    for arg in run.args:
        path = posixpath.normpath(posixpath.join(run.cwd, arg.partition("::")[0]))
        if not arg.startswith("-") and path in added and path not in there:
            left_out = True
            continue
        named |= not arg.startswith("-") and path in there
        kept.append(arg)
    return None if left_out and not named else tuple(kept)


def _places(run: plan.Run, tree: Tree) -> frozenset[str]:
    """The files and folders of a tree."""
    found = {"."}
    for entry in run.workspace.files(tree):
        path = entry.path.decode("utf-8", "surrogateescape")
        while path and path not in found:
            found.add(path)
            path = path.rpartition("/")[0]
    return frozenset(found)


def key(base: plan.Run, provider: str) -> str:
    """All that the result of a run of the base depends on, and no secret."""
    content = [_FORMAT, provider, *decisive(base)]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def decisive(run: plan.Run) -> list[Any]:
    """All that what a run says depends on, but for its provider; plain data, no secret."""
    environment, limits = run.environment, run.limits
    venv = environment.venv
    return [
        __version__, run.base.id, run.candidate.id, environment.key,
        environment.interpreter.identity, [] if venv is None else _state(venv.path),
        run.protection is not None, list(run.args), run.cwd, list(run.build),
        sorted(run.env.items()), run.network, run.history, run.image, run.region, run.workdir,
        limits.run, limits.test, limits.memory, limits.cpus, limits.disk, limits.processes,
        [hashlib.sha256(data).hexdigest() for _, data in sorted(run.witness.items())],
    ]  # fmt: skip


def _state(venv: Path) -> list[str]:
    """What tells that packages of an environment were changed."""
    folders = [venv, *sorted(venv.glob("lib/python*/site-packages"))]
    return [f"{folder} {folder.stat().st_mtime_ns}" for folder in folders if folder.is_dir()]


class _Recorder(Recorder):
    """Runs what has to be known, also where not everything could be collected."""

    def __init__(
        self,
        on_phase: Callable[[Phase], None],
        on_usage: Callable[[Usage], None],
        choose: Choose,
    ) -> None:
        super().__init__(on_phase)
        self._on_usage = on_usage
        self._wanted = choose
        self.tree: list[wire.Collected] = []

    def phase(self, phase: Phase) -> None:
        # "run" is for the tests that were asked for.
        super().phase(Phase("collect", "the base's own tests") if phase.name == "run" else phase)

    def used(self, usage: Usage) -> None:
        super().used(usage)
        self._on_usage(usage)

    def take(self, frame: wire.Frame) -> None:
        super().take(frame)
        if isinstance(frame, wire.Collected):
            self.tree.append(frame)

    async def select(self) -> Selection:
        self.choose(sorted(self._wanted(self.tree)))
        return Selection(self._chosen)


def _made(result: RunResult, tree: Sequence[wire.Collected], seconds: float) -> Baseline:
    ids = apart([item.nodeid for frame in tree for item in frame.items])
    reports = {nodeid: test for nodeid, test in result.tests.items() if test.reports}
    deaths: list[tuple[str, str]] = [
        (d.cause, d.phase if d.item is None else ids[d.item]) for d in result.deaths
    ]
    if result.end.reason == "exit" and result.end.exitstatus == 0:
        deaths.append(("end", ""))
    return Baseline(
        tree=tuple(tree),
        outcomes={nodeid: test.outcome for nodeid, test in reports.items()},
        subtests={
            nodeid: number for nodeid, test in reports.items() if (number := not_run(test.reports))
        },
        errors=result.collection_errors,
        witness=result.witness,
        called=frozenset(
            nodeid
            for nodeid, test in reports.items()
            if any(r.when == "call" for r in test.reports)
        ),
        deaths=tuple(dict.fromkeys(deaths)),
        rootdir=result.hello.rootdir if result.hello else "",
        end=result.end.reason,
        trouble=_trouble(result),
        seconds=round(seconds, 3),
    )


def _trouble(result: RunResult) -> str:
    if result.end.reason != "finished":
        said = last_words(result.end) or "it said nothing"
        return f"the base's own run ended early ({result.end.reason}: {said})"
    errors = list(result.collection_errors)
    if not errors:
        return ""
    more = f" and {len(errors) - _NAMED} more" if len(errors) > _NAMED else ""
    return f"at the base, {', '.join(errors[:_NAMED])}{more} cannot be collected"
