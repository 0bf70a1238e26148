"""The table of pytest's options: complete, and the source of the documentation."""

from __future__ import annotations

import argparse

import pytest
from _pytest.config import get_config

from pytest_sandbox import sides
from tests import documentation


def pytests_own() -> set[str]:
    parser = get_config()._parser
    groups = [parser._anonymous, *parser._groups]
    return {option.dest for group in groups for option in group.options}


def test_every_option_of_pytest_has_a_side() -> None:
    assert pytests_own() <= set(sides.BY_DEST)


def test_no_option_has_two() -> None:
    assert len(sides.BY_DEST) == len(sides.TABLE)


@pytest.mark.parametrize(
    ("options", "args"),
    [
        ({"showlocals": True}, ["--showlocals"]),
        ({"showlocals": False}, []),
        ({"tbstyle": "short"}, ["--tb=short"]),
        ({"tbstyle": "auto"}, []),
        ({"override_ini": ["a=1", "b=2"]}, ["-o", "a=1", "-o", "b=2"]),
        ({"maxfail": 1}, ["--maxfail=1"]),
        ({"keyword": "x"}, []),
    ],
)
def test_arguments_for_the_sandbox(options: dict[str, object], args: list[str]) -> None:
    defaults = argparse.Namespace(tbstyle="auto", maxfail=0)
    assert sides.sandbox_args(argparse.Namespace(**options), defaults) == args


def test_the_documentation_is_what_the_code_says() -> None:
    assert documentation.PATH.read_text() == documentation.options(), (
        "run: python -m tests.documentation"
    )
