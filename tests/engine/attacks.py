"""Attacks on the local engine, each a coroutine; run by ``test_attacks`` as a program.

``python attacks.py CASE CACHE`` needs only the package and its dependencies, so that it can be
run by a user who cannot read this checkout.
"""

from __future__ import annotations

import os
import socket
import sys
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio

from pytest_sandbox.errors import CommandTimeout, InfraError, SandboxLost
from pytest_sandbox.provider import Command, Sandbox, SandboxSpec, Stream
from pytest_sandbox.providers.local import LocalProvider

MIB = 1 << 20
PYTHON = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
CACHE = Path(sys.argv[2])


class Said:
    def __init__(self) -> None:
        self.text = bytearray()
        self.count = 0

    async def __call__(self, stream: Stream, data: bytes, /) -> None:
        self.count += len(data)
        self.text.extend(data[: MIB - len(self.text)])


@asynccontextmanager
async def sandbox(**wishes: Any) -> AsyncIterator[Sandbox]:
    async with LocalProvider(cache_dir=CACHE) as provider:
        name = f"attack-{uuid.uuid4().hex[:8]}"
        made = await provider.create(SandboxSpec(name=name, ttl=90.0, **wishes))
        try:
            yield made
        finally:
            await made.close()
    assert os.listdir(CACHE / "running") == []


async def inner(made: Sandbox, source: str, *arguments: str, **more: Any) -> tuple[int, str]:
    said = Said()
    argv = (*made.demote, PYTHON, "-c", source, *arguments)
    status = await made.exec(Command(argv=argv, **more), said)
    return status, said.text.decode(errors="replace")


async def looking_around() -> None:
    canary = os.environ["ATTACK_CANARY"]
    secret = CACHE / "secret"
    secret.write_text(canary)
    source = (Path(__file__).parent / "probe_inside.py").read_text()
    abstract = f"attack-{uuid.uuid4().hex}"
    with socket.socket() as inet, socket.socket(socket.AF_UNIX) as unix:
        inet.bind(("127.0.0.1", 0))
        inet.listen()
        unix.bind("\0" + abstract)
        unix.listen()
        port = str(inet.getsockname()[1])
        os.set_inheritable(unix.fileno(), True)
        async with sandbox() as made:
            # The canary is cut in two on its way in, or the probe would find its own command.
            source = source.replace("sys.argv[1:6]", "sys.argv[1][::-1], *sys.argv[2:6]")
            arguments = (canary[::-1], str(secret), port, abstract, str(os.getpid()))
            status, text = await inner(made, source, *arguments)
            assert (status, text) == (0, ""), (status, text)
            said = Said()
            script = "cat /proc/[0-9]*/environ; grep -h ^Cap /proc/self/status"
            await made.exec(Command(argv=("sh", "-c", script)), said)
            assert canary.encode() not in said.text
            assert b"CapEff:\t0000000080000000" in said.text, said.text


async def fork_bomb() -> None:
    source = """
import os, signal
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP): signal.signal(number, signal.SIG_IGN)
while True:
    try: os.fork()
    except OSError: pass
"""
    async with sandbox(processes=64, cpus=1) as made:
        said = Said()
        argv = (*made.demote, PYTHON, "-c", source)
        async with anyio.create_task_group() as tasks:

            async def bomb() -> None:
                try:
                    await made.exec(Command(argv=argv, timeout=3.0))
                except CommandTimeout:
                    return
                raise AssertionError("the bomb ended by itself")

            tasks.start_soon(bomb)
            await anyio.sleep(1.5)
            # The supervisor's world has places left.
            await made.exec(Command(argv=("sh", "-c", "ls -d /proc/[0-9]* | wc -l")), said)
        assert 20 < int(said.text) < 100, said.text
        said = Said()
        await made.exec(Command(argv=("sh", "-c", "ls -d /proc/[0-9]* | wc -l")), said)
        assert int(said.text) < 10, said.text


async def one_huge_allocation() -> None:
    async with sandbox(memory=300 * MIB) as made:
        status, text = await inner(made, "x = bytearray(10 << 30); print('survived')")
        assert status == 137, (status, text)
        assert made.oom_notice is not None
        notice = await made.read_file(made.oom_notice, limit=MIB)
        assert b"300 MiB allowed" in notice, notice
        assert int(notice.split()[0]) < 3000, notice


async def many_children_with_much() -> None:
    source = """
import os, time
for _ in range(12):
    if os.fork() == 0:
        x = bytearray(300 << 20)
        time.sleep(20)
        os._exit(0)
try:
    killed = 0
    while killed < 6:
        killed += os.waitstatus_to_exitcode(os.wait()[1]) == -9
    print("killed enough")
finally:
    os._exit(0)
"""
    async with sandbox(memory=1000 * MIB) as made:
        status, _ = await inner(made, source, timeout=30.0)
        # Either the children went or, when it all came at once, their parent as well.
        assert status in (0, 137)
        assert made.oom_notice is not None
        assert await made.read_file(made.oom_notice, limit=MIB)


async def memory_that_no_process_has() -> None:
    in_files = """
import os, time
files = [os.memfd_create("x") for _ in range(20)]
for file in files:
    for _ in range(64): os.write(file, b"x" * (1 << 20))
    time.sleep(0.1)
print("survived")
"""
    in_segments = """
import ctypes, os, time
libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p
for _ in range(20):
    made = libc.shmget(0, ctypes.c_size_t(64 << 20), 0o1600)
    assert made >= 0
    at = libc.shmat(made, None, 0)
    ctypes.memset(at, 1, 64 << 20)
    assert libc.shmdt(ctypes.c_void_p(at)) == 0
    time.sleep(0.1)
print("survived")
"""
    async with sandbox(memory=300 * MIB) as made:
        for source in (in_files, in_segments):
            status, text = await inner(made, source)
            assert (status, text) == (137, ""), (status, text)
        said = Said()
        await made.exec(Command(argv=("cat", "/proc/sysvipc/shm")), said)
        assert said.text.count(b"\n") == 1, said.text


async def huge_file() -> None:
    source = """
import sys
for number in range(5):
    try:
        with open(f"{sys.argv[1]}/{number}", "wb", buffering=0) as file:
            for _ in range(1024): file.write(b"x" * (1 << 20))
    except OSError as error: print(error.errno, end=" ")
"""
    async with sandbox(disk=64 * MIB, file_size=32 * MIB) as made:
        for folder in ("/sandbox", "/tmp", "/dev/shm"):
            _, text = await inner(made, source, folder)
            assert text.split()[0] == "27", (folder, text)  # EFBIG
            assert text.split()[-1] == "28", (folder, text)  # ENOSPC
            assert len(text.split()) == 5, (folder, text)


async def huge_file_to_be_kept() -> None:
    source = """
import time
for number in range(100):
    with open(str(number), "wb") as file: file.write(b"x" * (8 << 20))
    time.sleep(0.1)
"""
    async with sandbox(disk=32 * MIB, snapshotable=True) as made:
        status, text = await inner(made, source)
        assert status == 137, (status, text)


async def endless_output() -> None:
    async with sandbox() as made:
        said = Said()
        try:
            await made.exec(Command(argv=(*made.demote, "yes"), timeout=1.5), said)
        except CommandTimeout:
            pass
        else:
            raise AssertionError("it ended")
        assert said.count > MIB
        started = time.monotonic()
        try:
            await made.exec(Command(argv=("sh", "-c", "yes & sleep 0.2")), said)
        finally:
            assert time.monotonic() - started < 5


async def killing_everything() -> None:
    async with sandbox() as made:
        for script in ("kill -9 -1", "kill -9 1; kill -9 -1; kill -9 0", "kill -STOP -1"):
            argv = (*made.demote, "sh", "-c", script + "; exit 5")
            status = await made.exec(Command(argv=argv, timeout=20.0))
            assert status in (5, 137), (script, status)
        # And without demotion: only the first process is safe, which is enough.
        try:
            await made.exec(Command(argv=("sh", "-c", "kill -9 1; kill -9 -1; exit 6")))
        except InfraError:
            pass
        assert await made.exec(Command(argv=("true",))) == 0


async def daemon_dies_with_its_sandbox() -> None:
    mark = f"daemon{uuid.uuid4().hex}"
    source = """
import os, sys, time
for _ in range(3):
    if os.fork(): os._exit(0)
    os.setsid()
time.sleep(80)
"""
    async with sandbox() as made:
        # Below a demoted command that lives on, or its namespace would already have taken it.
        keep = "import subprocess, sys, time; subprocess.run(sys.argv[1:]); time.sleep(80)"
        argv = (*made.demote, PYTHON, "-c", keep, PYTHON, "-c", source, mark)
        async with anyio.create_task_group() as tasks:

            async def run() -> None:
                try:
                    await made.exec(Command(argv=argv))
                except SandboxLost:
                    return

            tasks.start_soon(run)
            with anyio.fail_after(20):
                while not running(mark + "\0"):
                    await anyio.sleep(0.05)
            await made.close()
    assert not running(mark)


def running(mark: str) -> list[int]:
    """Processes of this machine that have ``mark`` in their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if mark.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


async def a_tree_that_resists_removal() -> None:
    source = """
import os
for n in range(3000):
    os.mkdir("d"); os.chdir("d")
os.chdir("/sandbox")
os.mkdir("locked"); open("locked/f", "w").close()
os.symlink("/", "locked/link"); os.mkfifo("locked/pipe")
os.mkdir("locked/below"); os.chmod("locked/below", 0); os.chmod("locked", 0)
"""
    async with LocalProvider(cache_dir=CACHE) as provider:
        made = await provider.create(SandboxSpec(name="tree", ttl=60.0, snapshotable=True))
        status, text = await inner(made, source)
        assert status == 0, text
        snapshot = await made.snapshot()
        await made.close()
        again = await provider.create(
            SandboxSpec(name="tree2", ttl=60.0, snapshot=snapshot, snapshotable=True)
        )
        status, text = await inner(again, "import shutil; shutil.rmtree('locked', True)")
        assert status == 0, text
        await again.close()
        await provider.delete_snapshot(snapshot)
    assert os.listdir(CACHE / "running") == []
    assert os.listdir(CACHE / "snapshots") == []


async def links_to_the_supervisor() -> None:
    async with sandbox() as made:
        await made.write_file(f"{made.control}/secret", b"secret")
        script = f"ln -s {made.control}/secret link; ln -s {made.control} folder"
        assert await made.exec(Command(argv=(*made.demote, "sh", "-c", script))) == 0
        for attempt in (
            lambda: made.read_file(f"{made.root}/link", limit=100),
            lambda: made.read_file(f"{made.root}/folder/secret", limit=100),
            lambda: made.write_file(f"{made.root}/folder/secret", b"changed"),
        ):
            try:
                await attempt()
            except PermissionError:
                continue
            raise AssertionError("the link was followed")
        assert await made.read_file(f"{made.control}/secret", limit=100) == b"secret"


async def sockets_of_the_host_with_a_network() -> None:
    """Abstract sockets belong to the network namespace, but are none of the network's business."""
    source = """
import socket, sys
with socket.socket(socket.AF_UNIX) as own, socket.socket(socket.AF_UNIX) as probe:
    own.bind("\\0" + sys.argv[1] + "-own")
    own.listen()
    probe.connect("\\0" + sys.argv[1] + "-own")
with socket.socket(socket.AF_UNIX) as probe:
    try: probe.connect("\\0" + sys.argv[1])
    except PermissionError: print("refused")
"""
    name = f"attack-{uuid.uuid4().hex}"
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind("\0" + name)
        unix.listen()
        async with sandbox(network=True) as made:
            status, text = await inner(made, source, name)
            release = tuple(int(part) for part in os.uname().release.split(".")[:2])
            assert status == 0, text
            assert text == "refused\n" or release < (6, 12), text


async def loader_variables() -> None:
    """What the user gives to the tests must not act on the programs on the way in."""
    async with sandbox() as made:
        status, text = await inner(
            made,
            "import os; print(os.environ['LD_PRELOAD'])",
            env={"LD_PRELOAD": "/sandbox/evil.so"},
        )
        assert status == 0, text
        assert "/sandbox/evil.so" in text
        # One complaint of the loader, for the program itself: none for those before it.
        assert text.count("cannot be preloaded") == 1, text


async def victim() -> None:
    """Never ends by itself: prints a mark that its processes carry, and waits."""
    mark = f"victim{uuid.uuid4().hex}"
    provider = LocalProvider(cache_dir=CACHE)
    async with provider:
        made = await provider.create(SandboxSpec(name=mark, ttl=80.0, snapshotable=True))
        source = "import time; print('up', flush=True); time.sleep(70)"

        async def tell(stream: Stream, data: bytes) -> None:
            assert provider._launcher is not None
            print(mark, provider._launcher.pid, flush=True)

        await made.exec(Command(argv=(*made.demote, PYTHON, "-c", source, mark)), tell)


async def sealed_files() -> None:
    make = "import os; os.makedirs('repo/t'); open('repo/t/a.py', 'w').write('x' * 9)"
    attack = (Path(__file__).parent / "seal_inside.py").read_text()
    async with sandbox(snapshotable=True) as made:
        assert (await inner(made, make))[0] == 0
        base = await made.snapshot()
    async with sandbox(snapshot=base) as made:
        assert await made.seal(f"{made.root}/repo", ["t/a.py"]) == ""
        assert (await inner(made, attack))[0] == 0
        assert await made.read_file(f"{made.root}/repo/t/a.py", limit=9) == b"x" * 9


async def reap() -> None:
    async with LocalProvider(cache_dir=CACHE) as provider:
        await provider.reap(sys.argv[3], None)
    assert os.listdir(CACHE / "running") == []


if __name__ == "__main__":
    anyio.run(globals()[sys.argv[1]])
    print("contained")
