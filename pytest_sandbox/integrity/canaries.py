"""Canaries: test modules under other names, in which each test is there as it is and made false.

Who passes both has not been tested. Pure: sources in, modules and the key to them out; what the
names stand for never leaves this machine.
"""

from __future__ import annotations

import ast
import posixpath
import random
import re
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from pytest_sandbox.integrity import variants
from pytest_sandbox.integrity.edits import Definition, Edit, Source, definitions
from pytest_sandbox.integrity.nodeids import Function
from pytest_sandbox.integrity.variants import Kind

_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz"
#: Statuses by test, variant and parameters: what a run of the canaries said.
Outcomes = Mapping["Place", str]


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """One variant of one test, whatever it is called in a run."""

    function: Function
    kind: Kind
    #: As pytest has them, with the same blank for what was random.
    parameters: str


@dataclass(frozen=True, slots=True)
class Names:
    """What names of one run begin with, so that pytest takes them for tests."""

    function: str
    klass: str

    @classmethod
    def new(cls) -> Names:
        return cls(_word(), _word().capitalize())

    def options(self) -> tuple[str, ...]:
        """Those with which pytest finds the tests."""
        return (
            "-o", f"python_functions={self.function}* test_{self.function}*",
            "-o", f"python_classes={self.klass}*",
            "--maxfail=0", "--tb=line",
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Canaries:
    """Generated modules, and what they were made from."""

    #: Path to text.
    files: Mapping[str, bytes]
    names: Names
    #: The tests that have a false variant.
    covered: frozenset[Function]
    #: What each generated function is: its true name, and its kind.
    _functions: Mapping[str, tuple[str, Kind]] = field(repr=False)
    #: The true names of generated classes, and the true paths of generated modules.
    _classes: Mapping[str, str] = field(repr=False)
    _paths: Mapping[str, str] = field(repr=False)
    #: What parameters are called in this run.
    _blanks: frozenset[str] = field(repr=False)

    def place(self, function: Function, parameters: str) -> Place | None:
        """What a test of the run was, by its id taken apart."""
        path, found = self._paths.get(function.path), self._functions.get(function.name)
        if path is None or found is None:
            return None
        classes = tuple(self._classes.get(name, name) for name in function.classes)
        test = Function(path, classes, found[0])
        if test not in self.covered:
            return None
        blanks = "|".join(map(re.escape, sorted(self._blanks)))
        return Place(test, found[1], re.sub(blanks, "?", parameters) if blanks else parameters)


def _word() -> str:
    return "".join(secrets.choice(_LETTERS) for _ in range(9))


def make(
    sources: Mapping[str, bytes],
    tests: Collection[Function],
    decisive: Collection[Function],
    *,
    unknown: Collection[Function] = (),
    names: Names | None = None,
) -> Canaries:
    """Modules in place of ``sources``, in the same folders, with variants of ``tests``.

    Args:
        sources: the trusted test modules by path; one that cannot be read has no canaries.
        decisive: tests with more variants than others.
        unknown: tests that no trusted tree passes.
    """
    names = names or Names.new()
    files: dict[str, bytes] = {}
    functions: dict[str, tuple[str, Kind]] = {}
    classes: dict[str, str] = {}
    paths: dict[str, str] = {}
    covered: set[Function] = set()
    blanks: set[str] = set()
    for path, data in sources.items():
        wanted = [test for test in tests if test.path == path]
        try:
            module = _Module(Source(data), wanted, frozenset(decisive), frozenset(unknown), names)
            text = module.text()
        except (SyntaxError, ValueError, RecursionError):
            continue
        if not module.covered:
            continue
        made = posixpath.join(posixpath.dirname(path), f"{_word()}.py")
        files[made] = text.encode()
        paths[made] = path
        covered |= module.covered
        blanks |= module.blanks
        functions |= module.functions
        classes |= {name: known for known, name in module.classes.items()}
    return Canaries(files, names, frozenset(covered), functions, classes, paths, frozenset(blanks))


_HELPERS: Final = """
class {error}(Warning):
    pass


def {mark}(blank):
    import pytest

    def plain(value):
        return value._replace(id=None) if hasattr(value, "_replace") and hasattr(
            value, "marks") and hasattr(value, "values") else value

    def parametrize(argnames, argvalues, indirect=False, ids=None, scope=None, **more):
        return pytest.mark.parametrize(
            argnames, [plain(value) for value in argvalues], indirect=indirect,
            ids=lambda value: blank, scope=scope, **more)

    return parametrize


"""


class _Module:
    """One module on its way to being another."""

    def __init__(
        self,
        source: Source,
        wanted: Sequence[Function],
        decisive: frozenset[Function],
        unknown: frozenset[Function],
        names: Names,
    ) -> None:
        self._source = source
        self._wanted = _by_definition(source.tree, wanted)
        self._mine = {name for test in wanted for name in test.classes}
        self._decisive = decisive
        self._unknown = unknown
        self._names = names
        self._error, self._mark = _word().capitalize(), _word()
        self._shared: list[Edit] = []
        self.classes: dict[str, str] = {}
        self.functions: dict[str, tuple[str, Kind]] = {}
        self.covered: set[Function] = set()
        self.blanks: set[str] = set()

    def text(self) -> str:
        source = self._source
        found = list(definitions(source.tree.body))
        self._rename_classes()
        edits = list(self._shared)
        counts: dict[tuple[str, ...], int] = {}
        for one in found:
            counts[one.path] = counts.get(one.path, 0) + 1
        used = self._used()
        for one in found:
            span = source.definition(one.node)
            if span is None:
                continue
            if one.path in self._wanted and counts[one.path] == 1:
                made = self._variants(one, self._wanted[one.path])
                if made:
                    edits.append(Edit(*span, made))
                    continue
            name = one.node.name
            if name.startswith("test") and name not in used and not _fixture(one.node):
                edits.append(Edit(*span, f"{source.lead(one.node)}pass"))
        start = source.body_start()
        end = len(source.data)
        helpers = _HELPERS.format(error=self._error, mark=self._mark)
        # Outer edits win over those of names within them, which they hold already.
        kept = _outermost(edits)
        return source.part(0, start, kept) + helpers + source.part(start, end, kept)

    def _used(self) -> set[str]:
        """Names that something in the module asks for."""
        nodes = list(ast.walk(self._source.tree))
        used = {node.id for node in nodes if isinstance(node, ast.Name)}
        return used | {node.attr for node in nodes if isinstance(node, ast.Attribute)}

    def _rename_classes(self) -> None:
        source = self._source
        for node in ast.walk(source.tree):
            if isinstance(node, ast.ClassDef) and node.name in self._mine:
                name = self.classes.setdefault(node.name, self._names.klass + _word())
                edit = source.named(node, name)
                if edit is None:
                    raise ValueError("a class whose name is not found")
                self._shared.append(edit)
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Name) and node.id in self.classes:
                self._shared.append(source.replace(node, self.classes[node.id]))
            elif isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                blank = _word()
                for call in variants.parametrized(node):
                    self.blanks.add(blank)
                    helper = f"{self._mark}({blank!r})"
                    self._shared.append(source.replace(call.func, helper))

    def _variants(self, one: Definition, tests: Collection[Function]) -> str:
        """The text of all variants of a test; "" where it has none that is false."""
        source, node = self._source, one.node
        decisive = not self._decisive.isdisjoint(tests)
        most = 2 if decisive else 1
        known = self._unknown.isdisjoint(tests)
        false = variants.of(source, one, self._error, most, calibrated=known)
        if decisive and all(variant.kind != "certain" for variant in false):
            sure = variants.certain(source, one)
            false += [sure] if sure is not None else []
        span = source.definition(node)
        if not false or span is None:
            return ""
        prefix = self._names.function
        if any(klass.bases for klass in one.classes):
            # unittest looks for this, whatever pytest is told.
            prefix = f"test_{prefix}"
        texts = []
        for variant in (variants.Variant("true"), *false):
            name = prefix + _word()
            edit = source.named(node, name)
            if edit is None:
                return ""
            inner = [e for e in self._shared if span[0] <= e.start and e.end <= span[1]]
            text = source.part(*span, _merged(source, [*inner, edit], variant.edits))
            if variant.last:
                text += f"\n{source.lead(node.body[-1])}{variant.last}"
            texts.append(text)
            self.functions[name] = (node.name, variant.kind)
        random.SystemRandom().shuffle(texts)
        self.covered.update(tests)
        return "\n\n".join(texts)


def _by_definition(
    tree: ast.Module, wanted: Sequence[Function]
) -> dict[tuple[str, ...], list[Function]]:
    """Tests by the dotted name of what defines them: their own class, or one it is made from."""
    classes = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    defined = {one.path for one in definitions(tree.body)}
    found: dict[tuple[str, ...], list[Function]] = {}
    for test in wanted:
        path = (*test.classes, test.name)
        waiting, seen = list(test.classes[-1:]), set(test.classes[-1:])
        while path not in defined and waiting:
            node = classes.get(waiting.pop(0))
            bases = [] if node is None else [b.id for b in node.bases if isinstance(b, ast.Name)]
            waiting += [base for base in bases if base not in seen]
            seen.update(bases)
            path = (waiting[0], test.name) if waiting else path
        if path in defined:
            found.setdefault(path, []).append(test)
    return found


def _fixture(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any("fixture" in ast.unparse(decorator) for decorator in node.decorator_list)


def _outermost(edits: Sequence[Edit]) -> list[Edit]:
    kept: list[Edit] = []
    for edit in sorted(set(edits), key=lambda one: (one.start, -one.end)):
        if not kept or edit.start >= kept[-1].end:
            kept.append(edit)
    return kept


def _merged(source: Source, shared: Sequence[Edit], own: Sequence[Edit]) -> list[Edit]:
    """Both, where one lies within another: a variant repeats the text that it is about."""
    found = list(own)
    for edit in shared:
        around = [one for one in own if one.start <= edit.start and edit.end <= one.end]
        if not around:
            found.append(edit)
            continue
        outer = around[0]
        plain = source.data[outer.start : outer.end].decode()
        if plain not in outer.text:
            continue
        inner = source.part(outer.start, outer.end, [
            one for one in shared if outer.start <= one.start and one.end <= outer.end
        ])  # fmt: skip
        found = [
            Edit(one.start, one.end, one.text.replace(plain, inner, 1)) if one is outer else one
            for one in found
        ]
        # All that lie within are done.
        shared = [one for one in shared if not (outer.start <= one.start and one.end <= outer.end)]
        return _merged(source, shared, found)
    return found


# ---------------------------------------------------------------- what a run of them says


@dataclass(frozen=True, slots=True)
class Pair:
    """A test, with its parameters, that passed as it is and as it must not."""

    function: Function
    kind: Kind
    parameters: str


def usable(
    trusted: Sequence[Outcomes], unsolved: Collection[Function]
) -> tuple[frozenset[Place], frozenset[Place]]:
    """What runs of trusted trees leave: true variants that pass, false ones that do not.

    Args:
        trusted: of the base and, where there is one, of the gold patch, in that order.
        unsolved: tests that fail at the base.
    """
    true: set[Place] = set()
    false: set[Place] = set()
    for place in {place for outcomes in trusted for place in outcomes}:
        right = trusted[-1:] if place.function in unsolved else trusted
        statuses = [outcomes.get(place, "missing") for outcomes in right]
        if place.kind == "true":
            if all(status == "passed" for status in statuses):
                true.add(place)
        elif all(status in ("failed", "error") for status in statuses):
            false.add(place)
    return frozenset(true), frozenset(false)


def contradictions(outcomes: Outcomes, false: Collection[Place]) -> list[Pair]:
    """Pairs of which both pass."""
    return sorted(
        (
            Pair(place.function, place.kind, place.parameters)
            for place, status in outcomes.items()
            if place in false and status == "passed" and outcomes.get(_true(place)) == "passed"
        ),
        key=lambda pair: (pair.function, pair.parameters, pair.kind),
    )


def _true(place: Place) -> Place:
    return Place(place.function, "true", place.parameters)


def unconfirmed(
    outcomes: Outcomes, true: Collection[Place], passed: Callable[[Function], bool]
) -> list[Place]:
    """Tests that passed, that pass under other names with the right product, and did not here."""
    return sorted(
        place
        for place in true
        if outcomes.get(place, "missing") != "passed" and passed(place.function)
    )
