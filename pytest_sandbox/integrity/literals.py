"""Literals of a test: what their value is, and how another one is written. Pure."""

from __future__ import annotations

import ast
from typing import Any, Final

from pytest_sandbox.integrity.edits import Edit, Source

#: Nothing that is written by hand is longer.
_MAX = 20_000

#: What is written in place of something empty.
_ONE: Final[dict[type, str]] = {list: "[0]", tuple: "(0,)", dict: "{0: 0}", set: "{0}"}


class NotLiteral(Exception):
    """An expression whose value is not plain to see."""


def value(node: ast.expr) -> Any:
    """The value of a literal of plain data.

    Raises:
        NotLiteral: it is none.
    """
    if (node.end_lineno or 0) - node.lineno > 500:
        raise NotLiteral
    try:
        found = ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
        raise NotLiteral from error
    if found is Ellipsis or isinstance(found, complex):
        raise NotLiteral
    return found


def is_literal(node: ast.expr) -> bool:
    try:
        value(node)
    except NotLiteral:
        return False
    return True


def changed(source: Source, node: ast.expr) -> Edit | None:
    """An edit after which the literal ``node`` has another value; None where it is no literal."""
    try:
        known = value(node)
    except NotLiteral:
        return None
    for part in _parts(node):
        text = _other(ast.literal_eval(part))
        if text is not None:
            return source.replace(part, text)
    if isinstance(known, (list, tuple, dict, set)) and not known:
        return source.replace(
            node, {list: "[0]", tuple: "(0,)", dict: "{0: 0}", set: "{0}"}[type(known)]
        )
    return None


def _parts(node: ast.expr) -> list[ast.expr]:
    """The constants of a literal, those of values before keys."""
    if isinstance(node, (ast.List, ast.Tuple)):
        return [part for element in node.elts for part in _parts(element)]
    if isinstance(node, ast.Set):
        # With a second one it would be as large as before, or smaller: the first is enough.
        return [part for element in node.elts[:1] for part in _parts(element)]
    if isinstance(node, ast.Dict):
        found = [part for element in node.values for part in _parts(element)]
        return found or [part for key in node.keys if key is not None for part in _parts(key)]
    return [node] if isinstance(node, (ast.Constant, ast.UnaryOp, ast.BinOp)) else []


def _other(known: object) -> str | None:
    """Another value of the same type, as it is written."""
    if isinstance(known, bool):
        return repr(not known)
    if isinstance(known, int):
        return repr(known + 1) if abs(known) < 10**100 else None
    if isinstance(known, float):
        made = known + 0.5 + abs(known) / 100
        return repr(made) if made not in (known, float("inf")) and made == made else None
    if isinstance(known, (str, bytes)) and len(known) < _MAX:
        return repr(_text(known))
    if known is None:
        return "..."
    return None


def _text(known: str | bytes) -> str | bytes:
    if isinstance(known, bytes):
        return (b"~" if known[:1] != b"~" else b"^") + known[1:]
    return ("~" if known[:1] != "~" else "^") + known[1:]
