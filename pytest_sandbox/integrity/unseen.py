"""What a candidate has not seen: tests held out, and calls whose results the gold patch gives.

Pure; knows no sandbox.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import Any

from pytest_sandbox.integrity.neutral import Asked, Neutral
from pytest_sandbox.integrity.nodeids import Function
from pytest_sandbox.integrity.values import Opaque, Seen


@dataclass(frozen=True, slots=True, kw_only=True)
class Unseen:
    """What a task keeps to itself until its other tests have passed."""

    #: Files by path that hold tests.
    held_out: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    #: Statements that the calls need: imports.
    before: str = ""
    #: Expressions, each compared with what it comes to in the tree of the gold patch.
    calls: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.held_out or self.calls)

    def identity(self) -> list[Any]:
        """All of it, as JSON can be made of it."""
        files = [[path, content.hex()] for path, content in sorted(self.held_out.items())]
        return [files, self.before, list(self.calls)]


def asked(calls: Sequence[str], before: str, paths: Sequence[str]) -> Neutral:
    """Orders for the calls, each by itself."""
    texts = [f"def call():\n    emit(0, (\n{call}\n    ))" for call in calls]
    orders = {
        "emit": "emit",
        "paths": list(paths),
        "fixtures": {},
        "modules": {"m": {
            "name": "m", "package": "", "file": "m.py", "statements": [before],
        }},
        "probes": [
            {"module": "m", "name": "call", "text": text, "bound": {}, "arguments": {}}
            for text in texts
        ],
    }  # fmt: skip
    one = Function("", (), "call")
    return Neutral(
        tuple(Asked(one, number, {}, ()) for number in range(len(texts))),
        frozenset(), frozenset(), orders,
    )  # fmt: skip


def results(seen: Seen, number: int) -> list[str]:
    """What each call came to, in words that are the same for the same; "" for what is not plain.

    Args:
        number: of calls.
    """
    found = []
    for call in range(number):
        values, raised = seen.values.get((call, 0)), seen.raised.get(call)
        if raised:
            found.append(f"raised {raised}")
        elif not values or raised is None:
            found.append("missing")
        else:
            value = values[0][0]
            found.append("" if isinstance(value, Opaque) else _told(value))
    return found


def _told(value: Any) -> str:
    """Equal for equal values."""
    if isinstance(value, dict):
        pairs = sorted((_told(key), _told(part)) for key, part in value.items())
        return f"{{{', '.join(f'{key}: {part}' for key, part in pairs)}}}"
    if isinstance(value, (list, tuple)):
        marks = "[]" if isinstance(value, list) else "()"
        return f"{marks[0]}{', '.join(map(_told, value))}{marks[1]}"
    if isinstance(value, frozenset):
        return f"set({', '.join(sorted(map(_told, value)))})"
    if isinstance(value, complex) and not value.imag:
        return _told(value.real)
    if isinstance(value, Fraction) or (isinstance(value, Decimal) and value.is_finite()):
        return _rational(Fraction(value))
    if isinstance(value, float):
        return float.hex(value) if value != int_or_none(value) else repr(int(value))
    if isinstance(value, bool):
        return repr(int(value))
    return repr(value)


def _rational(value: Fraction) -> str:
    """As the same number is told of another type."""
    if value.denominator == 1:
        return _told(value.numerator)
    try:
        near = float(value)
    except OverflowError:
        return str(value)
    return _told(near) if near == value else str(value)


def int_or_none(value: float) -> int | None:
    """The whole number that ``value`` is."""
    return int(value) if value == value and abs(value) < 2**53 and value == int(value) else None


def different(calls: Sequence[str], right: str, found: Sequence[str]) -> list[str]:
    """The calls that come to something else than ``right`` says, which is JSON of ``results``."""
    known = json.loads(right) if right else []
    return [
        call
        for call, expected, value in zip(calls, known, found, strict=False)
        if expected not in ("", "missing") and value != expected
    ]
