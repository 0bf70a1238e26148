"""The engine as typed Python, without a pytest session: ``run_tests`` and its async twin."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import anyio

from pytest_sandbox import (
    assemble,
    baseline,
    evidence,
    fallback,
    inside,
    integrity,
    plan,
    reaper,
    registry,
)
from pytest_sandbox.consumer import Phase
from pytest_sandbox.errors import BadInput, ProtocolError
from pytest_sandbox.patience import checked
from pytest_sandbox.provider import Provider
from pytest_sandbox.results import Recorder, RunResult
from pytest_sandbox.runner import boundary
from pytest_sandbox.split import execute
from pytest_sandbox.threads import in_thread
from pytest_sandbox.workspace import Workspace

__all__ = ["RunResult", "async_run_tests", "run_tests"]

#: What belongs to the command line only, or is an argument of its own.
_OPTIONS = frozenset(assemble.OPTION_NAMES) - {"provider", "repo", "base", "patch", "artifact_dir"}

OnPhase = Callable[[Phase], None]


def run_tests(
    repo: str | Path,
    *,
    patch: str | bytes | Path | None = None,
    base: str | None = None,
    args: Sequence[str] = (),
    provider: str | Provider = "local",
    on_phase: OnPhase = lambda phase: None,
    **options: Any,
) -> RunResult:
    """Run a repository's tests in a sandbox and return what became of them.

    Args:
        repo: the repository, or a plain folder.
        patch: a path, or the text of a diff (anything with a newline in it), applied to ``base``.
        base: the trusted revision; HEAD with a patch. Without one the working tree runs.
            With a patch or a base, the base's own tests run first, once, and are expected.
        args: for pytest in the sandbox: files, node ids, options.
        provider: by name, or several ("e2b,modal": the first that can make a sandbox), or an
            instance that is open already.
        on_phase: called with each phase the run comes to, in the event loop.
        **options: any option by its name: ``timeout=60``, ``memory="2GiB"``, ``setup=[...]``,
            ``env={"A": "1"}``, ``python="3.12"``, ``venv=path``.

    Raises:
        SandboxError: see ``pytest_sandbox.errors``; bad input is refused before anything starts.
        TypeError: ``args`` is one string.
        RuntimeError: an event loop is running in this thread already.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        raise RuntimeError("an event loop is running in this thread: await async_run_tests(...)")
    return anyio.run(
        lambda: async_run_tests(
            repo, patch=patch, base=base, args=args, provider=provider, on_phase=on_phase, **options
        )
    )


async def async_run_tests(
    repo: str | Path,
    *,
    patch: str | bytes | Path | None = None,
    base: str | None = None,
    args: Sequence[str] = (),
    provider: str | Provider = "local",
    on_phase: OnPhase = lambda phase: None,
    **options: Any,
) -> RunResult:
    """``run_tests`` in the caller's own event loop; cancelling it ends the sandbox."""
    args = listed(args)
    unknown = sorted(set(options) - _OPTIONS)
    if unknown:
        raise BadInput(f"run_tests has no option {unknown[0]!r}")
    resolve = assemble.resolver(lambda name: options.get(name), {}, {})
    resolve({})
    loaded = load_patch(patch, Path.cwd())
    if isinstance(provider, str):
        account = assemble.account(resolve({}))

        async def attempt(name: str) -> RunResult:
            make = registry.factory(name, {}, account)
            async with inside.provided(make, on_phase) as opened:
                await checked(opened)
                return await run_on(
                    opened, Path(repo), loaded, base, args, resolve, on_phase, read_ini=True
                )

        def tell(text: str) -> None:
            on_phase(Phase("create", text, announce=True))

        with boundary(str(repo)):
            await reaper.at_start(assemble.host(), {}, lambda text: None)
            return await fallback.first_able(fallback.names(provider), attempt, tell)
    return await run_on(provider, Path(repo), loaded, base, args, resolve, on_phase, read_ini=True)


async def run_on(
    provider: Provider,
    repo: Path,
    patch: tuple[str, bytes] | None,
    base: str | None,
    args: Sequence[str],
    resolve: assemble.Resolve,
    on_phase: OnPhase,
    *,
    read_ini: bool,
    environ: Mapping[str, str] = os.environ,
) -> RunResult:
    """One run on an open provider."""

    def prepare(workspace: Workspace) -> Any:
        return assemble.make_run(
            workspace,
            lambda keys: {**resolve(keys), "provider": provider.name},
            lambda name: provider.capabilities,
            patch=patch,
            base=base,
            read_ini=read_ini,
            args=args,
            environ=environ,
        )[0]

    workspace = None

    def open_it() -> None:
        nonlocal workspace
        # Without a patch, a base makes the checkout the candidate.
        untrusted = base is not None and patch is None
        workspace = Workspace.open(repo, untrusted=untrusted, exact=True)

    try:
        await in_thread(open_it)
        assert workspace is not None
        run = await in_thread(partial(prepare, workspace))
        return await _carried_out(run, provider, on_phase)
    finally:
        if workspace is not None:
            await in_thread(workspace.close)


async def _carried_out(run: plan.Run, provider: Provider, on_phase: OnPhase) -> RunResult:
    """The run; with a candidate, what the base says first."""
    host, recorder = assemble.host(), Recorder(on_phase)
    if run.protection is None:
        artifacts = await execute(run, provider, recorder, host)
        return recorder.result(run.name, artifacts)
    base = await baseline.obtain(run, provider, host, on_phase=on_phase, on_usage=recorder.used)
    run, note = await baseline.informed(run, base)
    assert run.protection is not None
    if note:
        on_phase(Phase("create", note, announce=True))
    try:
        artifacts = await execute(run, provider, recorder, host)
        result = recorder.result(run.name, artifacts)
    except ProtocolError as error:
        # A statement about the candidate, as much as a failing test.
        result = evidence.broken(recorder, run.name, error)
    result = evidence.settled(result, run.protection, base)
    found = await integrity.confirmed(run, result, base, provider, host, on_phase=on_phase)
    return integrity.with_confirmation(result, found)


def listed(args: Sequence[str]) -> tuple[str, ...]:
    """Arguments for pytest.

    Raises:
        TypeError: it is one string, whose letters would each be one.
    """
    if isinstance(args, (str, bytes)):
        raise TypeError("args is a list of arguments, not one string: no shell takes it apart")
    return tuple(args)


def load_patch(patch: str | bytes | Path | None, *folders: Path) -> tuple[str, bytes] | None:
    """A patch given as text or as a path relative to the first of ``folders`` that has it.

    Raises:
        BadInput: no folder has it.
    """
    if patch is None:
        return None
    if isinstance(patch, bytes):
        return "patch", patch
    if isinstance(patch, str) and ("\n" in patch or not patch):
        return "patch", patch.encode("utf-8", "surrogateescape")
    for folder in folders:
        if (folder / patch).is_file():
            return assemble.read_patch(str(patch), folder)
    looked = ", ".join(str(folder) for folder in dict.fromkeys(folders))
    raise BadInput(f"there is no patch {str(patch)!r}; looked in {looked}")
