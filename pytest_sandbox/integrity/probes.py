"""A test as a probe: its assertions give away what they compare, and never with what. Pure."""

from __future__ import annotations

import ast
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from pytest_sandbox.integrity import literals, variants
from pytest_sandbox.integrity.checks import Check
from pytest_sandbox.integrity.edits import Definition, Edit, Source
from pytest_sandbox.integrity.slices import Unreachable, needed
from pytest_sandbox.integrity.syntax import parsed

#: Rows of parameters that are looked at.
_ROWS: Final = 200
#: Marks without which a test is another one.
_MARKS: Final = frozenset({"usefixtures", "xfail", "skip", "skipif", "asyncio", "anyio", "trio"})
_UNITTEST: Final = {
    "assertEqual": "==", "assertEquals": "==", "assertListEqual": "==", "assertDictEqual": "==",
    "assertTupleEqual": "==", "assertSetEqual": "==", "assertMultiLineEqual": "==",
    "assertNotEqual": "!=", "assertIs": "is", "assertIsNot": "is not", "assertIn": "in",
    "assertNotIn": "not in",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """One set of parameters: those that the probe is given, and what its sites are checked with."""

    #: Name to text.
    bound: tuple[tuple[str, str], ...]
    #: By name: the value that never leaves this machine.
    kept: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Probe:
    """What is sent of one test, and what is not."""

    #: A function definition.
    text: str
    #: Arguments that are fixtures.
    fixtures: tuple[str, ...]
    rows: tuple[Row, ...]
    checks: tuple[Check, ...]
    #: Names that the module has to have.
    needs: frozenset[str]
    #: Whether it has a mark on which somebody may act, other than its parameters.
    marked: bool = False


def make(source: Source, test: Definition, name: str, emit: str) -> Probe:
    """The probe of a test.

    Args:
        name: of the function that is sent.
        emit: of what is called with each value.

    Raises:
        Unreachable: it is more than a function whose arguments can be known.
    """
    return _Making(source, test, name, emit).probe()


class _Making:
    def __init__(self, source: Source, test: Definition, name: str, emit: str) -> None:
        self._source = source
        self._test = test
        self._node = test.node
        self._name = name
        self._emit = emit
        self._edits: list[Edit] = []
        self._checks: list[Check] = []
        self._uses = Counter(
            n.id for n in ast.walk(self._node)
            if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)
        )  # fmt: skip
        self._columns: dict[str, list[ast.expr]] = {}
        #: Names that stand for a literal, and are only compared with.
        self._kept: set[str] = set()
        self._constants: dict[str, Any] = {}
        #: Claims that may not be left out.
        self._sure = set(variants.certainly(self._node.body))

    def probe(self) -> Probe:
        node = self._node
        self._refuse()
        tables = list(variants.tables(node))
        if len(tables) != len(variants.parametrized(node)):
            raise Unreachable("parameters that are not written out")
        for table in tables:
            for index, name in enumerate(table.names):
                self._columns[name] = [row[index] for row in table.rows]
        self._find_constants()
        for statement in node.body:
            self._statement(statement)
        if not self._checks:
            raise Unreachable("nothing to look at")
        arguments = [arg.arg for arg in node.args.args]
        if self._is_method:
            if "self" in self._left():
                raise Unreachable("a method of something")
            arguments = arguments[1:]
        fixtures = [name for name in arguments if name not in self._columns]
        given = [name for name in arguments if name not in self._kept]
        text = self._text(given)
        body = parsed(text)
        bound = {name for name in given if name in self._columns}
        rows = tuple(itertools.islice(self._rows(tables, bound), _ROWS))
        names = needed(next(n for n in ast.walk(body) if isinstance(n, ast.FunctionDef)))
        names -= {self._emit}
        for row in rows:
            for _, value in row.bound:
                names |= needed(ast.parse(value, mode="eval"))
        marked = len(node.decorator_list) > len(tables)
        return Probe(text, tuple(fixtures), rows, tuple(self._checks), frozenset(names), marked)

    @property
    def _is_method(self) -> bool:
        return bool(self._test.classes)

    def _refuse(self) -> None:
        node, classes = self._node, self._test.classes
        plain = not (node.args.posonlyargs or node.args.kwonlyargs or node.args.vararg
                     or node.args.kwarg or node.args.defaults)  # fmt: skip
        if isinstance(node, ast.AsyncFunctionDef) or not plain:
            raise Unreachable("no plain function")
        for decorator in node.decorator_list:
            name = decorator.func if isinstance(decorator, ast.Call) else decorator
            words = ast.unparse(name).split(".")
            if "mark" not in words or words[-1] in _MARKS:
                raise Unreachable("a decorator")
        for klass in classes:
            bases = {ast.unparse(base) for base in klass.bases}
            if klass.decorator_list or bases - {"unittest.TestCase", "TestCase", "object"}:
                raise Unreachable("a class with bases")
            methods = {n.name for n in klass.body if isinstance(n, ast.FunctionDef)}
            if any(name.lower().startswith(("setup", "teardown")) for name in methods):
                raise Unreachable("a class with a set-up")
        banned = (ast.Yield, ast.YieldFrom, ast.Global, ast.Nonlocal, ast.Return)
        if any(isinstance(child, banned) for child in _walk(node)):
            raise Unreachable("no plain body")
        if {"locals", "globals", "eval", "exec", "vars", "super"} & set(self._uses):
            raise Unreachable("a body that looks at itself")

    def _find_constants(self) -> None:
        """Names that are given a literal once, in the body itself."""
        stores = Counter(
            n.id for n in ast.walk(self._node)
            if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load)
        )  # fmt: skip
        for statement in self._node.body:
            if not (isinstance(statement, ast.Assign) and len(statement.targets) == 1):
                continue
            target = statement.targets[0]
            if not isinstance(target, ast.Name) or stores[target.id] != 1:
                continue
            if literals.is_literal(statement.value):
                self._constants[target.id] = literals.value(statement.value)

    # ------------------------------------------------------------ statements

    def _statement(self, node: ast.stmt) -> None:
        if isinstance(node, ast.Assert):
            self._assertion(node, node.test)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            self._call(node, node.value)
        elif isinstance(node, ast.With):
            self._with(node)
        elif isinstance(node, (ast.For, ast.While, ast.If, ast.Try)):
            for field in ("body", "orelse", "finalbody"):
                for child in getattr(node, field, []):
                    self._statement(child)
            for handler in getattr(node, "handlers", []):
                for child in handler.body:
                    self._statement(child)

    def _assertion(self, node: ast.stmt, claim: ast.expr) -> None:
        if isinstance(claim, ast.UnaryOp) and isinstance(claim.op, ast.Not):
            self._site(node, Check("false"), claim.operand)
        elif isinstance(claim, ast.Compare) and len(claim.ops) == 1:
            self._compared(node, claim.left, _OPERATORS[type(claim.ops[0])], claim.comparators[0])
        else:
            self._site(node, Check("true"), claim)

    def _compared(self, node: ast.stmt, left: ast.expr, operator: str, right: ast.expr) -> None:
        for mine, other, turned in ((left, right, False), (right, left, True)):
            check = self._check(operator, other, turned)
            if check is not None:
                self._site(node, check, mine)
                return
        if operator in ("==", "!="):
            self._site(node, Check("same" if operator == "==" else "different"), left, right)
        else:
            start, end = self._source.span(left)[0], self._source.span(right)[1]
            self._put(node, Check("true"), self._source.data[start:end].decode())

    def _check(self, operator: str, side: ast.expr, turned: bool) -> Check | None:
        """What one side is held against, where that is a literal."""
        if isinstance(side, ast.Call) and operator in ("==", "!=") and side.args:
            return _approx(side)
        if isinstance(side, ast.Name) and self._uses[side.id] == 1:
            column = self._columns.get(side.id)
            if column is not None and all(map(literals.is_literal, column)):
                self._kept.add(side.id)
                return Check(operator, name=side.id, turned=turned)
            if side.id in self._constants:
                self._kept.add(side.id)
                return Check(operator, self._constants[side.id], turned=turned)
        try:
            return Check(operator, literals.value(side), turned=turned)
        except literals.NotLiteral:
            return None

    def _call(self, node: ast.Expr, call: ast.Call) -> None:
        name = call.func
        if not isinstance(name, ast.Attribute) or ast.unparse(name.value) != "self":
            return
        operator = _UNITTEST.get(name.attr)
        args = call.args
        if operator is not None and len(args) >= 2:
            self._compared(node, args[0], operator, args[1])
        elif name.attr in ("assertTrue", "assertFalse") and args:
            self._site(node, Check(name.attr[6:].lower()), args[0])
        elif name.attr in ("assertIsNone", "assertIsNotNone") and args:
            self._site(node, Check("is" if name.attr == "assertIsNone" else "is not"), args[0])

    def _with(self, node: ast.With) -> None:
        names = _raised(node)
        if names is None:
            for child in node.body:
                self._statement(child)
            return
        first = node.body[0]
        lead = self._source.lead(node)
        if node.items[0].optional_vars is not None or lead.strip() or first.lineno == node.lineno:
            raise Unreachable("what was raised is looked at")
        start, end = self._source.span(node)
        colon = self._colon(self._source.span(node.items[0].context_expr)[1])
        number = len(self._checks)
        self._checks.append(Check("raises", names, sure=node in self._sure))
        caught = f"{self._emit}e"
        after = (
            f"\n{lead}except BaseException as {caught}:"
            f"\n{lead}    {self._emit}({number}, [c.__name__ for c in type({caught}).__mro__])"
            f"\n{lead}else:"
            f"\n{lead}    {self._emit}({number}, None)"
        )
        self._edits += [Edit(start, colon + 1, "try:"), Edit(end, end, after)]

    def _site(self, node: ast.stmt, check: Check, *values: ast.expr) -> None:
        texts = [f"({self._source.text(value)})" for value in values]
        self._put(node, check, ", ".join(texts))

    def _put(self, node: ast.stmt, check: Check, text: str) -> None:
        number = len(self._checks)
        self._checks.append(replace(check, sure=node in self._sure))
        start, end = self._source.span(node)
        self._edits.append(Edit(start, end, f"{self._emit}({number}, {text})"))

    # ------------------------------------------------------------ the text

    def _colon(self, start: int) -> int:
        at = self._source.data.find(b":", start)
        if at < 0:
            raise Unreachable("a header without an end")
        return at

    def _left(self) -> set[str]:
        """Names that the text asks for, after all edits."""
        found = ast.parse(self._text(["self"]))
        return {n.id for n in ast.walk(found) if isinstance(n, ast.Name)}

    def _text(self, arguments: Sequence[str]) -> str:
        source, node = self._source, self._node
        start, end = source.span(node)
        ends = [source.span(node.returns)[1]] if node.returns is not None else []
        ends += [source.at(arg.end_lineno or 0, arg.end_col_offset or 0) for arg in node.args.args]
        name = source.named(node, self._name)
        if name is None or node.body[0].lineno == node.lineno:
            raise Unreachable("a header that is not found")
        colon = self._colon(max([name.end, *ends]))
        edits = [*self._edits, Edit(start, colon + 1, f"def {self._name}({', '.join(arguments)}):")]
        for statement in node.body:
            if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
                name_of = statement.targets[0].id
                if name_of in self._kept and name_of in self._constants:
                    edits.append(Edit(*source.span(statement), "pass"))
        text = source.part(start, end, edits)
        return f"if 1:\n{source.lead(node)}{text}" if node.col_offset else text

    def _rows(self, tables: Sequence[variants.Table], bound: set[str]) -> Iterator[Row]:
        for choice in itertools.product(*(table.rows for table in tables)):
            texts: list[tuple[str, str]] = []
            kept: dict[str, Any] = {}
            for table, row in zip(tables, choice, strict=True):
                for name, cell in zip(table.names, row, strict=True):
                    if name in self._kept:
                        kept[name] = literals.value(cell)
                    elif name in bound:
                        texts.append((name, f"({self._source.text(cell)})"))
            yield Row(tuple(texts), kept)


_OPERATORS: Final[dict[type, str]] = {
    ast.Eq: "==", ast.NotEq: "!=", ast.Is: "is", ast.IsNot: "is not", ast.In: "in",
    ast.NotIn: "not in", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=",
}  # fmt: skip


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    """What is in a body, but not in functions within it."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield child
            yield from _walk(child)


def _approx(call: ast.Call) -> Check | None:
    """``pytest.approx(literal)``, with its tolerances."""
    if ast.unparse(call.func).rpartition(".")[2] != "approx":
        return None
    try:
        expected = literals.value(call.args[0])
        given = dict(zip(("rel", "abs"), map(literals.value, call.args[1:]), strict=False))
        given |= {word.arg or "": literals.value(word.value) for word in call.keywords}
    except literals.NotLiteral:
        return None
    if not set(given) <= {"rel", "abs"}:
        return None
    return Check("approx", (expected, given.get("rel"), given.get("abs")))


def _raised(node: ast.With) -> tuple[str, ...] | None:
    """Names of the exceptions that one of has to come."""
    call = node.items[0].context_expr
    if len(node.items) != 1 or not isinstance(call, ast.Call) or not call.args:
        return None
    if ast.unparse(call.func) not in ("pytest.raises", "raises", "self.assertRaises"):
        return None
    kinds = call.args[0].elts if isinstance(call.args[0], ast.Tuple) else [call.args[0]]
    names = [ast.unparse(kind).rpartition(".")[2] for kind in kinds]
    return tuple(names) if all(name.isidentifier() for name in names) else None
