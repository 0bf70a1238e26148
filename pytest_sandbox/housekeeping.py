"""``--sandbox-reap`` and ``--sandbox-cache``: what earlier sessions left on this machine."""

from __future__ import annotations

import time

import anyio
import pytest

from pytest_sandbox import assemble, registry
from pytest_sandbox.errors import BadInput
from pytest_sandbox.inside import Host
from pytest_sandbox.provider import Provider
from pytest_sandbox.reaper import Say, reap_orphans
from pytest_sandbox.wire import printable


def main(config: pytest.Config, *, reap: bool, cache: str | None) -> int:
    """Do what was asked and return the exit status."""
    found = config.hook.pytest_sandbox_providers()
    others = {name: make for names in found for name, make in names.items()}

    def say(text: str) -> None:
        print(text)

    async def work() -> int:
        host = assemble.host()
        status = 0
        if reap:
            status = await reap_orphans(host, others, say)
        if cache == "list":
            _list(host, say)
        elif cache == "clear":
            status = max(status, await _clear(host, others, say))
        return status

    return anyio.run(work)


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
    opened: dict[str, Provider] = {}
    for entry in host.store.entries():
        try:
            if entry.provider not in opened:
                opened[entry.provider] = registry.factory(entry.provider, others)()
            await opened[entry.provider].delete_snapshot(entry.snapshot)
        except BadInput as error:
            status = 1
            say(printable(str(error)))
            continue
        host.store.remove(entry.key)
        say(f"removed {entry.key[:12]} ({entry.provider})")
    return status
