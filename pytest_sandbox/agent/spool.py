"""The append-only file of frames, numbered; written by one supervisor."""

from __future__ import annotations

import os
from typing import Any

from .ends import Over
from .texts import frame_line


class Spool:
    """Numbers frames, and keeps them until they are flushed."""

    def __init__(self, control: str) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
        self._fd = os.open(os.path.join(control, "spool"), flags, 0o644)
        self._n = 0
        self._size = 0
        self._lines: list[str] = []
        #: Bytes of frames a run may make.
        self.limit = 1 << 30

    def put(self, kind: str, fields: dict[str, Any]) -> None:
        line = frame_line({"n": self._n, "kind": kind, **fields}, 400_000)
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
