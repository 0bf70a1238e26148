"""Variants of a test of which only one can pass: as it is, and with something changed. Pure."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from pytest_sandbox.integrity import literals
from pytest_sandbox.integrity.edits import Definition, Edit, Source

#: "certain" fails in any honest run, whatever the product does; "maybe" is another claim that is
#: changed, and that may not run.
Kind = Literal["true", "value", "negated", "exception", "certain", "maybe"]

#: unittest's assertions, and those of the opposite.
OPPOSITE: Final = {
    "assertEqual": "assertNotEqual", "assertTrue": "assertFalse", "assertIn": "assertNotIn",
    "assertIs": "assertIsNot", "assertIsNone": "assertIsNotNone",
    "assertIsInstance": "assertNotIsInstance", "assertAlmostEqual": "assertNotAlmostEqual",
    "assertRegex": "assertNotRegex", "assertLess": "assertGreaterEqual",
    "assertGreater": "assertLessEqual",
}  # fmt: skip
_OPPOSITE: Final = OPPOSITE | {value: key for key, value in OPPOSITE.items()}
#: Those with a value that is expected, in either of the first two places.
_EQUAL: Final = frozenset({
    "assertEqual", "assertListEqual", "assertDictEqual", "assertTupleEqual", "assertSetEqual",
    "assertSequenceEqual", "assertMultiLineEqual", "assertAlmostEqual", "assertEquals",
    "assertCountEqual",
})  # fmt: skip
_RAISES: Final = frozenset({"raises", "warns", "assertRaises", "assertWarns", "assertRaisesRegex"})
#: Context managers that hide no claim below them, as all others may: they may be the product's.
_STRICT: Final = (
    "warns", "deprecated_call", "assertWarns", "assertLogs", "assertNoLogs", "catch_warnings",
    "patch", "patch.object", "patch.dict", "monkeypatch.context", "caplog.at_level",
    "capsys.disabled", "open", "TemporaryDirectory", "NamedTemporaryFile", "redirect_stdout",
    "redirect_stderr", "chdir", "closing", "freeze_time", "localcontext", "isolated_filesystem",
)  # fmt: skip
_FUNCTIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)


@dataclass(frozen=True, slots=True)
class Variant:
    """How a test is changed."""

    kind: Kind
    edits: tuple[Edit, ...] = ()
    #: Statements for the end of its body.
    last: str = ""


def of(
    source: Source, test: Definition, exception: str, most: int = 2, *, calibrated: bool = True
) -> list[Variant]:
    """Variants that must not pass where the test does.

    Args:
        exception: the name of an exception, and a warning, that nothing raises.
        calibrated: whether a trusted tree passes the test, and says which variants fail as they
            should. Where none does, only claims are changed that the test cannot pass without.
    """
    made = _changed_claims(source, test, exception, list(certainly(test.node.body)))[:most]
    if not made and calibrated:
        # Seen to fail where the claim runs: it still may not run with another product.
        kinds = _changed_claims(source, test, exception, list(_claims(test.node)))
        made = [replace(variant, kind="maybe") for variant in kinds[:1]]
    if not made:
        sure = certain(source, test)
        made = [] if sure is None else [sure]
    return made


def certain(source: Source, test: Definition) -> Variant | None:
    """The variant that fails in any honest run, where the test can have one."""
    node = test.node
    # What comes after a way out may not run.
    can = _block(source, node) and not any(_leaves(child, ast.Return) for child in node.body)
    return Variant("certain", last="assert not True") if can else None


def _changed_claims(
    source: Source, test: Definition, exception: str, claims: Sequence[ast.stmt]
) -> list[Variant]:
    """One variant of each kind, of the last claim that has one."""
    found: dict[Kind, Variant] = {}
    for claim in reversed(claims):
        for variant in _false(source, test, claim, exception):
            found.setdefault(variant.kind, variant)
    order: tuple[Kind, ...] = ("value", "negated", "exception")
    return [found[kind] for kind in order if kind in found]


def _block(source: Source, node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether something can be added at the end of the body."""
    return not source.lead(node.body[-1]).strip() and node.body[-1].lineno > node.lineno


def certainly(body: Sequence[ast.stmt], *leaving: type[ast.stmt]) -> Iterator[ast.stmt]:
    """The claims of a body without which its test does not pass: they run, and nothing hides them.

    Args:
        leaving: statements after which the rest may not run, other than ``return``.
    """
    for node in body:
        if isinstance(node, (ast.Assert, ast.With, ast.AsyncWith, ast.Expr)):
            yield node
        if isinstance(node, (ast.With, ast.AsyncWith)):
            if all(_strict(item.context_expr) for item in node.items):
                yield from certainly(node.body, *leaving)
        elif isinstance(node, ast.Try):
            if not node.handlers:
                yield from certainly(node.body, *leaving)
            yield from certainly(node.finalbody, *leaving)
        elif isinstance(node, ast.For) and _never_empty(node.iter):
            yield from certainly(node.body, ast.Break, ast.Continue)
        if _leaves(node, ast.Return, *leaving):
            return


def _strict(manager: ast.expr) -> bool:
    name = f".{ast.unparse(manager.func)}" if isinstance(manager, ast.Call) else ""
    return name.endswith(tuple(f".{known}" for known in _STRICT))


def _never_empty(node: ast.expr) -> bool:
    """Whether a loop over it certainly runs."""
    if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
        return any(not isinstance(element, ast.Starred) for element in node.elts)
    if not (isinstance(node, ast.Call) and _called(node) == "range" and len(node.args) == 1):
        return False
    number = node.args[0]
    return isinstance(number, ast.Constant) and type(number.value) is int and number.value > 0


def _leaves(node: ast.AST, *kinds: type[ast.stmt]) -> bool:
    """Whether one of these is in it, other than in functions within."""
    if isinstance(node, kinds):
        return True
    if isinstance(node, _FUNCTIONS):
        return False
    return any(_leaves(child, *kinds) for child in ast.iter_child_nodes(node))


def _claims(node: ast.AST) -> Iterator[ast.stmt]:
    """Statements that can fail a test, in order; not those of functions and classes within."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, _FUNCTIONS):
            continue
        if isinstance(child, (ast.Assert, ast.With, ast.AsyncWith, ast.Expr)):
            yield child
        yield from _claims(child)


def _false(source: Source, test: Definition, claim: ast.stmt, exception: str) -> Iterator[Variant]:
    if isinstance(claim, ast.Assert):
        edits = _other_value(source, test, claim.test)
        if edits:
            yield Variant("value", edits)
        yield Variant("negated", (source.replace(claim.test, f"not ({source.text(claim.test)})"),))
    elif isinstance(claim, (ast.With, ast.AsyncWith)):
        for item in claim.items:
            edit = _other_exception(source, item.context_expr, exception)
            if edit:
                yield Variant("exception", (edit,))
    elif isinstance(claim, ast.Expr) and isinstance(claim.value, ast.Call):
        yield from _unittest(source, test, claim.value, exception)


def _unittest(
    source: Source, test: Definition, call: ast.Call, exception: str
) -> Iterator[Variant]:
    edit = _other_exception(source, call, exception)
    if edit:
        yield Variant("exception", (edit,))
    name = call.func
    if not (isinstance(name, ast.Attribute) and isinstance(name.value, ast.Name)):
        return
    if name.value.id != "self":
        return
    if name.attr in _EQUAL and len(call.args) >= 2:
        for side in reversed(call.args[:2]):
            edits = _changed(source, test, side)
            if edits:
                yield Variant("value", edits)
                break
    if name.attr in _OPPOSITE:
        yield Variant("negated", (source.replace(name, f"self.{_OPPOSITE[name.attr]}"),))


def _other_exception(source: Source, node: ast.expr, exception: str) -> Edit | None:
    """The edit of ``pytest.raises(X)`` and the like."""
    if not (isinstance(node, ast.Call) and node.args):
        return None
    name = node.func.attr if isinstance(node.func, ast.Attribute) else None
    if isinstance(node.func, ast.Name):
        name = node.func.id
    if name not in _RAISES or isinstance(node.args[0], ast.Starred):
        return None
    return source.replace(node.args[0], exception)


def _other_value(source: Source, test: Definition, node: ast.expr) -> tuple[Edit, ...]:
    """Edits of a comparison, by which another value is expected."""
    if not (isinstance(node, ast.Compare) and len(node.ops) == 1):
        return ()
    if not isinstance(node.ops[0], ast.Eq):
        return ()
    for side in (node.comparators[0], node.left):
        edits = _changed(source, test, side)
        if edits:
            return edits
    return ()


def _changed(source: Source, test: Definition, side: ast.expr) -> tuple[Edit, ...]:
    if isinstance(side, ast.Name):
        return _parameters(source, test.node, side.id)
    if isinstance(side, ast.Call) and side.args and _called(side) == "approx":
        side = side.args[0]
    edit = literals.changed(source, side)
    return (edit,) if edit else ()


def _called(call: ast.Call) -> str:
    if isinstance(call.func, ast.Attribute):
        return call.func.attr
    return call.func.id if isinstance(call.func, ast.Name) else ""


def _parameters(
    source: Source, node: ast.FunctionDef | ast.AsyncFunctionDef, name: str
) -> tuple[Edit, ...]:
    """Edits of every value of a parameter that is used once, to be compared with."""
    uses = [n for n in ast.walk(node) if isinstance(n, ast.Name) and n.id == name]
    if len(uses) != 1:
        return ()
    for table in tables(node):
        if name not in table.names:
            continue
        edits = [literals.changed(source, row[table.names.index(name)]) for row in table.rows]
        return tuple(edit for edit in edits if edit) if all(edits) else ()
    return ()


@dataclass(frozen=True, slots=True)
class Table:
    """One ``parametrize`` whose rows can be read."""

    names: tuple[str, ...]
    rows: tuple[tuple[ast.expr, ...], ...]


def tables(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[Table]:
    """The parameters of a test that are written out, from the innermost decorator."""
    for call in parametrized(node):
        table = _table(call)
        if table is not None:
            yield table


def parametrized(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> list[ast.Call]:
    """The decorators that are ``pytest.mark.parametrize(...)``."""
    return [
        call
        for call in reversed(node.decorator_list)
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr == "parametrize"
        and ast.unparse(call.func) in ("pytest.mark.parametrize", "mark.parametrize")
    ]


def _table(call: ast.Call) -> Table | None:
    given = dict(zip(("argnames", "argvalues"), call.args, strict=False))
    given |= {word.arg: word.value for word in call.keywords if word.arg}
    indirect = given.get("indirect")
    if indirect is not None or not {"argnames", "argvalues"} <= set(given):
        return None
    names = _names(given["argnames"])
    values = given["argvalues"]
    if not names or not isinstance(values, (ast.List, ast.Tuple)):
        return None
    rows = []
    for element in values.elts:
        row = _row(element, len(names), isinstance(given["argnames"], ast.Constant))
        if row is None:
            return None
        rows.append(row)
    return Table(names, tuple(rows))


def _names(node: ast.expr) -> tuple[str, ...]:
    try:
        known = literals.value(node)
    except literals.NotLiteral:
        return ()
    if isinstance(known, str):
        return tuple(name.strip() for name in known.split(",") if name.strip())
    if isinstance(known, (list, tuple)) and all(isinstance(name, str) for name in known):
        return tuple(known)
    return ()


def _row(element: ast.expr, width: int, one: bool) -> tuple[ast.expr, ...] | None:
    if isinstance(element, ast.Call):
        plain = _called(element) == "param" and not any(k.arg != "id" for k in element.keywords)
        return tuple(element.args) if plain and len(element.args) == width else None
    if width == 1 and one:
        return (element,)
    if isinstance(element, (ast.Tuple, ast.List)) and len(element.elts) == width:
        return (
            None if any(isinstance(e, ast.Starred) for e in element.elts) else tuple(element.elts)
        )
    return None
