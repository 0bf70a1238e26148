"""The gate: bytes from a sandbox in, typed frames out, or a ``ProtocolError``.

Frames are ASCII JSON lines, numbered from 0 without gaps. Everything a sandbox sends passes
through ``Decoder`` and nothing else; it knows no pytest, no event loop and no provider.
Text is made printable here, once, so that no later stage has to remember to.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, ClassVar, Final, Literal

import msgspec
from msgspec import Meta, Struct

from pytest_sandbox.errors import ProtocolError

PROTOCOL: Final = 1

#: Longest line, in bytes. The agent cuts texts well below it.
MAX_LINE: Final = 4 * 1024 * 1024
#: Bytes of frames one run may send.
MAX_TOTAL: Final = 1024 * 1024 * 1024
#: Tests one run may collect.
MAX_ITEMS: Final = 1_000_000

Count = Annotated[int, Meta(ge=0, le=2**53)]
Index = Annotated[int, Meta(ge=0, lt=MAX_ITEMS)]
Seconds = Annotated[float, Meta(ge=0, le=1e9)]
Time = Annotated[float, Meta(ge=0, le=1e11)]
Name = Annotated[str, Meta(max_length=65_536)]
Word = Annotated[str, Meta(max_length=256)]
Text = Annotated[str, Meta(max_length=2_000_000)]
When = Literal["setup", "call", "teardown"]
Outcome = Literal["passed", "failed", "skipped"]
Scalar = str | int | float | bool | None


class _Part(Struct, frozen=True, forbid_unknown_fields=True):
    pass


class _Frame(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind"):
    #: Number in the run, from 0.
    n: Count


#: Who says what became of a test: itself, or the supervisor that saw how its process ended: by a
#: signal ("crash"), by itself with a status before its session was over ("exit"), after lines that
#: no worker sends ("protocol"), or killed for a limit.
Cause = Literal["test", "crash", "exit", "protocol", "timeout", "memory", "output"]


class LongRepr(_Part, frozen=True):
    """Why something failed or was skipped, as the sandbox's pytest rendered it."""

    text: Text
    #: Where: as pytest names it. Never opened on the host.
    path: Name = ""
    lineno: Annotated[int, Meta(ge=-1, le=2**31)] = 0
    #: One line for the summary; for a skip the reason.
    message: Text = ""


class Mark(_Part, frozen=True):
    name: Word
    kwargs: Annotated[dict[Word, Scalar], Meta(max_length=64)] = {}


class Node(_Part, frozen=True):
    """A collector. ``parent`` is the number of an earlier node, -1 for the session."""

    parent: Annotated[int, Meta(ge=-1, lt=MAX_ITEMS)]
    type: Word
    name: Name
    nodeid: Name


class Item(_Part, frozen=True):
    parent: Annotated[int, Meta(ge=-1, lt=MAX_ITEMS)]
    type: Word
    name: Name
    nodeid: Name
    path: Name
    lineno: Annotated[int, Meta(ge=-1, le=2**31)] | None
    domain: Name
    marks: Annotated[list[Mark], Meta(max_length=256)] = []
    #: What ``-k`` matches besides the names of the node and its parents.
    keywords: Annotated[list[Name], Meta(max_length=1024)] = []


class Subtest(_Part, frozen=True):
    msg: Text | None = None
    kwargs: Annotated[dict[Word, Text], Meta(max_length=64)] = {}


class Hello(_Frame, frozen=True, tag="hello"):
    """First frame of each worker; a second one means that a dead worker was replaced."""

    protocol: Count
    python: Word
    pytest: Word
    platform: Word
    #: Relative to the workspace, "" for the workspace itself.
    rootdir: Name
    #: "name-version" of the installed plugins, for the header.
    plugins: Annotated[list[Word], Meta(max_length=512)] = []
    #: What is installed, as ``pip freeze`` says it.
    packages: Annotated[list[Word], Meta(max_length=2048)] = []


class CollectReport(_Frame, frozen=True, tag="collectreport"):
    """A collector that failed or was skipped; those that passed are only in the tree."""

    nodeid: Name
    outcome: Literal["failed", "skipped"]
    longrepr: LongRepr
    sections: Annotated[list[tuple[Word, Text]], Meta(max_length=256)] = []


class Collected(_Frame, frozen=True, tag="collected"):
    """More of the collected tree; nodes and items are numbered in order of arrival."""

    nodes: Annotated[list[Node], Meta(max_length=10_000)]
    items: Annotated[list[Item], Meta(max_length=10_000)]


class Ready(_Frame, frozen=True, tag="ready"):
    """Collection is over; the worker waits for the selection."""

    total: Count
    #: Items the sandbox's own pytest deselected (its ``addopts`` or ``conftest.py``).
    deselected: Count
    seconds: Seconds


class Imports(_Frame, frozen=True, tag="imports"):
    """Where the project's own top-level packages were imported from, after collection and
    again at the end; absolute paths in the sandbox, "" for a namespace package."""

    paths: Annotated[dict[Word, Annotated[list[Name], Meta(max_length=64)]], Meta(max_length=256)]


class Start(_Frame, frozen=True, tag="start"):
    item: Index


class Report(_Frame, frozen=True, tag="report"):
    """One phase of one test, or one subtest."""

    item: Index
    when: When
    outcome: Outcome
    duration: Seconds
    start: Time
    stop: Time
    longrepr: LongRepr | None = None
    sections: Annotated[list[tuple[Word, Text]], Meta(max_length=256)] = []
    properties: Annotated[list[tuple[Word, Scalar]], Meta(max_length=256)] = []
    wasxfail: Text | None = None
    subtest: Subtest | None = None
    #: Who says so: the test, or the supervisor that saw its process end.
    cause: Cause = "test"


class Finish(_Frame, frozen=True, tag="finish"):
    """All phases of the item have been reported."""

    item: Index
    #: What the compiled witness saw, which only ``witness.Chain`` can read.
    witness: Text = ""


class Warned(_Frame, frozen=True, tag="warning"):
    message: Text
    category: Word
    path: Name
    lineno: Annotated[int, Meta(ge=0, le=2**31)]
    when: Literal["config", "collect", "runtest"]
    nodeid: Name = ""


class Output(_Frame, frozen=True, tag="output"):
    """What tests wrote past pytest's capture (``-s``), as it came."""

    text: Text


class InternalError(_Frame, frozen=True, tag="internalerror"):
    text: Text


class Heartbeat(_Frame, frozen=True, tag="heartbeat"):
    phase: Literal["start", "collect", "select", "run", "stop"]
    item: Index | None
    elapsed: Seconds


class Layers(_Frame, frozen=True, tag="layers"):
    """What keeps the tests from making results, says the supervisor before the first worker.

    Of a run without protection there is none.
    """

    #: "hardened", "sealed", "apart" and "init"; docs/agent-protocol.md says what they are.
    on: Annotated[list[Word], Meta(max_length=64)]
    #: Those that this sandbox cannot give, or not wholly, and why.
    off: Annotated[dict[Word, Text], Meta(max_length=64)]

    def and_of(self, before: Layers | None) -> Layers:
        """What is in force in both of two sandboxes, where a run has several."""
        if before is None:
            return self
        both = [name for name in before.on if name in self.on]
        return msgspec.structs.replace(self, on=both, off={**before.off, **self.off})


class Died(_Frame, frozen=True, tag="died"):
    """A worker ended before its session did, says the supervisor; one for each that does."""

    cause: Cause
    #: The exit status, where it ended by itself.
    status: Annotated[int, Meta(ge=0, le=255)] | None
    #: The test that was running; its failing report follows.
    item: Index | None
    phase: Literal["start", "collect", "select", "run", "stop"]
    message: Text


class End(_Frame, frozen=True, tag="end"):
    """Last frame. ``exitstatus`` is what the sandbox's pytest returned: shown, never believed."""

    reason: Literal[
        "finished",  # the session ran to its end
        "exit",  # pytest.exit() or KeyboardInterrupt inside the session
        "usage",  # pytest refused its arguments, ini or conftest
        "internalerror",
        "died",  # the worker ended where no session ends, too often to go on
        "timeout",  # the deadline of the run or of collection passed
        "output",  # more output than allowed
        "stopped",  # the host asked for it
        "supervisor",  # the supervisor itself failed: infrastructure
    ]
    exitstatus: Annotated[int, Meta(ge=-255, le=2**31)] | None
    message: Text = ""


Frame = (
    Hello
    | CollectReport
    | Collected
    | Ready
    | Imports
    | Start
    | Report
    | Finish
    | Warned
    | Output
    | InternalError
    | Heartbeat
    | Layers
    | Died
    | End
)

# C0 without tab and newline, DEL, C1, bidirectional and invisible formatting, surrogates.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\ud800-\udfff]"
)
# GitHub Actions reads "::command::" at the start of a line of a job's log (leading blanks count).
_COMMANDS = ("::", "##[")
_COMMAND = re.compile(r"^([ \t]*)(::|##\[)", re.MULTILINE)


def _hex(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def printable(text: str, *, line: bool = False) -> str:
    """``text`` with nothing in it that a terminal, a log or a CI system could obey.

    With ``line``, newlines are escaped as well, for names and other one-line texts.
    """
    if text.isascii() and text.isprintable() and not text.lstrip(" ").startswith(_COMMANDS):
        return text
    text = _UNPRINTABLE.sub(_hex, text.replace("\r\n", "\n"))
    if line:
        # Node ids hold "::" of their own, but none that is first in a line.
        text = text.replace("\n", "\\n")
    return _COMMAND.sub(lambda m: m[1] + "\\" + m[2], text)


class Decoder:
    """Turns one run's bytes into frames; ``offset`` is where to resume after a lost stream."""

    _decode: ClassVar[msgspec.json.Decoder[Frame]]

    def __init__(self, *, max_total: int = MAX_TOTAL) -> None:
        self._decoder = msgspec.json.Decoder(Frame)
        #: The beginning of a line, as it came.
        self._pending = bytearray()
        self._next = 0
        self._max_total = max_total
        #: Bytes of whole frames so far.
        self.offset = 0
        self.ended = False

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that ``data`` completes.

        Raises:
            ProtocolError: the bytes are no frames; nothing after them is to be believed.
        """
        *lines, rest = data.split(b"\n")
        if lines:
            lines[0] = bytes(self._pending) + lines[0]
            self._pending = bytearray()
        # Only added to, as a long line may come byte by byte.
        self._pending += rest
        for line in lines:
            if len(line) >= MAX_LINE:
                raise ProtocolError(f"frame {self._next} is longer than {MAX_LINE} bytes")
            frame = self._frame(line)
            self.offset += len(line) + 1
            if self.offset > self._max_total:
                raise ProtocolError(f"more than {self._max_total} bytes of frames")
            yield frame
        if len(self._pending) > MAX_LINE:
            raise ProtocolError(f"frame {self._next} is longer than {MAX_LINE} bytes")

    def lost(self) -> None:
        """The stream broke: forget the part of a frame that came last."""
        self._pending = bytearray()

    def _frame(self, line: bytes) -> Frame:
        if self.ended:
            raise ProtocolError(f"bytes after the end frame: {line[:80]!r}")
        try:
            text = line.decode("ascii")
        except UnicodeDecodeError:
            raise ProtocolError(f"frame {self._next} is not ASCII: {line[:80]!r}") from None
        try:
            frame: Frame = self._decoder.decode(text)
        except (msgspec.DecodeError, RecursionError, ValueError) as error:
            # str(error) repeats values the sandbox chose.
            reason = printable(str(error), line=True)[:300]
            raise ProtocolError(f"frame {self._next} is not valid: {reason}") from None
        if frame.n != self._next:
            raise ProtocolError(f"frame {self._next} expected, frame {frame.n} came")
        self._next += 1
        self.ended = isinstance(frame, End)
        # Most lines hold nothing to escape, which is sooner seen of a line than of its fields: what
        # is neither in the JSON nor behind one of its backslashes is in no field.
        if text.isprintable() and not ("\\" in text or "::" in text or "##[" in text):
            return frame
        return clean(frame)


# Fields that hold one line each; all other texts may hold several.
_LINES = frozenset({
    "nodeid", "name", "type", "path", "domain", "category", "python", "pytest", "platform",
    "rootdir", "plugins", "packages",
})  # fmt: skip


def clean(part: Frame) -> Frame:
    """``part`` with every text made printable."""
    return _clean(part, line=False)  # type: ignore[return-value]


def _clean(value: object, *, line: bool) -> object:
    if type(value) is str:
        return printable(value, line=line)
    if isinstance(value, Struct):
        changed = {}
        for name in value.__struct_fields__:
            old = getattr(value, name)
            if isinstance(old, (str, Struct, list, tuple, dict)):
                new = _clean(old, line=name in _LINES)
                if new is not old:
                    changed[name] = new
        return msgspec.structs.replace(value, **changed) if changed else value
    if isinstance(value, list):
        return [_clean(entry, line=line) for entry in value]
    if isinstance(value, tuple):
        return tuple(_clean(entry, line=line) for entry in value)
    if isinstance(value, dict):
        return {_clean(k, line=True): _clean(v, line=line) for k, v in value.items()}
    return value
