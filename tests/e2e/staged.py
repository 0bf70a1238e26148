"""A provider for sessions of their own that stays for ever at the stage named in STAGE.

It says so on standard error. Not collected: a plugin of those sessions.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterable, Callable, Mapping, Sequence
from typing import Any

import anyio

from pytest_sandbox import wire
from pytest_sandbox.provider import Command, Provider, SandboxSpec, Sink
from pytest_sandbox.testing import FakeProvider, FakeSandbox
from tests.plugin.support import FINISHED, collected, run_item

STAGE = os.environ.get("STAGE", "")


async def reach(stage: str) -> None:
    if stage == STAGE:
        sys.stderr.write(f"<at {stage}>\n")
        sys.stderr.flush()
        await anyio.sleep_forever()


class StagedSandbox(FakeSandbox):
    async def exec(self, command: Command, sink: Sink | None = None) -> int:
        actions = [arg for arg in command.argv if arg in ("unpack", "run", "follow", "collect")]
        if actions[:1] == ["unpack"]:
            await reach("upload")
        if actions[:1] == ["collect"]:
            await reach("artifacts")
            self.files["/control/artifacts.tar"] = bytes(10240)
        return await super().exec(command, sink)

    async def write_file(
        self, path: str, data: bytes | AsyncIterable[bytes], *, mode: int = 0o644
    ) -> None:
        if path.endswith("select.json"):
            await reach("select")
        await super().write_file(path, data, mode=mode)

    async def close(self) -> None:
        await reach("close")
        if STAGE == "slow close":
            sys.stderr.write("<at slow close>\n")
            sys.stderr.flush()
            await anyio.sleep(1)
        await super().close()


class StagedProvider(FakeProvider):
    name = "staged"

    async def __aenter__(self) -> Provider:
        await reach("enter")
        return self

    async def check(self) -> None:
        await reach("check")

    async def create(self, spec: SandboxSpec) -> FakeSandbox:
        await reach("create")
        sandbox = StagedSandbox(self, spec)
        self.sandboxes.append(sandbox)
        return sandbox

    async def command(self, command: Command, sink: Sink | None) -> int:
        await reach("set-up")
        return 0

    async def after_script(self, sandbox: FakeSandbox) -> int:
        await reach("collect")
        await reach("run")
        return 0

    async def reap(self, name: str, sandbox_id: str | None) -> None:
        sys.stderr.write(f"<reaped {name}>\n")


def act(chosen: Sequence[int]) -> list[wire.Frame]:
    frames = run_item(chosen[0])
    if STAGE != "run":
        frames += [*run_item(chosen[1]), FINISHED]
    return frames


def pytest_sandbox_providers() -> Mapping[str, Callable[[], Provider]]:
    frames = collected("test_one", "test_two")
    made: Any = StagedProvider(frames[:1] if STAGE == "collect" else frames, act)
    return {"staged": lambda: made}
