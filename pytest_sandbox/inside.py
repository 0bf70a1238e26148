"""One sandbox as a run sees it: opened and closed, where things are, how the agent is called.

Knows nothing of set-up, frames and results.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic, time
from typing import TYPE_CHECKING

import anyio

from pytest_sandbox import editable, patience, plan, shipment
from pytest_sandbox.consumer import Phase, Usage
from pytest_sandbox.errors import (
    BadInput,
    CreateFailed,
    InfraError,
    NothingDone,
    ProviderUnavailable,
    SandboxLost,
)
from pytest_sandbox.provider import Command, Provider, Sandbox, SandboxSpec, Stream
from pytest_sandbox.store import PreparedStore
from pytest_sandbox.threads import in_thread
from pytest_sandbox.wire import printable

if TYPE_CHECKING:
    from pytest_sandbox.ledger import Ledger

#: Seconds a sandbox may take to end; after that it is left to the reaper.
CLOSE_PATIENCE = 30.0


@dataclass(frozen=True, slots=True)
class Host:
    """What runs on this machine share: where live and prepared sandboxes are recorded."""

    ledger: Ledger
    store: PreparedStore
    #: Keys a target's ini may hold for us; its own pytest must not stumble over them.
    ini_keys: tuple[str, ...] = ()
    #: The folder of how long tests took; None where that is not kept.
    durations: Path | None = None
    #: The folder of what runs of bases said; None where that is not kept.
    baselines: Path | None = None


@dataclass(frozen=True, slots=True)
class Places:
    """Where things are in one sandbox."""

    workspace: str
    env: str
    control: str

    @classmethod
    def of(cls, sandbox: Sandbox) -> Places:
        return cls(f"{sandbox.root}/repo", f"{sandbox.root}/env", sandbox.control)


def new_name() -> str:
    """A name for a sandbox that no other has."""
    return f"pytest-sandbox-{secrets.token_hex(8)}"


def marks() -> dict[str, str]:
    """Labels that tell this process's sandboxes from others in the same account."""
    return {
        "host": socket.gethostname()[:60],
        "pid": str(os.getpid()),
        "created": str(int(time())),
    }


def spec(run: plan.Run) -> SandboxSpec:
    limits = run.limits
    return SandboxSpec(
        name=new_name(),
        ttl=plan.lifetime(run.limits),
        network=run.network,
        memory=limits.memory,
        cpus=limits.cpus,
        disk=limits.disk,
        processes=limits.processes,
        image=run.image,
        region=run.region,
        price=run.price,
        expose=tuple(_exposed(run)),
        labels=marks(),
    )


def _exposed(run: plan.Run) -> Iterator[Path]:
    if run.environment.interpreter.prefix is not None:
        yield run.environment.interpreter.prefix
    if run.environment.venv is not None:
        yield run.environment.venv.path


#: Makes a tar.gz, in parts.
Archive = Callable[[], Iterable[bytes]]


def never(error: BaseException | None) -> bool:
    """No sandbox is kept."""
    return False


@asynccontextmanager
async def opened(
    spec: SandboxSpec,
    provider: Provider,
    host: Host,
    on_phase: Callable[[Phase], None] = lambda phase: None,
    on_usage: Callable[[Usage], None] = lambda usage: None,
    keep: Callable[[BaseException | None], bool] = never,
) -> AsyncIterator[Sandbox]:
    """A sandbox for the block, in the ledger for as long as it may exist.

    Args:
        keep: whether it shall be left running, after a block that ended with this error or None.

    Raises:
        CreateFailed: none could be made.
        ProviderUnavailable, BadInput: none can be made.
    """
    on_phase(Phase("create"))
    async with provider.gate.place():
        entry = host.ledger.open(spec.name, provider=provider.name, expires=spec.ttl)
        started = monotonic()
        try:
            sandbox = await _create(spec, provider)
        except (NothingDone, BadInput) as error:
            entry.close()
            if isinstance(error, NothingDone):
                raise CreateFailed(str(error)) from error
            raise
        except ProviderUnavailable:
            # A key may expire between the order and its answer.
            if await _ended(lambda: provider.reap(spec.name, None)) is None:
                entry.close()
            raise
        except BaseException as error:
            # Unknown whether there is one. If it cannot be ended now, the next start will try.
            ended = await _ended(lambda: provider.reap(spec.name, None)) is None
            if isinstance(error, InfraError):
                # Nor is it known afterwards: lists lag. The next start looks once more.
                raise CreateFailed(str(error)) from error
            if ended:
                entry.close()
            raise
        kept = False
        try:
            entry.created(sandbox.id)
            async with _kept_alive(sandbox, provider.capabilities.heartbeat):
                try:
                    yield sandbox
                except Exception as error:
                    kept = keep(error)
                    raise
                kept = keep(None)
        finally:
            on_phase(Phase("close"))
            on_usage(_usage(spec, provider, sandbox, monotonic() - started))
            if kept and await _ended(sandbox.keep) is None:
                entry.keep()
                on_phase(Phase("close", _how_to_attach(spec, sandbox), announce=True))
            else:
                problem = await _ended(sandbox.close)
                if problem is None:
                    entry.close()
                else:
                    # The results stand whatever becomes of the sandbox: told, not raised.
                    text = (
                        f"{spec.name} may still be there ({problem}); "
                        "`pytest --sandbox-reap` ends it"
                    )
                    on_phase(Phase("close", text, announce=True))


def _usage(spec: SandboxSpec, provider: Provider, sandbox: Sandbox, seconds: float) -> Usage:
    rate, prices = sandbox.rate, provider.capabilities.prices
    if spec.price is not None:
        rate, prices = spec.price / 3600, "--sandbox-price"
    cost = None if rate is None else rate * seconds
    return Usage(provider.name, sandbox.id, seconds, cost, prices)


def _how_to_attach(spec: SandboxSpec, sandbox: Sandbox) -> str:
    how = f"get in with: {sandbox.attach}" if sandbox.attach else f"its id is {sandbox.id}"
    return (
        f"{spec.name} is kept, for at most {spec.ttl / 60:.0f} min; {how}; "
        "`pytest --sandbox-reap` ends it"
    )


@asynccontextmanager
async def _kept_alive(sandbox: Sandbox, every: float | None) -> AsyncIterator[None]:
    """Renew the sandbox's lifetime from time to time, for the block."""
    if every is None:
        yield
        return

    async def beat() -> None:
        while True:
            await anyio.sleep(every)
            try:
                await sandbox.keep_alive()
            except InfraError:
                continue  # a lost sandbox is noticed by whoever uses it

    # Not a task group: that would make groups of the block's own errors.
    beating = asyncio.ensure_future(beat())
    try:
        yield
    finally:
        beating.cancel()
        with anyio.CancelScope(shield=True):
            await asyncio.wait([beating])


@asynccontextmanager
async def provided(
    make: Callable[[], Provider], on_phase: Callable[[Phase], None]
) -> AsyncIterator[Provider]:
    """A provider for the block; one that does not come to its end keeps nobody waiting."""
    provider = make()
    await provider.__aenter__()
    try:
        yield provider
    finally:
        problem = await _ended(lambda: provider.__aexit__(None, None, None))
        if problem is not None:
            on_phase(Phase("close", f"provider {provider.name}: {problem}", announce=True))


async def _ended(end: Callable[[], Awaitable[None]]) -> str | None:
    """Carry out ``end``, also when cancelled; what is wrong if it does not work."""
    with anyio.move_on_after(CLOSE_PATIENCE, shield=True):
        try:
            await end()
        except Exception as error:  # noqa: BLE001 - results stand, whatever this raises
            return printable(f"{type(error).__name__}: {error}", line=True)
        return None
    return f"it did not end within {CLOSE_PATIENCE:g} s"


async def _create(spec: SandboxSpec, provider: Provider) -> Sandbox:
    """Create, trying again what provably did nothing."""
    pause = 0.5
    for _ in range(5):
        await provider.gate.turn()
        try:
            return await provider.create(spec)
        except (NothingDone, SandboxLost) as error:  # lost before it was ready: none is left
            await anyio.sleep(patience.wait(error, pause))
            pause *= 2
    await provider.gate.turn()
    return await provider.create(spec)


async def write(
    run: plan.Run, sandbox: Sandbox, path: str, data: bytes | Callable[[], AsyncIterator[bytes]]
) -> None:
    """Write a file of ours; as it may be written twice, a broken connection is tried again.

    Raises:
        InfraError: it cannot be written.
    """
    for attempt in range(4):
        try:
            return await sandbox.write_file(path, data() if callable(data) else data)
        except SandboxLost:
            raise
        except InfraError:
            if attempt == 3:
                raise
        except OSError as error:
            raise InfraError(
                f"{run.name}: {path} cannot be written in the sandbox: {_words(error)}"
            ) from error
        await anyio.sleep(0.2 * 4**attempt)


def _words(error: OSError) -> str:
    return printable(error.strerror or str(error), line=True)


async def upload_agent(sandbox: Sandbox, run: plan.Run) -> None:
    """Put the agent where the tests cannot see it."""
    # Twice the bytes: not over a network, for a Python that is likely to be another.
    here = run.environment.interpreter.prefix is not None
    await sandbox.write_file(f"{sandbox.control}/agent.pyz", shipment.agent(compiled=here))


async def upload(sandbox: Sandbox, run: plan.Run, *archives: Archive) -> None:
    """Unpack archives of ours into the workspace, in order.

    One is made again where the connection broke.
    """
    places = Places.of(sandbox)
    paths = [f"{places.control}/tree-{number}.tar.gz" for number in range(len(archives))]
    for path, archive in zip(paths, archives, strict=True):
        await write(run, sandbox, path, partial(_threaded, archive))
    owner = "-" if sandbox.owner is None else str(sandbox.owner)
    await agent(sandbox, run, "unpack", places.workspace, owner, *paths)


async def _threaded(archive: Archive) -> AsyncIterator[bytes]:
    iterator = iter(archive())
    while (chunk := await in_thread(next, iterator, None)) is not None:
        yield chunk


def agent_argv(run: plan.Run, places: Places, *args: str) -> tuple[str, ...]:
    # Not the environment's Python: tests may write there, and this runs outside their reach.
    python = str(run.environment.interpreter.path)
    return (python, "-I", "-S", "-B", f"{places.control}/agent.pyz", *args)


async def agent(sandbox: Sandbox, run: plan.Run, *args: str) -> None:
    """Run a subcommand of the agent that has to succeed."""
    output = bytearray()

    async def sink(_: Stream, data: bytes) -> None:
        output.extend(data[: max(0, 4096 - len(output))])

    argv = agent_argv(run, Places.of(sandbox), *args)
    status = await sandbox.exec(Command(argv=argv, timeout=600), sink)
    if status != 0:
        raise InfraError(
            f"{run.name}: 'agent {args[0]}' ended with {status} in the sandbox. "
            f"{quote(bytes(output))}"
        )


def python(run: plan.Run, places: Places) -> str:
    venv = run.environment.venv
    if venv is not None:
        return str(venv.python)
    if run.environment.setup.commands:
        return f"{places.env}/bin/python"
    return str(run.environment.interpreter.path)


def environment(run: plan.Run, places: Places) -> dict[str, str]:
    """The whole environment of tests and commands. Nothing of the host's."""
    folder = str(run.environment.venv.path) if run.environment.venv else places.env
    rest = "/usr/local/bin:/usr/bin:/bin"
    variables = {"PATH": f"{folder}/bin:{rest}", "VIRTUAL_ENV": folder}
    if run.workdir is not None and not run.environment.setup.commands:
        # What the image was built with.
        variables = {"PATH": f"{run.environment.interpreter.path.parent}:{rest}"}
    variables |= run.env
    root = run.workspace.root
    if run.environment.venv is not None and root is not None:
        # The environment's editable install points at the host's checkout.
        found = editable.inside(run.environment.venv.editable, root, places.workspace)
        given = [variables["PYTHONPATH"]] if "PYTHONPATH" in variables else []
        if found:
            variables["PYTHONPATH"] = ":".join([*given, *found])
    return variables


def quote(output: bytes) -> str:
    text = printable(output.decode(errors="replace")).strip()
    return f"It said:\n{text}" if text else "It said nothing."
