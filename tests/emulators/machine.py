"""What an emulated sandbox is made of: a workspace of the local engine and programs in it.

Knows no vendor and no wire.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncGenerator, AsyncIterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pytest_sandbox.errors import SandboxLost
from pytest_sandbox.provider import Command, SandboxSpec
from pytest_sandbox.providers.local import LocalProvider, channel
from pytest_sandbox.providers.local.sandbox import DEFAULT_ENVIRONMENT, LocalSandbox

MIB = 1 << 20
#: A program waits once its slowest reader is this far behind.
AHEAD = 4 * MIB
#: The interpreter that runs the emulator comes first: whatever Python the system has or lacks.
PATH = f"{os.path.realpath(sys.base_prefix)}/bin:{DEFAULT_ENVIRONMENT['PATH']}"
#: Tells the pid before the program starts, or "-" when there is no such folder.
START = 'cd -- "$0" 2>/dev/null || { echo -; exit 0; }; echo $$; exec "$@"'


class MachineGone(Exception):
    """The machine was closed, or its time is up."""


class Output:
    """What a program wrote: kept (its last ``keep`` bytes), and followed by any number."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._data = bytearray()
        self._changed = asyncio.Event()
        self._readers: dict[object, int] = {}
        #: Offset of the first byte that is still there.
        self.start = 0
        #: Nothing more will come.
        self.ended = False

    @property
    def end(self) -> int:
        """Offset behind the last byte."""
        return self.start + len(self._data)

    def since(self, offset: int = 0) -> bytes:
        return bytes(self._data[max(0, offset - self.start) :])

    async def add(self, data: bytes) -> None:
        self._data += data
        surplus = min([self.end - self._keep, *self._readers.values()]) - self.start
        if surplus > 0:
            del self._data[:surplus]
            self.start += surplus
        self._wake()
        while self._readers and self.end - min(self._readers.values()) > AHEAD:
            await self._changed.wait()

    def finish(self) -> None:
        self.ended = True
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def follow(self, offset: int = 0) -> AsyncGenerator[bytes, None]:
        """Everything from ``offset`` on that is still there or comes, to the end."""
        me = object()
        self._readers[me] = max(offset, self.start)
        try:
            while True:
                at = self._readers[me]
                chunk = bytes(self._data[at - self.start : at - self.start + 32768])
                if chunk:
                    yield chunk
                    self._readers[me] = at + len(chunk)
                    self._wake()
                elif self.ended:
                    return
                else:
                    await self._changed.wait()
        finally:
            del self._readers[me]
            self._wake()


class Process:
    """A program in a machine. It ends with the machine, not with whoever started it."""

    def __init__(self, machine: Machine, reply: Any, fds: tuple[int, int, int], keep: int) -> None:
        self.pid = 0
        #: 128 + N after signal N; MachineGone when the machine ended first.
        self.status: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.stdout = Output(keep)
        self.stderr = Output(keep)
        self._machine = machine
        self._reply = reply
        self._feed: int | None = fds[0]
        self._feeding = asyncio.Lock()
        self._fds = list(fds[1:])
        self._tasks: list[asyncio.Task[None]] = []

    async def begin(self) -> None:
        """Reads the pid. Raises FileNotFoundError: there is no such folder."""
        line = bytearray()
        try:
            while not line.endswith(b"\n"):
                if not (byte := await _read(self._fds[0], 1)):
                    break
                line += byte
            if line == b"-\n":
                raise FileNotFoundError
        except BaseException:
            self._end()  # whoever asked for it may be gone
            raise
        self.pid = int(line or b"0")
        self._tasks = [
            *map(asyncio.create_task, map(self._pump, self._fds, (self.stdout, self.stderr))),
            asyncio.create_task(self._wait()),
        ]

    async def _pump(self, fd: int, output: Output) -> None:
        try:
            while data := await channel.read_some(fd):
                await output.add(data)
        except OSError:
            pass
        finally:
            self._fds.remove(fd)
            os.close(fd)
            output.finish()

    async def _wait(self) -> None:
        answer = await channel.receive(self._reply)
        # What the program leaves behind goes on when this is closed after the answer.
        self._reply.close()
        if not self.status.done():
            if answer is None or "exit" not in answer:
                self.status.set_exception(MachineGone(self._machine.id))
                self.status.exception()  # Nobody has to ask.
            else:
                self.status.set_result(answer["exit"])

    async def finished(self) -> int:
        """The exit status, once nobody holds the output open any more.

        Raises:
            MachineGone: the machine ended first.
        """
        await asyncio.wait(self._tasks)
        return await self.status

    async def feed(self, data: bytes) -> None:
        """Raises BrokenPipeError when nobody reads it any more."""
        async with self._feeding:
            if self._feed is None:
                raise BrokenPipeError
            await channel.write_all(self._feed, data)

    async def close_stdin(self) -> None:
        async with self._feeding:
            if self._feed is not None:
                os.close(self._feed)
                self._feed = None

    async def signal(self, number: int) -> None:
        """To the program alone, not to what it started; gone already is fine."""
        if not self.status.done() and self.pid:
            await self._machine.run(["kill", f"-{number}", str(self.pid)])

    async def end_tree(self) -> None:
        """Kills the program and everything below it, while the program itself lives."""
        if not self.status.done():
            with contextlib.suppress(OSError):
                await channel.send(self._reply, {"kill": True}, [])

    async def abandon(self) -> None:
        """Gives the descriptors back; for the machine's end."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.stdout.finish()
        self.stderr.finish()
        self._end()

    def _end(self) -> None:
        self._reply.close()
        channel.close_all([*self._fds, *([] if self._feed is None else [self._feed])])
        self._fds, self._feed = [], None
        if not self.status.done():
            self.status.set_exception(MachineGone(self._machine.id))
            self.status.exception()


class Machine:
    """One workspace: /sandbox, /tmp and /run/pytest-sandbox are writable, /usr is the host's."""

    def __init__(self, machines: Machines, sandbox: LocalSandbox) -> None:
        self.id = sandbox.id
        #: Those that were started and not released, finished ones too.
        self.processes: list[Process] = []
        self._machines = machines
        self._sandbox = sandbox
        self.closed = False

    async def start(
        self,
        argv: Sequence[str],
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: bytes | None = b"",
        keep: int = 64 * MIB,
    ) -> Process:
        """Starts a program; ``stdin`` None: it is fed later. ``keep``: bytes of output, each.

        Raises:
            FileNotFoundError: ``cwd`` is no folder.
            MachineGone: the machine ended.
        """
        given = {"PATH": PATH, **(env or {})}
        shell = ("/bin/sh", "-c", START, cwd or self._sandbox.root, *argv)
        order = self._sandbox._order(Command(argv=shell, cwd="/", env=given))
        theirs_in, feed = channel.pipe(ours="write")
        out, theirs_out = channel.pipe(ours="read")
        err, theirs_err = channel.pipe(ours="read")
        theirs = [theirs_in, theirs_out, theirs_err]
        try:
            reply = await self._sandbox._send(order, theirs)
        except SandboxLost as error:
            channel.close_all([feed, out, err])
            raise MachineGone(self.id) from error
        finally:
            channel.close_all(theirs)
        process = Process(self, reply, (feed, out, err), keep)
        await process.begin()
        self.processes.append(process)
        if stdin is not None:
            feeding = asyncio.create_task(self._give(process, stdin))
            process._tasks.append(feeding)
        return process

    async def _give(self, process: Process, data: bytes) -> None:
        with contextlib.suppress(OSError):
            await process.feed(data)
        await process.close_stdin()

    async def release(self, process: Process) -> None:
        """Forgets a process and its output; one that still runs goes on unseen."""
        if process in self.processes:
            self.processes.remove(process)
        await process.abandon()

    async def run(self, argv: Sequence[str], **more: Any) -> tuple[int, bytes, bytes]:
        """Runs a program to its end: exit status, standard output, standard error."""
        process = await self.start(argv, **more)
        try:
            status = await process.finished()
            return status, process.stdout.since(), process.stderr.since()
        finally:
            await self.release(process)

    async def write_file(
        self, path: str, data: bytes | AsyncIterable[bytes], *, mode: int = 0o644
    ) -> None:
        """Raises OSError, MachineGone."""
        with self._gone():
            await self._sandbox.write_file(path, data, mode=mode)

    async def read_file(self, path: str, limit: int = 1 << 30) -> bytes:
        """Raises OSError, MachineGone."""
        with self._gone():
            return await self._sandbox.read_file(path, limit=limit)

    async def snapshot(self) -> str:
        """Keeps /sandbox, and nothing else; ends the machine."""
        with self._gone():
            name = await self._sandbox.snapshot()
        await self.close()
        return name

    async def close(self) -> None:
        self.closed = True
        self._machines.live.discard(self)
        await self._sandbox.close()
        processes, self.processes = self.processes, []
        for process in processes:
            # Its output ends by itself, now that nobody is left to write any.
            await asyncio.wait(process._tasks, timeout=5.0)
            await process.abandon()

    @contextlib.contextmanager
    def _gone(self) -> Iterator[None]:
        try:
            yield
        except SandboxLost as error:
            raise MachineGone(self.id) from error


class Machines:
    """All machines of one emulator; ``state_dir`` is theirs alone. Use it with ``async with``."""

    def __init__(self, state_dir: Path) -> None:
        self._provider = LocalProvider(cache_dir=state_dir)
        self._count = 0
        self.live: set[Machine] = set()

    async def create(
        self,
        *,
        snapshot: str | None = None,
        network: bool = False,
        memory: int | None = None,
        cpus: float | None = None,
        disk: int | None = None,
        ttl: float = 3600.0,
        snapshotable: bool = True,
    ) -> Machine:
        """Sizes in bytes, ``ttl`` in seconds; None for what the local engine gives.

        ``disk`` is kept by ending the machine, and by the file system where not ``snapshotable``.
        """
        self._count += 1
        sandbox = await self._provider.create(
            SandboxSpec(
                name=f"emulated-{self._count}",
                ttl=ttl,
                network=network,
                memory=memory,
                cpus=cpus,
                disk=disk,
                snapshot=snapshot,
                snapshotable=snapshotable,
            )
        )
        assert isinstance(sandbox, LocalSandbox)
        machine = Machine(self, sandbox)
        self.live.add(machine)
        return machine

    async def delete_snapshot(self, name: str) -> None:
        await self._provider.delete_snapshot(name)

    async def has_snapshot(self, name: str) -> bool:
        return await self._provider.has_snapshot(name)

    async def __aenter__(self) -> Machines:
        await self._provider.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        for machine in list(self.live):
            await machine.close()
        await self._provider.__aexit__(*exc)


async def _read(fd: int, size: int) -> bytes:
    import anyio

    while True:
        try:
            return os.read(fd, size)
        except BlockingIOError:
            await anyio.wait_readable(fd)
