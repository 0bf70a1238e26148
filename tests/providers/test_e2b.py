"""The E2B adapter over the emulator: what it asks for, finds, and says."""

from __future__ import annotations

import _thread
import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_sandbox.errors import (
    BadInput,
    NothingDone,
    ProviderUnavailable,
    SandboxError,
    SandboxLost,
    Unsupported,
)
from pytest_sandbox.provider import Command, SandboxSpec
from pytest_sandbox.providers.e2b import E2BProvider, account
from tests.emulators.running import Running
from tests.providers.e2b_emulated import Run, clean, remaining, runner, spec, started

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    yield from started()


@pytest.fixture
def emulator(running: Running) -> Iterator[Running]:
    yield from clean(running)


@pytest.fixture
def run(emulator: Running) -> Run:
    return runner(emulator)


def test_what_is_asked_of_e2b(run: Run, emulator: Running) -> None:
    async def body(provider: E2BProvider) -> None:
        wanted = spec(labels={"run": "7", "odd &=": "ü %"}, image="python-4g")
        sandbox = await provider.create(wanted)
        [box] = emulator.live()
        assert box["id"] == sandbox.id
        assert box["alias"] == "python-4g"
        assert not box["internet"]
        assert box["metadata"] == {
            "run": "7",
            "odd &=": "ü %",
            "pytest-sandbox": "1",
            "pytest_sandbox_name": wanted.name,
        }
        # Shorter than what is wanted: who lives on renews it.
        assert 250 < remaining(box) <= 300
        assert sandbox.rate == pytest.approx(4 * 0.000014 + 4 * 0.0000045)
        assert sandbox.attach == f"e2b sandbox connect {sandbox.id}"
        assert "create" in emulator.calls()
        emulator.fault("timeout", "status", args={"status": 503})
        await sandbox.keep_alive()
        await sandbox.keep()
        [box] = emulator.live()
        assert 800 < remaining(box) <= 900
        await sandbox.close()
        open_one = await provider.create(spec(network=True))
        assert emulator.live()[0]["internet"]
        await open_one.close()

    run(body)


def test_limits_of_the_account_are_named(run: Run, emulator: Running) -> None:
    async def body(provider: E2BProvider) -> None:
        first = await provider.create(spec())
        emulator.act("limits", concurrency=1)
        with pytest.raises(NothingDone, match=r"as many sandboxes as it may.*20 on the Hobby"):
            await provider.create(spec())
        await first.close()
        emulator.act("limits", longest=60)
        with pytest.raises(BadInput, match="Timeout cannot be greater than 1 hours"):
            await provider.create(spec())

    run(body)


def test_what_e2b_does_not_have(run: Run, emulator: Running) -> None:
    async def body(provider: E2BProvider) -> None:
        with pytest.raises(BadInput, match=r"'nope'.*--sandbox-image=nope"):
            await provider.create(spec(image="nope"))
        for wish in ({"region": "eu"}, {"memory": 1 << 30}, {"expose": (ROOT,)}):
            with pytest.raises(Unsupported):
                await provider.create(spec(**wish))
        emulator.act("limits", deaf=True)
        with pytest.raises(Unsupported, match="left its network on"):
            await provider.create(spec())

    run(body)


def test_life_ends_unless_it_is_renewed(run: Run, emulator: Running) -> None:
    async def body(provider: E2BProvider) -> None:
        sandbox = await provider.create(spec(ttl=60.0))
        sandbox.lease = 1.0  # type: ignore[attr-defined]
        await sandbox.keep_alive()
        await asyncio.sleep(0.5)
        await sandbox.keep_alive()
        await asyncio.sleep(0.7)
        assert len(emulator.live()) == 1
        with pytest.raises(SandboxLost):
            await sandbox.exec(Command(argv=("sleep", "30")))
        assert emulator.live() == []
        with pytest.raises(SandboxLost):
            await sandbox.keep_alive()
        await sandbox.close()

    run(body)


def test_reaping_and_sweeping_find_ours_on_all_pages(run: Run, emulator: Running) -> None:
    async def body(provider: E2BProvider) -> None:
        emulator.act("limits", page=2)
        emulator.fault("list", "lag", when="during", args={"seconds": 0.4})
        name = spec().name
        mine = [await provider.create(SandboxSpec(name=name, ttl=60.0)) for _ in range(3)]
        others = [await provider.create(spec()) for _ in range(3)]
        foreign = provider._sandboxes()
        stranger = await foreign.create(metadata={"pytest_sandbox_name": name})
        await provider.reap(name, None)
        left = {box["id"] for box in emulator.live()}
        assert left == {stranger.sandbox_id, *(sandbox.id for sandbox in others)}
        await provider.reap("whatever", others[0].id)
        assert await provider.sweep(older_than=60) == ()
        assert len(await provider.sweep(older_than=0)) == 2
        assert [box["id"] for box in emulator.live()] == [stranger.sandbox_id]
        for sandbox in (*mine, *others):
            await sandbox.close()
        await stranger.kill()

    run(body)


def test_snapshots_are_found_by_name(run: Run, emulator: Running) -> None:
    async def body(provider: E2BProvider) -> None:
        emulator.act("limits", page=1)
        made = {}
        for name in ("prepared-Abc_1", "prepared-2"):
            sandbox = await provider.create(spec(snapshotable=True))
            await sandbox.write_file("/sandbox/name", name.encode())
            emulator.fault("snapshot", "reset", when="after")
            made[name] = await sandbox.snapshot(name)
            await sandbox.close()
        for name, snapshot in made.items():
            assert await provider.find_snapshot(name) == snapshot
            assert await provider.has_snapshot(snapshot)
            again = await provider.create(spec(snapshot=snapshot))
            assert await again.read_file("/sandbox/name", limit=99) == name.encode()
            await again.close()
            await provider.delete_snapshot(snapshot)
            assert await provider.find_snapshot(name) is None
        assert not await provider.has_snapshot("nothing:default")

    run(body)


def test_checking_says_what_is_wrong(
    run: Run, emulator: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("E2B_API_KEY", raising=False)
    url = emulator.env["E2B_API_URL"]

    async def complaint(provider: E2BProvider, match: str) -> None:
        with pytest.raises(ProviderUnavailable, match=match):
            await provider.check()

    async def body(provider: E2BProvider) -> None:
        await provider.check()
        findings = await provider.doctor()
        assert [finding.ok for finding in findings] == [True, True, True, None]
        assert emulator.env["E2B_API_KEY"] not in repr(findings)
        keyless = E2BProvider(api_url=url)
        assert [finding.ok for finding in await keyless.doctor()] == [True, False, None]
        await complaint(keyless, "export E2B_API_KEY")
        await complaint(E2BProvider(api_key="e2b_wrong", api_url=url), "refuses the API key")
        closed = "http://127.0.0.1:9"
        await complaint(E2BProvider(api_key="e2b_x", api_url=closed), "does not answer at")
        emulator.fault("list", "delay", args={"seconds": 20})
        start = time.monotonic()
        await complaint(E2BProvider(api_key=emulator.env["E2B_API_KEY"], api_url=url), "within 5 s")
        assert time.monotonic() - start < 12

    run(body)


PROGRAM = """
import asyncio, os, signal, sys, threading, time
handler = signal.getsignal(signal.SIGINT)
from pytest_sandbox.provider import Command, SandboxSpec
from pytest_sandbox.providers.e2b import E2BProvider
provider = E2BProvider()
provider.capabilities
assert not {"e2b", "httpx", "connectrpc"} & sys.modules.keys()

async def main():
    async with provider:
        sandbox = await provider.create(SandboxSpec(name="program", ttl=60))
        try:
            async with asyncio.timeout(1):
                await sandbox.exec(Command(argv=("sleep", "30")))
        except TimeoutError:
            pass
        await sandbox.write_file("/sandbox/f", b"x" * 3000000)
        print(len(await sandbox.read_file("/sandbox/f", limit=3000000)))
        await sandbox.close()

asyncio.run(main())
assert signal.getsignal(signal.SIGINT) is handler
until = time.monotonic() + 5
while threading.active_count() > 1 and time.monotonic() < until:
    time.sleep(0.01)
assert threading.enumerate() == [threading.main_thread()]
"""


def test_a_program_that_takes_every_warning_for_an_error(emulator: Running, tmp_path: Path) -> None:
    # Neither a file in the folder it runs in nor a proxy for others leads it anywhere else.
    (tmp_path / ".env").write_text("E2B_API_URL=http://127.0.0.1:9\nE2B_DEBUG=true\n")
    proxy = {"HTTP_PROXY": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1", "E2B_DEBUG": "true"}
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM],
        cwd=tmp_path,
        env={**os.environ, **emulator.env, **proxy, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (result.stdout, result.stderr) == ("3000000\n", "")
    assert result.returncode == 0


def test_a_native_thread_inside_python_is_waited_for() -> None:
    # Otherwise about one process in seventy was aborted (-6) after its work, on two busy cores.
    import pyqwest

    assert pyqwest
    began, go, left = _thread.allocate_lock(), _thread.allocate_lock(), list[str]()
    began.acquire()
    go.acquire()

    def report() -> None:
        began.release()
        go.acquire()
        time.sleep(0.01)
        left.append("done")

    _thread.start_new_thread(report, ())
    began.acquire()
    threading.Timer(0.2, go.release).start()
    account.settle()
    assert left == ["done"]
    # But not for ever.
    _thread.start_new_thread(report, ())
    began.acquire()
    account.settle()
    assert left == ["done"]
    go.release()


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "e2b", None)

    async def main() -> None:
        for call in (lambda: E2BProvider().check(), lambda: E2BProvider().create(spec())):
            with pytest.raises(SandboxError, match=r"pip install 'pytest-sandbox\[e2b\]'"):
                await call()
        [finding] = await E2BProvider(api_key="x").doctor()
        assert finding.ok is False

    monkeypatch.setenv("E2B_API_KEY", "x")
    asyncio.run(main())
