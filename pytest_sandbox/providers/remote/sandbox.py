"""``RemoteSandbox``: the whole contract of a sandbox, on five things any vendor's API can do.

What runs in the sandbox is a job of a program of ours (``shim``): it outlives every connection,
and its output is read by offset, so that a dropped stream loses nothing. Knows no vendor.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import uuid
from abc import abstractmethod
from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
from functools import partial

import anyio

from pytest_sandbox import shipment
from pytest_sandbox.errors import (
    BadInput,
    CommandTimeout,
    InfraError,
    ProviderUnavailable,
    SandboxLost,
)
from pytest_sandbox.provider import Command, Sandbox, SandboxSpec, Sink, Stream
from pytest_sandbox.providers.remote.asking import TRIES, Receive, Take, ask, pause
from pytest_sandbox.providers.remote.life import Life
from pytest_sandbox.providers.remote.lines import Answer, Lines
from pytest_sandbox.providers.remote.shim.places import CONTROL, INCOMING, OOM_NOTICE, ROOT, SELF

#: Whom tests run as, where the sandbox lets us choose: nobody that an image knows.
OWNER = 59_999
OLDEST = (3, 8)
#: Bytes of an order that go on a command line; longer ones are uploaded.
_INLINE = 4096
#: Seconds that ending one command may take.
_KILL_TIME = 30.0


async def _nothing(answer: Answer) -> None:
    return


class RemoteSandbox(Sandbox):
    """A sandbox of some vendor. Adapters implement ``run``, ``upload``, ``end``, and what they can
    of ``freeze`` and ``renew``; and call ``prepare`` before they give it away.
    """

    root = ROOT
    control = CONTROL
    oom_notice = OOM_NOTICE
    #: Known to ``shim/demotion.py``.
    held = "PYTEST_SANDBOX_HELD_"
    #: Longest time for one ``run``, in seconds.
    patience: float = 3000.0
    #: Most bytes of output in one ``run``, before they are made base64.
    piece: int = 1 << 40
    #: ``run`` hands its output over at the end only.
    polling: bool = False
    #: Seconds of life that ``create`` and ``renew`` ask for at a time; None for all at once.
    lease: float | None = None

    def __init__(self, spec: SandboxSpec, *, id: str, python: str = "python3") -> None:
        self.id = id
        self._spec = spec
        self._python = python
        self._life = Life(spec.name, spec.ttl)
        self._closing = anyio.Lock()
        self._ended = False

    # -- what an adapter implements -----------------------------------------------------------

    @abstractmethod
    async def run(
        self, argv: Sequence[str], on_output: Receive | None = None, *, limit: float
    ) -> int:
        """Run a command of ours, as the most privileged user there is; its exit status.

        Its standard output is ASCII lines, handed over as they come, or at the end. What becomes
        of the command when this is cancelled, or takes longer than ``limit`` seconds, does not
        matter.

        Raises:
            SandboxLost: the sandbox is gone.
            InfraError: the connection broke; the command may have run.
        """

    @abstractmethod
    async def upload(self, path: str, chunks: AsyncIterable[bytes]) -> None:
        """Write a file into a folder that exists. It need not be whole at once.

        Raises:
            SandboxLost, InfraError: as ``run``.
        """

    @abstractmethod
    async def end(self) -> None:
        """End the sandbox at the vendor's. One that is gone is fine.

        Raises:
            InfraError: it may still be there.
        """

    async def freeze(self, name: str) -> str:
        """Keep the file system; the vendor's identifier of the snapshot."""
        raise NotImplementedError

    async def renew(self, seconds: float) -> None:
        """Let the sandbox live that long from now."""

    # -- what it gets for that ----------------------------------------------------------------

    async def prepare(self) -> None:
        """Make the new sandbox ready for everything else.

        Raises:
            ProviderUnavailable: it has no Python that will do, or we may not write in it.
            SandboxLost, InfraError: as ``run``.
        """
        program = f"/tmp/pytest-sandbox-{uuid.uuid4().hex}.pyz"
        shim = shipment.zipped("pytest_sandbox.providers.remote.shim", "pytest_sandbox_shim")
        await self.upload(program, _once(shim))
        noise = bytearray()
        answers: list[Answer] = []
        lines = Lines()

        async def take(data: bytes) -> None:
            noise.extend(data[: max(0, 2000 - len(noise))])
            answers.extend(lines.feed(data))

        argv = (self._python, "-I", "-S", "-B", program, "prepare", str(OWNER))
        status = await self.run(argv, take, limit=60.0)
        if not answers or answers[0].kind != "p":
            text = noise.decode(errors="replace").strip()
            raise ProviderUnavailable(
                f"sandbox {self._spec.name} cannot be made ready (exit status {status}): it needs "
                f"{self._python}, 3.8 or later, on PATH, and to let us write in /run and /tmp; "
                f"choose another --sandbox-image. It said: {text!r}"
            )
        told = json.loads(answers[0].data)
        version = tuple(told["version"])
        if version < OLDEST:
            raise ProviderUnavailable(
                f"sandbox {self._spec.name} has Python {'.'.join(map(str, version))}; the sandbox "
                "needs 3.8 or later: choose another --sandbox-image"
            )
        if told["owner"] is True:
            self.owner = OWNER
        self.demote = (*self._shim("demote"), self._limits())

    def _limits(self) -> str:
        spec = self._spec
        numbers = (self.owner, spec.processes, spec.file_size, 0 if spec.network else 1)
        return ",".join("-" if number is None else str(number) for number in numbers)

    def _shim(self, *args: str) -> tuple[str, ...]:
        return (self._python, "-I", "-S", "-B", SELF, *args)

    async def exec(self, command: Command, sink: Sink | None = None) -> int:
        for text in (*command.argv, *command.env, *command.env.values()):
            if "\0" in text:
                raise ValueError("a null character in an argument or in the environment")
        job = uuid.uuid4().hex
        # Our own limit is for a sandbox that does not keep it.
        patience = None if command.timeout is None else command.timeout + _KILL_TIME
        status = ""
        try:
            with anyio.move_on_after(patience):
                async with self._life.during():
                    order = await self._order(job, command)
                    status = await self._follow(job, order, sink)
        finally:
            if not status and not self._life.over:
                await self._kill(job)
        if status in ("timeout", ""):
            raise CommandTimeout(
                f"{command.argv[0]!r} in sandbox {self._spec.name!r} was killed after "
                f"{command.timeout:g} s, its limit; raise the limit or find out what hangs."
            )
        if not status.isdigit():
            raise InfraError(f"{command.argv[0]!r} in sandbox {self._spec.name!r} was {status}")
        return int(status)

    async def _order(self, job: str, command: Command) -> str:
        stdin = ""
        if command.stdin:
            stdin = f"{job}.stdin"
            await self._send(f"{INCOMING}/{stdin}", lambda: _once(command.stdin))
        order = json.dumps(
            {
                "argv": [_encoded(text) for text in command.argv],
                "env": [(_encoded(name), _encoded(value)) for name, value in command.env.items()],
                "cwd": _encoded(command.cwd or self.root),
                "stdin": stdin,
                "timeout": command.timeout,
            }
        ).encode()
        if len(order) <= _INLINE:
            return base64.urlsafe_b64encode(order).decode()
        await self._send(f"{INCOMING}/{job}", lambda: _once(order))
        return "-"

    async def _send(self, path: str, chunks: Callable[[], AsyncIterable[bytes]]) -> None:
        """Upload what can be sent again."""
        for attempt in range(TRIES):
            try:
                return await self.upload(path, chunks())
            except SandboxLost:
                raise
            except InfraError:
                if attempt == TRIES - 1:
                    raise
            await anyio.sleep(pause(attempt))

    async def _follow(self, job: str, order: str, sink: Sink | None) -> str:
        """Start the job, once, and read it to its end."""
        at = {"o": 0, "e": 0}

        async def take(answer: Answer) -> None:
            if answer.kind in at:
                at[answer.kind] += len(answer.data)
                if sink is not None:
                    await sink("stdout" if answer.kind == "o" else "stderr", answer.data)

        def argv() -> tuple[str, ...]:
            limits = (f"{self.patience - 10:.1f}", str(self.piece))
            how = "poll" if self.polling else "stream"
            return self._shim("run", job, order, str(at["o"]), str(at["e"]), *limits, how)

        last = await self._ask(argv, take)
        if last.kind == "x":
            return last.data.decode("ascii")
        what = "cannot be read on" if last.kind == "l" else "ended with nobody to tell how"
        raise InfraError(f"A command in sandbox {self._spec.name!r} {what}; try again.")

    async def _ask(self, argv: Callable[[], Sequence[str]], take: Take = _nothing) -> Answer:
        return await ask(partial(self.run, limit=self.patience), argv, take)

    async def _kill(self, job: str) -> None:
        with anyio.move_on_after(_KILL_TIME, shield=True):
            try:
                await self._ask(lambda: self._shim("kill", job))
            except InfraError:
                return  # its time limit is left, and the sandbox's

    async def write_file(
        self, path: str, data: bytes | AsyncIterable[bytes], *, mode: int = 0o644
    ) -> None:
        if not path.startswith("/"):
            raise OSError(22, "not an absolute path", path)
        source = _Source(_once(data) if isinstance(data, bytes) else data)
        name = uuid.uuid4().hex
        async with self._life.during():
            for attempt in range(TRIES):
                try:
                    if isinstance(data, bytes):
                        source = _Source(_once(data))
                    await self.upload(f"{INCOMING}/{name}", source)
                except Exception as error:
                    if source.failed is not None:
                        raise source.failed from None
                    again = isinstance(data, bytes) and not isinstance(error, SandboxLost)
                    if not again or not isinstance(error, InfraError) or attempt == TRIES - 1:
                        raise
                    await anyio.sleep(pause(attempt))
                    continue
                told = (_encoded(path), str(mode), str(source.size), source.digest.hexdigest())
                answer = await self._ask(lambda: self._shim("place", name, *told))  # noqa: B023
                if answer.kind == "n":
                    raise _os_error(answer, path)
                if answer.kind == "d":
                    return
                if not isinstance(data, bytes):
                    break
        raise InfraError(
            f"What was sent for a file of sandbox {self._spec.name!r} did not come whole; "
            "try again."
        )

    async def read_file(self, path: str, *, limit: int) -> bytes:
        if not path.startswith("/"):
            raise OSError(22, "not an absolute path", path)
        content = bytearray()

        async def take(answer: Answer) -> None:
            content.extend(answer.data)
            if len(content) > limit:
                raise OSError(27, f"longer than {limit} bytes", path)

        def argv() -> tuple[str, ...]:
            most = min(self.piece, limit + 1)
            return self._shim("read", _encoded(path), str(limit), str(len(content)), str(most))

        async with self._life.during():
            answer = await self._ask(argv, take)
        if answer.kind == "n":
            raise _os_error(answer, path)
        if answer.kind != "x" or int(answer.data) != len(content):
            raise InfraError(
                f"A file of sandbox {self._spec.name!r} did not come whole; try again."
            )
        return bytes(content)

    async def seal(self, folder: str, paths: Sequence[str]) -> str:
        if self.owner is None:
            return await super().seal(folder, paths)
        said = bytearray()

        async def sink(_: Stream, data: bytes) -> None:
            said.extend(data[: max(0, 1000 - len(said))])

        argv = self._shim("seal", _encoded(folder), str(self.owner))
        names = b"".join(path.encode("utf-8", "surrogateescape") + b"\0" for path in paths)
        status = await self.exec(Command(argv=argv, stdin=names, timeout=self.patience), sink)
        text = said.decode(errors="replace").strip()
        return f"the files cannot be sealed: {text[-300:]}" if status else text

    async def snapshot(self, name: str = "") -> str:
        if not self._spec.snapshotable:
            raise BadInput(f"Sandbox {self._spec.name!r} was not made with snapshotable=True.")
        async with self._life.during():
            await self._ask(lambda: self._shim("clean", str(OWNER)))
            return await self.freeze(name or f"pytest-sandbox-{uuid.uuid4().hex}")

    async def keep_alive(self) -> None:
        if self.lease is not None:
            async with self._life.during():
                await self.renew(max(1.0, min(self.lease, self._life.left)))

    async def keep(self) -> None:
        if self.lease is not None:
            await self.renew(max(1.0, self._life.left))

    async def close(self) -> None:
        self._life.end("it was closed")
        with anyio.CancelScope(shield=True):
            async with self._closing:
                if not self._ended:
                    await self.end()
                    self._ended = True


class _Source:
    """Content on its way, counted."""

    def __init__(self, chunks: AsyncIterable[bytes]) -> None:
        self._chunks = chunks
        self.size = 0
        self.digest = hashlib.sha256()
        #: What went wrong where the content comes from.
        self.failed: Exception | None = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._chunks:
                self.size += len(chunk)
                self.digest.update(chunk)
                yield chunk
        except Exception as error:
            self.failed = error
            raise


async def _once(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 1 << 20):
        yield data[start : start + (1 << 20)]


def _encoded(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode("utf-8", "surrogateescape")).decode()


def _os_error(answer: Answer, path: str) -> OSError:
    number = int(answer.data)
    return OSError(number, os.strerror(number), path)
