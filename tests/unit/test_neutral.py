"""The neutral run: what of a test is sent, what comes back, and what is believed of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import deque
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from pytest_sandbox.errors import ProtocolError
from pytest_sandbox.integrity import material, neutral, unseen
from pytest_sandbox.integrity.checks import Check
from pytest_sandbox.integrity.neutral import END, Neutral, Project, Site, Status, statuses
from pytest_sandbox.integrity.nodeids import Function
from pytest_sandbox.integrity.values import MAX_LINE, Gate, Opaque, Seen, decoded

PRODUCT = """
def double(number):
    return 2 * number


def refuse(text):
    raise ValueError(text)


class Odd:
    def __eq__(self, other):
        return True

    def __hash__(self):
        return 1


class Number(int):
    def __eq__(self, other):
        return True

    __hash__ = int.__hash__
    __int__ = __index__ = __add__ = lambda self, *other: 99
"""
CONFTEST = b"""
import pytest
from product import double


@pytest.fixture
def four():
    return double(2)


@pytest.fixture(scope="session")
def eight(four):
    return double(four)


@pytest.fixture
def ending():
    yield 1
"""
TESTS = b'''"""Tests."""
import unittest

import pytest

from product import Number, Odd, double, refuse

TWO = double(1)


def helper(number):
    return number + TWO


def test_value():
    assert double(2) == 4, "secret-message"
    assert 6 == double(3)
    assert double(1) != 3
    assert double(1) < 77001
    assert double(1) in (2, 77007)


def test_truth():
    assert double(1)
    assert not double(0)
    assert isinstance(double(1), int)
    assert double(2) == helper(2)


@pytest.mark.parametrize("number, expected", [(1, 2), (4, 8), (38501, 77002)])
def test_table(number, expected):
    assert double(number) == expected


def test_local():
    expected = [77004]
    found = [double(38502)]
    assert found == expected


def test_raises():
    with pytest.raises(ValueError, match="x"):
        refuse("x")
    with pytest.raises((KeyError, OSError)):
        {}[1]


def test_near():
    assert double(0.15) == pytest.approx(0.3)
    assert {"a": double(1)} == pytest.approx({"a": 2.0})


def test_fixtures(four, eight, tmp_path):
    (tmp_path / "a").write_text("77005")
    assert (tmp_path / "a").read_text() == "77005"
    assert four + eight == 12


class TestOf:
    def test_method(self, four):
        assert four == 4


class TestUnit(unittest.TestCase):
    def test_unit(self):
        self.assertEqual(double(2), 4)
        self.assertIsNone(None)
        self.assertTrue(double(1))


def test_odd():
    assert Odd() == 5


def test_number():
    assert Number(5) == 6


def test_wrong():
    assert double(2) == 5


def test_ending(ending):
    assert ending == 1


def test_plugin(capsys):
    assert capsys is not None


def test_nothing():
    double(1)


def test_runner():
    assert pytest.__name__ == "pytest"


async def test_async():
    assert double(1) == 2
'''
ALL = [
    "test_value", "test_truth", "test_table", "test_local", "test_raises", "test_near",
    "test_fixtures", "test_odd", "test_number", "test_wrong", "test_ending", "test_plugin",
    "test_nothing", "test_runner", "test_async",
]  # fmt: skip
OUT = {"test_ending", "test_plugin", "test_nothing", "test_runner", "test_async"}


def function(name: str, *classes: str) -> Function:
    return Function("tests/test_it.py", classes, name)


def made(read: Mapping[str, bytes]) -> Neutral:
    project = Project(read.get, cwd="", pythonpath=["lib"])
    tests = [function(name) for name in ALL]
    tests += [function("test_method", "TestOf"), function("test_unit", "TestUnit")]
    return neutral.make(project, tests)


@pytest.fixture
def asked() -> Neutral:
    return made({"tests/test_it.py": TESTS, "tests/conftest.py": CONFTEST})


def seen(asked: Neutral, folder: Path) -> Seen:
    """What comes of it in a process of this machine."""
    (folder / "lib").mkdir()
    (folder / "lib" / "product.py").write_text(PRODUCT)
    command = [sys.executable, "-I", "-B", "-c", neutral.boot()]
    program = asked.program(str(folder))
    done = subprocess.run(command, input=program, capture_output=True, check=True, timeout=60)
    gate = Gate(len(asked.asked))
    for start in range(0, len(done.stdout), 1000):
        gate.feed(done.stdout[start : start + 1000])
    return gate.seen()


def test_assertions_hold_where_the_product_is_right(asked: Neutral, tmp_path: Path) -> None:
    found = statuses(asked, seen(asked, tmp_path))
    assert {function.name for function in asked.covered} == (set(ALL) - OUT) | {
        "test_method", "test_unit",
    }  # fmt: skip
    by_name: dict[str, set[Status]] = {}
    for site, status in found.items():
        by_name.setdefault(site.function.name, set()).add(status)
    assert {name: status for name, status in by_name.items() if status != {"held"}} == {
        # Objects that say they are equal are none that can be compared here.
        "test_odd": {"missing", "held"},
        # What it is, whatever it says.
        "test_number": {"shown", "held"},
        "test_wrong": {"shown", "held"},
    }
    assert sum(site.function.name == "test_table" for site in found) == 6


def test_what_a_test_may_leave_out_has_to_hold_nowhere() -> None:
    text = b"""
from product import double, refuse

def test_it():
    assert double(1) == 2
    try:
        refuse("x")
    except ValueError as error:
        assert str(error) == "x"
    for number in [1, 2]:
        assert double(number) > 0
"""
    test = function("test_it")
    asked = neutral.make(
        Project({"tests/test_it.py": text}.get, cwd="", pythonpath=["lib"]), [test]
    )
    assert asked.simple == {test}
    assert asked.plain == {Site(test, 0, 0), Site(test, 0, 2)}


@pytest.mark.parametrize(
    ("marks", "bare", "simple"),
    [
        ("", True, True), ("", False, False),
        ('@pytest.mark.parametrize("n", [1])', True, True),
        # On the first pytest acts itself, and on any other a plugin may.
        ('@pytest.mark.filterwarnings("error")', True, False), ("@pytest.mark.db", True, False),
    ],
)  # fmt: skip
def test_what_pytest_may_have_a_part_in(marks: str, bare: bool, simple: bool) -> None:
    argument = "n" if "parametrize" in marks else ""
    text = f"import pytest\n\n{marks}\ndef test_it({argument}):\n    assert f() == 1\n"
    text += "\ndef f():\n    return 1\n"
    read = {"tests/test_it.py": text.encode()}.get
    asked = neutral.make(Project(read, cwd="", pythonpath=[], bare=bare), [function("test_it")])
    assert {one.function for one in asked.asked} == {function("test_it")}
    assert bool(asked.simple) is simple


@pytest.mark.parametrize(
    ("keys", "args", "bare"),
    [
        ({"testpaths": "tests", "addopts": "-ra -q"}, ["-p", "no:cacheprovider", "--cov"], True),
        ({"filterwarnings": ["error"]}, [], False), ({"usefixtures": "db"}, [], False),
        ({"addopts": "-q -Werror"}, [], False), ({"addopts": ["-p", "plugin"]}, [], False),
        ({}, ["-W", "error"], False), ({}, ["-p", "no:warnings"], False), ({}, ["-pmine"], False),
        ({}, ["-o", "usefixtures=db"], False),
    ],
)  # fmt: skip
def test_what_acts_on_all_tests(keys: dict[str, object], args: list[str], bare: bool) -> None:
    assert material._bare(keys, args) is bare


def test_what_is_expected_is_not_sent(asked: Neutral) -> None:
    program = asked.program("/tree").decode()
    for secret in ("77001", "77002", "77007", "77004", "expected", "secret-message", "ValueError"):
        assert secret not in program, secret
    # The input of a table has to be there, and what a test writes itself.
    assert "38501" in program
    assert program.count("77005") == 1
    for name in (*ALL, "TestOf", "test_it", "pytest", "conftest"):
        assert name not in program, name
    assert "pytest" not in neutral.boot()


@pytest.mark.parametrize(
    ("check", "found", "holds"),
    [
        (Check("==", 1), 1, True),
        (Check("==", 1), True, True),
        (Check("==", (1,)), [1], False),
        (Check("==", {1, 2}), frozenset({2, 1}), True),
        (Check("!=", 1), 2, True),
        (Check("is", None), None, True),
        (Check("is", True), 1, False),
        (Check("is not", None), 0, True),
        (Check("in", (1, 2)), 3, False),
        (Check("in", "b", turned=True), "abc", True),
        (Check("not in", "b", turned=True), "ac", True),
        (Check("<", 5), 4, True),
        (Check("<", 5, turned=True), 4, False),
        (Check("<", 5), "text", False),
        (Check("true"), [], False),
        (Check("false"), [], True),
        (Check("true"), Opaque(True), True),
        (Check("true"), Opaque(None), False),
        (Check("==", 1), Opaque(True), False),
        (Check("is not", None), Opaque(True), True),
        (Check("is", None), Opaque(True), False),
        (Check("==", 0.5), Fraction(1, 2), True),
        (Check("==", 0.5), Decimal("0.5"), True),
        (Check("==", 0.1), Decimal("0.1"), False),
        (Check("==", [1]), [1 + 0j], True),
        (Check("<", 1), Fraction(1, 3), True),
        (Check("<", 1), Decimal("NaN"), False),
        (Check("approx", (1 / 3, None, None)), Fraction(1, 3), True),
        (Check("approx", (0.5, None, None)), Decimal("0.5"), True),
        (Check("approx", (1.0, None, None)), Decimal("1.1"), False),
        (Check("approx", (1.0, None, None)), 1.0 + 0.5j, False),
        (Check("raises", ("KeyError",)), ["KeyError", "LookupError"], True),
        (Check("raises", ("LookupError",)), ["KeyError", "LookupError"], True),
        (Check("raises", ("OSError",)), None, False),
        (Check("approx", (1.0, None, None)), 1.0000001, True),
        (Check("approx", (1.0, None, None)), 1.01, False),
        (Check("approx", (1.0, 0.1, None)), 1.05, True),
        (Check("approx", (1.0, None, 0.001)), 1.01, False),
        (Check("approx", ([1, 2], None, None)), [1, 2.0], True),
        (Check("approx", ({"a": 1}, None, None)), {"a": 2}, False),
        (Check("approx", (float("inf"), None, None)), float("inf"), True),
        (Check("approx", (1.0, None, None)), "1", False),
    ],
)
def test_checks(check: Check, found: object, holds: bool) -> None:
    assert check.holds((found,), {}) is holds


def test_two_values() -> None:
    assert Check("same").holds((1, 1), {})
    assert not Check("same").holds((1, 2), {})
    assert Check("different").holds((1, 2), {})
    assert Check("same").holds((Opaque(True),), {})
    assert not Check("same").holds((Opaque(False),), {})
    assert Check("==", name="a").holds((3,), {"a": 3})


# ------------------------------------------------ hostile bytes

LINE = {"p": 0, "s": 0, "v": [["i", "5"]]}


@pytest.mark.parametrize(
    "text",
    [
        b"", b"x", b"[]", b"{}", b"null", b'{"p": 0}', b'{"p": 1, "e": ""}', b'{"p": -1, "e": ""}',
        b'{"p": 0, "s": -1, "v": [["N"]]}', b'{"p": 0, "s": 0, "v": [["N"], ["N"], ["N"]]}',
        b'{"p": 0, "s": 0, "v": [], "more": 1}', b'{"p": 0, "e": "' + b"x" * 2000 + b'"}',
        b'{"p": 0, "e": ""}\n{"p": 0, "e": ""}', b'{"end": 1}\n{"end": 1}', b"\xff\xfe",
        b'{"p": 0, "s": 0, "v": [' + b"[" * 5000 + b"]" * 5000 + b"]}",
        b"x" * (MAX_LINE + 1), b'{"p": 1e999, "e": ""}', b'{"p": "0", "e": ""}',
    ],
)  # fmt: skip
def test_what_no_run_says_ends_it(text: bytes) -> None:
    with pytest.raises(ProtocolError):
        Gate(1).feed(text + b"\n")


@pytest.mark.parametrize(
    "value",
    [
        [], ["z", 1], "text", 5, ["i", 5], ["i", "g"], ["i", "1" * 3000], ["f", "x"],
        ["f", "0x1p99999"], ["s", 5], ["b", "0"], ["l", "ab"], ["d", [["N"]]],
        ["d", [[["l", []], ["N"]]]], ["S", [["l", []]]], ["o", 7], ["l", [["N"]] * 6000],
        [["l"], 1], ["N", 1, 2], {"a": 1}, ["D", 5], ["D", "x"], ["D", "1e999999999"],
        ["D", "sNaN"], ["c", ["0x1p0"]], ["c", [1, 2]], ["F", [["i", "1"]]],
        ["F", [["i", "1"], ["i", "0"]]], ["F", [["i", "1"], ["f", "0x1p0"]]],
    ],
)  # fmt: skip
def test_values_that_are_none(value: object) -> None:
    with pytest.raises(ProtocolError):
        decoded(value)


def test_depth_is_bounded() -> None:
    value: list[Any] = ["N"]
    for _ in range(100):
        value = ["l", [value]]
    with pytest.raises(ProtocolError):
        decoded(value)


@pytest.mark.parametrize(
    "value",
    [None, True, 0, -(10**50), 0.1, float("inf"), "a\x00b", b"\xff", [1, [2]], (1,), {1: {"a": []}},
     frozenset({1, "a"}), Fraction(1, 3), [Fraction(2)], Decimal("0.50"), Decimal("-Infinity"),
     1.5 - 2j],
)  # fmt: skip
def test_there_and_back(value: object) -> None:
    from pytest_sandbox.integrity.inner import plain

    again = decoded(json.loads(json.dumps(plain(value))))
    assert again == value
    assert type(again) is type(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (bytearray(b"a"), b"a"), ({1: 2}.keys(), {1}), ({1: 2}.items(), {(1, 2)}),
        (MappingProxyType({1: 2}), {1: 2}), (deque([1]), [1]), ({1: 2}.values(), [2]),
        ([bytearray(b"a")], [b"a"]),
    ],
)  # fmt: skip
def test_what_is_as_good_as_plain_data(value: object, expected: object) -> None:
    from pytest_sandbox.integrity.inner import plain

    assert decoded(json.loads(json.dumps(plain(value)))) == expected


def test_what_is_no_plain_data() -> None:
    from pytest_sandbox.integrity.inner import plain

    class Lie(Fraction):
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = Fraction.__hash__

    class Silent:
        def __bool__(self) -> bool:
            raise OSError

    for value, true in (
        (object(), True),
        ([object()], True),
        (Silent(), None),
        ("x" * 10**6, True),
        (Decimal("1e9999"), True),
        (Decimal("sNaN"), True),
        (Lie(1, 2), True),
    ):
        assert decoded(plain(value)) == Opaque(true)


def test_a_gate_keeps_what_came_before() -> None:
    gate = Gate(2)
    gate.feed(json.dumps(LINE).encode() + b'\n{"p": 0, "e": ""}\n{"p": 1, ')
    found = gate.seen()
    assert found.values == {(0, 0): [(5,)]}
    assert found.raised == {0: ""}
    assert not found.whole


def test_too_much_is_as_if_it_were_no_plain_data(monkeypatch: pytest.MonkeyPatch) -> None:
    from pytest_sandbox.integrity import inner

    gate = Gate(1)
    made = inner.Neutral({"probes": []}, gate.feed)
    made._probe = 0
    made.emit(0, ["x" * 140_000] * 20)
    monkeypatch.setattr(inner, "_MOST_BYTES", 100)
    made.emit(1, "y" * 200)
    made.emit(2, "z")
    made.put(p=0, e="")
    found = gate.seen()
    assert found.values == {(0, 0): [(Opaque(None),)], (0, 1): [("y" * 200,)],
                            (0, 2): [(Opaque(None),)]}  # fmt: skip
    assert found.raised == {0: ""}


# ------------------------------------------------ calibration

F, G = function("test_f"), function("test_g")


def test_what_can_be_used() -> None:
    base: dict[Site, Status] = {
        Site(F, 0, 0): "held", Site(F, 0, 1): "shown", Site(F, 0, END): "held",
        Site(G, 0, 0): "shown", Site(G, 0, 1): "missing", Site(G, 0, END): "shown",
    }  # fmt: skip
    gold: dict[Site, Status] = dict.fromkeys(base, "held")

    def usable(
        trusted: list[dict[Site, Status]], *, gold: bool, simple: bool = False
    ) -> list[tuple[Function, int]]:
        plain = [site for site in base if site.function == G and site.number != END]
        right = neutral.usable(trusted, [G], gold=gold, plain=plain if simple else [])
        return sorted((site.function, site.number) for site in right)

    assert usable([base], gold=False) == [(F, END), (F, 0)]
    # Without a gold patch, a test that fails at the base tells something where only the value does.
    assert usable([base], gold=False, simple=True) == [(F, END), (F, 0), (G, 0)]
    assert usable([base, gold], gold=True) == [(F, END), (F, 0), (G, END), (G, 0), (G, 1)]
    right = neutral.usable([base, gold], [G], gold=True, plain=[])
    assert neutral.disagreeing(gold, right, lambda test: True) == []
    assert {site.function for site in neutral.disagreeing(base, right, lambda test: True)} == {G}
    assert neutral.disagreeing({}, right, lambda test: False) == []


# ------------------------------------------------ calls


def test_calls(tmp_path: Path) -> None:
    calls = ["double(2)", "double(\n1.5)", "refuse('x')", "Odd()", "[{2: (1, True)}]", "nothing"]
    found = unseen.results(seen(_calls(calls), tmp_path), len(calls))
    assert found[:4] == ["4", "3", "raised ValueError", ""]
    right = json.dumps(["4", "3", "raised KeyError", "x", found[4], "missing"])
    assert unseen.different(calls, right, found) == ["refuse('x')", "Odd()"]
    assert unseen.different(calls, json.dumps([""] * 6), found) == []


@pytest.mark.parametrize(
    "equal",
    [
        [2, 2.0, Fraction(2), Decimal("2.0"), 2 + 0j, True + 1],
        [0.5, Fraction(1, 2), Decimal("0.50")],
    ],
)
def test_equal_results_are_told_the_same(equal: list[Any]) -> None:
    values: dict[tuple[int, int], list[tuple[Any, ...]]] = {
        (number, 0): [(value,)] for number, value in enumerate(equal)
    }
    said = Seen(values, dict.fromkeys(range(len(equal)), ""), whole=True)
    found = unseen.results(said, len(equal))
    assert len(set(found)) == 1
    different = [Fraction(1, 3), 1 / 3, Fraction(10**400, 3), Decimal("0.1"), 0.1, 1j]
    assert len({unseen._told(value) for value in different}) == len(different)


def _calls(calls: list[str]) -> Neutral:
    return unseen.asked(calls, "from product import *", ["lib"])
