"""``--sandbox-reap``, ``--sandbox-cache``, ``--sandbox-doctor``: all that runs no tests."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence

import anyio
import pytest

from pytest_sandbox import assemble, doctor, fallback, registry
from pytest_sandbox.errors import BadInput, ProviderUnavailable, SandboxError
from pytest_sandbox.inside import Host
from pytest_sandbox.options import PROVIDERS, seconds
from pytest_sandbox.provider import Provider
from pytest_sandbox.reaper import Say, reap_orphans
from pytest_sandbox.wire import printable


def main(config: pytest.Config) -> int:
    """Do what was asked and return the exit status."""
    option = config.option
    found = config.hook.pytest_sandbox_providers()
    others = {name: make for names in found for name, make in names.items()}
    named = option.sandbox or option.sandbox_provider or os.environ.get("PYTEST_SANDBOX_PROVIDER")
    try:
        names = fallback.names(named) if named else ()
        age = _age(option.sandbox_reap_age)
    except BadInput as error:
        sys.stderr.write(f"ERROR: {error}\n")
        return int(pytest.ExitCode.USAGE_ERROR)

    def say(text: str) -> None:
        print(text)

    async def work() -> int:
        host = assemble.host()
        status = 0
        if option.sandbox_doctor:
            chosen = names or (*PROVIDERS, *others)
            fine = await doctor.examine(chosen, others, say)
            # All that there are need not work; those somebody asked for have to.
            status = 0 if fine or not names else ProviderUnavailable.exit_status
        if option.sandbox_reap:
            status = max(status, await reap_orphans(host, others, say))
            status = max(status, await _sweep(names, others, age, say))
        if option.sandbox_cache == "list":
            _list(host, say)
            status = max(status, await _each(names, others, _list_there, say))
        elif option.sandbox_cache == "clear":
            status = max(status, await _clear(host, others, say))
            status = max(status, await _each(names, others, _clear_there, say))
        return status

    try:
        return anyio.run(work)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; what was found or ended so far is above\n")
        return int(pytest.ExitCode.INTERRUPTED)


def _age(text: str) -> float:
    try:
        return seconds(text)
    except ValueError as error:
        raise BadInput(f"--sandbox-reap-age: {text!r} is not {error}") from None


async def _sweep(names: Sequence[str], others: registry.Factories, age: float, say: Say) -> int:
    """End what is ours in the accounts of these providers, whichever machine it is from."""

    async def sweep(provider: Provider, say: Say) -> None:
        ended: set[str] = set()
        # Twice: lists may lag behind what there is.
        for _ in range(2):
            ended |= set(await provider.sweep(older_than=age))
        for sandbox in sorted(ended):
            say(f"ended {printable(sandbox, line=True)} ({provider.name})")
        if not ended:
            say(f"{provider.name}: nothing of ours is older than {age / 60:.0f} min")

    return await _each(names, others, sweep, say)


async def _list_there(provider: Provider, say: Say) -> None:
    for name in await provider.snapshots():
        say(f"{provider.name}  {printable(name, line=True)}")


async def _clear_there(provider: Provider, say: Say) -> None:
    for name in await provider.snapshots():
        await provider.delete_snapshot(name)
        say(f"removed {printable(name, line=True)} ({provider.name})")


async def _each(
    names: Sequence[str],
    others: registry.Factories,
    act: Callable[[Provider, Say], Awaitable[None]],
    say: Say,
) -> int:
    status = 0
    for name in names:
        try:
            async with registry.factory(name, others)() as provider:
                await act(provider, say)
        except (SandboxError, OSError) as error:
            status = 1
            say(f"{name}: {printable(str(error), line=True)}")
    return status


def _list(host: Host, say: Say) -> None:
    entries = host.store.entries()
    for entry in entries:
        age = (time.time() - entry.created) / 86400
        say(f"{entry.key[:12]}  {entry.provider}  {entry.size / 2**20:7.0f} MiB  {age:4.1f} days  "
            f"{printable(entry.repository, line=True)}")  # fmt: skip
    say(f"{len(entries)} prepared environments, "
        f"{sum(entry.size for entry in entries) / 2**20:.0f} MiB")  # fmt: skip


async def _clear(host: Host, others: registry.Factories, say: Say) -> int:
    status = 0
    for entry in host.store.entries():
        try:
            async with registry.factory(entry.provider, others)() as provider:
                await provider.delete_snapshot(entry.snapshot)
        except (SandboxError, OSError) as error:
            status = 1
            say(printable(str(error)))
            continue
        host.store.remove(entry.key)
        say(f"removed {entry.key[:12]} ({entry.provider})")
    return status
