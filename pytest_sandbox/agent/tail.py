"""The end of a worker's output, for explaining its death."""

from __future__ import annotations

import re

from .texts import cut, plain

#: What is kept, in bytes, and what is shown of it, in characters.
KEPT = 32_768
SHOWN = 4_000


class Tail:
    """The last part of what the tests write, and how much it was."""

    def __init__(self) -> None:
        self._data = bytearray()
        #: Bytes of this worker so far.
        self.total = 0

    def start(self) -> None:
        """Another worker begins to write."""
        self.clear()
        self.total = 0

    def clear(self) -> None:
        """Forget what was written, not how much: another test begins."""
        self._data.clear()

    def add(self, data: bytes) -> None:
        self.total += len(data)
        self._data += data
        del self._data[:-KEPT]

    def text(self) -> str:
        text = plain(bytes(self._data).decode("utf-8", "replace"))
        at = text.find("Fatal Python error")
        if at >= 0:
            return cut(own_frames(text[at:]), SHOWN)
        return text.strip("\n")[-SHOWN:]

    def complaint(self) -> str:
        """The part in which pytest says why it did not start."""
        tail = self.text()
        at = re.search(r"^ERROR: |^ImportError while loading conftest", tail, re.MULTILINE)
        return tail[at.start() :] if at else tail


def stacks(data: bytes) -> str:
    """What to show of a worker's dump of its stacks; empty if there is none in ``data``."""
    text = plain(data.decode("utf-8", "replace"))
    at = re.search(r"^(Current thread|Thread) 0x", text, re.MULTILINE)
    if at is None:
        return ""
    return "Stacks when it was stopped:\n" + cut(own_frames(text[at.start() :]), SHOWN)


def own_frames(dump: str) -> str:
    """A dump of stacks without pytest's frames and ours."""
    ours = re.compile(r'  File "(.*/(_pytest|pytest|pluggy)/.*|<pytest_sandbox_agent>|<string>)"')
    return "\n".join(line for line in dump.rstrip().split("\n") if not ours.match(line))
