"""Edits of Python source by the places of its syntax tree: what is not edited stays as it is.

Writing a tree back as text would not do: its spelling is that of this Python, not the target's.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pytest_sandbox.integrity.syntax import parsed


@dataclass(frozen=True, slots=True)
class Edit:
    """Bytes ``start`` to ``end`` become ``text``."""

    start: int
    end: int
    text: str


class Source:
    """A module's text and its tree.

    Raises:
        SyntaxError, ValueError: it is no Python that this Python reads, or not in UTF-8.
    """

    def __init__(self, data: bytes) -> None:
        text = data.decode("utf-8-sig").replace("\r\n", "\n")
        if "\r" in text or "\f" in text:
            raise ValueError("lines are ended in more than one way")
        self.data = text.encode()
        self.tree = parsed(text)
        self._starts = [0]
        for line in self.data.split(b"\n"):
            self._starts.append(self._starts[-1] + len(line) + 1)

    def at(self, line: int, column: int) -> int:
        """The offset of a place as syntax trees have it."""
        return self._starts[line - 1] + column

    def span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        """Where a node starts and ends, without decorators."""
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self.at(node.lineno, node.col_offset), self.at(node.end_lineno, node.end_col_offset)

    def text(self, node: ast.expr | ast.stmt) -> str:
        start, end = self.span(node)
        return self.data[start:end].decode()

    def replace(self, node: ast.expr, text: str) -> Edit:
        return Edit(*self.span(node), text)

    def definition(
        self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    ) -> tuple[int, int] | None:
        """The whole lines of a definition, decorators included; None where it shares a line."""
        first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
        start = self._starts[first - 1]
        _, end = self.span(node)
        lead = self.data[start : start + node.col_offset]
        after = self.data[end : self.data.find(b"\n", end) if b"\n" in self.data[end:] else None]
        if lead.strip() or (after.strip() and not after.strip().startswith(b"#")):
            return None
        return start, end

    def named(
        self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef, name: str
    ) -> Edit | None:
        """The edit that gives a definition another name; None where it is not found."""
        start, end = self.span(node)
        body = self.data[start:end]
        words = b"class" if isinstance(node, ast.ClassDef) else b"def"
        keyword = body.find(words)
        old = node.name.encode()
        at = body.find(old, keyword + len(words))
        if keyword < 0 or at < 0 or body[keyword + len(words) : at].strip():
            return None
        return Edit(start + at, start + at + len(old), name)

    def lead(self, node: ast.stmt) -> str:
        """The blanks before a statement; what stands there, where it is not the first of a line."""
        start = self._starts[node.lineno - 1]
        return self.data[start : start + node.col_offset].decode()

    def part(self, start: int, end: int, edits: Iterable[Edit]) -> str:
        """The text between two places, with those edits that lie there."""
        pieces, at = [], start
        for edit in sorted(set(edits), key=lambda one: (one.start, one.end)):
            if edit.start < at or edit.end > end:
                continue
            pieces += [self.data[at : edit.start].decode(), edit.text]
            at = edit.end
        pieces.append(self.data[at:end].decode())
        return "".join(pieces)

    def body_start(self) -> int:
        """Where statements may be added: after the docstring and what is from the future."""
        at = 0
        for number, node in enumerate(self.tree.body):
            docstring = number == 0 and isinstance(node, ast.Expr) and _is_text(node.value)
            future = isinstance(node, ast.ImportFrom) and node.module == "__future__"
            if not docstring and not future:
                break
            end = self.span(node)[1]
            newline = self.data.find(b"\n", end)
            at = len(self.data) if newline < 0 else newline + 1
        return at


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


@dataclass(frozen=True, slots=True)
class Definition:
    """A function and the names of the classes around it."""

    node: ast.FunctionDef | ast.AsyncFunctionDef
    classes: tuple[ast.ClassDef, ...]

    @property
    def path(self) -> tuple[str, ...]:
        return (*(node.name for node in self.classes), self.node.name)


def definitions(
    body: Iterable[ast.stmt], classes: tuple[ast.ClassDef, ...] = ()
) -> Iterator[Definition]:
    """Functions of a module and of its classes, also below ``if`` and ``try``; not in functions."""
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield Definition(node, classes)
        elif isinstance(node, ast.ClassDef):
            yield from definitions(node.body, (*classes, node))
        elif isinstance(node, (ast.If, ast.Try, ast.With)):
            for name in ("body", "orelse", "finalbody"):
                yield from definitions(getattr(node, name, []), classes)
            for handler in getattr(node, "handlers", []):
                yield from definitions(handler.body, classes)
