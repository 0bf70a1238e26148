"""One run, from sandbox to last frame: create, prepare, upload, execute, follow, close.

There is one way to run, ``execute``; modes differ in how they make a ``Run`` and in what
their ``Consumer`` does. Knows no pytest objects, no verdict rules and no particular provider.
"""

from __future__ import annotations

import json
import secrets
import shlex
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Literal, Protocol

import anyio
import anyio.to_thread

from pytest_sandbox import plan, wire
from pytest_sandbox.account import Account
from pytest_sandbox.errors import (
    CommandTimeout,
    InfraError,
    NothingDone,
    NotTheWorkspace,
    SandboxLost,
    SetupFailed,
)
from pytest_sandbox.provider import Command, Provider, Sandbox, SandboxSpec, Stream
from pytest_sandbox.store import Prepared, PreparedStore
from pytest_sandbox.wire import printable

if TYPE_CHECKING:
    from pytest_sandbox.ledger import Ledger

PhaseName = Literal["create", "set-up", "upload", "build", "collect", "run", "artifacts", "close"]


@dataclass(frozen=True, slots=True)
class Phase:
    """The run has come to ``name``; ``detail`` is the command, or the last line it wrote."""

    name: PhaseName
    detail: str = ""
    #: ``detail`` is a command that is about to run.
    announce: bool = False


@dataclass(frozen=True, slots=True)
class Selection:
    """Which collected items run, by number and in order; ``maxfail`` 0 for no limit."""

    items: Sequence[int]
    maxfail: int = 0


class Consumer(Protocol):
    """What a mode does with a run. Called in the event loop; slow is allowed, and slows the run."""

    def phase(self, phase: Phase) -> None: ...

    async def frame(self, frame: wire.Frame) -> None: ...

    async def select(self) -> Selection:
        """Called once, when collection is over."""
        ...


@dataclass(frozen=True, slots=True)
class Host:
    """What runs on this machine share: where live and prepared sandboxes are recorded."""

    ledger: Ledger
    store: PreparedStore
    #: Keys a target's ini may hold for us; its own pytest must not stumble over them.
    ini_keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Places:
    """Where things are in one sandbox."""

    workspace: str
    env: str
    control: str

    @classmethod
    def of(cls, sandbox: Sandbox) -> Places:
        return cls(f"{sandbox.root}/repo", f"{sandbox.root}/env", sandbox.control)


# ---------------------------------------------------------------- the run


async def execute(
    run: plan.Run, provider: Provider, consumer: Consumer, host: Host
) -> bytes | None:
    """Carry out ``run`` and hand every frame to ``consumer``; the last is always an ``End``.

    Returns:
        A tar of the artifacts asked for, or None.

    Raises:
        SandboxError: as the tree in ``errors`` says. Frames handed over before stay true.
    """
    plan.check(run, provider.name, provider.capabilities)
    if provider.capabilities.snapshot and run.environment.setup.commands:
        snapshot = await _prepared(run, provider, consumer, host)
        spec = replace(_spec(run), snapshot=snapshot)
        async with opened(spec, provider, host, consumer.phase) as sandbox:
            consumer.phase(Phase("upload"))
            await _upload(sandbox, run, run.workspace.delta_archive(run.base, run.candidate))
            return await _tests(run, sandbox, consumer, host)
    async with opened(_spec(run), provider, host, consumer.phase) as sandbox:
        consumer.phase(Phase("upload"))
        await _upload(sandbox, run, run.workspace.archive(run.base, history=run.history))
        await _set_up(run, sandbox, consumer)
        await _upload(sandbox, run, run.workspace.delta_archive(run.base, run.candidate))
        return await _tests(run, sandbox, consumer, host)


async def _tests(run: plan.Run, sandbox: Sandbox, consumer: Consumer, host: Host) -> bytes | None:
    places = Places.of(sandbox)
    for command in run.build:
        consumer.phase(Phase("build", command, announce=True))
        await _shell(command, "build", run, sandbox, consumer, secret=False)
    consumer.phase(Phase("collect"))
    orders = json.dumps(_agent_plan(run, sandbox, host))
    await sandbox.write_file(f"{places.control}/plan.json", orders.encode())
    await _agent(sandbox, run, "run", places.control)
    # The supervisor keeps the deadline; ours is for a supervisor that cannot.
    deadline = run.limits.run + run.limits.collect + run.limits.select + 60
    with anyio.move_on_after(deadline) as scope:
        await _follow(run, sandbox, consumer)
    if scope.cancelled_caught:
        raise SandboxLost(f"{run.name}: the sandbox did not end its run within {deadline:.0f} s")
    if not run.artifacts:
        return None
    consumer.phase(Phase("artifacts"))
    limit = str(run.limits.artifacts)
    await _agent(sandbox, run, "collect", places.control, "--limit", limit, *run.artifacts)
    return await sandbox.read_file(
        f"{places.control}/artifacts.tar", limit=run.limits.artifacts + 16 * plan.MiB
    )


async def _follow(run: plan.Run, sandbox: Sandbox, consumer: Consumer) -> None:
    decoder = wire.Decoder()
    account = Account()
    places = Places.of(sandbox)
    errors = bytearray()

    async def sink(stream: Stream, data: bytes) -> None:
        if stream == "stderr":
            errors.extend(data[: max(0, 4096 - len(errors))])
            return
        for frame in decoder.feed(data):
            account.check(frame)
            if isinstance(frame, wire.Imports):
                _check_imports(run, frame, places.workspace)
            await consumer.frame(frame)
            if isinstance(frame, wire.Ready):
                chosen = await consumer.select()
                account.choose(chosen.items)
                orders = {"items": list(chosen.items), "maxfail": chosen.maxfail}
                consumer.phase(Phase("run"))
                await sandbox.write_file(
                    f"{places.control}/select.json", json.dumps(orders).encode() + b"\n"
                )

    fruitless = 0
    while not decoder.ended:
        before = decoder.offset
        argv = _agent_argv(run, places, "follow", places.control, str(before))
        try:
            status = await sandbox.exec(Command(argv=argv), sink)
        except SandboxLost:
            raise
        except InfraError:
            status = None  # the stream broke, the run goes on: follow again from the offset
        decoder.lost()
        if decoder.ended:
            return
        if status == 3:
            raise SandboxLost(
                f"{run.name}: the supervisor in the sandbox is gone. {_quote(bytes(errors))}"
            )
        fruitless = 0 if decoder.offset > before else fruitless + 1
        if fruitless == 5:
            raise SandboxLost(
                f"{run.name}: no more can be read from the sandbox "
                f"(exit status {status}). {_quote(bytes(errors))}"
            )
        await anyio.sleep(0.05 * 4**fruitless)


def _check_imports(run: plan.Run, frame: wire.Imports, workspace: str) -> None:
    """The patched code is what gets tested, or there is no result at all."""
    for package, paths in frame.paths.items():
        if paths and not any(path.startswith(workspace + "/") for path in paths):
            raise NotTheWorkspace(
                f"{run.name}: the tests import {package!r} from {paths[0]}, not from the patched "
                f"tree in {workspace}, so their results would say nothing about it. Install the "
                "project in editable mode: --sandbox-setup 'pip install -e .'"
            )


def _agent_plan(run: plan.Run, sandbox: Sandbox, host: Host) -> dict[str, object]:
    places = Places.of(sandbox)
    return {
        "protocol": wire.PROTOCOL,
        "args": list(run.args),
        "cwd": _join(places.workspace, run.cwd),
        "workspace": places.workspace,
        "python": [_python(run, places)],
        "demote": list(sandbox.demote),
        "env": _env(run, places),
        "ini_keys": list(host.ini_keys),
        "block": ["pytest_sandbox"],
        "packages": list(run.environment.setup.packages),
        "run_timeout": run.limits.run,
        "collect_timeout": run.limits.collect,
        "select_timeout": run.limits.select,
        "test_timeout": run.limits.test,
        "output_limit": run.limits.output,
        "frame_limit": wire.MAX_TOTAL // 2,
        "text_limit": 200_000,
        "restarts": 10,
        "oom_notice": sandbox.oom_notice,
        "live": run.live,
        "columns": run.columns,
        "heartbeat": 5.0,
    }


# ---------------------------------------------------------------- set-up


async def _prepared(run: plan.Run, provider: Provider, consumer: Consumer, host: Host) -> str:
    """The snapshot of the base with its environment: from the store, or made now."""
    key = run.environment.key
    known = host.store.get(key)
    if known is not None:
        if known.provider == provider.name and await provider.has_snapshot(known.snapshot):
            host.store.touch(key)
            return known.snapshot
        host.store.remove(key)
    spec = replace(_spec(run), network=True, snapshotable=True, ttl=run.limits.setup + 300)
    async with opened(spec, provider, host, consumer.phase) as sandbox:
        consumer.phase(Phase("upload"))
        await _upload(sandbox, run, run.workspace.archive(run.base, history=run.history))
        await _set_up(run, sandbox, consumer)
        snapshot = await sandbox.snapshot()
    size = await provider.snapshot_size(snapshot)
    host.store.put(
        Prepared.new(key=key, provider=provider.name, snapshot=snapshot, size=size or 0,
                     reason=run.environment.setup.reason, repository=run.name)
    )  # fmt: skip
    for victim in host.store.victims():
        if victim.provider == provider.name and victim.key != key:
            await provider.delete_snapshot(victim.snapshot)
            host.store.remove(victim.key)
    return snapshot


async def _set_up(run: plan.Run, sandbox: Sandbox, consumer: Consumer) -> None:
    environment = run.environment
    if environment.venv is not None or not environment.setup.commands:
        return
    places = Places.of(sandbox)
    make = shlex.join([str(environment.interpreter.path), "-m", "venv", places.env])
    for command in (make, *environment.setup.commands):
        consumer.phase(Phase("set-up", command, announce=True))
        await _shell(command, "set-up", run, sandbox, consumer, secret=True)


#: Older pips trust only the certificates they bring, which lack those of a company's proxy.
_TRUST = (
    "for file in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt; do "
    '[ -r "$file" ] && export PIP_CERT="${PIP_CERT:-$file}" '
    'SSL_CERT_FILE="${SSL_CERT_FILE:-$file}"; done\n'
)


async def _shell(
    command: str,
    what: Literal["set-up", "build"],
    run: plan.Run,
    sandbox: Sandbox,
    consumer: Consumer,
    *,
    secret: bool,
) -> None:
    """Run a shell command of the user's in the workspace, as untrusted as the tests."""
    places = Places.of(sandbox)
    tail = bytearray()

    async def sink(_: Stream, data: bytes) -> None:
        tail.extend(data)
        del tail[:-16384]
        last = bytes(tail[-512:]).splitlines()
        if last:
            consumer.phase(Phase(what, printable(last[-1].decode(errors="replace"), line=True)))

    env = _env(run, places)
    if secret:
        env |= run.environment.secrets
    started = monotonic()
    try:
        status = await sandbox.exec(
            Command(
                argv=(*sandbox.demote, "/bin/sh", "-c", _TRUST + command),
                cwd=places.workspace,
                env=env,
                timeout=run.limits.setup,
            ),
            sink,
        )
    except CommandTimeout:
        status = None
    if status != 0:
        how = "took too long and was stopped" if status is None else f"ended with {status}"
        shown = _hide(bytes(tail).decode(errors="replace"), run.environment.secrets.values())
        raise SetupFailed(
            f"{run.name}: {what} command {command!r} {how} after {monotonic() - started:.0f} s. "
            f"The end of its output:\n{printable(shown)}"
        )


# ---------------------------------------------------------------- one sandbox


def new_name() -> str:
    """A name for a sandbox that no other has."""
    return f"pytest-sandbox-{secrets.token_hex(8)}"


def _spec(run: plan.Run) -> SandboxSpec:
    limits = run.limits
    return SandboxSpec(
        name=new_name(),
        ttl=limits.run + limits.collect + limits.select + 600,
        network=run.network,
        memory=limits.memory,
        cpus=limits.cpus,
        disk=limits.disk,
        processes=limits.processes,
        file_size=limits.file_size,
        expose=tuple(_exposed(run)),
        labels=run.labels,
    )


def _exposed(run: plan.Run) -> Iterator[Path]:
    yield run.environment.interpreter.prefix
    if run.environment.venv is not None:
        yield run.environment.venv.path


@asynccontextmanager
async def opened(
    spec: SandboxSpec,
    provider: Provider,
    host: Host,
    on_phase: Callable[[Phase], None] = lambda phase: None,
) -> AsyncIterator[Sandbox]:
    """A sandbox for the block, in the ledger for as long as it may exist."""
    on_phase(Phase("create"))
    entry = host.ledger.open(spec.name, provider=provider.name, expires=spec.ttl)
    sandbox = None
    try:
        sandbox = await _create(spec, provider)
        entry.created(sandbox.id)
        yield sandbox
    finally:
        with anyio.CancelScope(shield=True):
            if sandbox is not None:
                on_phase(Phase("close"))
                await sandbox.close()
            entry.close()


async def _create(spec: SandboxSpec, provider: Provider) -> Sandbox:
    """Create, trying again what provably did nothing."""
    wait = 0.5
    for _ in range(4):
        try:
            return await provider.create(spec)
        except NothingDone as error:
            await anyio.sleep(error.retry_after if error.retry_after is not None else wait)
            wait *= 2
    return await provider.create(spec)


async def _upload(sandbox: Sandbox, run: plan.Run, archive: Iterable[bytes]) -> None:
    places = Places.of(sandbox)
    agent = files("pytest_sandbox").joinpath("agent.py").read_bytes()
    await sandbox.write_file(f"{places.control}/agent.py", agent)
    path = f"{places.control}/tree.tar.gz"
    await sandbox.write_file(path, _threaded(archive))
    await _agent(sandbox, run, "unpack", path, places.workspace)


async def _threaded(chunks: Iterable[bytes]) -> AsyncIterator[bytes]:
    iterator = iter(chunks)
    while (chunk := await anyio.to_thread.run_sync(next, iterator, None)) is not None:
        yield chunk


def _agent_argv(run: plan.Run, places: Places, *args: str) -> tuple[str, ...]:
    # Not the environment's Python: tests may write there, and this runs outside their reach.
    python = str(run.environment.interpreter.path)
    return (python, "-I", "-S", "-B", f"{places.control}/agent.py", *args)


async def _agent(sandbox: Sandbox, run: plan.Run, *args: str) -> None:
    """Run a subcommand of the agent that has to succeed."""
    output = bytearray()

    async def sink(_: Stream, data: bytes) -> None:
        output.extend(data[: max(0, 4096 - len(output))])

    argv = _agent_argv(run, Places.of(sandbox), *args)
    status = await sandbox.exec(Command(argv=argv, timeout=600), sink)
    if status != 0:
        raise InfraError(
            f"{run.name}: 'agent {args[0]}' ended with {status} in the sandbox. "
            f"{_quote(bytes(output))}"
        )


def _python(run: plan.Run, places: Places) -> str:
    venv = run.environment.venv
    if venv is not None:
        return str(venv.python)
    if run.environment.setup.commands:
        return f"{places.env}/bin/python"
    return str(run.environment.interpreter.path)


def _env(run: plan.Run, places: Places) -> dict[str, str]:
    """The whole environment of tests and commands. Nothing of the host's."""
    folder = str(run.environment.venv.path) if run.environment.venv else places.env
    env = {"PATH": f"{folder}/bin:/usr/local/bin:/usr/bin:/bin", "VIRTUAL_ENV": folder}
    if run.environment.venv is not None and run.environment.venv.editable:
        # The environment's editable install points at the host's checkout.
        env["PYTHONPATH"] = f"{places.workspace}/src:{places.workspace}"
    return env | dict(run.env)


def _join(root: str, relative: str) -> str:
    return f"{root}/{relative}" if relative else root


def _quote(output: bytes) -> str:
    text = printable(output.decode(errors="replace")).strip()
    return f"It said:\n{text}" if text else "It said nothing."


def _hide(text: str, values: Iterable[str]) -> str:
    for value in values:
        if value:
            text = text.replace(value, "***")
    return text
