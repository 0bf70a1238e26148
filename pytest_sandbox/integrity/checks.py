"""What a value from a sandbox is held against, on this side. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

from pytest_sandbox.integrity.values import Opaque

#: Of which pytest tells how near they are to a number.
_NUMBERS: Final[tuple[type, ...]] = (int, float, complex, Fraction)


@dataclass(frozen=True, slots=True)
class Check:
    """One assertion.

    Its operator is one of Python's comparisons, or "true", "false", "same", "different", "approx"
    (then ``expected`` has the tolerances as well) or "raises" (then it has names of exceptions).
    """

    operator: str
    expected: Any = None
    #: A parameter has the value that is expected.
    name: str = ""
    #: The value from the sandbox stands on the right.
    turned: bool = False
    #: Whether its test cannot pass without it.
    sure: bool = True

    @property
    def escrowed(self) -> bool:
        """Whether what is expected is known here only."""
        return self.operator not in ("true", "false", "same", "different")

    def holds(self, found: Sequence[Any], kept: Mapping[str, Any]) -> bool:
        """Whether the assertion is true of what was found."""
        expected = kept[self.name] if self.name else self.expected
        if len(found) == 2:
            same = _same(found[0], found[1])
            return same if self.operator == "same" else not same
        value = found[0]
        if self.operator in ("true", "false", "same", "different"):
            true = value.true if isinstance(value, Opaque) else bool(value)
            return true is (self.operator in ("true", "same"))
        if isinstance(value, Opaque):
            # No object is the constant that it is no plain data of.
            return self.operator == "is not"
        try:
            return _holds(self.operator, value, expected, turned=self.turned)
        except (TypeError, ValueError, ArithmeticError, RecursionError):
            return False


def _same(left: Any, right: Any) -> bool:
    try:
        return bool(left == right)
    except RecursionError:
        return False


def _holds(operator: str, value: Any, expected: Any, *, turned: bool) -> bool:
    if operator == "approx":
        return _near(value, *expected)
    if operator == "raises":
        return isinstance(value, list) and any(name in value for name in expected)
    left, right = (expected, value) if turned else (value, expected)
    if operator == "is":
        return type(left) is type(right) and _same(left, right)
    if operator == "is not":
        return not (type(left) is type(right) and _same(left, right))
    compared: dict[str, Callable[[], Any]] = {
        "==": lambda: _same(left, right),
        "!=": lambda: not _same(left, right),
        "in": lambda: left in right,
        "not in": lambda: left not in right,
        "<": lambda: left < right,
        "<=": lambda: left <= right,
        ">": lambda: left > right,
        ">=": lambda: left >= right,
    }
    return bool(compared[operator]())


def _near(value: Any, expected: Any, rel: float | None, absolute: float | None) -> bool:
    """``value == pytest.approx(expected, rel, absolute)``."""
    if isinstance(expected, dict):
        return (
            isinstance(value, dict)
            and set(value) == set(expected)
            and all(_near(value[key], expected[key], rel, absolute) for key in expected)
        )
    if isinstance(expected, (list, tuple)):
        return (
            isinstance(value, (list, tuple))
            and len(value) == len(expected)
            and all(_near(v, e, rel, absolute) for v, e in zip(value, expected, strict=True))
        )
    if _same(value, expected):
        return True
    if isinstance(expected, bool) or not isinstance(expected, (int, float)):
        return False
    if type(value) not in _NUMBERS:
        return False
    if not (math.isfinite(expected) and math.isfinite(abs(value))):
        return False
    if rel is None:
        tolerance = absolute if absolute is not None else max(1e-6 * abs(expected), 1e-12)
    else:
        tolerance = max(rel * abs(expected), 1e-12 if absolute is None else absolute)
    return bool(abs(value - expected) <= tolerance)
