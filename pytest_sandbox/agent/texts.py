"""Texts and frames cut to what may be sent: encodable, and within the host's limits."""

from __future__ import annotations

import json
from typing import Any, Callable

#: Longest line that is sent, in bytes; the host refuses lines of 4 MiB.
LINE_LIMIT = 3 * 1024 * 1024
#: The host's own limits on names and on single words, in characters.
NAME_LIMIT = 65_536
WORD_LIMIT = 256

dumps: Callable[[Any], str] = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode


def cut(text: str, limit: int) -> str:
    """``text`` in at most about ``limit`` characters: its head, a note, and its tail."""
    if len(text) <= limit:
        return text
    tail = limit // 3
    head = limit - tail
    note = f"\n[... {len(text) - limit} characters cut ...]\n"
    return text[:head] + note + (text[-tail:] if tail else "")


def short(text: Any, limit: int = WORD_LIMIT) -> str:
    """``text`` as a name of at most ``limit`` characters."""
    name = plain(text)
    return name if len(name) <= limit else name[: limit - 3] + "..."


def plain(value: Any) -> str:
    """``str(value)`` of anything, encodable as UTF-8."""
    if type(value) is not str:
        try:
            value = f"{value!s}"
        except Exception as error:  # noqa: BLE001 - tests' objects may raise anything here
            value = f"<{type(value).__name__} whose str() raised {type(error).__name__}>"
    if value.isascii():
        return str(value)
    return str(value.encode("utf-8", "backslashreplace"), "utf-8")


def shrink(value: Any, limit: int) -> Any:
    """A copy of ``value`` in which no text is longer than about ``limit`` characters."""
    if isinstance(value, str):
        return cut(value, limit)
    if isinstance(value, (list, tuple)):
        return [shrink(part, limit) for part in value]
    if isinstance(value, dict):
        return {key: shrink(part, limit) for key, part in value.items()}
    return value


def frame_line(frame: dict[str, Any], limit: int) -> str:
    """The frame as JSON; where that is too long, its texts are cut until it is not."""
    line = dumps(frame)
    while len(line) > LINE_LIMIT and limit > 100:
        limit //= 2
        line = dumps(shrink(frame, limit))
    return line
