"""The environment of a run: set up in a sandbox with network, kept, and used again.

Knows nothing of tests and frames.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import replace
from time import monotonic
from typing import Literal

from pytest_sandbox import inside, plan
from pytest_sandbox.consumer import Consumer, Phase
from pytest_sandbox.errors import CommandTimeout, SetupFailed
from pytest_sandbox.provider import Command, Provider, Sandbox, Stream
from pytest_sandbox.store import Prepared
from pytest_sandbox.wire import printable


async def prepared(
    run: plan.Run, provider: Provider, consumer: Consumer, host: inside.Host
) -> Prepared:
    """The snapshot of a base with its environment: from the store, or made now."""
    key = run.environment.key
    known = host.store.get(key)
    if known is not None:
        if known.provider == provider.name and await provider.has_snapshot(known.snapshot):
            host.store.touch(key)
            return known
        host.store.remove(key)
    spec = replace(inside.spec(run), network=True, snapshotable=True, ttl=run.limits.setup + 300)
    async with inside.opened(spec, provider, host, consumer.phase) as sandbox:
        consumer.phase(Phase("upload"))
        await inside.upload_agent(sandbox)
        await inside.upload(sandbox, run, run.workspace.archive(run.base, history=run.history))
        await set_up(run, sandbox, consumer)
        snapshot = await sandbox.snapshot()
    made = Prepared.new(
        key=key,
        provider=provider.name,
        snapshot=snapshot,
        size=await provider.snapshot_size(snapshot) or 0,
        tree=_address(run),
        reason=run.environment.setup.reason,
        repository=run.name,
    )
    names = (
        entry.path.decode("utf-8", "surrogateescape") for entry in run.workspace.files(run.base)
    )
    host.store.put(made, names)
    for victim in host.store.victims():
        if victim.provider == provider.name and victim.key != key:
            await provider.delete_snapshot(victim.snapshot)
            host.store.remove(victim.key)
    return made


async def place(run: plan.Run, known: Prepared, sandbox: Sandbox, host: inside.Host) -> None:
    """Put the candidate where the snapshot has a base: only what differs, where it is the run's."""
    workspace = run.workspace
    if known.tree != _address(run):
        # Another base with the same environment: its files go, what set-up made stays.
        old = [name.encode("utf-8", "surrogateescape") for name in host.store.paths(known.key)]
        git = f"{inside.Places.of(sandbox).workspace}/.git"
        await sandbox.exec(Command(argv=(*sandbox.demote, "/bin/rm", "-rf", git)))
        archive = workspace.archive(run.base, history=run.history, replacing=old)
        await inside.upload(sandbox, run, archive)
    if run.candidate.id != run.base.id:
        await inside.upload(sandbox, run, workspace.delta_archive(run.base, run.candidate))


def _address(run: plan.Run) -> str:
    """What a prepared workspace holds: the files, and the history shipped with them."""
    return f"{run.base.id} {run.base.commit} {run.history}"


async def set_up(run: plan.Run, sandbox: Sandbox, consumer: Consumer) -> None:
    environment = run.environment
    if environment.venv is not None or not environment.setup.commands:
        return
    places = inside.Places.of(sandbox)
    make = shlex.join([str(environment.interpreter.path), "-m", "venv", places.env])
    for command in (make, *environment.setup.commands):
        consumer.phase(Phase("set-up", command, announce=True))
        await shell(command, "set-up", run, sandbox, consumer, secret=True)


#: Older pips trust only the certificates they bring, which lack those of a company's proxy.
_TRUST = (
    "for file in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt; do "
    '[ -r "$file" ] && export PIP_CERT="${PIP_CERT:-$file}" '
    'SSL_CERT_FILE="${SSL_CERT_FILE:-$file}"; done\n'
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
    tail = bytearray()

    async def sink(_: Stream, data: bytes) -> None:
        tail.extend(data)
        del tail[:-16384]
        last = bytes(tail[-512:]).splitlines()
        if last:
            consumer.phase(Phase(what, printable(last[-1].decode(errors="replace"), line=True)))

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
        shown = _hide(bytes(tail).decode(errors="replace"), run.environment.secrets.values())
        raise SetupFailed(
            f"{run.name}: {what} command {command!r} {how} after {monotonic() - started:.0f} s. "
            f"The end of its output:\n{printable(shown)}"
        )


def _hide(text: str, values: Iterable[str]) -> str:
    for value in values:
        if value:
            text = text.replace(value, "***")
    return text
