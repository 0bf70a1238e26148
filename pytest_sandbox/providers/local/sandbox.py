"""One running sandbox of the local engine, as seen by the event loop."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import AsyncIterable, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import anyio
import anyio.lowlevel

from pytest_sandbox.errors import CommandTimeout, InfraError, SandboxLost
from pytest_sandbox.provider import Command, Sandbox, Sink, Stream
from pytest_sandbox.providers.local import channel
from pytest_sandbox.providers.local.channel import Message

#: How long output of descendants that outlive their command is still waited for.
GRACE = 0.15
#: A tree that will not die by then ends with its sandbox.
KILL_PATIENCE = 10.0
#: Killed processes are gone in milliseconds, unless the kernel itself waits for something.
END_PATIENCE = 30.0

DEFAULT_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/tmp/home",
    "TMPDIR": "/tmp",
    "LANG": "C.UTF-8",
}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Lifeline:
    """What ties a sandbox to us: closing ``orders`` ends it, and then ``gone`` reaches its end."""

    orders: socket.socket
    gone: int


class LocalSandbox(Sandbox):
    """Orders go to the sandbox's first process; each is answered on a socket of its own."""

    root = "/sandbox"
    control = "/run/pytest-sandbox/control"
    oom_notice = "/run/pytest-sandbox/oom"
    #: Known to ``inside/enter.py``.
    held = "PYTEST_SANDBOX_HELD_"

    def __init__(
        self,
        *,
        sandbox_id: str,
        name: str,
        demote: tuple[str, ...],
        lifeline: Lifeline,
        snapshot: Callable[[LocalSandbox], Awaitable[str]],
        clean: Callable[[], Awaitable[None]],
    ) -> None:
        self.id = sandbox_id
        self.demote = demote
        self._name = name
        self._lifeline = lifeline
        self._snapshot = snapshot
        self._clean = clean
        self._lost: str | None = None
        self._ended = False
        self._closed = False
        self._closing = anyio.Lock()

    async def exec(self, command: Command, sink: Sink | None = None) -> int:
        command_in, feed = channel.pipe(ours="write")
        out, command_out = channel.pipe(ours="read")
        err, command_err = channel.pipe(ours="read")
        theirs = [command_in, command_out, command_err]
        ours = [feed, out, err]
        try:
            order = self._order(command)
            reply = await self._send(order, theirs)
        except BaseException:
            channel.close_all([*theirs, *ours])
            raise
        channel.close_all(theirs)
        run = _Run(reply, feed, out, err, sink)
        try:
            status = await run.finish(command)
        finally:
            reply.close()
            channel.close_all([out, err, *run.feed])
        if status is None:
            raise await self._explain_loss()
        if run.timed_out:
            raise CommandTimeout(
                f"{command.argv[0]!r} in sandbox {self._name!r} was killed after "
                f"{command.timeout:g} s, its limit; raise the limit or find out what hangs."
            )
        return self._exit_status(status)

    def _exit_status(self, answer: Message) -> int:
        if "errno" in answer:
            raise InfraError(
                f"Sandbox {self._name!r} could not run the command: "
                f"{answer.get('detail') or os.strerror(answer['errno'])}."
            )
        return int(answer["exit"])

    def _order(self, command: Command) -> Message:
        environment = DEFAULT_ENVIRONMENT | dict(command.env)
        if self.demote and command.argv[: len(self.demote)] == self.demote:
            environment = {self._held(name): value for name, value in environment.items()}
        for text in (*command.argv, *environment, *environment.values()):
            if "\0" in text:
                raise ValueError("a null character in an argument or in the environment")
        return {
            "op": "exec",
            "argv": list(command.argv),
            "cwd": command.cwd or self.root,
            "env": environment,
        }

    def _held(self, name: str) -> str:
        if name.startswith("LD_") or name == "GLIBC_TUNABLES":
            return self.held + name
        return name

    async def write_file(
        self, path: str, data: bytes | AsyncIterable[bytes], *, mode: int = 0o644
    ) -> None:
        source, feed = channel.pipe(ours="write")
        token = uuid.uuid4().hex
        order = {"op": "write", "path": path, "mode": mode, "token": token}
        with _Descriptors([source, feed]) as fds:
            reply = await self._send(order, [source])
            with reply:
                fds.close(source)
                try:
                    async for chunk in channel.chunks(data):
                        await channel.write_all(feed, chunk)
                    fds.close(feed)
                    await channel.send(reply, {"commit": True}, [])
                except (BrokenPipeError, ConnectionResetError):
                    pass  # The answer says why.
                self._file_answer(await channel.receive(reply) or await self._loss(), path)

    async def read_file(self, path: str, *, limit: int) -> bytes:
        data, target = channel.pipe(ours="read")
        with _Descriptors([data, target]) as fds:
            reply = await self._send({"op": "read", "path": path, "limit": limit}, [target])
            with reply:
                fds.close(target)
                parts = []
                size = 0
                while chunk := await channel.read_some(data):
                    parts.append(chunk)
                    size += len(chunk)
                    if size > limit:
                        raise OSError(27, f"longer than {limit} bytes", path)
                answer = await channel.receive(reply) or await self._loss()
                self._file_answer(answer, path)
                return b"".join(parts)

    def _file_answer(self, answer: Message, path: str) -> None:
        if "errno" in answer:
            number = answer["errno"] or 5
            raise OSError(number, answer.get("detail") or os.strerror(number), path)

    async def seal(self, folder: str, paths: Sequence[str]) -> str:
        if not paths:
            return ""
        order = {"op": "seal", "folder": folder, "paths": list(paths)}
        with await self._send(order, []) as reply:
            answer = await channel.receive(reply) or await self._loss()
        if "errno" in answer:
            return f"the files cannot be sealed: {answer.get('detail')}"
        return str(answer["left"])

    async def snapshot(self, name: str = "") -> str:
        return await self._snapshot(self)

    async def end(self) -> None:
        """Ends all processes and waits until none is left; files stay."""
        if self._lost is None:
            self._lost = "it was closed"
        async with self._closing:
            if self._ended:
                return
            try:
                self._lifeline.orders.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            with anyio.move_on_after(END_PATIENCE) as waiting:
                await channel.wait_closed(self._lifeline.gone)
            self._ended = True
            os.close(self._lifeline.gone)
            self._lifeline.orders.close()
            if waiting.cancelled_caught:
                raise InfraError(
                    f"Processes of sandbox {self._name!r} did not end within "
                    f"{END_PATIENCE:g} s of being killed; a dead drive does that."
                )

    async def close(self) -> None:
        if self._closed:
            return
        with anyio.CancelScope(shield=True):
            await self.end()
            if not self._closed:
                self._closed = True
                await self._clean()

    async def _send(self, order: Message, fds: list[int]) -> socket.socket:
        """Gives an order; returns the socket that its answer will come on."""
        if self._lost is not None:
            raise SandboxLost(f"Sandbox {self._name!r} is gone: {self._lost}.")
        ours, theirs = channel.socket_pair()
        try:
            with theirs:
                await channel.send(self._lifeline.orders, order, [theirs.fileno(), *fds])
        except OSError:
            ours.close()
            raise await self._explain_loss() from None
        except BaseException:
            ours.close()
            raise
        return ours

    async def _loss(self) -> Message:
        raise await self._explain_loss()

    async def _explain_loss(self) -> InfraError:
        """What to raise when an answer did not come."""
        if self._lost is None:
            with anyio.move_on_after(2.0):
                message: Message | None = {}
                while message is not None and "end" not in message:
                    message = await channel.receive(self._lifeline.orders)
                if message is None:
                    self._lost = "its first process ended"
                else:
                    self._lost = "its time limit passed"
        if self._lost is None:
            return InfraError(
                f"A command's keeper in sandbox {self._name!r} was killed; try again."
            )
        return SandboxLost(f"Sandbox {self._name!r} is gone: {self._lost}.")


class _Descriptors:
    """Descriptors that are closed at the end unless closed before."""

    def __init__(self, fds: list[int]) -> None:
        self._fds = fds

    def __enter__(self) -> _Descriptors:
        return self

    def __exit__(self, *exc: object) -> None:
        channel.close_all(self._fds)
        self._fds = []

    def close(self, fd: int) -> None:
        self._fds.remove(fd)
        os.close(fd)


class _Run:
    """One command from its order to its exit status."""

    def __init__(
        self, reply: socket.socket, feed: int, out: int, err: int, sink: Sink | None
    ) -> None:
        #: The write end of the command's input, until that is all written.
        self.feed = [feed]
        self._reply = reply
        self._streams: dict[Stream, int] = {"stdout": out, "stderr": err}
        self._sink = sink
        self._sink_free = anyio.Lock()
        self._exited = anyio.Event()
        self._waits: set[anyio.CancelScope] = set()
        self._grace_until = 0.0
        self._answer: Message | None = None
        self._answered = False
        self.timed_out = False

    async def finish(self, command: Command) -> Message | None:
        """The answer, or None when there is none. Kills when cancelled."""
        failures: list[Exception] = []
        try:
            async with anyio.create_task_group() as tasks:
                feeding = anyio.CancelScope()
                tasks.start_soon(self._feed, command.stdin, feeding)
                for stream in self._streams:
                    tasks.start_soon(self._pump, stream, failures, tasks.cancel_scope)
                with anyio.move_on_after(command.timeout):
                    await self._wait()
                if not self._answered:
                    self.timed_out = True
                    await self._kill()
                feeding.cancel()
                self._grace_until = anyio.current_time() + GRACE
                self._exited.set()
                for scope in self._waits:
                    scope.cancel()
        finally:
            if not self._answered:
                with anyio.CancelScope(shield=True):
                    await self._kill()
        if failures:
            raise failures[0]
        return self._answer

    async def _wait(self) -> None:
        self._answer = await channel.receive(self._reply)
        self._answered = True

    async def _kill(self) -> None:
        try:
            await channel.send(self._reply, {"kill": True}, [])
        except OSError:
            pass
        with anyio.move_on_after(KILL_PATIENCE):
            await self._wait()
        self._answered = True

    async def _feed(self, data: bytes, scope: anyio.CancelScope) -> None:
        try:
            with scope:
                await channel.write_all(self.feed[0], data)
        except BrokenPipeError:
            pass  # Not reading one's input is no error.
        finally:
            os.close(self.feed.pop())

    async def _pump(
        self, stream: Stream, failures: list[Exception], scope: anyio.CancelScope
    ) -> None:
        fd = self._streams[stream]
        due: int | None = None  # What lay in the pipe when the command ended.
        while True:
            if self._exited.is_set() and due is None:
                due = channel.pending(fd)
            try:
                data = os.read(fd, channel.CHUNK)
            except BlockingIOError:
                if not await self._readable(fd):
                    return
                continue
            if not data:
                return
            if self._sink is not None:
                try:
                    async with self._sink_free:
                        await self._sink(stream, data)
                except Exception as error:  # noqa: BLE001 - raised again by finish()
                    failures.append(error)
                    scope.cancel()
                    return
            await anyio.lowlevel.checkpoint()
            if due is not None:
                due -= len(data)
                if due <= 0 and anyio.current_time() > self._grace_until:
                    return

    async def _readable(self, fd: int) -> bool:
        """Waits for data; False once nothing came until a little after the command's end."""
        if not self._exited.is_set():
            with anyio.CancelScope() as scope:
                self._waits.add(scope)
                try:
                    await anyio.wait_readable(fd)
                finally:
                    self._waits.discard(scope)
            return True
        left = self._grace_until - anyio.current_time()
        with anyio.move_on_after(max(0.0, left)):
            await anyio.wait_readable(fd)
            return True
        return False
