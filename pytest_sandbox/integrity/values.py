"""The gate of the neutral run: bytes of a sandbox in, plain values out, or a ``ProtocolError``.

Knows nothing of tests.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from pytest_sandbox.errors import ProtocolError

#: Longest line, bytes of all, and lines.
MAX_LINE: Final = 1 << 20
MAX_TOTAL: Final = 64 << 20
MAX_LINES: Final = 200_000
_MAX_DEPTH: Final = 60
_MAX_PARTS: Final = 5_000


@dataclass(frozen=True, slots=True)
class Opaque:
    """An object that is no plain data; all that is known is whether it says that it is true."""

    true: bool | None


class _Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    p: Annotated[int, Meta(ge=-1, le=10**6)] = -1
    s: Annotated[int, Meta(ge=0, le=10**6)] | None = None
    v: Annotated[list[Any], Meta(max_length=2)] | None = None
    e: Annotated[str, Meta(max_length=1000)] | None = None
    end: bool | int = False


@dataclass(frozen=True, slots=True)
class Seen:
    """What one process said."""

    #: By probe and site: what was found there, each time.
    values: dict[tuple[int, int], list[tuple[Any, ...]]]
    #: Probes that came to their end: what they raised, "" for nothing.
    raised: dict[int, str]
    #: Whether the process came to its own end.
    whole: bool


class Gate:
    """Takes the bytes of one process."""

    def __init__(self, probes: int) -> None:
        self._probes = probes
        self._decoder = msgspec.json.Decoder(_Line)
        self._pending = bytearray()
        self._total = 0
        self._lines = 0
        self._values: dict[tuple[int, int], list[tuple[Any, ...]]] = {}
        self._raised: dict[int, str] = {}
        self._ended = False

    def feed(self, data: bytes) -> None:
        """Take more bytes.

        Raises:
            ProtocolError: they are none of what is sent; nothing of it is to be believed.
        """
        self._total += len(data)
        if self._total > MAX_TOTAL:
            raise ProtocolError(f"the neutral run sent more than {MAX_TOTAL} bytes")
        self._pending += data
        if b"\n" in data:
            *lines, rest = bytes(self._pending).split(b"\n")
            self._pending = bytearray(rest)
            for line in lines:
                self._take(line)
        if len(self._pending) > MAX_LINE:
            raise ProtocolError(f"the neutral run sent a line of more than {MAX_LINE} bytes")

    def seen(self) -> Seen:
        """What was said so far."""
        return Seen(self._values, self._raised, self._ended)

    def _take(self, text: bytes) -> None:
        self._lines += 1
        if self._ended or self._lines > MAX_LINES or len(text) > MAX_LINE:
            raise ProtocolError("the neutral run sent more lines than it can have")
        try:
            line = self._decoder.decode(text)
        except (msgspec.DecodeError, RecursionError, ValueError) as error:
            raise ProtocolError("the neutral run sent a line that is none of its own") from error
        if line.end:
            self._ended = True
            return
        if not 0 <= line.p < self._probes or line.p in self._raised:
            raise ProtocolError("the neutral run spoke of a test out of turn")
        if line.e is not None:
            self._raised[line.p] = line.e
        elif line.s is None or line.v is None:
            raise ProtocolError("the neutral run sent a line without a value")
        else:
            found = tuple(decoded(part) for part in line.v)
            self._values.setdefault((line.p, line.s), []).append(found)


def decoded(value: object) -> Any:
    """The plain data that a tagged value stands for.

    Raises:
        ProtocolError: it stands for none.
    """
    left = [_MAX_PARTS]
    try:
        return _decoded(value, left, 0)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise ProtocolError("the neutral run sent a value that is none") from error


def _decoded(value: object, left: list[int], depth: int) -> Any:
    left[0] -= 1
    if left[0] < 0 or depth > _MAX_DEPTH or type(value) is not list or not 0 < len(value) < 3:
        raise ValueError
    tag, content = value[0], value[-1]
    if tag == "N":
        return None
    if tag == "o":
        if content not in (-1, 0, 1):
            raise ValueError
        return Opaque(None if content == -1 else bool(content))
    if tag == "B":
        return bool(content)
    if tag in ("i", "f", "s", "b", "D"):
        return _scalar(tag, content)
    if type(content) is not list:
        raise ValueError
    if tag == "d":
        return {
            _decoded(key, left, depth + 1): _decoded(part, left, depth + 1) for key, part in content
        }
    if tag == "c":
        real, imaginary = (_scalar("f", part) for part in content)
        return complex(real, imaginary)
    parts = [_decoded(part, left, depth + 1) for part in content]
    if tag == "F":
        if len(parts) != 2 or not all(type(part) is int for part in parts) or not parts[1]:
            raise ValueError
        return Fraction(*parts)
    made = {"l": list, "t": tuple, "S": frozenset}.get(tag)
    if made is None:
        raise ValueError
    return made(parts)


def _scalar(tag: str, content: object) -> Any:
    if type(content) is not str:
        raise ValueError
    if tag == "i":
        if len(content) > 2100:
            raise ValueError
        return int(content, 16)
    if tag == "f":
        if len(content) > 40:
            raise ValueError
        return float.fromhex(content)
    if tag == "D":
        return _decimal(content)
    return bytes.fromhex(content) if tag == "b" else content


def _decimal(text: str) -> Decimal:
    try:
        found = Decimal(text) if len(text) <= 2000 else Decimal("sNaN")
    except ArithmeticError as error:
        raise ValueError from error
    # With a large exponent it takes for ever to make an integer of it.
    if found.is_snan() or (found.is_finite() and abs(found.adjusted()) > 2000):
        raise ValueError
    return found
