"""Ids a parser of node ids stumbles over."""

import os

import pytest

from idzoo import slug

IDS = [
    "plain",
    "two words",
    " leading and trailing ",
    "[brackets]",
    "a]b[c",
    "]",
    "::",
    "a::b",
    "tests/test_ids.py::test_slug",
    "tests/test_ids.py::test_slug[plain]",
    "/etc/passwd",
    "../../up",
    "C:\\back\\slash",
    "\\",
    "\\n",
    "-k",
    "--maxfail=1",
    "-",
    "--",
    "@file",
    "",
    "0",
    "None",
    "a,b;c|d&e",
    "$(id) `id` ${HOME} %s {0}",
    "'single' \"double\"",
    "*?!",
    "line\nbreak",
    "tab\there",
    "\r\n",
    "\x1b[31mred\x1b[0m",
    "nul\x00byte",
    "bell\x07",
    "::error file=x::annotation",
    "<b>&amp;</b> ]]>",
    "grüße",
    "日本語",
    "🎉 party",
    "e\u0301 combining",
    "\u202eright to left",
    "\u2028line separator",
    "\ufeffbom",
    "long " * 60,
]


@pytest.mark.parametrize("title", IDS, ids=IDS)
def test_id(title):
    assert slug(title) == slug(title).strip("-")


@pytest.mark.parametrize("title", IDS)
def test_value_as_id(title):
    assert slug(slug(title)) == slug(title)


@pytest.mark.parametrize(
    "title, expected",
    [("Two words", "two-words"), ("a  -  b", "a-b"), ("¿Qué?", "qu")],
)
def test_slug(title, expected):
    assert slug(title) == expected


@pytest.mark.parametrize("n", [1, 2, 3], ids=["dup", "dup", "dup"])
def test_duplicate_ids(n):
    assert n in (1, 2, 3)


@pytest.mark.parametrize("n", [1, 1, 1.0, True])
def test_duplicate_values(n):
    assert n == 1


@pytest.mark.parametrize("n", ["a", "a0", "a"])
def test_suffix_meets_an_id(n):
    assert n.startswith("a")


class Odd:
    def __repr__(self):
        return "Odd()"


@pytest.mark.parametrize(
    "value",
    [b"bytes", b"\x00\xff", None, 1.5, -1, float("nan"), 10**30, Odd(), Odd, len, [1], {"a": 1}, 1j],
)
def test_kinds_of_values(value):
    assert value is value


@pytest.mark.parametrize("value", ["a", pytest.param("b", id="named::b"), pytest.param("c", marks=pytest.mark.skip)])
def test_param_objects(value):
    assert value in "ab"


@pytest.mark.parametrize("x", ["a/b", "c d"])
@pytest.mark.parametrize("y", ["[", "]"])
def test_two_axes(x, y):
    assert "test_two_axes" in os.environ["PYTEST_CURRENT_TEST"]


@pytest.mark.parametrize("value", [])
def test_no_values(value):
    raise AssertionError("never runs")


@pytest.fixture(params=["fixture one", "fixture::two", "-3"])
def fixture_value(request):
    return request.param


def test_parametrised_fixture(fixture_value):
    assert fixture_value


@pytest.mark.parametrize("fixture_value", ["via [indirect]"], indirect=True)
def test_indirect(fixture_value):
    assert fixture_value == "via [indirect]"


@pytest.mark.parametrize("name", ["slash/y", "dots..", "CON", "sp ace"])
def test_tmp_path(name, tmp_path):
    (tmp_path / "made").write_text(name)
    assert [p.name for p in tmp_path.iterdir()] == ["made"]


class TestOuter:
    class TestInner:
        class TestInnermost:
            @pytest.mark.parametrize("x", ["a::b", "c[d]"])
            def test_nested(self, x):
                assert x

        def test_same_name(self):
            pass

    def test_same_name(self):
        pass


def test_same_name():
    pass


def test_grüße():
    assert slug("ü") == ""


class TestÜber:
    def test_日本(self):
        assert slug("日本") == ""
