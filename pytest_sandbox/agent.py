# mypy: disable-error-code=untyped-decorator
"""The half that runs in the sandbox: unpacks trees, supervises pytest, streams frames.

One file, shipped as bytes and run by the target's interpreter: Python 3.8 and later, standard
library and pytest only, nothing of this package. docs/agent-protocol.md is its contract.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from time import monotonic, time
from typing import Any, Callable, Iterator

PROTOCOL = 1
#: Longest line that is sent, in bytes; the host refuses lines of 4 MiB.
LINE_LIMIT = 3 * 1024 * 1024
#: The host's own limits on names and on single words, in characters.
NAME_LIMIT = 65_536
WORD_LIMIT = 256
MAX_ITEMS = 1_000_000
DELETED = ".pytest-sandbox-deleted"
#: What is kept of the worker's output to explain its death, in bytes, and what is shown of it.
TAIL = 32_768
SHOWN = 4_000
#: Seconds a worker has to exit once its session is over.
GRACE = 3.0

# Bound early: tests patch these modules, and the worker must not notice.
_write, _read, _getpid = os.write, os.read, os.getpid
dumps: Callable[[Any], str] = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode

# Only three descriptors survive every way to drop privileges, so the worker's source comes
# through stdin, before its orders. Nothing is left in __main__ for the tests to see.
BOOT = """\
def _boot():
    import os
    def read(size):
        data = b""
        while len(data) < size:
            more = os.read(0, size - len(data))
            if not more:
                os._exit(72)
            data += more
        return data
    scope = {"__name__": "pytest_sandbox_agent"}
    exec(compile(read(int(read(12))), "<pytest-sandbox agent>", "exec"), scope)
    return scope["worker"]
_boot = _boot()
_boot()
"""


# ---------------------------------------------------------------- texts


def cut(text: str, limit: int) -> str:
    """``text`` in at most about ``limit`` characters: its head, a note, and its tail."""
    if len(text) <= limit:
        return text
    tail = limit // 3
    head = limit - tail
    note = f"\n[... {len(text) - limit} characters cut ...]\n"
    return text[:head] + note + (text[-tail:] if tail else "")


def short(text: Any, limit: int = WORD_LIMIT) -> str:
    """``text`` as a name of at most ``limit`` characters."""
    name = plain(text)
    return name if len(name) <= limit else name[: limit - 3] + "..."


def plain(value: Any) -> str:
    """``str(value)`` of anything, encodable as UTF-8."""
    if type(value) is not str:
        try:
            value = f"{value!s}"
        except Exception as error:  # noqa: BLE001 - tests' objects may raise anything here
            value = f"<{type(value).__name__} whose str() raised {type(error).__name__}>"
    if value.isascii():
        return str(value)
    return str(value.encode("utf-8", "backslashreplace"), "utf-8")


def shrink(value: Any, limit: int) -> Any:
    """A copy of ``value`` in which no text is longer than about ``limit`` characters."""
    if isinstance(value, str):
        return cut(value, limit)
    if isinstance(value, (list, tuple)):
        return [shrink(part, limit) for part in value]
    if isinstance(value, dict):
        return {key: shrink(part, limit) for key, part in value.items()}
    return value


# ---------------------------------------------------------------- files


class Unsafe(Exception):
    """An archive asks for something outside of its folder, or for a special file."""


def _parts(name: str) -> list[str]:
    parts = name.rstrip("/").split("/")
    if name.startswith("/") or any(part in ("", ".", "..") for part in parts) or "\0" in name:
        raise Unsafe(f"{name!r} is not a path below the folder to unpack in")
    return parts


class Folder:
    """Opens folders below a root, never through a symbolic link."""

    _FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | getattr(os, "O_CLOEXEC", 0)

    def __init__(self, root: str) -> None:
        self._open: list[tuple[str, int]] = [("", os.open(root, os.O_RDONLY | os.O_DIRECTORY))]

    def enter(self, parts: list[str], *, make: bool) -> int:
        """A descriptor of the folder, valid until the next call."""
        keep = 1
        while keep < len(self._open) and keep <= len(parts):
            if self._open[keep][0] != parts[keep - 1]:
                break
            keep += 1
        while len(self._open) > keep:
            os.close(self._open.pop()[1])
        for part in parts[keep - 1 :]:
            parent = self._open[-1][1]
            if make:
                try:
                    os.mkdir(part, 0o755, dir_fd=parent)
                except FileExistsError:
                    pass
            try:
                fd = os.open(part, self._FLAGS, dir_fd=parent)
            except NotADirectoryError:
                raise Unsafe(f"{'/'.join(parts)!r} leads through a link or a file") from None
            except OSError as error:
                if error.errno == 40:  # ELOOP: what O_NOFOLLOW says of a link
                    raise Unsafe(f"{'/'.join(parts)!r} leads through a link") from None
                raise
            self._open.append((part, fd))
        return self._open[-1][1]

    def close(self) -> None:
        while self._open:
            os.close(self._open.pop()[1])


def unpack(archive: str, dest: str) -> None:
    """Unpack a tar.gz below ``dest``: first what it deletes, then what it brings.

    Raises:
        Unsafe: a member leads outside, through a link, or is a special file.
    """
    import tarfile

    os.makedirs(dest, exist_ok=True)
    folder = Folder(dest)
    try:
        with tarfile.open(archive, "r:gz", encoding="utf-8", errors="surrogateescape") as tar:
            # The host puts the list of deletions first; elsewhere it costs a second pass.
            for member in tar:
                if member.name == DELETED:
                    content = tar.extractfile(member)
                    if content is not None:
                        for path in content.read().split(b"\0"):
                            if path:
                                _delete(folder, os.fsdecode(path))
                    break
            for member in tar:
                if member.name not in (DELETED, ".", "./"):
                    _extract(folder, tar, member)
    finally:
        folder.close()


def _delete(folder: Folder, name: str) -> None:
    parts = _parts(name)
    try:
        parent = folder.enter(parts[:-1], make=False)
    except FileNotFoundError:
        return
    try:
        os.unlink(parts[-1], dir_fd=parent)
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):
        try:
            os.rmdir(parts[-1], dir_fd=parent)
        except OSError:
            raise Unsafe(f"{name!r} is to be deleted, but is a folder with content") from None
    _forget_bytecode(parent, parts[-1])
    for depth in range(len(parts) - 1, 0, -1):
        try:
            os.rmdir(parts[depth - 1], dir_fd=folder.enter(parts[: depth - 1], make=False))
        except OSError:
            return


def _forget_bytecode(parent: int, name: str) -> None:
    # Python takes a cached file for current by second and size of its source, and a patch may
    # keep both; a folder with nothing but a cache would still be importable.
    if not name.endswith(".py"):
        return
    try:
        cache = os.open("__pycache__", Folder._FLAGS, dir_fd=parent)
    except OSError:
        return
    try:
        for entry in os.listdir(cache):
            if entry.startswith(name[:-2]) and entry.endswith(".pyc"):
                os.unlink(entry, dir_fd=cache)
    except OSError:
        pass
    finally:
        os.close(cache)
    try:
        os.rmdir("__pycache__", dir_fd=parent)
    except OSError:
        pass


def _extract(folder: Folder, tar: Any, member: Any) -> None:
    parts = _parts(member.name)
    if member.isdir():
        folder.enter(parts, make=True)
        return
    if not (member.isreg() or member.issym()):
        raise Unsafe(f"{member.name!r} is neither a file nor a folder nor a symbolic link")
    parent = folder.enter(parts[:-1], make=True)
    name = parts[-1]
    try:
        os.unlink(name, dir_fd=parent)  # never written through, were it a link
        _forget_bytecode(parent, name)
    except FileNotFoundError:
        pass
    except (IsADirectoryError, PermissionError):
        try:
            os.rmdir(name, dir_fd=parent)
        except OSError:
            raise Unsafe(f"{member.name!r} is to replace a folder with content") from None
    if member.issym():
        os.symlink(member.linkname, name, dir_fd=parent)
        return
    source = tar.extractfile(member)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    fd = os.open(name, flags, 0o755 if member.mode & 0o111 else 0o644, dir_fd=parent)
    with open(fd, "wb") as target:
        while True:
            data = source.read(1 << 20)
            if not data:
                break
            target.write(data)


def _glob(pattern: str) -> str:
    """A regular expression for a glob over relative paths; ``**`` spans folders."""
    parts = []
    for part in pattern.strip("/").split("/"):
        if part == "**":
            parts.append("(?:[^/]+/)*")
            continue
        text = ""
        at = 0
        while at < len(part):
            char = part[at]
            end = part.find("]", at + 2) if char == "[" else -1
            if char == "*":
                text += "[^/]*"
            elif char == "?":
                text += "[^/]"
            elif end > 0:
                chars = part[at + 1 : end].replace("\\", "\\\\").replace("[", "\\[")
                text += "(?!/)[" + ("^" + chars[1:] if chars[0] == "!" else chars) + "]"
                at = end
            else:
                text += re.escape(char)
            at += 1
        parts.append(text + "/")
    expression = "".join(parts)
    if pattern.rstrip("/").endswith("**"):
        return expression + "[^/]+"
    return expression[:-1]


class _Padded:
    """A file read as exactly ``size`` bytes, whatever happens to it meanwhile."""

    def __init__(self, fd: int, size: int) -> None:
        self._fd = fd
        self._left = size

    def read(self, size: int) -> bytes:
        size = min(size, self._left)
        data = os.read(self._fd, size) if size else b""
        if len(data) < size:
            rest = os.read(self._fd, size - len(data)) if data else b""
            data = (data + rest).ljust(size, b"\0")
        self._left -= size
        return data


def collect(control: str, globs: list[str], limit: int, count: int) -> list[str]:
    """Write CONTROL/artifacts.tar and return what was left out, in words."""
    import stat
    import tarfile

    with open(os.path.join(control, "plan.json"), encoding="utf-8") as file:
        workspace = json.load(file)["workspace"]
    wanted = re.compile("|".join(f"(?:{_glob(glob)})" for glob in globs) or "(?!)", re.DOTALL)
    left_out = []
    path = os.path.join(control, "artifacts.tar")
    with tarfile.open(
        path, "w", format=tarfile.PAX_FORMAT, encoding="utf-8", errors="surrogateescape"
    ) as tar:
        for name, parent in _walk(os.open(workspace, os.O_RDONLY | os.O_DIRECTORY), ""):
            if not wanted.fullmatch(name):
                continue
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
            try:
                fd = os.open(name.rsplit("/", 1)[-1], flags, dir_fd=parent)
            except OSError as error:
                left_out.append(f"{name!r} cannot be read: {error.strerror}")
                continue
            try:
                status = os.fstat(fd)
                if not stat.S_ISREG(status.st_mode):
                    continue
                if status.st_size > limit:
                    left_out.append(f"{name!r}: {status.st_size} bytes are over the limit")
                    continue
                if count <= 0:
                    left_out.append(f"{name!r} and what follows: too many files")
                    break
                limit -= status.st_size
                count -= 1
                info = tarfile.TarInfo(name)
                info.size = status.st_size
                info.mtime = int(status.st_mtime)
                info.mode = 0o755 if status.st_mode & 0o111 else 0o644
                tar.addfile(info, _Padded(fd, status.st_size))  # type: ignore[arg-type]
            finally:
                os.close(fd)
    return left_out


def _walk(fd: int, prefix: str, depth: int = 0) -> Iterator[tuple[str, int]]:
    """All entries that look like files below ``fd``, which is closed in the end."""
    try:
        for name in sorted(os.listdir(fd)):
            try:
                inner = os.open(name, Folder._FLAGS, dir_fd=fd)
            except OSError:
                yield prefix + name, fd
                continue
            if depth < 200:
                yield from _walk(inner, f"{prefix}{name}/", depth + 1)
            else:
                os.close(inner)
    finally:
        os.close(fd)


# ---------------------------------------------------------------- run and follow


def _stat(pid: int) -> tuple[int, str, str] | None:
    """Parent, state and start time of a process; None where there is no such."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return int(fields[1]), fields[0].decode(), fields[19].decode()
    except (OSError, IndexError, ValueError):
        return None


def _alive(mark: str) -> bool:
    """Whether the process noted as "PID STARTTIME" still runs."""
    pid, _, started = mark.partition(" ")
    found = _stat(int(pid))
    if found is not None:
        return found[1] not in "ZX" and (not started or found[2] == started)
    if os.path.exists("/proc/self/stat"):
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def run(control: str) -> int:
    """Start the supervisor, detached, and return once its spool exists."""
    import subprocess
    from time import sleep

    spool = os.path.join(control, "spool")
    with open(os.path.join(control, "supervisor.log"), "ab") as log:
        # It outlives this process and is then no child of anybody who waits for it.
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", os.path.abspath(__file__), "supervise", control],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            start_new_session=True,
        )
    while not os.path.exists(spool):
        if process.poll() is not None:
            with open(os.path.join(control, "supervisor.log"), encoding="utf-8") as file:
                sys.stderr.write(file.read()[-4000:])
            return 1
        sleep(0.002)
    process.returncode = 0  # not waited for, on purpose
    return 0


_END = re.compile(rb'\{"n":[0-9]+,"kind":"end",')


def follow(control: str, offset: int) -> int:
    """Copy whole lines of the spool to stdout until the end frame; 3 if none will come."""
    from time import sleep

    pause, checked, dead = 0.02, monotonic(), False
    pending = b""
    spool = -1
    while spool < 0:
        try:
            spool = os.open(os.path.join(control, "spool"), os.O_RDONLY)
        except FileNotFoundError:
            if monotonic() > checked + 5:
                sys.stderr.write("there is no spool: `run` was not started here\n")
                return 3
            sleep(0.01)
    os.lseek(spool, offset, os.SEEK_SET)
    while True:
        data = os.read(spool, 1 << 20)
        if data:
            pause = 0.02
            whole, newline, rest = data.rpartition(b"\n")
            if not newline:
                pending += data
                continue
            view = pending + whole + newline
            last = view[view.rfind(b"\n", 0, -1) + 1 :]
            pending = rest
            out = memoryview(view)
            while out:
                out = out[os.write(1, out) :]
            if _END.match(last):
                return 0
            if len(data) >= 1 << 16:
                continue
        elif dead:
            sys.stderr.write("the supervisor ended without an end frame\n")
            return 3
        elif monotonic() - checked > 0.5:
            checked = monotonic()
            try:
                with open(os.path.join(control, "supervisor.pid"), encoding="ascii") as file:
                    dead = not _alive(file.read().strip())
            except (OSError, ValueError):
                dead = True
            continue  # read once more: it may have written its last in between
        sleep(pause)
        pause = min(pause * 1.5, 0.05)


# ---------------------------------------------------------------- what a worker may say


def _text(limit: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is str and len(value) <= limit


def _number(low: float, high: float) -> Callable[[Any], bool]:
    return lambda value: type(value) in (int, float) and low <= value <= high


def _integer(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and low <= value <= high


def _list(check: Callable[[Any], bool], limit: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is list and len(value) <= limit and all(map(check, value))


def _pair(first: Callable[[Any], bool], second: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: (
        type(value) is list and len(value) == 2 and first(value[0]) and second(value[1])
    )


def _dict(check: Callable[[Any], bool], limit: int) -> Callable[[Any], bool]:
    return lambda value: (
        type(value) is dict
        and len(value) <= limit
        and all(len(key) <= WORD_LIMIT for key in value)
        and all(map(check, value.values()))
    )


def _one_of(*allowed: str) -> Callable[[Any], bool]:
    return lambda value: type(value) is str and value in allowed


def _optional(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or check(value)


def _struct(
    required: dict[str, Callable[[Any], bool]], optional: dict[str, Callable[[Any], bool]]
) -> Callable[[Any], bool]:
    checks = {**required, **optional}
    names = frozenset(required)

    def check(value: Any) -> bool:
        if type(value) is not dict or not names <= value.keys():
            return False
        for key, part in value.items():
            known = checks.get(key)
            if known is None or not known(part):
                return False
        return True

    return check


def _schema() -> dict[str, Callable[[Any], bool]]:
    """The frames a worker may send, by kind; the host's own gate is in wire.py."""
    word, name, text = _text(WORD_LIMIT), _text(NAME_LIMIT), _text(2_000_000)
    count, index = _integer(0, 2**53), _integer(0, MAX_ITEMS - 1)
    parent, line = _integer(-1, MAX_ITEMS - 1), _integer(-1, 2**31)
    seconds, moment = _number(0, 1e9), _number(0, 1e11)

    def scalar(value: Any) -> bool:
        return value is None or type(value) in (int, float, bool) or text(value)

    longrepr = _struct({"text": text}, {"path": name, "lineno": line, "message": text})
    sections = _list(_pair(word, text), 256)
    mark = _struct({"name": word}, {"kwargs": _dict(scalar, 64)})
    node = _struct({"parent": parent, "type": word, "name": name, "nodeid": name}, {})
    item = _struct(
        {"parent": parent, "type": word, "name": name, "nodeid": name, "path": name,
         "lineno": _optional(line), "domain": name},
        {"marks": _list(mark, 256), "keywords": _list(name, 1024)},
    )  # fmt: skip
    subtest = _struct({}, {"msg": _optional(text), "kwargs": _dict(text, 64)})
    return {
        "hello": _struct(
            {"protocol": count, "python": word, "pytest": word, "platform": word,
             "rootdir": name, "pid": count, "dump": _optional(count)},
            {"plugins": _list(word, 512)},
        ),
        "collectreport": _struct(
            {"nodeid": name, "outcome": _one_of("failed", "skipped"), "longrepr": longrepr},
            {"sections": sections},
        ),
        "collected": _struct({"nodes": _list(node, 10_000), "items": _list(item, 10_000)}, {}),
        "ready": _struct(
            {"total": count, "deselected": count, "seconds": seconds, "maxfail": count}, {}
        ),
        "imports": _struct({"paths": _dict(_list(name, 64), 256)}, {}),
        "start": _struct({"item": index}, {}),
        "phase": _struct({"item": index, "when": _one_of("setup", "call", "teardown")}, {}),
        "report": _struct(
            {"item": index, "when": _one_of("setup", "call", "teardown"),
             "outcome": _one_of("passed", "failed", "skipped"),
             "duration": seconds, "start": moment, "stop": moment},
            {"longrepr": _optional(longrepr), "sections": sections,
             "properties": _list(_pair(word, scalar), 256),
             "wasxfail": _optional(text), "subtest": _optional(subtest)},
        ),
        "finish": _struct({"item": index}, {}),
        "warning": _struct(
            {"message": text, "category": word, "path": name, "lineno": _integer(0, 2**31),
             "when": _one_of("config", "collect", "runtest"), "nodeid": name},
            {},
        ),
        "internalerror": _struct({"text": text}, {}),
        "session": _struct(
            {"exitstatus": _integer(-255, 2**31), "exit": _optional(text), "refused": text}, {}
        ),
    }  # fmt: skip


# ---------------------------------------------------------------- the supervisor


class Nonsense(Exception):
    """The worker sent what no worker sends."""


class Over(Exception):
    """The run is over: the arguments of its end frame."""

    def __init__(self, reason: str, exitstatus: int | None, message: str = "") -> None:
        super().__init__(reason)
        self.reason, self.exitstatus, self.message = reason, exitstatus, message


class Process:
    """A worker's process and its three pipes."""

    def __init__(self, plan: dict[str, Any], source: bytes) -> None:
        import subprocess

        self.popen = subprocess.Popen(
            [*plan["demote"], *plan["python"], "-u", "-c", BOOT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=plan["cwd"],
            env=plan["env"],
            start_new_session=True,
            bufsize=0,
        )
        assert self.popen.stdin is not None
        assert self.popen.stdout is not None
        assert self.popen.stderr is not None
        self.pid = self.popen.pid
        self.stdin = self.popen.stdin.fileno()
        self.stdout = self.popen.stdout.fileno()
        self.stderr = self.popen.stderr.fileno()
        for fd in (self.stdin, self.stdout, self.stderr):
            os.set_blocking(fd, False)
        orders = {key: plan[key] for key in WORKER_PLAN}
        self.outbox = bytearray(b"%012d" % len(source) + source)
        self.outbox += dumps(orders).encode() + b"\n"
        self.inbox = bytearray()
        #: As os.waitpid() gives it; None while the process lives.
        self.status: int | None = None
        #: Its pid as it sees it itself, and the signal for a stack dump.
        self.own_pid = 0
        self.dump_signal: int | None = None
        #: When the end of its frames was seen.
        self.closed: float | None = None

    def close(self) -> None:
        for pipe in (self.popen.stdin, self.popen.stdout, self.popen.stderr):
            try:
                if pipe:
                    pipe.close()
            except OSError:
                pass


#: What of the plan a worker gets to know.
WORKER_PLAN = (
    "args", "cwd", "workspace", "ini_keys", "block", "packages", "text_limit", "columns",
    "cache",
)  # fmt: skip

DEFAULTS: dict[str, Any] = {
    "args": [], "demote": [], "env": {}, "ini_keys": [], "block": [], "packages": [],
    "run_timeout": 3600.0, "collect_timeout": 300.0, "select_timeout": 86400.0,
    "test_timeout": None, "output_limit": 1 << 26, "frame_limit": 1 << 30,
    "text_limit": 200_000, "restarts": 10, "oom_notice": None, "live": False, "columns": 80,
    "heartbeat": 5.0,
}  # fmt: skip


class Spool:
    """The append-only file of frames, numbered; written by one supervisor."""

    def __init__(self, control: str) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
        self._fd = os.open(os.path.join(control, "spool"), flags, 0o644)
        self._n = 0
        self._size = 0
        self._lines: list[str] = []
        #: Bytes of frames a run may make.
        self.limit = 1 << 30

    def put(self, kind: str, fields: dict[str, Any]) -> None:
        line = dumps({"n": self._n, "kind": kind, **fields})
        limit = 400_000
        while len(line) > LINE_LIMIT and limit > 100:
            limit //= 2
            line = dumps({"n": self._n, "kind": kind, **shrink(fields, limit)})
        # The last words on the running test, and the end, have some room of their own.
        room = {"end": float("inf"), "report": 1.1, "finish": 1.1}.get(kind, 1.0)
        if self._size + len(line) > self.limit * room:
            raise Over("output", None, "the results are larger than the limit of the run")
        self._n += 1
        self._size += len(line) + 1
        self._lines.append(line + "\n")

    def flush(self) -> None:
        if self._lines:
            data = memoryview("".join(self._lines).encode("ascii"))
            self._lines.clear()
            while data:
                data = data[os.write(self._fd, data) :]


class Supervisor:
    """Runs workers until every chosen test has its result; owns the control directory."""

    def __init__(self, control: str) -> None:
        import codecs
        import selectors

        self._control = control
        if os.path.exists(os.path.join(control, "spool")):
            raise FileExistsError("a run was already started with this control directory")
        mark = os.path.join(control, "supervisor.pid")
        with open(mark + ".new", "w", encoding="ascii") as file:
            found = _stat(os.getpid())
            file.write(f"{os.getpid()} {found[2] if found else ''}")
        os.replace(mark + ".new", mark)
        # It exists before anything can fail, so that failing can be told.
        self._spool = Spool(control)
        self._emit = self._spool.put
        self._plan: dict[str, Any] = {}
        self._schema = _schema()
        self._selector = selectors.DefaultSelector()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._worker: Process | None = None
        self._stopped = False

        self._phase = "start"
        self._since = monotonic()  # of the phase, or of the running test
        self._collecting = self._since  # start of the worker
        self._waited = 0.0  # seconds spent waiting for the host
        self._began = self._since
        self._beat = self._since
        self._restarts = 0
        self._first = True  # no worker has been ready yet

        self._items: list[tuple[str, int]] = []  # node id, how many of that id came before
        self._places: list[tuple[str, int]] = []  # path and line number
        self._seen: dict[str, int] = {}
        self._nodes = 0
        self._chosen: dict[int, None] | None = None  # what is left to do, in order
        self._to_local: dict[int, int] = {}
        self._to_global: dict[int, int] = {}
        self._maxfail = 0
        self._failed = 0
        self._running: int | None = None
        self._when = "setup"
        self._whens: set[str] = set()
        self._internal = False
        self._session: dict[str, Any] | None = None
        self._tail = bytearray()
        self._output = 0
        self._oom: Any = None

    # ------------------------------------------------ the run

    def main(self) -> None:
        """Run to the end frame, whatever happens."""
        try:
            self._prepare()
            while True:
                self._start()
                self._attend()
        except Over as over:
            end = over
        except Exception as error:  # noqa: BLE001 - the one boundary: failing is told, too
            import traceback

            traceback.print_exc()
            text = f"{type(error).__name__}: {error}\n{traceback.format_exc()[-4000:]}"
            end = Over("supervisor", None, f"the supervisor in the sandbox failed: {text}")
        self._phase = "stop"
        try:
            self._kill()
            if "cache" in self._plan:
                import shutil

                # A worker that was killed could not; it follows no links.
                shutil.rmtree(self._plan["cache"], ignore_errors=True)
        finally:
            message = cut(plain(end.message), 100_000)
            fields = {"reason": end.reason, "exitstatus": end.exitstatus, "message": message}
            self._emit("end", fields)
            self._spool.flush()

    def _prepare(self) -> None:
        import selectors

        with open(os.path.join(self._control, "plan.json"), encoding="utf-8") as file:
            self._plan = {**DEFAULTS, **json.load(file)}
        self._spool.limit = int(self._plan["frame_limit"])
        # One for all workers of the run, and of no use to anybody else.
        tmp = self._plan["env"].get("TMPDIR") or "/tmp"
        self._plan["cache"] = os.path.join(tmp, f"pytest-sandbox-cache-{os.urandom(8).hex()}")
        self._plan["text_limit"] = min(int(self._plan["text_limit"]), 1_000_000)
        with open(os.path.abspath(__file__), encoding="utf-8") as file:
            self._source = _worker_source(file.read())
        try:
            import ctypes

            # PR_SET_CHILD_SUBREAPER: orphans below become children of this process, so
            # that none gets out of sight.
            ctypes.CDLL(None, use_errno=True).prctl(36, 1, 0, 0, 0)
        except (ImportError, OSError, AttributeError):
            pass
        read, write = os.pipe()
        os.set_blocking(read, False)
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._stop)
        self._selector.register(read, selectors.EVENT_READ, "wake")

    def _stop(self, *_: object) -> None:
        self._stopped = True

    def _start(self) -> None:
        import selectors

        self._oom = self._oom_state()
        try:
            worker = Process(self._plan, self._source)
        except OSError as error:
            raise Over(
                "supervisor",
                None,
                f"the tests' Python could not be started: {plain(error)}; command: "
                f"{[*self._plan['demote'], *self._plan['python']]!r} in {self._plan['cwd']!r}",
            ) from None
        self._worker = worker
        self._selector.register(worker.stdin, selectors.EVENT_WRITE, "stdin")
        self._selector.register(worker.stdout, selectors.EVENT_READ, "stdout")
        self._selector.register(worker.stderr, selectors.EVENT_READ, "stderr")
        self._enter("start")
        self._collecting = self._since
        self._session = None
        self._internal = False
        self._output = 0
        self._tail.clear()
        self._nodes = 0
        self._seen = {}
        self._local: list[tuple[str, int]] = []

    def _enter(self, phase: str) -> None:
        self._phase = phase
        self._since = monotonic()

    def _attend(self) -> None:
        """Serve one worker to its end; returns if another one is to follow."""
        worker = self._worker
        assert worker is not None
        pause = 0.002
        try:
            while True:
                events = {key.data: key.fd for key, _ in self._selector.select(self._wait(pause))}
                busy = 0
                if "stdout" in events:
                    busy = self._frames(worker)
                if "stderr" in events:
                    busy += self._outputs(worker)
                if "stdin" in events:
                    self._feed(worker)
                if "wake" in events:
                    while self._drain(events["wake"]):
                        pass
                    self._reap()
                if worker.status is not None:
                    self._kill()
                    while self._frames(worker):
                        pass
                    self._outputs(worker)
                    return self._ended(worker)
                self._poll()
                self._spool.flush()
                pause = 0.002 if busy or self._phase != "select" else min(pause * 1.5, 0.05)
                if self._phase == "run" and 0 < busy < 16384:
                    # Tests that take a fraction of this come in batches: a tenth of the cost.
                    _sleep(0.003)
        except Nonsense as nonsense:
            self._kill()
            self._died("crash", f"the test process broke the protocol: {plain(nonsense)}")
        except _Again as again:
            self._again(str(again))
        finally:
            self._release(worker)

    def _release(self, worker: Process) -> None:
        self._kill()
        for fd in (worker.stdin, worker.stdout, worker.stderr):
            try:
                self._selector.unregister(fd)
            except (KeyError, ValueError):
                pass
        worker.close()
        self._worker = None

    def _wait(self, pause: float) -> float:
        if self._phase == "select":
            return pause
        return 0.1

    @staticmethod
    def _drain(fd: int) -> bytes:
        try:
            return os.read(fd, 1 << 16)
        except BlockingIOError:
            return b""

    def _feed(self, worker: Process) -> None:
        try:
            while worker.outbox:
                del worker.outbox[: os.write(worker.stdin, worker.outbox[: 1 << 16])]
        except BlockingIOError:
            return
        except OSError:
            worker.outbox.clear()  # it is dying; waitpid will say how
        self._selector.unregister(worker.stdin)

    def _send(self, worker: Process, orders: dict[str, Any]) -> None:
        import selectors

        worker.outbox += dumps(orders).encode() + b"\n"
        try:
            self._selector.register(worker.stdin, selectors.EVENT_WRITE, "stdin")
        except KeyError:
            pass

    def _outputs(self, worker: Process) -> int:
        """Take what is in the pipe of the tests' output; 0 if nothing was."""
        total = 0
        for _ in range(64):
            data = self._drain(worker.stderr)
            if not data:
                break
            total += len(data)
            self._tail += data
            del self._tail[:-TAIL]
            self._output += len(data)
            if self._plan["live"]:
                self._emit("output", {"text": plain(self._decoder.decode(data))})
            if self._output > self._plan["output_limit"]:
                limit = self._plan["output_limit"]
                self._give_up("output", f"more than {limit} bytes of output")
        if not total:
            # At its end the pipe would be readable for ever.
            self._silence(worker.stderr)
        return total

    def _silence(self, fd: int) -> bool:
        """Stop watching a pipe that is at its end; whether it is."""
        import select

        poll = select.poll()
        poll.register(fd, select.POLLIN)
        found = poll.poll(0)
        if not found or found[0][1] & select.POLLIN:
            return False
        try:
            self._selector.unregister(fd)
        except (KeyError, ValueError):
            pass
        return True

    # ------------------------------------------------ deadlines and orders

    def _exists(self, name: str) -> bool:
        return os.path.exists(os.path.join(self._control, name))

    def _poll(self) -> None:
        now = monotonic()
        plan = self._plan
        if now - self._beat >= plan["heartbeat"]:
            self._beat = now
            self._emit(
                "heartbeat",
                {"phase": self._phase, "item": self._running, "elapsed": now - self._since},
            )
        if self._stopped or self._exists("stop"):
            raise Over("stopped", None, "the host asked for it")
        worker = self._worker
        closed = worker.closed if worker is not None and self._session is None else None
        if closed is not None and now - closed > 1:
            raise Nonsense("it closed the channel to its supervisor")
        if self._phase == "stop":
            if now - self._since > GRACE:
                self._kill()
            return
        if self._phase == "select":
            if self._chosen is None:
                self._select()
            if self._phase == "select" and now - self._since > plan["select_timeout"]:
                raise Over("timeout", None, "the host sent no selection in time")
            return
        if now - self._began - self._waited > plan["run_timeout"]:
            text = f"the run took more than {plan['run_timeout']:g} s"
            self._give_up("timeout", text, over=True)
        if self._phase in ("start", "collect"):
            if now - self._collecting > plan["collect_timeout"]:
                text = f"collection took more than {plan['collect_timeout']:g} s"
                self._give_up("timeout", text, over=True)
        elif (
            self._running is not None
            and plan["test_timeout"] is not None
            and now - self._since > plan["test_timeout"]
        ):
            self._give_up("timeout", f"the test took more than {plan['test_timeout']:g} s")

    def _give_up(self, cause: str, text: str, *, over: bool = False) -> None:
        """Kill the worker; the running test, if any, failed for ``cause``."""
        dump = self._dump() if cause == "timeout" else ""
        self._kill()
        if cause == "timeout":
            text = f"Timeout: {text}"
        if self._running is not None:
            self._fail(cause, text, dump)
        elif self._phase != "run" or cause == "output":
            over = True
        if over:
            detail = dump or self._tail_text()
            raise Over(cause, None, text + (f"\n\n{detail}" if detail else ""))
        raise _Again(text)

    def _select(self) -> None:
        try:
            with open(os.path.join(self._control, "select.json"), "rb") as file:
                data = file.read()
        except FileNotFoundError:
            return
        if not data.endswith(b"\n"):
            return
        orders = json.loads(data)
        items = [int(item) for item in orders["items"]]
        if len(set(items)) != len(items) or not all(0 <= i < len(self._items) for i in items):
            raise Over("supervisor", None, "the host chose tests that were not collected")
        self._chosen = dict.fromkeys(items)
        asked = int(orders.get("maxfail") or 0)
        if asked:
            self._maxfail = min(asked, self._maxfail or asked)
        self._waited += monotonic() - self._since
        self._go()

    def _go(self) -> None:
        """Send the worker what is left to do, in its own numbering."""
        assert self._worker is not None
        assert self._chosen is not None
        numbers = {key: local for local, key in enumerate(self._local)}
        self._to_local = {}
        for item in list(self._chosen):
            local = numbers.get(self._items[item])
            if local is None:
                self._start_item(item)
                self._fail(
                    "crash", "the test was not collected again after its process was replaced"
                )
            else:
                self._to_local[item] = local
        self._to_global = {local: item for item, local in self._to_local.items()}
        orders = {
            "items": list(self._to_local.values()), "maxfail": self._maxfail,
            "failed": self._failed,
        }  # fmt: skip
        self._send(self._worker, orders)
        self._enter("run")

    # ------------------------------------------------ frames from the worker

    def _frames(self, worker: Process) -> int:
        """Take what is in the pipe of frames; the number of bytes."""
        data = self._drain(worker.stdout)
        if not data:
            if self._silence(worker.stdout) and worker.closed is None:
                worker.closed = monotonic()
            return 0
        worker.inbox += data
        if b"\n" in data:
            lines = worker.inbox.split(b"\n")
            worker.inbox = lines.pop()
            for line in lines:
                self._line(worker, bytes(line))
        if len(worker.inbox) > LINE_LIMIT:
            raise Nonsense("a line without end")
        return len(data)

    def _line(self, worker: Process, line: bytes) -> None:
        if self._session is not None:
            return  # its session is over: nothing it says counts any more
        if len(line) > LINE_LIMIT:
            raise Nonsense("a line that is too long")
        try:
            frame = _loads(line.decode("ascii"))
            kind = frame.pop("kind")
            check = self._schema[kind]
        except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
            raise Nonsense(f"{line[:200]!r}") from None
        if not check(frame) or (b"\\ud" in line and not _encodable(frame)):
            raise Nonsense(f"a wrong {kind} frame, {line[:200]!r}")
        getattr(self, "_on_" + kind)(worker, frame)

    def _expect(self, condition: bool, what: str) -> None:
        if not condition:
            raise Nonsense(f"{what} while {self._phase}ing")

    def _on_hello(self, worker: Process, frame: dict[str, Any]) -> None:
        self._expect(self._phase == "start", "a greeting")
        worker.own_pid = frame.pop("pid")
        worker.dump_signal = frame.pop("dump")
        self._enter("collect")
        self._emit("hello", frame)

    def _on_collectreport(self, worker: Process, frame: dict[str, Any]) -> None:
        self._expect(self._phase == "collect", "a report of collection")
        if self._first:
            self._emit("collectreport", frame)

    def _on_collected(self, worker: Process, frame: dict[str, Any]) -> None:
        self._expect(self._phase == "collect", "tests")
        for node in frame["nodes"]:
            self._expect(node["parent"] < self._nodes, "a collector without its parent")
            self._nodes += 1
        for item in frame["items"]:
            self._expect(item["parent"] < self._nodes, "a test without its collector")
            nodeid = item["nodeid"]
            before = self._seen.get(nodeid, 0)
            self._seen[nodeid] = before + 1
            self._local.append((nodeid, before))
            if self._first:
                self._places.append((item["path"], (item["lineno"] or 0) + 1))
        self._expect(len(self._local) <= MAX_ITEMS, "too many tests")
        if self._first:
            self._emit("collected", frame)

    def _on_ready(self, worker: Process, frame: dict[str, Any]) -> None:
        self._expect(self._phase == "collect", "the end of collection")
        self._expect(frame["total"] == len(self._local), "a wrong number of tests")
        self._maxfail = frame.pop("maxfail") or self._maxfail
        self._enter("select")
        if self._first:
            self._first = False
            self._items = self._local
            self._emit("ready", frame)
        else:
            self._go()

    def _on_imports(self, worker: Process, frame: dict[str, Any]) -> None:
        self._emit("imports", frame)

    def _on_warning(self, worker: Process, frame: dict[str, Any]) -> None:
        if self._restarts == 0 or frame["when"] == "runtest":
            self._emit("warning", frame)

    def _on_internalerror(self, worker: Process, frame: dict[str, Any]) -> None:
        self._internal = True
        self._emit("internalerror", frame)

    def _on_start(self, worker: Process, frame: dict[str, Any]) -> None:
        item = self._to_global.get(frame["item"], -1)
        self._expect(self._phase == "run" and self._running is None, "the start of a test")
        self._expect(self._chosen is not None and item in self._chosen, "a test nobody chose")
        self._tail.clear()
        self._start_item(item)

    def _start_item(self, item: int) -> None:
        self._running, self._when, self._whens = item, "setup", set()
        self._since = monotonic()
        self._emit("start", {"item": item})

    def _own(self, frame: dict[str, Any], what: str) -> int:
        item = self._to_global.get(frame["item"], -1)
        self._expect(item == self._running and item >= 0, f"{what} of a test that is not running")
        return item

    def _on_phase(self, worker: Process, frame: dict[str, Any]) -> None:
        self._own(frame, "a phase")
        self._when = frame["when"]

    def _on_report(self, worker: Process, frame: dict[str, Any]) -> None:
        frame["item"] = self._own(frame, "a report")
        when = frame["when"]
        if frame.get("subtest") is None:
            self._expect(when not in self._whens, f"a second report of {when}")
            self._whens.add(when)
            follows = {"setup": "call", "call": "teardown", "teardown": "teardown"}
            failed = frame["outcome"] != "passed"
            self._when = "teardown" if when == "setup" and failed else follows[when]
        if frame["outcome"] == "failed" and frame.get("wasxfail") is None:
            self._failed += 1
        self._emit("report", frame)

    def _on_finish(self, worker: Process, frame: dict[str, Any]) -> None:
        item = self._own(frame, "the end")
        assert self._chosen is not None
        self._finish_item(item)

    def _finish_item(self, item: int) -> None:
        assert self._chosen is not None
        del self._chosen[item]
        self._running = None
        self._since = monotonic()
        self._emit("finish", {"item": item})

    def _on_session(self, worker: Process, frame: dict[str, Any]) -> None:
        self._session = frame
        self._session["ready"] = self._phase in ("run", "select")
        self._enter("stop")

    # ------------------------------------------------ ends

    def _tail_text(self) -> str:
        text = plain(bytes(self._tail).decode("utf-8", "replace"))
        at = text.find("Fatal Python error")
        if at >= 0:
            return cut(_own_frames(text[at:]), SHOWN)
        return text.strip("\n")[-SHOWN:]

    def _ended(self, worker: Process) -> None:
        """The process is gone; raises Over, or returns for another one."""
        if self._session is not None:
            return self._session_over(self._session)
        status = worker.status or 0
        number = 0
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
        elif self._plan["demote"] and 129 <= os.WEXITSTATUS(status) <= 192:
            number = os.WEXITSTATUS(status) - 128
        if number:
            try:
                name = signal.Signals(number).name
            except ValueError:
                name = "a signal"
            how = f"the test process was killed by {name} (signal {number})"
        else:
            code = os.WEXITSTATUS(status)
            how = f"the test process ended with exit status {code} before the session finished"
        if self._oom_state() != self._oom:
            self._died("memory", f"out of memory: {how}")
        else:
            self._died("crash", how)

    def _died(self, cause: str, how: str) -> None:
        if self._running is not None:
            how += f", while {self._items[self._running][0]} ran ({self._when})"
            self._fail(cause, how)
        elif self._phase == "run":
            how += ", between two tests"
        else:
            doing = {"start": "while pytest started", "collect": "during collection"}
            how += ", " + doing.get(self._phase, "before any test ran")
            tail = self._tail_text()
            raise Over("died", None, how + (f". The end of its output:\n{tail}" if tail else ""))
        self._again(how)

    def _again(self, how: str) -> None:
        """Whether the tests left get another process: returns if they do."""
        if not self._chosen or (self._maxfail and self._failed >= self._maxfail):
            raise Over("finished", 1)
        if self._restarts >= self._plan["restarts"]:
            left = len(self._chosen)
            raise Over(
                "died",
                None,
                f"{how}. It was replaced {self._restarts} times, which is the limit; "
                f"{left} tests were not run",
            )
        self._restarts += 1

    def _fail(self, cause: str, text: str, dump: str = "") -> None:
        """The running test failed, says the supervisor."""
        item = self._running
        assert item is not None
        now, took = time(), monotonic() - self._since
        path, lineno = self._places[item]
        full = f"{text}\n\n{dump}" if dump else text
        tail = "" if dump else self._tail_text()
        longrepr = {"text": full, "path": path, "lineno": lineno, "message": text}
        self._failed += 1
        self._emit("report", {
            "item": item, "when": self._when, "outcome": "failed", "duration": took,
            "start": now - took, "stop": now, "longrepr": longrepr, "cause": cause,
            "sections": [["Output before the test process ended", tail]] if tail else [],
        })  # fmt: skip
        self._finish_item(item)

    def _session_over(self, session: dict[str, Any]) -> None:
        status = session["exitstatus"]
        if self._failed and status in (0, 5):
            status = 1
        if session["refused"]:
            raise Over("usage", status, session["refused"])
        if self._internal or status == 3:
            raise Over("internalerror", status, self._tail_text())
        if session["exit"] is not None:
            raise Over("exit", status, session["exit"])
        if status == 4 or not session["ready"]:
            raise Over("usage", status, self._complaint(status))
        raise Over("finished", status)

    def _complaint(self, status: int) -> str:
        tail = self._tail_text()
        at = re.search(r"^ERROR: |^ImportError while loading conftest", tail, re.MULTILINE)
        if at:
            return tail[at.start() :]
        return tail or f"pytest ended with exit status {status} without collecting tests"

    def _oom_state(self) -> Any:
        path = self._plan["oom_notice"]
        if not path:
            return None
        try:
            with open(path, "rb") as file:
                return os.fstat(file.fileno()).st_mtime_ns, file.read(65536)
        except OSError:
            return None

    # ------------------------------------------------ processes

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if self._worker is not None and pid == self._worker.pid:
                self._worker.status = status
                self._worker.popen.returncode = status

    def _kill(self) -> None:
        """End the worker and everything it started."""
        worker = self._worker
        deadline = monotonic() + 5
        if worker is not None and worker.status is None:
            for kill in (os.killpg, os.kill):
                try:
                    kill(worker.pid, signal.SIGKILL)
                except OSError:
                    pass
        while monotonic() < deadline:
            self._reap()
            left = descendants()
            if not left and (worker is None or worker.status is not None):
                return
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except OSError:
                    pass
            _sleep(0.002)

    def _dump(self) -> str:
        """The worker's stacks, if it can still tell them."""
        worker = self._worker
        if worker is None or not worker.dump_signal:
            return ""
        pid = worker.pid
        if self._plan["demote"]:
            pid = next((p for p in descendants() if _own_pid(p) == worker.own_pid), 0)
        self._outputs_quietly(worker)
        try:
            if not pid:
                return ""
            os.kill(pid, worker.dump_signal)
        except OSError:
            return ""
        data = b""
        deadline = monotonic() + 0.3
        while monotonic() < deadline:
            more = self._outputs_quietly(worker)
            if data and not more:
                break
            data = (data + more)[:65536]
            _sleep(0.02)
        text = plain(data.decode("utf-8", "replace"))
        at = re.search(r"^(Current thread|Thread) 0x", text, re.MULTILINE)
        if at is None:
            return ""
        return "Stacks when it was stopped:\n" + cut(_own_frames(text[at.start() :]), SHOWN)

    def _outputs_quietly(self, worker: Process) -> bytes:
        data = b""
        while len(data) < 1 << 20:
            more = self._drain(worker.stderr)
            if not more:
                break
            data += more
        self._tail = (self._tail + data)[-TAIL:]
        return data


class _Again(Exception):
    """The worker was killed; the tests left go to another one."""


def _sleep(seconds: float) -> None:
    from time import sleep

    sleep(seconds)


def _constant(name: str) -> Any:
    raise ValueError(name)


# json.loads() would make a decoder for every line.
_loads = json.JSONDecoder(parse_constant=_constant).decode


def _encodable(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _own_frames(dump: str) -> str:
    """A dump of stacks without pytest's frames and ours."""
    ours = re.compile(r'  File "(.*/(_pytest|pytest|pluggy)/.*|<pytest-sandbox agent>|<string>)"')
    return "\n".join(line for line in dump.rstrip().split("\n") if not ours.match(line))


def _worker_source(source: str) -> bytes:
    """The parts of this file that a worker needs: compiling all of it takes longer."""
    sections = re.split(r"^# -{64} (.*)\n", source, flags=re.MULTILINE)
    parts = dict(zip(sections[1::2], sections[2::2]))
    return (sections[0] + parts["texts"] + parts["the worker"]).encode()


def descendants() -> list[int]:
    """All living processes below this one, nearest first; empty without /proc."""
    children: dict[int, list[int]] = {}
    try:
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []
    for pid in pids:
        found = _stat(pid)
        if found is not None:
            children.setdefault(found[0], []).append(-pid if found[1] in "ZX" else pid)
    found_pids, queue = [], [os.getpid()]
    while queue:
        for pid in children.get(queue.pop(0), ()):
            if pid > 0:
                found_pids.append(pid)
            queue.append(abs(pid))
    return found_pids


def _own_pid(pid: int) -> int:
    """The pid of a process as it sees it in its own namespace."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            found = re.search(rb"^NSpid:.*?([0-9]+)$", file.read(), re.MULTILINE)
        return int(found.group(1)) if found else pid
    except OSError:
        return 0


# ---------------------------------------------------------------- the worker


class Channel:
    """Sends frames to the supervisor: gathered, and written where it matters."""

    def __init__(self, fd: int, text_limit: int) -> None:
        self._fd = fd
        self._pid = _getpid()
        self._lines: list[str] = []
        self._text_limit = text_limit

    def text(self, value: Any) -> str:
        return cut(plain(value), self._text_limit)

    def put(self, kind: str, **fields: Any) -> None:
        if _getpid() != self._pid:
            return  # a test forked, and its child came back here
        frame = {"kind": kind, **fields}
        line = dumps(frame)
        limit = self._text_limit
        while len(line) > LINE_LIMIT and limit > 100:
            limit //= 2
            line = dumps(shrink(frame, limit))
        self._lines.append(line)

    def flush(self) -> None:
        if not self._lines or _getpid() != self._pid:
            return
        self._lines.append("")
        data = "\n".join(self._lines).encode("ascii")
        self._lines = []
        try:
            while data:
                data = data[_write(self._fd, data) :]
        except OSError as error:
            _write(2, f"pytest-sandbox: the channel to the supervisor is gone: {error}\n".encode())
            os._exit(71)


def _high(fd: int) -> int:
    """A copy of a descriptor, out of the way of tests that close low numbers or reuse them."""
    for number in range(1019, 900, -1):
        try:
            os.fstat(number)
        except OSError:
            try:
                return os.dup2(fd, number, inheritable=False)
            except OSError:
                break  # the limit on descriptors is lower
    return os.dup(fd)


def _read_line(fd: int) -> Any:
    data = bytearray()
    while not data.endswith(b"\n"):
        more = _read(fd, 1 << 16)
        if not more:
            os._exit(72)  # the supervisor is gone
        data += more
    return json.loads(bytes(data).decode("utf-8"))


def worker() -> None:
    """Be `python -m pytest`, and tell the supervisor. Does not return."""
    plan = _read_line(0)
    orders, frames = _high(0), _high(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    channel = Channel(frames, plan["text_limit"])
    dump = _register_dump()
    try:
        _become_main(plan)
        import pytest
    except ImportError as error:
        text = f"pytest cannot be imported by {sys.executable}: {error}"
        channel.put("session", exitstatus=4, exit=None, refused=channel.text(text))
        channel.flush()
        sys.exit(4)
    import shutil

    cache = plan["cache"]
    args = [part for name in plan["block"] for part in ("-p", f"no:{name}")]
    args += ["-o", f"cache_dir={cache}", *plan["args"]]
    sys.argv[1:] = plan["args"]
    plugin = make_plugin(pytest, plan, channel, orders, dump)
    refused = ""
    told: str | None = None
    try:
        status = int(pytest.main(args, plugins=[plugin]))
    except pytest.exit.Exception as error:
        status, told = error.returncode or 2, channel.text(error)
    except KeyboardInterrupt:
        status, told = 2, "KeyboardInterrupt"
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
        refused = channel.text(f"pytest was ended by SystemExit: {error.code}")
    except BaseException:  # noqa: BLE001 - hooks may raise anything; Python itself would print it
        import traceback

        text = traceback.format_exc()
        sys.stderr.write(text)
        status, refused = 1, channel.text(text)
    shutil.rmtree(cache, ignore_errors=True)
    if told is None:
        told = plugin.told
    status = max(-255, min(status, 2**31))
    channel.put("session", exitstatus=status, exit=told, refused=refused)
    channel.flush()
    sys.exit(status)


def _register_dump() -> int | None:
    """A real-time signal on which the stacks of all threads go to the original stderr."""
    number = getattr(signal, "SIGRTMIN", None)
    if number is None:
        return None
    import faulthandler

    number = int(number) + 12
    faulthandler.register(number, file=_high(2), all_threads=True, chain=False)
    return number


def _become_main(plan: dict[str, Any]) -> None:
    """Look like `python -m pytest`, for what tests and multiprocessing see of it."""
    from importlib.util import find_spec

    if not getattr(sys.flags, "safe_path", False):
        sys.path[0] = plan["cwd"]
    main = sys.modules["__main__"]
    main.__dict__.pop("_boot", None)
    spec = find_spec("pytest.__main__")
    assert spec is not None
    assert spec.origin is not None
    main.__spec__, main.__file__, main.__package__ = spec, spec.origin, "pytest"
    sys.argv[:] = [spec.origin]
    if hasattr(sys, "orig_argv"):
        sys.orig_argv[:] = [sys.executable, "-m", "pytest", *plan["args"]]


def make_plugin(pytest: Any, plan: dict[str, Any], channel: Channel, orders: int, dump: Any) -> Any:
    """The plugin that tells the supervisor what happens, and takes its selection."""
    import io
    import platform

    text, put, flush = channel.text, channel.put, channel.flush
    columns = plan["columns"]
    began = monotonic()

    class Nowhere(io.StringIO):
        """Where pytest's own report goes: the host makes another."""

        def write(self, data: str) -> int:
            return len(data)

    def render(longrepr: Any) -> str:
        try:
            if not hasattr(longrepr, "toterminal"):
                return text(longrepr)
            from _pytest._io import TerminalWriter

            file = io.StringIO()
            writer = TerminalWriter(file)
            writer.hasmarkup = False
            writer.fullwidth = columns
            longrepr.toterminal(writer)
            rendered = file.getvalue()
            return text(rendered[:-1] if rendered.endswith("\n") else rendered)
        except Exception as error:  # noqa: BLE001 - a representation made by the tests
            return f"<a report that cannot be shown: {type(error).__name__}: {text(error)}>"

    def line_number(value: Any) -> int:
        return max(-1, min(value, 2**31)) if type(value) is int else 0

    def long_repr(longrepr: Any) -> dict[str, Any] | None:
        if longrepr is None:
            return None
        if isinstance(longrepr, tuple) and len(longrepr) == 3:
            path, lineno, reason = longrepr
            return {
                "text": text(reason), "path": relative(path), "lineno": line_number(lineno),
                "message": text(reason),
            }  # fmt: skip
        found: dict[str, Any] = {"text": render(longrepr)}
        crash = getattr(longrepr, "reprcrash", None)
        if crash is not None:
            found["path"] = short(getattr(crash, "path", ""), NAME_LIMIT)
            found["lineno"] = line_number(getattr(crash, "lineno", 0))
            found["message"] = text(getattr(crash, "message", ""))
        return found

    def section_list(sections: Any) -> list[list[str]]:
        return [[short(name), text(content)] for name, content in list(sections)[:256]]

    def scalar(value: Any) -> Any:
        if value is None or type(value) is bool:
            return value
        if type(value) is int and abs(value) < 2**53:
            return value
        if type(value) is float and value - value == 0:
            return value
        return text(value)

    def seconds(value: Any) -> float:
        return max(0.0, min(float(value), 1e9)) if isinstance(value, (int, float)) else 0.0

    root = ""

    def relative(path: Any) -> str:
        """Paths below rootdir as seen from there, for the host to show as its own."""
        name = short(path, NAME_LIMIT)
        return name[len(root) :] if root and name.startswith(root) else name

    try:
        from _pytest.mark import _is_matchable_function_attribute as matchable
    except ImportError:

        def matchable(name: str) -> bool:
            return True

    class Plugin:
        __name__ = "pytest_sandbox_agent"

        def __init__(self) -> None:
            self.told: str | None = None
            self.greeted = False
            self.early: list[dict[str, Any]] = []
            self.ready = False
            self.complete = False
            self.deselected = 0
            self.numbers: dict[int, int] = {}
            self.items: list[Any] = []
            self.current: int | None = None
            self.done: set[int] = set()
            self.sent: dict[str, int] = {}
            self.hold = False
            self.held: list[dict[str, Any]] = []
            self.reruns: list[list[str]] = []
            self.void: dict[str, Any] | None = None

        # -------------------------------------------- configuration

        @pytest.hookimpl(trylast=True)
        def pytest_addoption(self, parser: Any) -> None:
            for key in plan["ini_keys"]:
                try:
                    parser.addini(key, "read by the host")
                except ValueError:
                    pass  # the project registers it itself

        @pytest.hookimpl(hookwrapper=True, tryfirst=True)
        def pytest_cmdline_parse(self) -> Iterator[None]:
            outcome: Any = yield
            if outcome.excinfo is not None:
                return
            option = outcome.get_result().option
            # As -n0 does, which only xdist knows.
            if hasattr(option, "numprocesses") and hasattr(option, "dist"):
                option.numprocesses, option.dist, option.tx = 0, "no", []
            # The host decides what collection errors mean; nobody is there to debug.
            option.continue_on_collection_errors = True
            option.usepdb = option.trace = False

        @pytest.hookimpl(tryfirst=True)
        def pytest_sessionstart(self, session: Any) -> None:
            nonlocal root
            config = session.config
            manager = config.pluginmanager
            rootdir = str(getattr(config, "rootpath", None) or config.rootdir)
            root = os.path.join(rootdir, "")
            reporter = manager.getplugin("terminalreporter")
            writer = getattr(reporter, "_tw", None)
            if writer is not None and hasattr(writer, "_file"):
                writer._file = Nowhere()
            self.hold = manager.hasplugin("rerunfailures")
            plugins = []
            for _, dist in manager.list_plugin_distinfo():
                name = f"{dist.project_name}-{dist.version}"
                name = name[7:] if name.startswith("pytest-") else name
                if name not in plugins:
                    plugins.append(name)
            where = os.path.relpath(os.path.realpath(rootdir), os.path.realpath(plan["workspace"]))
            put(
                "hello",
                protocol=PROTOCOL,
                python=platform.python_version(),
                pytest=pytest.__version__,
                platform=sys.platform,
                rootdir="" if where == "." else short(where, NAME_LIMIT),
                plugins=[short(name) for name in plugins[:512]],
                pid=_getpid(),
                dump=dump,
            )
            self.greeted = True
            for frame in self.early:
                put("warning", **frame)
            flush()

        # -------------------------------------------- collection

        def pytest_deselected(self, items: Any) -> None:
            if not self.ready:
                self.deselected += len(items)

        @pytest.hookimpl(trylast=True)
        def pytest_collectreport(self, report: Any) -> None:
            if report.outcome == "passed":
                return
            put(
                "collectreport",
                nodeid=short(report.nodeid, NAME_LIMIT),
                outcome="skipped" if report.outcome == "skipped" else "failed",
                longrepr=long_repr(report.longrepr) or {"text": "no reason was given"},
                sections=section_list(report.sections),
            )
            flush()

        @pytest.hookimpl(hookwrapper=True, tryfirst=True)
        def pytest_collection_modifyitems(self) -> Iterator[None]:
            outcome: Any = yield
            self.complete = outcome.excinfo is None

        # After every modifyitems there is, also of plugins that registered later than this.
        @pytest.hookimpl(tryfirst=True)
        def pytest_collection_finish(self, session: Any) -> None:
            if self.complete and not self.ready:
                self.choose(session, list(session.items))

        @pytest.hookimpl(hookwrapper=True, tryfirst=True)
        def pytest_collection(self, session: Any) -> Iterator[None]:
            outcome: Any = yield
            # --exitfirst, and a collector failed: no tests, but the host has to hear of it.
            found = outcome.excinfo
            if found and not self.ready and issubclass(found[0], session.Failed):
                self.choose(session, [])

        def choose(self, session: Any, items: list[Any]) -> None:
            self.ready = True
            self.items = items
            self.describe(items)
            self.imports()
            maxfail = session.config.getoption("maxfail", 0) or 0
            put(
                "ready", total=len(items), deselected=self.deselected,
                seconds=monotonic() - began, maxfail=max(0, maxfail),
            )  # fmt: skip
            flush()
            chosen = _read_line(orders)
            if chosen["maxfail"]:
                session.config.option.maxfail = chosen["maxfail"]
            self.numbers = {id(items[number]): number for number in chosen["items"]}
            session.items[:] = [items[number] for number in chosen["items"]]
            session.testsfailed += chosen["failed"]

        def describe(self, items: list[Any]) -> None:
            known: dict[int, int] = {}
            count = 0
            nodes: list[dict[str, Any]] = []
            found: list[dict[str, Any]] = []
            for item in items:
                parent = -1
                for node in item.listchain()[1:-1]:
                    number = known.get(id(node))
                    if number is None and type(node).__name__ == "Instance":
                        known[id(node)] = number = parent  # pytest 6 only, and never shown
                    if number is None:
                        known[id(node)] = number = count
                        count += 1
                        nodes.append(self.node(node, parent))
                    parent = number
                found.append(self.item(item, parent))
                if len(found) == 200 or len(nodes) >= 1000:
                    put("collected", nodes=nodes, items=found)
                    flush()
                    nodes, found = [], []
            if nodes or found:
                put("collected", nodes=nodes, items=found)

        @staticmethod
        def node(node: Any, parent: int) -> dict[str, Any]:
            return {
                "parent": parent,
                "type": short(type(node).__name__),
                "name": short(node.name, NAME_LIMIT),
                "nodeid": short(node.nodeid, NAME_LIMIT),
            }

        def item(self, item: Any, parent: int) -> dict[str, Any]:
            path, lineno, domain = item.location
            marks = [self.mark(mark) for mark in item.iter_markers()]
            keywords = set(item.listextrakeywords())
            function = getattr(item, "function", None)
            if function is not None:
                names = getattr(function, "__dict__", ())
                keywords.update(name for name in names if matchable(name))
            return {
                **self.node(item, parent),
                "path": short(path, NAME_LIMIT),
                "lineno": line_number(lineno) if lineno is not None else None,
                "domain": short(domain, NAME_LIMIT),
                "marks": marks[:256],
                "keywords": sorted(short(word, 4096) for word in keywords)[:1024],
            }

        @staticmethod
        def mark(mark: Any) -> dict[str, Any]:
            kwargs = {}
            for key, value in list(mark.kwargs.items())[:64]:
                if value is None or type(value) in (str, int, float, bool):
                    kwargs[short(key)] = scalar(value)
            return {"name": short(mark.name), "kwargs": kwargs}

        def imports(self) -> None:
            paths = {}
            for name in plan["packages"]:
                module = sys.modules.get(name)
                if module is None:
                    continue
                file = getattr(module, "__file__", None)
                try:
                    files = [file] if file else list(getattr(module, "__path__", ()))
                    files = [short(os.path.realpath(path), NAME_LIMIT) for path in files[:64]]
                except Exception as error:  # noqa: BLE001 - a module may be any object
                    files = [f"<{type(error).__name__}>"]
                paths[short(name)] = files
            put("imports", paths=paths)

        # -------------------------------------------- running

        @pytest.hookimpl(hookwrapper=True, tryfirst=True)
        def pytest_runtest_protocol(self, item: Any) -> Iterator[None]:
            index = self.numbers.get(id(item))
            if index is None or index in self.done or self.current is not None:
                yield  # made or repeated by a plugin: part of what is running, or unknown
                return
            self.current = index
            self.sent = {}
            self.reruns = []
            put("start", item=index)
            flush()
            outcome: Any = yield
            self.release()
            self.current = None
            if outcome.excinfo is None:
                self.done.add(index)
                put("finish", item=index)

        def pytest_runtest_setup(self) -> None:
            self.phase("setup")

        @pytest.hookimpl(tryfirst=True)
        def pytest_runtest_call(self) -> None:
            self.phase("call")

        @pytest.hookimpl(tryfirst=True)
        def pytest_runtest_teardown(self) -> None:
            self.phase("teardown")

        def phase(self, when: str) -> None:
            # Reports tell it, unless they come only when all phases are over.
            if self.hold and self.current is not None:
                put("phase", item=self.current, when=when)
            flush()

        @pytest.hookimpl(trylast=True)
        def pytest_runtest_logreport(self, report: Any) -> None:
            outcome = report.outcome
            again = outcome in ("rerun", "retried")  # pytest-rerunfailures, pytest-retry
            if again:
                outcome = "failed"
            longrepr = long_repr(report.longrepr)
            if outcome not in ("passed", "failed", "skipped"):
                was = longrepr["text"] if longrepr else ""
                longrepr = {"text": text(f"the report says {outcome!r}, which is unknown\n{was}")}
                outcome = "failed"
            if self.current is None:
                if outcome == "failed" and _getpid() == channel._pid:
                    said = longrepr["text"] if longrepr else ""
                    put("internalerror", text=text(
                        f"a failure of {report.nodeid!r} was reported while no test ran\n{said}"
                    ))  # fmt: skip
                return
            when = report.when if report.when in ("setup", "call", "teardown") else "call"
            stop = getattr(report, "stop", None) or time()
            duration = seconds(report.duration)
            frame: dict[str, Any] = {
                "item": self.current,
                "when": when,
                "outcome": outcome,
                "duration": duration,
                "start": max(0.0, getattr(report, "start", None) or stop - duration),
                "stop": max(0.0, stop),
            }
            if longrepr is not None:
                frame["longrepr"] = longrepr
            if report.sections:
                frame["sections"] = section_list(report.sections)
            if getattr(report, "user_properties", None):
                frame["properties"] = [
                    [short(name), scalar(value)] for name, value in report.user_properties[:256]
                ]
            if hasattr(report, "wasxfail"):
                frame["wasxfail"] = text(report.wasxfail)
            context = getattr(report, "context", None)
            if hasattr(context, "msg") and hasattr(context, "kwargs"):
                frame["subtest"] = self.subtest(context)
            if again:
                # This attempt is void, if another one follows.
                name = short(f"Attempt {len(self.reruns) + 1} failed in {when}")
                self.reruns.append([name, longrepr["text"] if longrepr else ""])
                self.void = frame
            elif self.hold:
                if when == "setup" and self.void is not None:
                    self.held, self.void = [], None
                self.held.append(frame)
            else:
                if self.void is not None and self.void["when"] == when:
                    self.void = None
                self.report(frame)

        def report(self, frame: dict[str, Any]) -> None:
            """Send it; of each phase there is one report, and more are shown as subtests."""
            when = frame["when"]
            if "subtest" not in frame:
                count = self.sent[when] = self.sent.get(when, 0) + 1
                if count > 1:
                    if frame["outcome"] == "passed":
                        return
                    frame["subtest"] = {"msg": f"report {count} of {when}", "kwargs": {}}
            put("report", **frame)

        def release(self) -> None:
            """Send what was held back because an attempt may be void."""
            held, self.held = self.held, []
            if self.void is not None:
                held = [frame for frame in held if frame["when"] != self.void["when"]]
                held.append(self.void)  # no attempt followed
                self.void = None
            for frame in held:
                if self.reruns:
                    frame["sections"] = [*self.reruns, *frame.get("sections", [])][:256]
                    self.reruns = []
                self.report(frame)

        @staticmethod
        def subtest(context: Any) -> dict[str, Any]:
            # pytest keeps representations there since 9.1, pytest-subtests the objects.
            kept = hasattr(type(context), "__post_init__")
            kwargs = {}
            for key, value in list(context.kwargs.items())[:64]:
                try:
                    kwargs[short(key)] = text(value if kept else repr(value))
                except Exception as error:  # noqa: BLE001 - a test's object
                    kwargs[short(key)] = f"<repr() raised {type(error).__name__}>"
            return {"msg": None if context.msg is None else text(context.msg), "kwargs": kwargs}

        # -------------------------------------------- other news

        @pytest.hookimpl(trylast=True)
        def pytest_warning_recorded(self, warning_message: Any, when: str, nodeid: str) -> None:
            message = warning_message
            frame = {
                "message": text(message.message),
                "category": short(getattr(message.category, "__name__", "Warning")),
                "path": relative(message.filename),
                "lineno": max(0, line_number(message.lineno)),
                "when": when if when in ("config", "collect") else "runtest",
                "nodeid": short(nodeid, NAME_LIMIT),
            }
            if self.greeted:
                put("warning", **frame)
            else:
                self.early.append(frame)

        @pytest.hookimpl(trylast=True)
        def pytest_internalerror(self, excrepr: Any) -> None:
            put("internalerror", text=render(excrepr))
            flush()

        @pytest.hookimpl(trylast=True)
        def pytest_keyboard_interrupt(self, excinfo: Any) -> None:
            value = excinfo.value
            self.told = text(getattr(value, "msg", None) or value) or type(value).__name__

        @pytest.hookimpl(trylast=True)
        def pytest_sessionfinish(self, session: Any) -> None:
            if self.ready:
                self.imports()
            flush()

    return Plugin()


# ---------------------------------------------------------------- the command line


def main(argv: list[str]) -> int:
    command, args = (argv[0], argv[1:]) if argv else ("", [])
    if command == "unpack" and len(args) == 2:
        try:
            unpack(*args)
        except Unsafe as error:
            sys.stderr.write(f"{plain(error)}\n")
            return 1
        return 0
    if command == "run" and len(args) == 1:
        return run(*args)
    if command == "supervise" and len(args) == 1:
        Supervisor(*args).main()
        return 0
    if command == "follow" and len(args) == 2:
        try:
            return follow(args[0], int(args[1]))
        except BrokenPipeError:
            return 1  # whoever reads will come again
    if command == "collect" and args:
        limits = {"--limit": 1 << 28, "--count": 10_000}
        globs = args[1:]
        while len(globs) > 1 and globs[0] in limits:
            limits[globs[0]] = int(globs[1])
            del globs[:2]
        for line in collect(args[0], globs, limits["--limit"], limits["--count"]):
            sys.stderr.write(f"left out: {line}\n")
        return 0
    sys.stderr.write(
        "usage: agent.py unpack ARCHIVE DEST | run CONTROL | follow CONTROL OFFSET |"
        " collect CONTROL [--limit BYTES] [--count FILES] GLOB...\n"
    )
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
