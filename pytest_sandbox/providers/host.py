"""``HostProvider``: a folder and plain subprocesses on this machine, with no isolation at all.

For throw-away CI runners only; never chosen but by its name.
"""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterable
from pathlib import Path

import anyio
import anyio.abc
import anyio.to_thread

from pytest_sandbox.errors import BadInput, CommandTimeout, SandboxLost, Unsupported
from pytest_sandbox.provider import (
    Capabilities,
    Command,
    Provider,
    Sandbox,
    SandboxSpec,
    Sink,
    Stream,
)

#: How long output of descendants that outlive their command is still waited for.
GRACE = 0.15
_CHUNK = 1 << 16
#: More than pipes and buffers hold: what comes after it was not written by the command itself.
_LATE = 1 << 21
_HAS_PROC = Path("/proc/self/stat").exists()
#: Marks every process of one command, so that also those that left its tree are found.
_MARK = "_SANDBOX_HOST_MARK"


class HostProvider(Provider):
    """Runs commands as the user who runs pytest. Whatever they do, they do to this machine."""

    name = "host"

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            isolation="NONE: commands run as you, on this machine", isolated=False, host_paths=True
        )

    async def check(self) -> None:
        return None

    async def create(self, spec: SandboxSpec) -> Sandbox:
        if not spec.network:
            raise Unsupported("The host provider cannot keep the network off.")
        if spec.snapshot is not None or spec.snapshotable:
            raise Unsupported("The host provider has no snapshots.")
        wished = [
            name
            for name in ("memory", "cpus", "disk", "processes", "file_size")
            if getattr(spec, name) is not None
        ]
        if wished:
            raise Unsupported(f"The host provider has no limits: {', '.join(wished)}.")
        for path in spec.expose:
            if not path.exists():
                raise BadInput(f"{str(path)!r}, to be shown in a sandbox, does not exist.")
        sandbox_id = uuid.uuid4().hex[:16]
        folder = _base() / f"pytest-sandbox-host-{sandbox_id}"
        folder.mkdir(mode=0o700)
        (folder / "name").write_text(spec.name)
        for name in ("root", "control", "tmp", "home"):
            (folder / name).mkdir()
        return HostSandbox(sandbox_id, spec, folder)

    async def reap(self, name: str, sandbox_id: str | None) -> None:
        def work() -> None:
            for folder in _base().glob("pytest-sandbox-host-*"):
                try:
                    mine = folder.stat().st_uid == os.getuid() if hasattr(os, "getuid") else True
                    noted = (folder / "name").read_text()
                except OSError:
                    continue
                found = folder.name.removeprefix("pytest-sandbox-host-")
                if mine and noted == name and sandbox_id in (None, found):
                    _end(found, set())
                    _remove(folder)

        await anyio.to_thread.run_sync(work)


class HostSandbox(Sandbox):
    """One folder, and the processes started for it."""

    def __init__(self, sandbox_id: str, spec: SandboxSpec, folder: Path) -> None:
        self.id = sandbox_id
        self.root = str(folder / "root")
        self.control = str(folder / "control")
        self._name = spec.name
        self._folder = folder
        self._deadline = time.monotonic() + spec.ttl
        self._running: dict[anyio.CancelScope, int] = {}
        self._lost: str | None = None
        self._removed = False
        self._closing = anyio.Lock()

    def _require_open(self) -> None:
        if self._lost is None and time.monotonic() >= self._deadline:
            self._lost = "its time limit passed"
        if self._lost is not None:
            raise SandboxLost(f"Sandbox {self._name!r} is gone: {self._lost}.")

    def _environment(self, command: Command) -> dict[str, str]:
        defaults = {
            "PATH": os.defpath if sys.platform == "win32" else "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self._folder / "home"),
            "TMPDIR": str(self._folder / "tmp"),
            "LANG": "C.UTF-8",
        }
        if sys.platform == "win32":
            # Without it no program starts there.
            defaults["SYSTEMROOT"] = os.environ.get("SYSTEMROOT", r"C:\Windows")
        return defaults | dict(command.env)

    async def exec(self, command: Command, sink: Sink | None = None) -> int:
        self._require_open()
        mark = f"{self.id}.{uuid.uuid4().hex}"
        try:
            process = await anyio.open_process(
                [os.fsencode(text) if os.name == "posix" else text for text in command.argv],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=command.cwd or self.root,
                env=self._environment(command) | {_MARK: f"{mark}."},
                start_new_session=True,
            )
        except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
            if sink is not None:
                text = f"pytest-sandbox: cannot run {command.argv[0]!r}: {error}\n"
                await sink("stderr", text.encode(errors="backslashreplace"))
            return 127 if isinstance(error, FileNotFoundError) else 126
        scope = anyio.CancelScope(deadline=self._loop_deadline())
        self._running[scope] = process.pid
        timed_out = False
        status: int | None = None
        try:
            with scope:
                with anyio.move_on_after(command.timeout) as limit:
                    status = await self._follow(process, command, sink)
                timed_out = limit.cancelled_caught
        finally:
            with anyio.CancelScope(shield=True):
                if status is None:
                    await anyio.to_thread.run_sync(_end, mark, {process.pid})
                await process.aclose()
            del self._running[scope]
        if timed_out:
            raise CommandTimeout(
                f"{command.argv[0]!r} in sandbox {self._name!r} was killed after "
                f"{command.timeout:g} s, its limit; raise the limit or find out what hangs."
            )
        if status is None:
            self._require_open()
            raise SandboxLost(f"Sandbox {self._name!r} is gone.")
        return 128 - status if status < 0 else status

    def _loop_deadline(self) -> float:
        return anyio.current_time() + max(0.0, self._deadline - time.monotonic())

    async def _follow(self, process: anyio.abc.Process, command: Command, sink: Sink | None) -> int:
        failures: list[Exception] = []
        free = anyio.Lock()
        exited = anyio.Event()
        feeding = anyio.CancelScope()
        waits: set[anyio.CancelScope] = set()
        async with anyio.create_task_group() as tasks:

            async def feed() -> None:
                assert process.stdin is not None
                try:
                    with feeding:
                        if command.stdin:
                            await process.stdin.send(command.stdin)
                        await process.stdin.aclose()
                except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
                    pass  # Not reading one's input is no error.

            async def pump(stream: Stream, source: anyio.abc.ByteReceiveStream) -> None:
                late = 0
                while late < _LATE:
                    # Once the command ended, a silence ends the reading: a descendant may
                    # keep the pipe open for ever.
                    with anyio.CancelScope() as waiting:
                        if exited.is_set():
                            waiting.deadline = anyio.current_time() + GRACE
                        waits.add(waiting)
                        try:
                            data = await source.receive(_CHUNK)
                        except (anyio.EndOfStream, anyio.ClosedResourceError):
                            return
                        finally:
                            waits.discard(waiting)
                    if waiting.cancelled_caught:
                        return
                    if exited.is_set():
                        late += len(data)
                    if sink is not None:
                        try:
                            async with free:
                                await sink(stream, data)
                        except Exception as error:  # noqa: BLE001 - raised again below
                            failures.append(error)
                            tasks.cancel_scope.cancel()
                            return

            assert process.stdout is not None
            assert process.stderr is not None
            tasks.start_soon(feed)
            tasks.start_soon(pump, "stdout", process.stdout)
            tasks.start_soon(pump, "stderr", process.stderr)
            status = await process.wait()
            exited.set()
            feeding.cancel()
            for waiting in waits:
                waiting.deadline = anyio.current_time() + GRACE
        if failures:
            raise failures[0]
        return status

    async def write_file(
        self, path: str, data: bytes | AsyncIterable[bytes], *, mode: int = 0o644
    ) -> None:
        self._require_open()
        target = _absolute(path)
        await anyio.to_thread.run_sync(lambda: target.parent.mkdir(parents=True, exist_ok=True))
        if target.is_dir() and not target.is_symlink():
            raise IsADirectoryError(21, "a folder is there", path)
        part = target.with_name(f".{uuid.uuid4().hex}.part")
        try:
            async with await anyio.open_file(part, "xb") as file:
                if isinstance(data, bytes):
                    await file.write(data)
                else:
                    async for chunk in data:
                        await file.write(chunk)
            part.chmod(mode)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)

    async def read_file(self, path: str, *, limit: int) -> bytes:
        self._require_open()

        def read() -> bytes:
            # Opening a pipe or a device must neither wait nor start anything.
            flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
            fd = os.open(_absolute(path), flags | getattr(os, "O_BINARY", 0))
            with open(fd, "rb") as file:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    raise OSError(22, "not a regular file", path)
                data = file.read(limit + 1)
            if len(data) > limit:
                raise OSError(27, f"longer than {limit} bytes", path)
            return data

        return await anyio.to_thread.run_sync(read)

    async def close(self) -> None:
        if self._lost is None:
            self._lost = "it was closed"
        with anyio.CancelScope(shield=True):
            async with self._closing:
                if self._removed:
                    return
                for scope in list(self._running):
                    scope.cancel()
                await anyio.to_thread.run_sync(_end, self.id, set(self._running.values()))
                await anyio.to_thread.run_sync(_remove, self._folder)
                self._removed = True


def _base() -> Path:
    return Path(os.path.realpath(tempfile.gettempdir()))


def _absolute(path: str) -> Path:
    if not os.path.isabs(path):
        raise OSError(22, "not an absolute path", path)
    return Path(path)


def _remove(folder: Path) -> None:
    def open_up(function: object, path: str, error: object) -> None:
        for name in (os.path.dirname(path), path):
            try:
                os.chmod(name, 0o700)
            except OSError:
                pass
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path, ignore_errors=True)
        else:
            Path(path).unlink(missing_ok=True)

    # On Python 3.12 "onexc" is the new name, with the old one deprecated from there on.
    if sys.version_info >= (3, 12):
        shutil.rmtree(folder, onexc=open_up)
    else:
        shutil.rmtree(folder, onerror=open_up)


def _parents() -> dict[int, int]:
    """pid: parent's pid, of what lives."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_bytes().rpartition(b")")[2].split()
            except OSError:
                continue
            if len(fields) > 1 and fields[0] not in (b"Z", b"X"):
                found[int(entry.name)] = int(fields[1])
    return found


def _below(roots: set[int]) -> set[int]:
    parents = _parents()
    found = {pid for pid in roots if pid in parents}
    grew = True
    while grew:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        found |= more
        grew = bool(more)
    return found


def _marked(mark: str) -> set[int]:
    """Processes started for one command, or one sandbox, by their environment."""
    wanted = f"{_MARK}={mark}.".encode()
    found = set()
    for pid in _parents():
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
            if any(text.startswith(wanted) for text in environment.split(b"\0")):
                found.add(pid)
        except OSError:
            continue
    return found


def _kill(pids: set[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))
        except (ProcessLookupError, PermissionError):
            pass


def _end(mark: str, roots: set[int]) -> None:
    """Kills what descends from ``roots`` or carries ``mark``, until nothing does."""
    if sys.platform == "win32":
        _kill(roots)
        return
    if not _HAS_PROC:
        for root in roots:
            try:
                os.killpg(root, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass
        return
    deadline = time.monotonic() + 5.0
    while (pids := _below(roots) | _marked(mark)) and time.monotonic() < deadline:
        _kill(pids)
        time.sleep(0.01)
