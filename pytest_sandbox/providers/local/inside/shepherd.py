"""One process per request: runs a command and answers for all its descendants, or moves a file.

Talks on a socket of its own; when the owner closes it or says kill, the whole tree ends.
"""

from __future__ import annotations

import errno
import os
import resource
import select
import signal
import socket
import stat
import sys
from typing import Any, NoReturn

from pytest_sandbox.providers.local.inside import linux, processes, seals

_CHUNK = 1 << 18
PRIVATE = "/run/pytest-sandbox"

Message = dict[str, Any]


def serve(order: Message, fds: list[int], request: Message) -> NoReturn:
    """Answers one order on ``fds[0]`` and exits."""
    answer: Message = {}
    try:
        with socket.socket(fileno=fds[0]) as reply:
            try:
                if order["op"] == "exec":
                    answer = {"exit": _Command(order, fds, reply).run()}
                elif order["op"] == "write":
                    # Exceeding it is an error of the call: Python ignores the signal.
                    resource.setrlimit(resource.RLIMIT_FSIZE, (request["file_size"],) * 2)
                    _write(order, fds[1], reply)
                    answer = {"done": True}
                elif order["op"] == "seal":
                    answer = {"left": seals.seal(order["folder"], order["paths"])}
                else:
                    answer = {"done": _read(order, fds[1])}
            except OSError as error:
                answer = {"errno": error.errno, "detail": str(error)}
            for fd in fds[1:]:
                os.close(fd)
            linux.send_message(reply, answer, [])
            # Closing with anything unread would make the owner lose the answer, so wait for it.
            while linux.receive_message(reply)[0] is not None:
                pass
    finally:
        os._exit(0)


class _Command:
    """A child in a session of its own, and whatever descends from it."""

    def __init__(self, order: Message, fds: list[int], reply: socket.socket) -> None:
        self._order = order
        self._fds = fds
        self._reply = reply
        self._child = 0
        self._status: int | None = None

    def run(self) -> int:
        linux.prctl(linux.PR_SET_CHILD_SUBREAPER, 1)
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_read, False)
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._child = os.fork()
        if self._child == 0:
            self._become()
        for fd in self._fds[1:]:
            os.close(fd)
        self._fds[1:] = []
        poller = select.poll()
        poller.register(self._reply, select.POLLIN)
        poller.register(wake_read, select.POLLIN)
        while True:
            self._reap()
            if self._status is not None:
                code = os.waitstatus_to_exitcode(self._status)
                return 128 - code if code < 0 else code
            ready = {fd for fd, _ in poller.poll()}
            if wake_read in ready:
                os.read(wake_read, 4096)
            if self._reply.fileno() in ready:
                if not processes.end_tree(os.getpid(), self._reap):
                    raise OSError(errno.EBUSY, "some processes would not die")
                return 128 + signal.SIGKILL

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._child:
                self._status = status

    def _become(self) -> NoReturn:
        argv = [os.fsencode(text) for text in self._order["argv"]]
        environment = {
            os.fsencode(name): os.fsencode(value) for name, value in self._order["env"].items()
        }
        code = 126
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            os.setsid()
            # All received descriptors are above 2: the launcher was started with those open.
            for target, fd in enumerate(self._fds[1:4]):
                os.dup2(fd, target)
            os.closerange(3, os.sysconf("SC_OPEN_MAX"))
            linux.keep_only_capability(linux.CAP_SETFCAP)
            os.chdir(os.fsencode(self._order["cwd"]))
            os.execvpe(argv[0], argv, environment)  # noqa: S606
        except FileNotFoundError as error:
            code = 127
            _complain(argv[0], error)
        except OSError as error:
            _complain(argv[0], error)
        finally:
            os._exit(code)


def _complain(program: bytes, error: OSError) -> None:
    try:
        os.write(2, b"pytest-sandbox: cannot run %r: %s\n" % (program, str(error).encode()))
    except OSError:
        pass


def _guard(fd: int, path: str) -> None:
    """A link that the tests made must not lead us into the supervisor's folder."""
    wanted = os.path.normpath(path)
    if wanted == PRIVATE or wanted.startswith(PRIVATE + "/"):
        return
    real = os.readlink(f"/proc/self/fd/{fd}")
    if real == PRIVATE or real.startswith(PRIVATE + "/"):
        raise PermissionError(errno.EPERM, "a link leads out of the workspace", path)


def _write(order: Message, source: int, reply: socket.socket) -> None:
    path = order["path"]
    folder, name = os.path.split(path)
    if not name:
        raise IsADirectoryError(errno.EISDIR, "a folder", path)
    _make_folders(folder)
    parent = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    _guard(parent, path)
    try:
        if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            raise IsADirectoryError(errno.EISDIR, "a folder is there", path)
    except FileNotFoundError:
        pass
    part = f".{order['token']}.part"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    target = os.open(part, flags, 0o600, dir_fd=parent)
    try:
        while data := os.read(source, _CHUNK):
            _write_all(target, data)
        # The data also ends when the owner gives up or dies; only this says it is complete.
        if linux.receive_message(reply)[0] is None:
            raise OSError(errno.ECANCELED, "the data ended early", path)
        os.fchmod(target, order["mode"])
        os.rename(part, name, src_dir_fd=parent, dst_dir_fd=parent)
    except BaseException:
        os.unlink(part, dir_fd=parent)
        raise


def _make_folders(folder: str) -> None:
    if not os.path.isabs(folder):
        raise OSError(errno.EINVAL, "not an absolute path", folder)
    os.makedirs(folder, exist_ok=True)


def _read(order: Message, target: int) -> int:
    path, limit = order["path"], order["limit"]
    # Opening a pipe or a device must neither wait nor start anything.
    source = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    status = os.fstat(source)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", path)
    _guard(source, path)
    if status.st_size > limit:
        raise OSError(errno.EFBIG, f"longer than {limit} bytes", path)
    total = 0
    while data := os.read(source, _CHUNK):
        total += len(data)
        if total > limit:
            raise OSError(errno.EFBIG, f"longer than {limit} bytes", path)
        _write_all(target, data)
    return total


def _write_all(target: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(target, view) :]


if sys.platform != "linux":
    raise ImportError("the local engine's inside runs on Linux only")
