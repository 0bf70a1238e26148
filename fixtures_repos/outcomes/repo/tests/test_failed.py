import sys

import pytest

from shop import total


def test_by_the_bug():
    assert total({"apple": 3}) == 90


def test_diff():
    assert {"a": [1, 2, 3], "b": "x" * 30} == {"a": [1, 2, 4], "b": "x" * 29 + "y", "c": None}


def test_long_text():
    left = "\n".join("line {}".format(n) for n in range(300))
    assert left == left.replace("line 150", "line one hundred and fifty")


def test_raises():
    raise ValueError("a message\nof two lines with \x1b[31mcolour\x1b[0m and \x00")


def test_chain():
    try:
        try:
            {}["missing"]
        except KeyError as error:
            raise LookupError("no such fruit") from error
    except LookupError:
        raise RuntimeError("while shopping")  # noqa: B904


def test_recursion():
    def down(n):
        return down(n + 1)

    down(0)


def test_pytest_fail():
    pytest.fail("failed by hand")


def test_pytest_fail_without_trace():
    pytest.fail("failed without a traceback", pytrace=False)


def test_did_not_raise():
    with pytest.raises(ValueError):
        pass


def test_unprintable():
    class Unprintable(Exception):
        def __str__(self):
            raise RuntimeError("no text for you")

    raise Unprintable


def test_system_exit():
    sys.exit(3)


def test_missing_fixture(no_such_fixture):
    pass


def test_long_output():
    for number in range(20000):
        print("output line", number)
    raise AssertionError("after a lot of output")


def test_fails_in_another_file():
    total({"stone": 1})
