"""A worker as its supervisor sees it: a process, three pipes, and what goes through them."""

from __future__ import annotations

import os
import select
import selectors
import subprocess
from time import monotonic, sleep
from typing import Any, Iterator

from . import plan as plans
from .ends import Nonsense
from .procfs import descendants, own_pid
from .tail import Tail, stacks
from .texts import LINE_LIMIT, dumps

# Only three descriptors survive every way to drop privileges, so the worker's source comes
# through stdin, before its orders. Nothing is left in __main__ for the tests to see.
BOOT = """\
def _boot():
    import json, os
    def read(size):
        data = b""
        while len(data) < size:
            more = os.read(0, size - len(data))
            if not more:
                os._exit(72)
            data += more
        return data
    sources = json.loads(read(int(read(12))).decode())
    scope = {"__name__": "pytest_sandbox_agent"}
    exec(compile(sources["boot"], "<pytest_sandbox_agent>", "exec"), scope)
    return scope["boot"](sources)
_boot = _boot()
_boot()
"""
#: The modules of the agent that a worker is made of.
PARTS = (
    "boot", "texts", "channel", "hardening", "values", "collection", "reports",
    "sentinels", "plugin", "worker", "witness",
)  # fmt: skip


def sources(plan: dict[str, Any]) -> bytes:
    """What BOOT reads: texts of modules, by name, and their code where they came with it."""
    loader: Any = __spec__.loader  # of a zip, or of files
    # Of a zip, __file__ is the compiled one where there is one.
    folder = os.path.dirname(__file__)
    data: dict[str, Any] = {}
    compiled: dict[str, str] = {}
    for part in PARTS:
        path = os.path.join(folder, part + ".py")
        data[part] = loader.get_data(path).decode()
        try:
            compiled[part] = loader.get_data(path + "c").hex()
        except OSError:
            pass  # a host with another Python: it is compiled there
    data["compiled"] = compiled
    if plan["witness"]:
        data["given"] = dumps({"libraries": plan["witness"], "root": plan["workspace"]})
    text = dumps(data).encode()
    return b"%012d" % len(text) + text


def secret(plan: dict[str, Any], number: int) -> bytes:
    """What its witness reads for itself, so that no object of its Python ever holds it."""
    if not plan["witness"]:
        return b""
    import hmac  # of OpenSSL, which takes its time, and most runs need none

    key = bytes.fromhex(plan["witness_key"])
    return hmac.new(key, b"worker %d" % number, "sha256").digest()


class Child:
    """The process and its pipes, watched by a selector under the names of the pipes.

    Args:
        number: how many there were before it.
    """

    def __init__(
        self, plan: dict[str, Any], source: bytes, number: int, selector: selectors.BaseSelector
    ) -> None:
        cwd = plan["cwd"]
        if plan["hardened"]:
            # Where Python looks for modules, and where nobody can put one.
            os.stat(os.path.join(cwd, ""))
            cwd = "/"
        self.popen = subprocess.Popen(
            [*plan["demote"], *plan["python"], "-u", "-c", BOOT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd,
            env=plans.environment(plan),
            start_new_session=True,
            bufsize=0,
        )
        assert self.popen.stdin is not None
        assert self.popen.stdout is not None
        assert self.popen.stderr is not None
        self.pid = self.popen.pid
        self._pipes = (self.popen.stdin, self.popen.stdout, self.popen.stderr)
        self._stdin, self._stdout, self._stderr = (pipe.fileno() for pipe in self._pipes)
        for pipe in self._pipes:
            os.set_blocking(pipe.fileno(), False)
        self._selector = selector
        selector.register(self._stdin, selectors.EVENT_WRITE, "stdin")
        selector.register(self._stdout, selectors.EVENT_READ, "stdout")
        selector.register(self._stderr, selectors.EVENT_READ, "stderr")
        self._mark = os.urandom(8).hex()
        self._count = 0
        orders = {"mark": self._mark, **{key: plan[key] for key in plans.FOR_WORKER}}
        self._outbox = bytearray(source + secret(plan, number) + dumps(orders).encode() + b"\n")
        self._inbox = bytearray()
        self._demoted = bool(plan["demote"])
        #: As os.waitpid() gives it; None while the process lives.
        self.status: int | None = None
        #: When the end of its frames was seen.
        self.closed: float | None = None

    def close(self) -> None:
        for pipe in self._pipes:
            self._unwatch(pipe.fileno())
            try:
                pipe.close()
            except OSError:
                pass

    def ended(self, status: int) -> None:
        self.status = self.popen.returncode = status

    def send(self, orders: dict[str, Any]) -> None:
        self._outbox += dumps(orders).encode() + b"\n"
        try:
            self._selector.register(self._stdin, selectors.EVENT_WRITE, "stdin")
        except KeyError:
            pass

    def feed(self) -> None:
        """Write what fits of what is to be sent."""
        try:
            while self._outbox:
                del self._outbox[: os.write(self._stdin, self._outbox[: 1 << 16])]
        except BlockingIOError:
            return
        except OSError:
            self._outbox.clear()  # it is dying; waitpid will say how
        self._unwatch(self._stdin)

    def lines(self) -> tuple[int, list[bytes]]:
        """Take what is in the pipe of frames: the number of bytes, and the lines now whole."""
        data = drain(self._stdout)
        if not data:
            if self._silence(self._stdout) and self.closed is None:
                self.closed = monotonic()
            return 0, []
        self._inbox += data
        lines: list[bytes] = []
        if b"\n" in data:
            *whole, self._inbox = self._inbox.split(b"\n")
            lines = [bytes(line) for line in whole]
        if len(self._inbox) > LINE_LIMIT:
            # A line without end: as much of it as makes it too long.
            lines.append(bytes(self._inbox))
            self._inbox.clear()
        return len(data), lines

    def genuine(self, line: bytes) -> bytes:
        """What the worker says in a line.

        Raises:
            Nonsense: somebody else wrote it, or left one out.
        """
        head = f"{self._mark} {self._count} ".encode("ascii")
        if not line.startswith(head):
            raise Nonsense(f"a line without its mark and number: {line[:200]!r}")
        self._count += 1
        return line[len(head) :]

    def output(self) -> Iterator[bytes]:
        """Take what is in the pipe of the tests' output, within limits."""
        nothing = True
        for _ in range(64):
            data = drain(self._stderr)
            if not data:
                break
            nothing = False
            yield data
        if nothing:
            # At its end the pipe would be readable for ever.
            self._silence(self._stderr)

    def dump(self, greeting: tuple[int, int | None], tail: Tail) -> str:
        """Its stacks, if it can still tell them.

        Args:
            greeting: its pid as it sees it itself, and the signal that makes it tell.
            tail: gets what else is in the pipe of output.
        """
        inner, number = greeting
        if not number:
            return ""
        pid = self.pid
        if self._demoted:
            pid = next((p for p in descendants() if own_pid(p) == inner), 0)
        tail.add(self._rest())
        try:
            if not pid:
                return ""
            os.kill(pid, number)
        except OSError:
            return ""
        data = b""
        deadline = monotonic() + 0.3
        while monotonic() < deadline:
            more = self._rest()
            tail.add(more)
            if data and not more:
                break
            data = (data + more)[:65536]
            sleep(0.02)
        return stacks(data)

    def _rest(self) -> bytes:
        data = b""
        while len(data) < 1 << 20:
            more = drain(self._stderr)
            if not more:
                break
            data += more
        return data

    def _silence(self, fd: int) -> bool:
        """Stop watching a pipe that is at its end; whether it is."""
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        found = poll.poll(0)
        if not found or found[0][1] & select.POLLIN:
            return False
        self._unwatch(fd)
        return True

    def _unwatch(self, fd: int) -> None:
        try:
            self._selector.unregister(fd)
        except (KeyError, ValueError):
            pass


def drain(fd: int) -> bytes:
    """What is in a pipe now, or a part of it."""
    try:
        return os.read(fd, 1 << 16)
    except BlockingIOError:
        return b""
