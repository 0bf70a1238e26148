"""The worker's side of the compiled witness: loaded before anything else, asked about every test.

Where there is none for this Python, it says why, and everything goes on without.
"""

from __future__ import annotations

import base64
import os
from typing import Any, Callable

KEY_SIZE = 32


class Witness:
    """Opens and closes the windows in which a test's code is looked at."""

    def __init__(self, begin: Callable[..., None], end: Callable[[], str]) -> None:
        self._begin = begin
        #: What was seen since the last time, for the host: numbered and authenticated.
        self.end = end

    def begin(self, number: int, item: Any) -> None:
        self._begin(number, *_codes(item))


def witness(given: dict[str, Any], fd: int) -> Witness:
    """Start the witness that fits; its key is the next to be read from ``fd``.

    Args:
        given: compiled files by the suffix they are for, and the folder with the code under test.
    """
    from importlib.machinery import EXTENSION_SUFFIXES

    try:
        suffix = EXTENSION_SUFFIXES[0]
        encoded = given["libraries"].get(suffix)
        if encoded is None:
            raise ImportError(f"there is no witness for {suffix.strip('.')}")
        module = _load(base64.b64decode(encoded))
        here = os.path.dirname(os.__file__)
        skip = tuple({here, os.path.realpath(here)})
        return Witness(*module.start(fd, skip, given["root"]))
    except (ImportError, OSError, AttributeError) as error:
        text = f"absent: {type(error).__name__}: {error}"[:1000]
        _forget(fd)
        return Witness(lambda *args: None, lambda: text)


def _load(data: bytes) -> Any:
    """The module in a compiled file, which lies nowhere and is known to nobody."""
    from importlib.machinery import ExtensionFileLoader
    from importlib.util import module_from_spec, spec_from_loader

    file = os.memfd_create("witness")  # type: ignore[attr-defined, unused-ignore]
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(file, view) :]
        loader = ExtensionFileLoader("_witness", f"/proc/self/fd/{file}")
        spec = spec_from_loader("_witness", loader)
        assert spec is not None
        return module_from_spec(spec)
    finally:
        os.close(file)


def _forget(fd: int) -> None:
    """Read the key that nobody needs."""
    left = KEY_SIZE
    while left:
        left -= len(os.read(fd, left)) or left


def _codes(item: Any) -> tuple[Any, Any, Any]:
    """The innermost code of a test with its globals, and that of its outermost decorator.

    None where there are no such things.
    """
    try:
        path = str(getattr(item, "path", None) or item.fspath)
        functions = _unwrapped(getattr(item, "function", None))
    except Exception:  # noqa: BLE001 - tests' objects may raise anything
        return None, None, None
    if not functions:
        return None, None, None
    inner = functions[-1]
    for function in functions:
        if function.__code__.co_filename == path:
            inner = function
    outer = functions[0]
    return inner.__code__, inner.__globals__, None if outer is inner else outer.__code__


def _unwrapped(function: Any) -> list[Any]:
    """The plain functions that decorators are around, from the outside in."""
    plain = type(_unwrapped)
    found: list[Any] = []
    for _ in range(100):
        if isinstance(function, plain) and function not in found:
            found.append(function)
        test = getattr(getattr(function, "hypothesis", None), "inner_test", None)
        for inner in (
            test,
            getattr(function, "__wrapped__", None),
            getattr(function, "__func__", None),
            getattr(function, "func", None) if type(function).__name__ == "partial" else None,
        ):
            if callable(inner) and inner is not function:
                function = inner
                break
        else:
            break
    return found
