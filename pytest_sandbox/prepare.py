"""The environment of a run: set up in a sandbox with network, kept, and used again.

Knows nothing of tests and frames.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from time import monotonic
from typing import Literal

from pytest_sandbox import adoption, inside, plan
from pytest_sandbox.consumer import Consumer, Phase
from pytest_sandbox.errors import CommandTimeout, InfraError, SetupFailed
from pytest_sandbox.patience import patiently
from pytest_sandbox.provider import Command, Provider, Sandbox, Stream
from pytest_sandbox.secrecy import SCAN, Secrets
from pytest_sandbox.store import Prepared
from pytest_sandbox.wire import printable


@asynccontextmanager
async def ready(
    run: plan.Run,
    provider: Provider,
    consumer: Consumer,
    host: inside.Host,
    keep: Callable[[BaseException | None], bool] = inside.never,
) -> AsyncIterator[Sandbox]:
    """A sandbox for the block, with the agent, the environment, and the candidate in its place.

    Args:
        keep: as for ``inside.opened``.

    Raises:
        SandboxError: as ``inside.opened`` and set-up.
    """
    spec = inside.spec(run)
    known = await prepared(run, provider, consumer, host)
    if known is not None:
        spec = replace(spec, snapshot=known.snapshot)
    opening = (provider, host, consumer.phase, consumer.used, keep)
    async with inside.opened(spec, *opening) as sandbox:
        consumer.phase(Phase("upload"))
        await inside.upload_agent(sandbox, run)
        if known is None:
            archives = await adoption.base(run, sandbox)
            if run.environment.setup.commands:
                await inside.upload(sandbox, run, *archives)
                await set_up(run, sandbox, consumer)
                archives = []
        else:
            archives = await _another_base(run, known, sandbox, host)
        if run.candidate.id != run.base.id:
            archives.append(partial(run.workspace.delta_archive, run.base, run.candidate))
        if archives:
            await inside.upload(sandbox, run, *archives)
        if known is not None:
            await adoption.link(run, sandbox)
        yield sandbox


async def prepared(
    run: plan.Run, provider: Provider, consumer: Consumer, host: inside.Host
) -> Prepared | None:
    """The snapshot of a base with its environment: from the store, or made now.

    None where nothing has to be set up, or the provider keeps no snapshots.
    """
    if not provider.capabilities.snapshot or not run.environment.setup.commands:
        return None
    key = run.environment.key
    known = await _known(key, provider, host)
    if known is not None:
        host.store.touch(key)
        return known
    host.store.remove(key)
    found = await patiently(lambda: provider.find_snapshot(_name(run)))
    if found is not None:
        # Made on another machine, from the very same.
        return await _record(run, found, provider, host)
    # Every command may take as long as the limit, and the environment is made before them.
    most = run.limits.setup * (len(run.environment.setup.commands) + 1) + 600
    spec = replace(inside.spec(run), network=True, snapshotable=True, ttl=most)

    def keep(error: BaseException | None) -> bool:
        return run.keep != "never" and isinstance(error, SetupFailed)

    opening = (provider, host, consumer.phase, consumer.used, keep)
    async with inside.opened(spec, *opening) as sandbox:
        consumer.phase(Phase("upload"))
        await inside.upload_agent(sandbox, run)
        if archives := await adoption.base(run, sandbox):
            await inside.upload(sandbox, run, *archives)
        await set_up(run, sandbox, consumer, kept_only=True)
        snapshot = await sandbox.snapshot(_name(run))
    known = await _known(key, provider, host)
    if known is not None:
        # Another session was faster. Its snapshot may be in use; nobody uses ours yet.
        with suppress(InfraError):  # one too many does no harm
            await provider.delete_snapshot(snapshot)
        return known
    made = await _record(run, snapshot, provider, host)
    for victim in host.store.victims():
        if victim.provider == provider.name and victim.key != key:
            with suppress(InfraError):  # it stays a victim
                await provider.delete_snapshot(victim.snapshot)
                host.store.remove(victim.key)
    return made


def _name(run: plan.Run) -> str:
    """What a snapshot is called where snapshots have names: by all that is in it."""
    content = f"{run.environment.key} {_address(run)}".encode()
    return f"pytest-sandbox-{hashlib.sha256(content).hexdigest()[:32]}"


async def _record(run: plan.Run, snapshot: str, provider: Provider, host: inside.Host) -> Prepared:
    size = await patiently(lambda: provider.snapshot_size(snapshot))
    made = Prepared.new(
        key=run.environment.key,
        provider=provider.name,
        snapshot=snapshot,
        size=size or 0,
        tree=_address(run),
        reason=run.environment.setup.reason,
        repository=run.name,
    )
    names = (
        entry.path.decode("utf-8", "surrogateescape") for entry in run.workspace.files(run.base)
    )
    host.store.put(made, names)
    return made


async def _known(key: str, provider: Provider, host: inside.Host) -> Prepared | None:
    known = host.store.get(key)
    if known is None or known.provider != provider.name:
        return None
    there = await patiently(lambda: provider.has_snapshot(known.snapshot))
    return known if there else None


async def _another_base(
    run: plan.Run, known: Prepared, sandbox: Sandbox, host: inside.Host
) -> list[inside.Archive]:
    """What makes the base of ``run`` of the one in a snapshot; nothing, where it is the same.

    The other's files go, and what set-up made stays.
    """
    if known.tree == _address(run):
        return []
    old = [name.encode("utf-8", "surrogateescape") for name in host.store.paths(known)]
    git = f"{inside.Places.of(sandbox).workspace}/.git"
    await sandbox.exec(Command(argv=(*sandbox.demote, "/bin/rm", "-rf", git)))
    return [partial(run.workspace.archive, run.base, history=run.history, replacing=old)]


def _address(run: plan.Run) -> str:
    """What a prepared workspace holds: the files, and the history shipped with them."""
    return f"{run.base.id} {run.base.commit} {run.history}"


async def set_up(
    run: plan.Run, sandbox: Sandbox, consumer: Consumer, *, kept_only: bool = False
) -> None:
    """Run the set-up commands, and see to it that no secret stays.

    Args:
        kept_only: the sandbox ends with its snapshot, so only what that keeps matters.

    Raises:
        SetupFailed: a command failed, or a secret is in what it left.
    """
    environment = run.environment
    if environment.venv is not None or not environment.setup.commands:
        return
    secrets = Secrets(environment.secrets)
    places = inside.Places.of(sandbox)
    make = shlex.join([str(environment.interpreter.path), "-I", "-m", "venv", places.env])
    for command in (make, *environment.setup.commands):
        consumer.phase(Phase("set-up", secrets.hidden(command), announce=True))
        await shell(command, "set-up", run, sandbox, consumer, secret=True)
    if secrets:
        folders = [sandbox.root] if kept_only else [sandbox.root, "$HOME", "$TMPDIR"]
        await _search(run, sandbox, secrets, folders)


async def _search(run: plan.Run, sandbox: Sandbox, secrets: Secrets, folders: list[str]) -> None:
    """Raise unless no secret is below the folders."""
    output = bytearray()

    async def sink(_: Stream, data: bytes) -> None:
        output.extend(data[: max(0, 4096 - len(output))])

    python = str(run.environment.interpreter.path)
    # Values go in on standard input: a command line can be read by whatever still runs.
    search = Command(
        argv=(python, "-I", "-S", "-B", "-c", SCAN),
        stdin=secrets.orders(folders),
        timeout=run.limits.setup,
    )
    try:
        status = await sandbox.exec(search, sink)
    except CommandTimeout:
        status = 1
    if status == 0:
        return
    said = printable(secrets.hide(bytes(output)).decode(errors="replace")).strip()
    if status == 3:
        raise SetupFailed(
            f"{run.name}: set-up left the value of a --sandbox-setup-secret where the tests could "
            f"read it, so nothing of it is kept:\n{said}\nLet a set-up command remove it (the "
            "last --sandbox-setup), or write it to $HOME, which is not kept."
        )
    raise SetupFailed(
        f"{run.name}: whether set-up left the value of a --sandbox-setup-secret cannot be told "
        f"(exit status {status}), so nothing of it is kept: {said}"
    )


#: Bytes of a command's output that are shown when it fails.
_TAIL = 16_384
#: Older pips, and poetry, trust only the certificates they bring, without those of a proxy.
_TRUST = (
    "for file in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt; do "
    '[ -r "$file" ] && export PIP_CERT="${PIP_CERT:-$file}" '
    'SSL_CERT_FILE="${SSL_CERT_FILE:-$file}" '
    'REQUESTS_CA_BUNDLE="${REQUESTS_CA_BUNDLE:-$file}"; done\n'
)


async def shell(
    command: str,
    what: Literal["set-up", "build"],
    run: plan.Run,
    sandbox: Sandbox,
    consumer: Consumer,
    *,
    secret: bool,
) -> None:
    """Run a shell command of the user's in the workspace, as untrusted as the tests."""
    places = inside.Places.of(sandbox)
    secrets = Secrets(run.environment.secrets)
    tail = bytearray()
    seen = 0

    async def sink(_: Stream, data: bytes) -> None:
        nonlocal seen
        seen += len(data)
        tail.extend(data)
        del tail[: -(_TAIL + secrets.longest)]
        shown = _last_line(bytes(tail), secrets, cut=seen > len(tail))
        if shown:
            consumer.phase(Phase(what, printable(shown.decode(errors="replace"), line=True)))

    env = inside.environment(run, places)
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
        end = _hidden(bytes(tail), secrets, cut=seen > len(tail))
        shown = printable(end.decode(errors="replace"))
        raise SetupFailed(
            f"{run.name}: {what} command {secrets.hidden(command)!r} {how} after "
            f"{monotonic() - started:.0f} s. The end of its output:\n{shown}"
        )


def _hidden(tail: bytes, secrets: Secrets, *, cut: bool) -> bytes:
    """Output without secrets. Of one that the cut went through, the rest is at the beginning."""
    return secrets.hide(tail)[secrets.longest if cut else 0 :]


def _last_line(tail: bytes, secrets: Secrets, *, cut: bool) -> bytes:
    """The last line that can be shown."""
    if secrets:
        # A line that is not ended may hold the first half of one.
        end = max(tail.rfind(b"\n"), tail.rfind(b"\r"))
        tail = tail[: max(0, end)]
    lines = _hidden(tail, secrets, cut=cut).splitlines()
    return lines[-1][-512:] if lines else b""
