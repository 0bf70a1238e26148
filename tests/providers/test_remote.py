"""``RemoteSandbox`` on the local engine, over a connection that can be made as bad as one likes."""

from __future__ import annotations

import asyncio
import random
import socket
import subprocess
import sys
import uuid
from collections.abc import AsyncIterable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest

from pytest_sandbox import shipment
from pytest_sandbox.errors import InfraError, Unsupported
from pytest_sandbox.provider import Capabilities, Command, Provider, Sandbox, SandboxSpec, Stream
from pytest_sandbox.providers.local import LocalProvider
from pytest_sandbox.providers.remote import RemoteSandbox
from pytest_sandbox.providers.remote.asking import Receive
from pytest_sandbox.providers.remote.lines import Lines
from pytest_sandbox.testing import ProviderConformance


class Line:
    """How good the connection is: every so many bytes, or before and after a call, it breaks."""

    def __init__(self, *, every: int = 0, calls: float = 0.0, seed: int = 1) -> None:
        self._every = every
        self._calls = calls
        self._random = random.Random(seed)
        self.breaks = 0

    def call(self) -> None:
        if self._random.random() < self._calls:
            self._break()

    def carry(self, data: bytes) -> Iterator[bytes]:
        if self._every and self._random.random() < len(data) / self._every:
            yield data[: self._random.randrange(len(data))]
            self._break()
        yield data

    def _break(self) -> None:
        self.breaks += 1
        raise InfraError("the connection broke")


class Distant(RemoteSandbox):
    """A sandbox of the local engine, used as if it were somewhere else."""

    def __init__(self, inner: Sandbox, spec: SandboxSpec, line: Line, *, polling: bool) -> None:
        super().__init__(spec, id=inner.id)
        self._inner = inner
        self._line = line
        self.polling = polling
        self._over_there: set[asyncio.Future[int]] = set()
        if polling:
            self.patience, self.piece = 12.0, 1 << 22

    async def run(
        self, argv: Sequence[str], on_output: Receive | None = None, *, limit: float
    ) -> int:
        self._line.call()
        kept = bytearray()
        broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def sink(stream: Stream, data: bytes) -> None:
            if stream != "stdout" or on_output is None or broken.done():
                return
            try:
                for part in self._line.carry(data):
                    if self.polling:
                        kept.extend(part)
                    else:
                        await on_output(part)
            except Exception as error:  # noqa: BLE001 - raised below, as it was
                broken.set_exception(error)

        # A broken connection ends nothing over there.
        command = Command(argv=tuple(argv), timeout=limit)
        over_there = asyncio.ensure_future(self._inner.exec(command, sink))
        self._over_there.add(over_there)
        both: list[asyncio.Future[Any]] = [over_there, broken]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if broken.done():
            broken.result()
        status = over_there.result()
        if kept and on_output is not None:
            await on_output(bytes(kept))
        self._line.call()
        return status

    async def upload(self, path: str, chunks: AsyncIterable[bytes]) -> None:
        self._line.call()
        await self._inner.write_file(path, chunks)
        self._line.call()

    async def end(self) -> None:
        await self._inner.close()
        await asyncio.gather(*self._over_there, return_exceptions=True)

    async def freeze(self, name: str) -> str:
        return await self._inner.snapshot()


class DistantProvider(Provider):
    """Makes them."""

    name = "distant"

    def __init__(self, cache: Path, line: Line | None = None, *, polling: bool = False) -> None:
        self._engine = LocalProvider(cache_dir=cache)
        self._line = line or Line()
        self._polling = polling

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            isolation="the local engine's",
            snapshot=True,
            network_off=True,
            limits=frozenset({"memory", "cpus", "disk", "file_size"}),
            supervisor="uid",
        )

    async def check(self) -> None:
        await self._engine.check()

    async def create(self, spec: SandboxSpec) -> Sandbox:
        if spec.processes is not None:
            # Counted for each user, and there is but one here.
            raise Unsupported("no limit of processes")
        sandbox = Distant(await self._engine.create(spec), spec, Line(), polling=self._polling)
        await sandbox.prepare()
        sandbox._line = self._line
        return sandbox

    async def has_snapshot(self, snapshot: str) -> bool:
        return await self._engine.has_snapshot(snapshot)

    async def delete_snapshot(self, snapshot: str) -> None:
        await self._engine.delete_snapshot(snapshot)

    async def __aexit__(self, *exc: object) -> None:
        await self._engine.__aexit__(*exc)


class TestConformance(ProviderConformance):
    @pytest.fixture(params=[pytest.param("streaming", marks=pytest.mark.soak), "polling"])
    def provider_factory(
        self, request: pytest.FixtureRequest, tmp_path: Path
    ) -> Callable[[], Provider]:
        polling = request.param == "polling"
        return lambda: DistantProvider(tmp_path / "cache", polling=polling)


async def on_bad_line(cache: Path, line: Line, *, polling: bool, body: object) -> None:
    async with DistantProvider(cache, line, polling=polling) as provider:
        spec = SandboxSpec(name=f"bad-{uuid.uuid4().hex[:8]}", ttl=100.0)
        sandbox = await provider.create(spec)
        try:
            with anyio.fail_after(90):
                await body(sandbox)  # type: ignore[operator]
        finally:
            await sandbox.close()


@pytest.mark.parametrize("polling", [False, True])
def test_a_connection_that_breaks_loses_and_repeats_nothing(tmp_path: Path, polling: bool) -> None:
    line = Line(every=8_000_000 if polling else 600_000, calls=0.1)
    data = random.Random(2).randbytes(3 << 20)
    script = "echo once >> started; cat; echo end >&2; exit 7"

    async def body(sandbox: Sandbox) -> None:
        out, err = bytearray(), bytearray()

        async def sink(stream: Stream, piece: bytes) -> None:
            (out if stream == "stdout" else err).extend(piece)

        status = await sandbox.exec(Command(argv=("sh", "-c", script), stdin=data), sink)
        assert (status, bytes(err)) == (7, b"end\n")
        assert bytes(out) == data
        assert await sandbox.read_file(f"{sandbox.root}/started", limit=99) == b"once\n"
        await sandbox.write_file(f"{sandbox.root}/f", data)
        assert await sandbox.read_file(f"{sandbox.root}/f", limit=len(data)) == data

    anyio.run(lambda: on_bad_line(tmp_path / "cache", line, polling=polling, body=body))
    assert line.breaks > 0


def test_a_reader_far_behind_makes_the_command_wait(tmp_path: Path) -> None:
    """Endless output fills no disk: what nobody has read yet is bounded."""

    async def body(sandbox: Sandbox) -> None:
        pieces = 0

        async def sink(stream: Stream, piece: bytes) -> None:
            nonlocal pieces
            pieces += 1
            await anyio.sleep(0.02)

        with anyio.move_on_after(6):
            await sandbox.exec(Command(argv=("yes",)), sink)
        assert pieces > 20
        sizes = bytearray()

        async def count(stream: Stream, piece: bytes) -> None:
            sizes.extend(piece)

        await sandbox.exec(Command(argv=("du", "-sm", "/run/pytest-sandbox/jobs")), count)
        assert int(sizes.split()[0]) < 64

    anyio.run(lambda: on_bad_line(tmp_path / "cache", Line(), polling=False, body=body))


def test_what_is_not_the_shim_s_is_passed_over() -> None:
    lines = Lines()
    said = b"Last login: today\n+o aGVsbG8=\r\n+q what\n+\n+o\n\xff\n+x 3\n+x"
    assert [(answer.kind, answer.data) for answer in lines.feed(said)] == [
        ("o", b"hello"),
        ("x", b"3"),
    ]


@pytest.mark.parametrize("line", [b"+o not base64!\n", b"+x -1 2\n", b"+x \n", b"+" * (1 << 21)])
def test_what_only_looks_like_the_shim_s_is_no_output(line: bytes) -> None:
    with pytest.raises(InfraError):
        list(Lines().feed(line))


REACH = """
import socket, sys
own = socket.create_server(("127.0.0.1", 0))
socket.create_connection(own.getsockname()).close()
try:
    socket.create_connection(("127.0.0.1", int(sys.argv[1]))).close()
    print("reached")
except OSError:
    print("out of reach")
"""


@pytest.mark.parametrize(("alone", "expected"), [("0", "reached"), ("1", "out of reach")])
def test_what_listens_in_a_sandbox_is_out_of_the_tests_reach(
    alone: str, expected: str, tmp_path: Path
) -> None:
    """A vendor's daemon on the loopback would do anything, as the supervisor's user."""
    program = tmp_path / "shim.pyz"
    shim = shipment.zipped("pytest_sandbox.providers.remote.shim", "pytest_sandbox_shim")
    program.write_bytes(shim)
    with socket.create_server(("127.0.0.1", 0)) as daemon:
        command = [
            # As root of a user namespace, like the supervisor in a sandbox that lets it.
            "unshare", "--user", "--map-root-user", sys.executable, "-I", "-S", str(program),
            "demote", f"-,-,-,{alone}", sys.executable, "-c", REACH,
            str(daemon.getsockname()[1]),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == (f"{expected}\n", "")


NAMESPACES = """
import ctypes, errno, os, subprocess, sys, threading
from pytest_sandbox.providers.remote.shim import namespaces, processes
libc = ctypes.CDLL(None, use_errno=True)
clone = namespaces._CALLS[os.uname().machine][1]

def calls():
    flags = namespaces.CLONE_NEWUSER | 17  # SIGCHLD
    for number, *args in ((clone, flags, 0, 0, 0, 0), (435, 0, 0)):
        pid = libc.syscall(number, *args)
        if pid == 0: os._exit(0)
        yield errno.errorcode[ctypes.get_errno()] if pid < 0 else "made"
    made = libc.unshare(namespaces.CLONE_NEWUSER) == 0
    yield "made" if made else errno.errorcode[ctypes.get_errno()]

assert processes.prctl(processes.PR_SET_NO_NEW_PRIVS)
assert namespaces.refuse()
print(*calls())
ran = []
thread = threading.Thread(target=ran.append, args=(1,))
thread.start(); thread.join()
child = [sys.executable, "-c", "import os; os._exit(os.fork() and 7)"]
assert ran and subprocess.run(child).returncode == 7
"""


def test_what_is_not_trusted_makes_no_user_namespaces() -> None:
    done = subprocess.run(
        [sys.executable, "-c", NAMESPACES], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("EPERM ENOSYS EPERM\n", "")
