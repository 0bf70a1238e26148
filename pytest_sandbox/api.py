"""The engine as typed Python, without a pytest session: ``run_tests`` and its async twin."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from pytest_sandbox import assemble, registry
from pytest_sandbox.consumer import Phase
from pytest_sandbox.errors import BadInput
from pytest_sandbox.provider import Provider
from pytest_sandbox.results import Recorder, RunResult
from pytest_sandbox.runner import execute
from pytest_sandbox.workspace import Workspace

__all__ = ["RunResult", "async_run_tests", "run_tests"]

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
        args: for pytest in the sandbox: files, node ids, options.
        provider: by name, or an instance that is open already.
        on_phase: called with each phase the run comes to, in the event loop.
        **options: any option by its name: ``timeout=60``, ``memory="2GiB"``, ``setup=[...]``,
            ``env={"A": "1"}``, ``python="3.12"``, ``venv=path``.

    Raises:
        SandboxError: see ``pytest_sandbox.errors``; bad input is refused before anything starts.
    """
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
    if isinstance(provider, str):
        async with registry.factory(provider, {})() as opened:
            await opened.check()
            return await async_run_tests(
                repo, patch=patch, base=base, args=args, provider=opened, on_phase=on_phase,
                **options,
            )  # fmt: skip
    resolve = assemble.resolver(lambda name: options.get(name), {}, {})
    unknown = sorted(set(options) - set(assemble.OPTION_NAMES))
    if unknown:
        raise BadInput(f"run_tests has no option {unknown[0]!r}")
    return await run_on(
        provider, Path(repo), load_patch(patch, Path.cwd()), base, args, resolve, on_phase,
        read_ini=True,
    )  # fmt: skip


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
        made = lambda keys: {**resolve(keys), "provider": provider.name}  # noqa: E731
        return assemble.make_run(
            workspace, made, patch=patch, base=base, read_ini=read_ini, args=args, environ=environ
        )[0]

    workspace = await anyio.to_thread.run_sync(lambda: Workspace.open(repo, exact=True))
    try:
        run = await anyio.to_thread.run_sync(prepare, workspace)
        recorder = Recorder(on_phase)
        artifacts = await execute(run, provider, recorder, assemble.host())
        return recorder.result(run.name, artifacts)
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(workspace.close)


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
