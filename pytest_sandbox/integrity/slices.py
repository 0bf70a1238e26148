"""The part of a module that some names of it need. Pure."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from pytest_sandbox.integrity.edits import Definition, Source, definitions

#: Without these, or the neutral run would not be one.
_RUNNERS: Final = frozenset({"pytest", "_pytest", "py", "hypothesis", "nose"})
_BUILTINS: Final = frozenset(dir(builtins)) | {"__file__", "__name__"}


class Unreachable(Exception):
    """What cannot be had without a test runner, or is not plain enough to be told."""


@dataclass(frozen=True, slots=True)
class Statement:
    """One of a module's own level: what it makes, and what it needs for that."""

    node: ast.stmt
    makes: frozenset[str]
    needs: frozenset[str]


class Module:
    """A module as its statements."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.statements = [
            Statement(node, frozenset(_made(node)), frozenset(needed(node)))
            for node in source.tree.body
        ]
        #: Functions by the names of their classes and their own.
        self.definitions: dict[tuple[str, ...], list[Definition]] = {}
        for one in definitions(source.tree.body):
            self.definitions.setdefault(one.path, []).append(one)

    def functions(self) -> Iterator[ast.FunctionDef]:
        """Those of its own level."""
        for statement in self.statements:
            if isinstance(statement.node, ast.FunctionDef):
                yield statement.node

    def slice(self, names: Iterable[str]) -> list[Statement]:
        """What has to run so that ``names`` are there, in order.

        Raises:
            Unreachable: a test runner is among it, or a name is from nowhere.
        """
        wanted = set(names) - _BUILTINS
        chosen: set[int] = set()
        known: set[str] = set()
        while wanted - known:
            known |= (new := wanted - known)
            makers = {
                number for number, statement in enumerate(self.statements) if statement.makes & new
            }
            made = {name for number in makers for name in self.statements[number].makes}
            if not new <= made:
                raise Unreachable("a name that the module does not make")
            for number in makers - chosen:
                statement = self.statements[number]
                if _runs_tests(statement.node):
                    raise Unreachable("a test runner")
                wanted |= statement.needs - _BUILTINS
            chosen |= makers
        return [self.statements[number] for number in sorted(chosen)]

    def text(self, statement: Statement) -> str:
        """As it is written; of a fixture without what makes it one."""
        node = statement.node
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and is_fixture(node):
            return "\n" * (node.lineno - 1) + self.source.text(node)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            span = self.source.definition(node)
            if span is not None:
                return self.source.data[span[0] : span[1]].decode()
        return self.source.text(node)


def is_fixture(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether pytest takes it for one."""
    return fixture(node) is not None


def fixture(node: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.expr | None:
    """The decorator that makes a fixture of it."""
    for decorator in node.decorator_list:
        name = decorator.func if isinstance(decorator, ast.Call) else decorator
        if ast.unparse(name) in ("pytest.fixture", "fixture"):
            return decorator
    return None


def needed(node: ast.AST) -> set[str]:
    """Names that something asks for, but for those of decorators of fixtures."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and is_fixture(node):
        parts: list[ast.AST] = [node.args, *node.body]
    else:
        parts = [node]
    loaded: set[str] = set()
    own: set[str] = set()
    for part in parts:
        for child in ast.walk(part):
            if isinstance(child, ast.Name):
                (loaded if isinstance(child.ctx, ast.Load) else own).add(child.id)
            elif isinstance(child, ast.arg):
                own.add(child.arg)
            elif isinstance(child, ast.ExceptHandler) and child.name:
                own.add(child.name)
            elif isinstance(child, (ast.Import, ast.ImportFrom)):
                own |= _imported(child)
            elif isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                if child is not node:
                    own.add(child.name)
            elif isinstance(child, ast.AugAssign) and isinstance(child.target, ast.Name):
                loaded.add(child.target.id)
    # Names that are bound somewhere within are taken for its own.
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return loaded - own
    return loaded


def _made(node: ast.stmt) -> set[str]:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return {node.name}
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return _imported(node)
    made: set[str] = set()
    for child in ast.walk(node):
        if isinstance(child, ast.Name) and not isinstance(child.ctx, ast.Load):
            made.add(child.id)
        elif isinstance(child, (ast.Import, ast.ImportFrom)):
            made |= _imported(child)
        elif isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            made.add(child.name)
    return made


def _imported(node: ast.Import | ast.ImportFrom) -> set[str]:
    return {(alias.asname or alias.name).partition(".")[0] for alias in node.names}


def _runs_tests(node: ast.AST) -> bool:
    """Whether it imports a test runner."""
    for child in ast.walk(node):
        names: Collection[str] = ()
        if isinstance(child, ast.Import):
            names = [alias.name for alias in child.names]
        elif isinstance(child, ast.ImportFrom) and child.level == 0:
            names = [child.module or ""]
        if any(name.partition(".")[0] in _RUNNERS for name in names):
            return True
    return False
