"""Which tests decide a task: from what its base and its gold patch did."""

from __future__ import annotations

import re
from typing import Any

import pytest

from pytest_sandbox.grading.derivation import Derived, derive
from pytest_sandbox.grading.model import Observed, Status, Task

WORDS: dict[str, Status] = {"+": "passed", "-": "failed", "s": "skipped", "x": "xfailed"}


def task(**more: Any) -> Task:
    fields: dict[str, Any] = {"test_patch": b"x", "gold": b"x", **more}
    return Task(id="t", source="t.toml", repo=".", base="HEAD", **fields)


def ran(text: str, **more: Any) -> Observed:
    """ "a+ b-": a passed, b failed."""
    return Observed(tests={word[:-1]: WORDS[word[-1]] for word in text.split()}, **more)


def derived(base: str, tests: str, gold: str, **more: Any) -> Derived:
    """Runs are separated by bars."""
    runs = [[ran(one) for one in text.split("|")] for text in (base, tests, gold)]
    return derive(task(**more), *runs)


@pytest.mark.parametrize(
    ("base", "tests", "gold", "found"),
    [
        ("a- b+", "a- b+", "a+ b+", {"fail_to_pass": "a", "pass_to_pass": "b"}),
        ("b+", "a- b+", "a+ b+", {"fail_to_pass": "a", "pass_to_pass": "b"}),
        # The tests import what is not there yet, and hide those beside them.
        (
            "b+ c-", "", "a+ b+ c+",
            {"fail_to_pass": "a c", "pass_to_pass": "b", "none_to_pass": "a c"},
        ),
        (
            "b+", "a- b+ s" + "s", "a+ b+ s+",
            {"fail_to_pass": "a s", "pass_to_pass": "b", "skip_to_pass": "s"},
        ),
        ("a- b+", "a- b+", "a+ b-", {"fail_to_pass": "a", "pass_to_fail": "b"}),
        ("a- b- c+", "a- b- c+", "a+ bs cx", {"fail_to_pass": "a", "pass_to_fail": "c"}),
        # Flaky with the tests, with the gold patch, before the tests.
        (
            "a- b+|a- b+", "a- b+|a- b-", "a+ b+|a+ b+",
            {"fail_to_pass": "a", "flaky": "b"},
        ),
        (
            "a- b-|a- b-", "a- b-|a- b-", "a+ b+|a+ b-",
            {"fail_to_pass": "a", "flaky": "b"},
        ),
        (
            "a- b+|a-", "a- b+|a- b+", "a+ b+|a+ b+",
            {"fail_to_pass": "a", "flaky": "b"},
        ),
        # An id that no two runs have in common.
        ("a- 1+|a- 2+", "a- 3+|a- 4+", "a+ 5+|a+ 6+", {"fail_to_pass": "a", "flaky": "5 6"}),
        # It does not pass with the gold patch anyway.
        ("a- b+|a- b-", "a- b+|a- b-", "a+ b-|a+ b-", {"fail_to_pass": "a"}),
    ],
)  # fmt: skip
def test_what_each_test_is(base: str, tests: str, gold: str, found: dict[str, str]) -> None:
    result = derived(base, tests, gold)
    names = (
        "fail_to_pass", "pass_to_pass", "flaky", "none_to_pass", "skip_to_pass", "pass_to_fail"
    )  # fmt: skip
    lists = {name: tuple(found.get(name, "").split()) for name in names}
    assert {name: getattr(result, name) for name in names} == lists
    assert (result.outcome, result.reason) == ("derived", "")


def test_what_the_owner_calls_flaky_stays_so() -> None:
    result = derived("a- b+ c+", "a- b+ c+", "a+ b+ c+", flaky=("b", "gone"))
    assert (result.pass_to_pass, result.flaky) == (("c",), ("b", "gone"))


def test_an_id_that_comes_again_is_one() -> None:
    twice = Observed(tests={"a": "failed", "b": "passed", "b (2)": "passed"})
    right = Observed(tests={"a": "passed", "b": "passed", "b (2)": "passed"})
    result = derive(task(), [twice], [twice], [right])
    assert (result.fail_to_pass, result.pass_to_pass) == (("a",), ("b",))
    half = Observed(tests={"a": "passed", "b": "passed", "b (2)": "failed"})
    assert derive(task(), [twice], [twice], [half]).pass_to_fail == ("b",)


FINE = ran("a- b+")
GOLD = ran("a+ b+")
ERRORS = {"tests/test_x.py": "ImportError"}


@pytest.mark.parametrize(
    ("base", "tests", "gold", "outcome", "reason"),
    [
        (ran("", end="timeout"), FINE, GOLD, "base_broken", "as it is, .*end: timeout"),
        (FINE, ran("a-", end="died"), GOLD, "base_broken", "task's tests, .*end: died"),
        (FINE, FINE, ran("a+", end="timeout"), "gold_broken", "gold patch, .*end: timeout"),
        (FINE, FINE, ran("a+", end="died"), "gold_broken", "gold patch, .*end: died"),
        (FINE, FINE, ran("", end="usage"), "gold_broken", "gold patch, .*end: usage"),
        (FINE, FINE, ran("a- b+"), "gold_broken", "no test fails at the base and passes"),
        (ran("a-"), ran("a-"), ran("a-"), "base_broken", "no test passes, neither"),
        (
            FINE, FINE, ran("", collection_errors=ERRORS),
            "gold_broken", "with the gold patch, tests/test_x.py cannot be collected",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_used(
    base: Observed, tests: Observed, gold: Observed, outcome: str, reason: str
) -> None:
    result = derive(task(), [base], [tests], [gold])
    assert result.outcome == outcome, result.reason
    assert re.search(reason, result.reason)
    assert (result.fail_to_pass, result.pass_to_pass) == ((), ())


def test_files_that_only_the_tests_bring() -> None:
    """pytest refuses to start at the base, as it is told to run them."""
    result = derive(task(), [ran("", end="usage")], [ran("a- b+")], [GOLD])
    assert (result.fail_to_pass, result.pass_to_pass) == (("a",), ("b",))
