"""A provider in one file: an existing engine, with a log of every command that was run in it.

Use it with ``PYTEST_PLUGINS=provider_example pytest --sandbox=audited``. A provider for a service
of your own has the same shape: where this one asks ``self._engine`` or ``self._inner``, call
your SDK.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Mapping
from pathlib import Path

from pytest_sandbox.provider import Capabilities, Command, Provider, Sandbox, SandboxSpec, Sink
from pytest_sandbox.providers.local import LocalProvider


class AuditedProvider(Provider):
    name = "audited"

    def __init__(self, log: Path = Path("audit.log"), engine: Provider | None = None) -> None:
        self._engine = engine or LocalProvider()
        self._log = log

    @property
    def capabilities(self) -> Capabilities:
        return self._engine.capabilities

    async def check(self) -> None:
        await self._engine.check()

    async def create(self, spec: SandboxSpec) -> Sandbox:
        return AuditedSandbox(await self._engine.create(spec), self._log)

    async def delete_snapshot(self, snapshot: str) -> None:
        await self._engine.delete_snapshot(snapshot)

    async def has_snapshot(self, snapshot: str) -> bool:
        return await self._engine.has_snapshot(snapshot)

    async def snapshot_size(self, snapshot: str) -> int | None:
        return await self._engine.snapshot_size(snapshot)

    async def reap(self, name: str, sandbox_id: str | None) -> None:
        await self._engine.reap(name, sandbox_id)

    async def __aenter__(self) -> Provider:
        await self._engine.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._engine.__aexit__(*exc)


class AuditedSandbox(Sandbox):
    def __init__(self, inner: Sandbox, log: Path) -> None:
        self._inner, self._log = inner, log
        self.id, self.root, self.control = inner.id, inner.root, inner.control
        self.demote, self.held = inner.demote, inner.held
        self.oom_notice = inner.oom_notice

    async def exec(self, command: Command, sink: Sink | None = None) -> int:
        status = await self._inner.exec(command, sink)
        with self._log.open("a") as log:
            log.write(f"{self.id} {status} {command.argv!r}\n")
        return status

    async def write_file(
        self, path: str, data: bytes | AsyncIterable[bytes], *, mode: int = 0o644
    ) -> None:
        await self._inner.write_file(path, data, mode=mode)

    async def read_file(self, path: str, *, limit: int) -> bytes:
        return await self._inner.read_file(path, limit=limit)

    async def snapshot(self) -> str:
        return await self._inner.snapshot()

    async def close(self) -> None:
        await self._inner.close()


def pytest_sandbox_providers() -> Mapping[str, Callable[[], Provider]]:
    return {AuditedProvider.name: AuditedProvider}
