"""What the parts of the conformance class share: fixtures, a sink, small programs.

Knows only ``provider.py``.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest

from pytest_sandbox.provider import Command, Provider, Sandbox, SandboxSpec, Stream

MIB = 1 << 20

#: Appends a byte to the file argv[1] 20 times a second, having left its parents and session.
DAEMON = """
import os, sys, time
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
for fd in range(3): os.close(fd)
while True:
    with open(sys.argv[1], "a") as file: file.write(".")
    time.sleep(0.05)
"""
#: The same in the foreground, with a daemon of its own beside it.
FAMILY = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", sys.argv[2], sys.argv[1] + ".daemon"])
subprocess.Popen(["sleep", "1000"])
while True:
    with open(sys.argv[1], "a") as file: file.write(".")
    time.sleep(0.05)
"""


@dataclass
class Output:
    """A sink that keeps what it gets; ``delay`` seconds of rest after each piece."""

    stdout: bytearray = field(default_factory=bytearray)
    stderr: bytearray = field(default_factory=bytearray)
    delay: float = 0.0

    async def __call__(self, stream: Stream, data: bytes, /) -> None:
        (self.stdout if stream == "stdout" else self.stderr).extend(data)
        if self.delay:
            await anyio.sleep(self.delay)


Body = Callable[[Sandbox], Awaitable[None]]
Within = Callable[..., None]


def noise(size: int) -> bytes:
    """Bytes without a pattern, every value among them."""
    block = b"".join(hashlib.sha512(b"%d" % n).digest() for n in range(16384))
    return (bytes(range(256)) + block * (size // len(block) + 1))[:size]


class ConformancePart:
    """Fixtures and settings; subclasses hold the tests."""

    #: The interpreter, inside.
    python: str = "python3"
    #: Fields of every ``SandboxSpec`` made here.
    ttl: float = 120.0
    #: Seconds for one test.
    patience: float = 100.0

    @pytest.fixture
    def provider_factory(self) -> Callable[[], Provider]:
        """A function that makes the provider under test."""
        raise NotImplementedError("override the fixture provider_factory")

    def spec(self, provider: Provider, **wishes: Any) -> SandboxSpec:
        wishes.setdefault("network", not provider.capabilities.network_off)
        wishes.setdefault("ttl", self.ttl)
        return SandboxSpec(name=f"conformance-{uuid.uuid4().hex[:12]}", **wishes)

    @pytest.fixture
    def with_provider(
        self, provider_factory: Callable[[], Provider]
    ) -> Callable[[Callable[[Provider], Awaitable[None]]], None]:
        def run(body: Callable[[Provider], Awaitable[None]]) -> None:
            async def main() -> None:
                async with provider_factory() as provider:
                    with anyio.fail_after(self.patience):
                        await body(provider)

            anyio.run(main)

        return run

    @pytest.fixture
    def within(
        self, with_provider: Callable[[Callable[[Provider], Awaitable[None]]], None]
    ) -> Within:
        """Runs ``body`` in a sandbox made with the given wishes."""

        def run(body: Body, **wishes: Any) -> None:
            async def main(provider: Provider) -> None:
                sandbox = await provider.create(self.spec(provider, **wishes))
                try:
                    await body(sandbox)
                finally:
                    await sandbox.close()

            with_provider(main)

        return run

    def script(self, source: str, *arguments: str, **more: Any) -> Command:
        return Command(argv=(self.python, "-c", source, *arguments), **more)

    async def lines(self, sandbox: Sandbox, command: Command) -> list[str]:
        output = Output()
        status = await sandbox.exec(command, output)
        assert status == 0, bytes(output.stderr)
        return output.stdout.decode().splitlines()

    async def still_grows(self, sandbox: Sandbox, path: str) -> bool:
        sizes = []
        for _ in range(2):
            sizes.append(len(await sandbox.read_file(path, limit=MIB)))
            await anyio.sleep(0.3)
        return sizes[0] != sizes[1]

    async def appears(self, sandbox: Sandbox, *paths: str) -> None:
        for path in paths:
            with anyio.fail_after(20):
                while True:
                    try:
                        if await sandbox.read_file(path, limit=MIB):
                            break
                    except FileNotFoundError:
                        pass
                    await anyio.sleep(0.05)
