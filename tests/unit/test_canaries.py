"""Variants of tests: which can pass together, by what pytest makes of them."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path

import pytest

from pytest_sandbox.integrity import canaries, judging, nodeids, variants
from pytest_sandbox.integrity.canaries import Pair, Place
from pytest_sandbox.integrity.edits import Source, definitions
from pytest_sandbox.integrity.nodeids import Function
from pytest_sandbox.integrity.records import Calibration

A = Function("test_a.py", (), "test_a")
MODULE = b'''"""Texts."""
from __future__ import annotations

import unittest

import pytest
from pytest import approx, raises

LIMIT = 7


def double(number):
    return 2 * number


@pytest.fixture
def three():
    return 3


def test_value():
    assert double(2) == 4, "twice"


def test_text(three):
    found = "a" * three
    assert (
        found
        == 'aaa'
    )
    assert found != "b"


@pytest.mark.parametrize("number, expected", [(1, 2), pytest.param(2, 4, id="two")],
                         ids=str)
def test_table(number, expected):
    assert double(number) == expected


@pytest.mark.parametrize("left", [1, 2])
@pytest.mark.parametrize("right", [3, 4])
def test_both(left, right):
    assert left < right


def test_raises():
    with raises(ZeroDivisionError, match="zero"):
        1 / 0


def test_near():
    assert double(0.1) == approx(0.2)


def test_container():
    assert {"a": [double(1), None]} == {"a": [2, None]}
    assert [] == []


def test_nothing():
    double(2)


class TestOfClass:
    limit = LIMIT

    def test_method(self):
        assert self.limit == 7

    class TestInner:
        def test_deep(self, three):
            assert three == 3


class Base(unittest.TestCase):
    def test_inherited(self):
        self.assertEqual(double(4), 8)
        with self.assertRaises(ValueError):
            int("x")


class TestDerived(Base):
    def setUp(self):
        self.found = [1]

    def test_in(self):
        self.assertIn(1, self.found)


def helper_test():
    return LIMIT
'''
RECORD = """
import json

RESULTS = {}


def pytest_runtest_logreport(report):
    RESULTS.setdefault(report.nodeid, []).append(report.outcome)


def pytest_sessionfinish():
    with open("results.json", "w") as file:
        json.dump(RESULTS, file)
"""


def run(folder: Path, *args: str) -> dict[str, str]:
    """Outcomes by node id."""
    import json

    (folder / "record.py").write_text(RECORD)
    command = [sys.executable, "-m", "pytest", "-p", "record", "-p", "no:pytest_sandbox",
               "-p", "no:randomly", "-p", "no:cacheprovider", *args]  # fmt: skip
    subprocess.run(command, cwd=folder, capture_output=True, check=False, timeout=120)
    found = json.loads((folder / "results.json").read_text())
    return {
        nodeid: "passed" if outcomes == ["passed"] * 3 else "failed"
        for nodeid, outcomes in found.items()
    }


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[Function, list[str]]]:
    folder = tmp_path_factory.mktemp("suite")
    (folder / "tests").mkdir()
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "tests" / "test_all.py").write_bytes(MODULE)
    outcomes = run(folder)
    assert set(outcomes.values()) == {"passed"}
    return folder, nodeids.functions(outcomes)


def test_one_variant_of_each_test_passes(
    suite: tuple[Path, dict[Function, list[str]]],
) -> None:
    folder, tests = suite
    made = canaries.make({"tests/test_all.py": MODULE}, tests, tests)
    assert made.covered == set(tests)
    [(path, text)] = made.files.items()
    (folder / path).write_bytes(text)
    outcomes = run(folder, *made.names.options(), path)
    found: dict[Place, str] = {}
    for nodeid, outcome in outcomes.items():
        parsed = nodeids.parse(nodeid)
        assert parsed is not None
        place = made.place(*parsed)
        if place is not None:
            found[place] = outcome
    for place, outcome in found.items():
        assert outcome == ("passed" if place.kind == "true" else "failed"), place
    # Each id of the original has a true variant, and at least one that is false.
    for test, ids in tests.items():
        kinds = Counter(place.kind for place in found if place.function == test)
        assert kinds["true"] == len(ids), test
        assert sum(kinds.values()) >= 2 * len(ids), test
    true, false = canaries.usable([found], [])
    assert len(true) + len(false) == len(found)
    assert canaries.contradictions(found, false) == []


def test_nothing_tells_what_a_variant_is(suite: tuple[Path, dict[Function, list[str]]]) -> None:
    _, tests = suite
    made = canaries.make({"tests/test_all.py": MODULE}, tests, tests)
    [(path, text)] = made.files.items()
    assert path.startswith("tests/")
    shown = path + text.decode()
    for name in ("test_all", "test_value", "test_table", "TestOfClass", "TestDerived"):
        assert name not in shown
    functions = [one.node.name for one in definitions(ast.parse(text).body)]
    assert len(set(functions)) == len(functions)
    again = canaries.make({"tests/test_all.py": MODULE}, tests, tests)
    assert not set(again.files) & set(made.files)


@pytest.mark.parametrize(
    ("text", "kinds", "changed"),
    [
        ("assert f() == 1", ["value", "negated"], "f() == 2"),
        ("assert 1 == f()", ["value", "negated"], "2 == f()"),
        ("assert f() == -1.5", ["value", "negated"], "f() == -0.985"),
        ("assert f() == 'ab'", ["value", "negated"], "f() == '~b'"),
        ("assert f() == ''", ["value", "negated"], "f() == '~'"),
        ("assert f() == b'~'", ["value", "negated"], "f() == b'^'"),
        ("assert f() == [[], (1, 2)]", ["value", "negated"], "f() == [[], (2, 2)]"),
        ("assert f() == []", ["value", "negated"], "f() == [0]"),
        ("assert f() == {}", ["value", "negated"], "f() == {0: 0}"),
        ("assert f() == {'a': True}", ["value", "negated"], "f() == {'a': False}"),
        ("assert f() == None", ["value", "negated"], "f() == ..."),
        ("assert f() == approx(1)", ["value", "negated"], "f() == approx(2)"),
        ("assert f() == g()", ["negated"], "not (f() == g())"),
        ("assert f() is None", ["negated"], "not (f() is None)"),
        ("assert all(x for x in f()), 'why'", ["negated"], "not (all(x for x in f())), 'why'"),
        ("with pytest.raises(A, match='x'):\n        f()", ["exception"], "raises(E, match='x')"),
        ("pytest.raises((A, B), f, 1)", ["exception"], "pytest.raises(E, f, 1)"),
        ("self.assertEqual(f(), 3)", ["value", "negated"], "self.assertEqual(f(), 4)"),
        ("self.assertFalse(f())", ["negated"], "self.assertTrue(f())"),
        ("f()", ["certain"], "f()\n    assert not True"),
        ("for x in [1, f()]:\n        assert x == 'é'", ["value", "negated"], "x == '~'"),
        ("for x in f():\n        assert x == 'é'", ["maybe"], "assert x == '~'"),
        ("assert f() == 1\n    if g():\n        assert h() == 2", ["value", "negated"], "f() == 2"),
    ],
)  # fmt: skip
def test_what_is_changed(text: str, kinds: list[str], changed: str) -> None:
    source = Source(f"def test_it(self):\n    {text}\n".encode())
    [test] = definitions(source.tree.body)
    found = variants.of(source, test, "E")
    assert [variant.kind for variant in found] == kinds
    start, end = source.span(test.node)
    made = source.part(start, end, found[0].edits)
    if found[0].last:
        made += f"\n    {found[0].last}"
    ast.parse(made)
    assert changed in made


@pytest.mark.parametrize(
    ("body", "kinds"),
    [
        ("CLAIM", ["negated"]),
        ("CLAIM\nif sys.platform == 'win32':\n    assert h() == 2", ["negated"]),
        ("for x in range(3):\n    CLAIM", ["negated"]),
        ("for x in [1, 2]:\n    CLAIM\n    break", ["negated"]),
        ("try:\n    CLAIM\nfinally:\n    f()", ["negated"]),
        ("try:\n    f()\nexcept ValueError:\n    pass\nfinally:\n    CLAIM", ["negated"]),
        ("with mock.patch('a'), open('b') as c:\n    CLAIM", ["negated"]),
        ("def inner():\n    return 1\nCLAIM", ["negated"]),
        ("CLAIM\nreturn", ["negated"]),
        ("with raises(ValueError):\n    f()\n    CLAIM", ["exception"]),
        ("if sys.platform == 'win32':\n    CLAIM", ["certain"]),
        ("if a():\n    pass\nelse:\n    CLAIM", ["certain"]),
        ("for x in f():\n    CLAIM", ["certain"]),
        ("for x in []:\n    CLAIM", ["certain"]),
        ("for x in [1, 2]:\n    if x:\n        continue\n    CLAIM", ["certain"]),
        ("while f():\n    CLAIM", ["certain"]),
        ("try:\n    CLAIM\nexcept ValueError:\n    pass", ["certain"]),
        ("try:\n    f()\nexcept ValueError:\n    CLAIM", ["certain"]),
        ("try:\n    f()\nexcept ValueError:\n    pass\nelse:\n    CLAIM", ["certain"]),
        ("with suppress(AssertionError):\n    CLAIM", ["certain"]),
        # A manager of the product's; a parameter that may be any.
        ("with ignoring(AssertionError):\n    CLAIM", ["certain"]),
        ("with expectation:\n    CLAIM", ["certain"]),
        ("match f():\n    case 1:\n        CLAIM", ["certain"]),
        ("def inner():\n    CLAIM\ninner", ["certain"]),
        ("if f():\n    return\nCLAIM", []),
        ("for x in f():\n    if x:\n        return\npytest.fail()", []),
    ],
)
def test_only_claims_that_certainly_run(body: str, kinds: list[str]) -> None:
    """With another one changed, an honest product may pass too; no trusted tree says more."""
    text = f"def test_it(expectation):\n{textwrap.indent(body, '    ')}\n"
    source = Source(text.replace("CLAIM", "assert f() is None").encode())
    [test] = definitions(source.tree.body)
    found = variants.of(source, test, "E", calibrated=False)
    assert [variant.kind for variant in found] == kinds


@pytest.mark.parametrize(
    ("kind", "known", "verdict"),
    [
        ("negated", True, "tampered"), ("negated", False, "tampered"),
        ("certain", False, "tampered"), ("exception", False, "tampered"),
        ("value", True, "tampered"), ("value", False, "unproven"), ("maybe", True, "unproven"),
    ],
)  # fmt: skip
def test_what_a_contradiction_is(kind: variants.Kind, known: bool, verdict: str) -> None:
    outcomes = {Place(A, "true", ""): "passed", Place(A, kind, ""): "failed"}
    judge = judging.Judge(
        calibration=Calibration(functions=(A,), canaries=(tuple(outcomes.items()),)),
        functions={A: ["test_a.py::test_a"]}, unsolved=frozenset() if known else frozenset({A}),
        gold=False, tests=1, seed="",
    )  # fmt: skip
    found, _ = judge.of_canaries([dict.fromkeys(outcomes, "passed")])
    assert [finding.verdict for finding in found] == [verdict]


@pytest.mark.parametrize(
    "text",
    [
        # Used for more than to be compared with; not written out; one row that cannot be changed.
        """
        @pytest.mark.parametrize("a, b", [(1, 2)])
        def test_it(a, b):
            assert f(b) == b
        """,
        """
        @pytest.mark.parametrize("a, b", ROWS)
        def test_it(a, b):
            assert f(a) == b
        """,
        """
        @pytest.mark.parametrize("a, b", [(1, 2), (2, g())])
        def test_it(a, b):
            assert f(a) == b
        """,
    ],
)
def test_parameters_that_are_not_changed(text: str) -> None:
    source = Source(textwrap.dedent(text).encode())
    [test] = definitions(source.tree.body)
    assert [variant.kind for variant in variants.of(source, test, "E")] == ["negated"]


def test_modules_that_cannot_be_read_have_no_canaries() -> None:
    test = Function("test_a.py", (), "test_a")
    for text in (b"def test_a(:\n", b"\xff\n", b"def test_a():\r    assert 1\r\n", b"a\0b"):
        assert canaries.make({"test_a.py": text}, [test], []).files == {}


def test_a_name_of_two_definitions_is_left_out() -> None:
    text = b"def test_a():\n    assert 1\n\n\ndef test_a():\n    assert 2\n"
    made = canaries.make({"test_a.py": text}, [Function("test_a.py", (), "test_a")], [])
    assert made.covered == frozenset()


def test_calibration() -> None:
    base = {
        Place(A, "true", "[?0]"): "failed",
        Place(A, "true", "[?1]"): "passed",
        Place(A, "value", "[?0]"): "failed",
        Place(A, "value", "[?1]"): "failed",
        Place(A, "negated", "[?0]"): "passed",
        Place(A, "negated", "[?1]"): "passed",
    }
    gold = base | {
        Place(A, "true", "[?0]"): "passed",
        Place(A, "negated", "[?0]"): "failed",
        Place(A, "negated", "[?1]"): "missing",
    }
    true, false = canaries.usable([base], [])
    assert {p.parameters for p in true} == {"[?1]"}
    assert false == {Place(A, "value", "[?0]"), Place(A, "value", "[?1]")}
    # A test that fails at the base is held against the gold patch alone.
    true, false = canaries.usable([base, gold], [A])
    assert {p.parameters for p in true} == {"[?0]", "[?1]"}
    assert false == {
        Place(A, "value", "[?0]"), Place(A, "value", "[?1]"), Place(A, "negated", "[?0]"),
    }  # fmt: skip
    everything = dict.fromkeys(base, "passed")
    assert canaries.contradictions(everything, false) == [
        Pair(A, "negated", "[?0]"), Pair(A, "value", "[?0]"), Pair(A, "value", "[?1]"),
    ]  # fmt: skip
    # A false variant alone may pass by chance.
    assert canaries.contradictions({Place(A, "value", "[?0]"): "passed"}, false) == []
    assert canaries.unconfirmed(gold, true, lambda test: True) == []
    assert canaries.unconfirmed(base, true, lambda test: True) == [Place(A, "true", "[?0]")]
    assert canaries.unconfirmed(base, true, lambda test: False) == []


@pytest.mark.parametrize(
    ("nodeid", "expected"),
    [
        ("tests/test_a.py::test_b", ("tests/test_a.py", (), "test_b", "")),
        ("test_a.py::A::B::test_b[a::b-[c]]", ("test_a.py", ("A", "B"), "test_b", "[a::b-[c]]")),
        ("test_a.py::test_b[x\ny]", ("test_a.py", (), "test_b", "[x\ny]")),
        ("README.rst::README.rst", None),
        ("a.py::pkg.a.f", None),
        ("test_a.py", None),
    ],
)
def test_node_ids(nodeid: str, expected: tuple[str, tuple[str, ...], str, str] | None) -> None:
    found = nodeids.parse(nodeid)
    if expected is None:
        assert found is None
    else:
        assert found == (Function(*expected[:3]), expected[3])
        again = nodeids.parse(nodeid, "sub/dir")
        assert again is not None
        assert again[0].path == f"sub/dir/{expected[0]}"


def test_drawing() -> None:
    tests = {Function("t.py", (), f"test_{n}"): [f"t.py::test_{n}"] for n in range(100)}
    durations = {f"t.py::test_{n}": 1.0 for n in range(100)}

    def drawn(seed: str, most: int = 10, seconds: float = 1000.0) -> list[str]:
        found = nodeids.draw(
            tests, {"t.py::test_7"}, most=most, seconds=seconds, durations=durations, seed=seed
        )
        return [function.name for function in found]

    assert len(drawn("a")) == 11
    assert "test_7" in drawn("a")
    assert drawn("a") == drawn("a")
    assert drawn("a") != drawn("b")
    assert len(drawn("a", seconds=3.0)) == 4
    assert drawn("a", most=0) == ["test_7"]


def test_names_are_meaningless() -> None:
    names = canaries.Names.new()
    assert re.fullmatch("[a-z]{9}", names.function)
    assert names != canaries.Names.new()
