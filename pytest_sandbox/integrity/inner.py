"""What runs in the sandbox for the neutral run: expressions of tests, and what they come to.

Sent as text on standard input; needs Python 3.8 and nothing else, and knows no expected value.
"""

from __future__ import annotations

import collections
import os
import sys
import types
import warnings
from collections.abc import Callable
from typing import Any

#: More than any test compares; what is larger is not looked at.
_MOST_PARTS = 4000
_MOST_TEXT = 150_000
_MOST_EMITTED = 300
#: Bytes of one line, and of all of them, short of what ends the reading.
_MOST_LINE = 1_000_000
_MOST_BYTES = 48_000_000
#: Views and the like, that are equal to plain data or hold it.
_LISTS: tuple[type, ...] = (collections.deque, type({}.values()))
_SETS: tuple[type, ...] = (type({}.keys()), type({}.items()))


def reduced(value: Any, left: list[int]) -> list[Any] | None:
    """``value`` as plain data, by what the types below know of it, whatever it says of itself."""
    left[0] -= 1
    if left[0] < 0:
        raise OverflowError
    kind = type(value)
    if value is None:
        return ["N"]
    if kind is bool:
        return ["B", int(value)]
    if issubclass(kind, int):
        number = int.__add__(value, 0)
        if int.bit_length(number) > 8000:
            raise OverflowError
        return ["i", format(number, "x")]
    if issubclass(kind, float):
        return ["f", float.hex(float.__add__(value, 0.0))]
    if issubclass(kind, str):
        return ["s", _text(str.__str__(value), str.__len__(value))]
    if issubclass(kind, bytes):
        return ["b", _text(bytes.hex(value), bytes.__len__(value))]
    for base, tag in ((list, "l"), (tuple, "t"), (set, "S"), (frozenset, "S")):
        if issubclass(kind, base):
            return [tag, [reduced(part, left) for part in base.__iter__(value)]]
    if issubclass(kind, dict):
        pairs = [(key, dict.__getitem__(value, key)) for key in dict.__iter__(value)]
        return ["d", [[reduced(key, left), reduced(part, left)] for key, part in pairs]]
    return _like(value, left)


def _like(value: Any, left: list[int]) -> list[Any] | None:
    """``reduced`` of the standard library's own types that are equal to plain data."""
    kind = type(value)
    if kind is complex:
        return ["c", [float.hex(value.real), float.hex(value.imag)]]
    if kind is _stdlib("fractions", "Fraction"):
        return ["F", [reduced(value.numerator, left), reduced(value.denominator, left)]]
    if kind is _stdlib("decimal", "Decimal"):
        text = str(value)
        large = value.is_finite() and abs(value.adjusted()) > 2000
        if large or value.is_snan() or len(text) > 2000:
            raise OverflowError
        return ["D", text]
    if kind is bytearray:
        return reduced(bytes(value), left)
    if kind is types.MappingProxyType:
        return reduced(dict(value), left)
    if kind in _LISTS:
        return reduced(list(value), left)
    return reduced(set(value), left) if kind in _SETS else None


def _stdlib(module: str, name: str) -> Any:
    """A type of a module, if somebody has imported it."""
    return getattr(sys.modules.get(module), name, "")


def _text(text: str, length: int) -> str:
    if length > _MOST_TEXT:
        raise OverflowError
    return text if type(text) is str else str.__getitem__(text, slice(None))


def plain(value: Any) -> list[Any]:
    """``reduced``, or what little can be told of another object: whether it is true."""
    try:
        found = reduced(value, [_MOST_PARTS])
        if found is not None and "None" not in repr(_holes(found)):
            return found
    except (OverflowError, RecursionError, TypeError, KeyError):
        pass
    try:
        return ["o", 1 if value else 0]
    except Exception:  # noqa: BLE001 - of objects that know no truth
        return ["o", -1]


def _holes(found: Any) -> list[None]:
    """None for each part that could not be reduced."""
    if found is None:
        return [None]
    if found[0] in ("l", "t", "S"):
        return [hole for part in found[1] for hole in _holes(part)]
    if found[0] == "d":
        return [hole for pair in found[1] for part in pair for hole in _holes(part)]
    return []


class Neutral:
    """One process's work."""

    def __init__(self, orders: dict[str, Any], write: Callable[[bytes], None]) -> None:
        self._orders = orders
        self._write = write
        self._spaces: dict[str, dict[str, Any]] = {}
        self._made: dict[str, Any] = {}
        self._counts: dict[tuple[int, int], int] = {}
        self._probe = -1
        self._bytes = 0

    def put(self, **line: Any) -> None:
        import json

        data = json.dumps(line).encode()
        if len(data) > _MOST_LINE or (self._bytes > _MOST_BYTES and "v" in line):
            # Too much to look at is no reason to believe nothing.
            data = json.dumps({**line, "v": [["o", -1]]}).encode()
        self._bytes += len(data)
        self._write(data + b"\n")

    def emit(self, site: int, *values: Any) -> None:
        key = (self._probe, site)
        self._counts[key] = self._counts.get(key, 0) + 1
        if self._counts[key] > _MOST_EMITTED:
            return
        found = [plain(value) for value in values]
        if len(values) == 2 and any(part[0] == "o" for part in found):
            # Two objects of which only they know whether they are the same.
            found = [["o", 1 if values[0] == values[1] else 0]]
        self.put(p=self._probe, s=site, v=found)

    def space(self, key: str) -> dict[str, Any]:
        """The names of a module, as far as they are needed."""
        if key not in self._spaces:
            module = self._orders["modules"][key]
            space = {"__name__": module["name"], "__file__": module["file"]}
            space["__package__"] = module["package"]
            space["__builtins__"] = __builtins__
            space[self._orders["emit"]] = self.emit
            self._spaces[key] = space
            if module["package"]:
                self._carry_out(f"import {module['package']}", module["file"], {})
            for text in module["statements"]:
                self._carry_out(text, module["file"], space)
        return self._spaces[key]

    def _carry_out(self, text: str, file: str, space: dict[str, Any]) -> None:
        try:
            exec(compile(text, file, "exec", dont_inherit=True), space)  # noqa: S102
        except Exception:  # noqa: BLE001, S110 - what needs it will say so
            pass

    def argument(self, key: str) -> Any:
        """What a fixture gives."""
        if key == "tmp_path":
            import pathlib
            import tempfile

            return pathlib.Path(tempfile.mkdtemp())
        if key in self._made:
            return self._made[key]
        fixture = self._orders["fixtures"][key]
        space = self.space(fixture["module"])
        given = {name: self.argument(other) for name, other in fixture["arguments"].items()}
        made = space[fixture["name"]](**given)
        if fixture["kept"]:
            self._made[key] = made
        return made

    def run(self, number: int, probe: dict[str, Any]) -> None:
        # Warnings are shown as pytest shows them by default, and filters are those of one test.
        with warnings.catch_warnings():
            if not sys.warnoptions:
                warnings.filterwarnings("always", category=DeprecationWarning)
                warnings.filterwarnings("always", category=PendingDeprecationWarning)
            self._run(number, probe)

    def _run(self, number: int, probe: dict[str, Any]) -> None:
        self._probe = number
        raised = None
        try:
            space = self.space(probe["module"])
            file = space["__file__"]
            exec(compile(probe["text"], file, "exec", dont_inherit=True), space)  # noqa: S102
            given = {}
            for name, text in probe["bound"].items():
                code = compile(text, file, "eval", dont_inherit=True)
                given[name] = eval(code, space)  # noqa: S307
            for name, key in probe["arguments"].items():
                given[name] = self.argument(key)
            space[probe["name"]](**given)
        except BaseException as error:  # noqa: BLE001 - it is what is told
            raised = type(error).__name__
        self.put(p=number, e=raised or "")


def main() -> None:
    import json

    orders = json.loads(sys.stdin.buffer.read().decode())
    # High, where nobody expects it, and closed in whatever is executed.
    channel = os.dup2(1, 197, inheritable=False)
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)

    def write(data: bytes) -> None:
        while data:
            data = data[os.write(channel, data) :]

    sys.path[:0] = [path for path in orders["paths"] if path not in sys.path]
    neutral = Neutral(orders, write)
    for number, probe in enumerate(orders["probes"]):
        neutral.run(number, probe)
    neutral.put(end=1)
    os._exit(0)
