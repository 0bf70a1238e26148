"""The worker's line to its supervisor."""

from __future__ import annotations

import json
import os
from typing import Any

from .texts import cut, frame_line, plain

# Bound early: tests patch this module, and the worker must not notice.
_write, _read, _getpid, _exit = os.write, os.read, os.getpid, os._exit


class Channel:
    """Sends frames to the supervisor: gathered, and written where it matters.

    Args:
        mark: begins each line, before its number: whoever only finds the pipe does not know it.
    """

    def __init__(self, fd: int, text_limit: int, mark: str) -> None:
        self._fd = fd
        self._mark = mark
        self._count = 0
        self.pid = _getpid()
        self._lines: list[str] = []
        self._text_limit = text_limit

    def text(self, value: Any) -> str:
        return cut(plain(value), self._text_limit)

    def put(self, kind: str, **fields: Any) -> None:
        if not self._ours():
            return  # a test forked, and its child came back here
        line = frame_line({"kind": kind, **fields}, self._text_limit)
        self._lines.append(f"{self._mark} {self._count} {line}")
        self._count += 1

    def flush(self) -> None:
        if not self._lines or not self._ours():
            return
        self._lines.append("")
        data = "\n".join(self._lines).encode("ascii")
        self._lines = []
        try:
            while data:
                data = data[_write(self._fd, data) :]
        except OSError as error:
            _write(2, f"pytest-sandbox: the channel to the supervisor is gone: {error}\n".encode())
            _exit(71)

    def _ours(self) -> bool:
        """Whether this is the process that the channel belongs to."""
        return _getpid() == self.pid


def high(fd: int) -> int:
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


def read_line(fd: int) -> Any:
    data = bytearray()
    while not data.endswith(b"\n"):
        more = _read(fd, 1 << 16)
        if not more:
            _exit(72)  # the supervisor is gone
        data += more
    return json.loads(bytes(data).decode("utf-8"))
