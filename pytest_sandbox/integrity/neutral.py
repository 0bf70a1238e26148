"""The neutral run: tests as probes, run by nothing that looks like a test runner.

Pure: sources in, orders for ``inner`` out; and from what it said, which assertions held.
"""

from __future__ import annotations

import ast
import json
import posixpath
import secrets
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, Final, Literal

from pytest_sandbox.integrity import probes, slices
from pytest_sandbox.integrity.checks import Check
from pytest_sandbox.integrity.edits import Source
from pytest_sandbox.integrity.nodeids import Function
from pytest_sandbox.integrity.probes import Probe, Row
from pytest_sandbox.integrity.slices import Module, Unreachable
from pytest_sandbox.integrity.syntax import parsed
from pytest_sandbox.integrity.values import Opaque, Seen

#: "shown" is a value that was there, and not the one expected.
Status = Literal["held", "shown", "missing"]
#: The site that stands for the end of a test: that it raised nothing.
END: Final = -1
_SETUPS: Final = ("setup", "teardown", "setUp", "tearDown")


@dataclass(frozen=True, slots=True, order=True)
class Site:
    """One assertion of one test with one set of parameters."""

    function: Function
    row: int
    number: int


@dataclass(frozen=True, slots=True)
class Asked:
    """One probe as it runs."""

    function: Function
    row: int
    kept: Mapping[str, Any] = field(repr=False)
    checks: tuple[Check, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Neutral:
    """What is sent, but for where the tree lies, and what is not."""

    asked: tuple[Asked, ...]
    #: Tests with an assertion whose expected value is known here only.
    escrowed: frozenset[Function]
    #: Tests that nothing of pytest's has a part in.
    simple: frozenset[Function]
    _orders: Mapping[str, Any] = field(repr=False)

    @property
    def plain(self) -> frozenset[Site]:
        """Assertions that hold without pytest wherever their test passes."""
        return frozenset(
            Site(one.function, one.row, number)
            for one in self.asked
            if one.function in self.simple
            for number, check in enumerate(one.checks)
            if check.sure
        )

    @property
    def covered(self) -> frozenset[Function]:
        """The tests that are looked at."""
        return frozenset(one.function for one in self.asked)

    def program(self, root: str) -> bytes:
        """For a Python's standard input, after ``boot``; ``root`` is where the tree lies."""
        orders = dict(self._orders)
        orders["paths"] = [_under(root, path) for path in orders["paths"]]
        orders["modules"] = {
            key: {**module, "file": _under(root, module["file"])}
            for key, module in orders["modules"].items()
        }
        return json.dumps(orders).encode()


def boot() -> str:
    """The code that reads a program, for ``python -c``."""
    text = resources.files("pytest_sandbox.integrity").joinpath("inner.py").read_text("utf-8")
    code = ast.unparse(_without_docstrings(parsed(text)))
    return f"{code}\nmain()\n"


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(
            node
        ):
            node.body = node.body[1:] or [ast.Pass()]
    return tree


def _under(root: str, path: str) -> str:
    return posixpath.normpath(posixpath.join(root, path))


class Project:
    """What has to be known of a tree.

    Args:
        read: content by path, None where there is no such file.
        cwd, pythonpath: where Python looks for modules, relative to the top.
        bare: whether no option and no configuration acts on the tests.
    """

    def __init__(
        self,
        read: Callable[[str], bytes | None],
        *,
        cwd: str,
        pythonpath: Sequence[str],
        bare: bool = True,
    ) -> None:
        self._read = read
        self.bare = bare
        self._modules: dict[str, Module | None] = {}
        self.paths = (cwd, *pythonpath)

    def module(self, path: str) -> Module | None:
        """None where it is no Python that can be read here."""
        if path not in self._modules:
            data = self._read(path)
            try:
                self._modules[path] = None if data is None else Module(Source(data))
            except (SyntaxError, ValueError, RecursionError):
                self._modules[path] = None
        return self._modules[path]

    def package(self, path: str) -> tuple[str, str]:
        """The dotted name of the package that a file is in, and the folder that holds it."""
        names: list[str] = []
        folder = posixpath.dirname(path)
        while folder and self._read(f"{folder}/__init__.py") is not None:
            names.insert(0, posixpath.basename(folder))
            folder = posixpath.dirname(folder)
        return ".".join(names), folder

    def conftests(self, path: str) -> Iterator[str]:
        """Those that pytest reads for a file, the nearest first."""
        folder = posixpath.dirname(path)
        while True:
            name = posixpath.join(folder, "conftest.py")
            if self._read(name) is not None:
                yield name
            if not folder:
                return
            folder = posixpath.dirname(folder)


def make(project: Project, tests: Collection[Function]) -> Neutral:
    """Probes of those of ``tests`` that can be had without a test runner."""
    return _Making(project).make(tests)


class _Making:
    def __init__(self, project: Project) -> None:
        self._project = project
        self._emit = _word()
        self._paths = list(project.paths)
        self._wanted: dict[str, set[str]] = {}
        self._fixtures: dict[str, dict[str, Any]] = {}
        self._simple: dict[str, bool] = {}
        #: What paths and fixtures are called in the orders.
        self._keys: defaultdict[str, str] = defaultdict(_word)

    def make(self, tests: Collection[Function]) -> Neutral:
        asked: list[Asked] = []
        sent: list[dict[str, Any]] = []
        escrowed, simple = set(), set()
        for function in sorted(tests):
            module = self._project.module(function.path)
            if module is None:
                continue
            try:
                name = _word()
                probe = self._probe(module, function, name)
                arguments = {n: self._fixture(n, function.path, ()) for n in probe.fixtures}
                self._want(function.path, probe.needs)
            except (Unreachable, SyntaxError, RecursionError):
                continue
            for number, row in enumerate(probe.rows):
                asked.append(Asked(function, number, row.kept, probe.checks))
                sent.append(self._sent(function, name, probe, row, arguments))
            if any(check.escrowed for check in probe.checks):
                escrowed.add(function)
            if function.path not in self._simple:
                self._simple[function.path] = self._project.bare and self._plain(function.path)
            if not probe.fixtures and not probe.marked and self._simple[function.path]:
                simple.add(function)
        modules = {self._keys[path]: self._module(path) for path in self._wanted}
        orders = {
            "emit": self._emit, "paths": list(dict.fromkeys(self._paths)), "modules": modules,
            "fixtures": self._fixtures, "probes": sent,
        }  # fmt: skip
        return Neutral(tuple(asked), frozenset(escrowed), frozenset(simple), orders)

    def _probe(self, module: Module, function: Function, name: str) -> Probe:
        path = (*function.classes, function.name)
        found = module.definitions.get(path, [])
        if len(found) != 1:
            raise Unreachable("not one definition")
        return probes.make(module.source, found[0], name, self._emit)

    def _sent(
        self, function: Function, name: str, probe: Probe, row: Row, arguments: dict[str, str]
    ) -> dict[str, Any]:
        return {
            "module": self._keys[function.path], "name": name, "text": probe.text,
            "bound": dict(row.bound), "arguments": arguments,
        }  # fmt: skip

    def _want(self, path: str, names: Collection[str]) -> None:
        """Note that a module has to have these.

        Raises:
            Unreachable: it cannot.
        """
        module = self._project.module(path)
        if module is None:
            raise Unreachable("a module that cannot be read")
        module.slice(names)
        self._wanted.setdefault(path, set()).update(names)

    def _module(self, path: str) -> dict[str, Any]:
        module = self._project.module(path)
        assert module is not None
        statements = [module.text(one) for one in module.slice(self._wanted[path])]
        package, folder = self._project.package(path)
        for conftest in self._project.conftests(path):
            self._paths.insert(0, self._project.package(conftest)[1])
        self._paths.insert(0, folder)
        name = _word()
        return {
            "name": f"{package}.{name}" if package else name, "package": package,
            "file": posixpath.join(posixpath.dirname(path), f"{name}.py"),
            "statements": statements,
        }  # fmt: skip

    def _fixture(self, name: str, path: str, around: tuple[str, ...]) -> str:
        """The key of what an argument gets.

        Raises:
            Unreachable: it takes pytest to make it.
        """
        if name == "tmp_path":
            return name
        for place in (path, *self._project.conftests(path)):
            module = self._project.module(place)
            found = [] if module is None else [
                node for node in module.functions() if node.name == name and slices.is_fixture(node)
            ]  # fmt: skip
            if not found:
                continue
            key = self._keys[f"{place}::{name}"]
            if key in around or len(found) > 1:
                raise Unreachable("a fixture made of itself")
            if key not in self._fixtures:
                kept = _plain_fixture(found[0])
                names = [arg.arg for arg in found[0].args.args]
                made = {n: self._fixture(n, place, (*around, key)) for n in names}
                self._want(place, {name})
                self._fixtures[key] = {
                    "module": self._keys[place], "name": name, "arguments": made, "kept": kept,
                }  # fmt: skip
            return key
        raise Unreachable("a fixture of a plugin")

    def _plain(self, path: str) -> bool:
        """Whether nothing acts on the tests of a module from outside of them."""
        for place in (path, *self._project.conftests(path)):
            module = self._project.module(place)
            if module is None:
                return False
            for statement in module.statements:
                node = statement.node
                if "pytestmark" in statement.makes:
                    return False
                for child in ast.walk(node):
                    if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
                        continue
                    if child.name.startswith((*_SETUPS, "pytest_")):
                        return False
                    made = slices.fixture(child)
                    if made is not None and "autouse" in ast.unparse(made):
                        return False
        return True


def _plain_fixture(node: ast.FunctionDef) -> bool:
    """Whether a fixture is kept for all tests.

    Raises:
        Unreachable: it is more than a function that returns something.
    """
    decorator = slices.fixture(node)
    words = {} if not isinstance(decorator, ast.Call) else {
        word.arg: word.value for word in decorator.keywords
    }  # fmt: skip
    scope = words.get("scope")
    plain = set(words) <= {"scope"} and not (isinstance(decorator, ast.Call) and decorator.args)
    if len(node.decorator_list) != 1 or not plain or node.args.defaults or node.args.kwonlyargs:
        raise Unreachable("a fixture with more to it")
    if any(isinstance(child, (ast.Yield, ast.YieldFrom)) for child in ast.walk(node)):
        raise Unreachable("a fixture that ends")
    return isinstance(scope, ast.Constant) and scope.value != "function"


def _word() -> str:
    return "".join(secrets.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(9))


# ---------------------------------------------------------------- what came of it


def statuses(neutral: Neutral, seen: Seen) -> dict[Site, Status]:
    """Which assertions held."""
    found: dict[Site, Status] = {}
    for number, asked in enumerate(neutral.asked):
        for site, check in enumerate(asked.checks):
            values = seen.values.get((number, site), [])
            held = bool(values) and all(check.holds(value, asked.kept) for value in values)
            shown = bool(values) and not any(isinstance(v, Opaque) for part in values for v in part)
            status: Status = "held" if held else "shown" if shown else "missing"
            found[Site(asked.function, asked.row, site)] = status
        raised = seen.raised.get(number)
        end: Status = "held" if raised == "" else "missing" if raised is None else "shown"
        found[Site(asked.function, asked.row, END)] = end
    return found


def usable(
    trusted: Sequence[Mapping[Site, Status]],
    unsolved: Collection[Function],
    *,
    gold: bool,
    plain: Collection[Site],
) -> frozenset[Site]:
    """The assertions that hold in runs of trusted trees as they do below pytest.

    Args:
        trusted: of the base and, where there is one, of the gold patch, in that order.
        unsolved: tests that fail at the base.
        gold: whether the last is of the gold patch.
        plain: assertions that hold without pytest wherever their test passes; of tests that fail
            at the base, all that there is to know without a gold patch.
    """
    found = set()
    for site in {site for one in trusted for site in one}:
        known = [one.get(site, "missing") for one in trusted]
        if site.function not in unsolved:
            good = all(status == "held" for status in known)
        elif gold:
            good = known[-1] == "held"
        else:
            good = site in plain and known[0] != "missing"
        if good:
            found.add(site)
    return frozenset(found)


def disagreeing(
    found: Mapping[Site, Status], right: Collection[Site], passed: Callable[[Function], bool]
) -> list[Site]:
    """Assertions that do not hold here, of tests that passed."""
    return sorted(
        site for site in right if found.get(site, "missing") != "held" and passed(site.function)
    )
