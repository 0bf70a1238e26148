"""The target's sandbox_* keys: from the file that pytest would choose, as data."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from pytest_sandbox.ini import sandbox_keys
from pytest_sandbox.options import resolve

INI = "[pytest]\nsandbox_timeout = {}\n"
TOML = "[tool.pytest.ini_options]\nsandbox_timeout = '{}'\n"
CFG = "[tool:pytest]\nsandbox_timeout = {}\n"


class Files:
    def __init__(self, files: Mapping[str, str | bytes]) -> None:
        self._files = files

    def read(self, path: str) -> bytes | None:
        found = self._files.get(path)
        return found.encode() if isinstance(found, str) else found


def keys(files: Mapping[str, str | bytes]) -> dict[str, object]:
    return sandbox_keys(Files(files))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pytest.ini", INI),
        (".pytest.ini", INI),
        ("tox.ini", INI),
        ("pyproject.toml", TOML),
        ("pyproject.toml", "[tool.pytest]\nsandbox_timeout = '{}'\n"),
        ("pytest.toml", "[pytest]\nsandbox_timeout = '{}'\n"),
        (".pytest.toml", "[pytest]\nsandbox_timeout = '{}'\n"),
        ("setup.cfg", CFG),
        ("pytest.ini", "# first\r\n[pytest]\r\nsandbox_timeout = {}\r\n"),
        ("setup.cfg", "[metadata]\nname = x\n" + CFG),
        ("pyproject.toml", "[project]\nname = 'x'\n" + TOML),
    ],
)
def test_every_file_pytest_reads(name: str, text: str) -> None:
    assert keys({name: text.format("7m")}) == {"sandbox_timeout": "7m"}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"pytest.ini": INI.format(1), "pyproject.toml": TOML.format(2)}, "1"),
        ({"pytest.toml": "[pytest]\nsandbox_timeout='0'", "pytest.ini": INI.format(1)}, "0"),
        ({"pyproject.toml": TOML.format(2), "tox.ini": INI.format(3)}, "2"),
        ({"tox.ini": INI.format(3), "setup.cfg": CFG.format(4)}, "3"),
        ({"pyproject.toml": "[project]\n", "tox.ini": INI.format(3)}, "3"),
        ({"tox.ini": "[tox]\n", "setup.cfg": CFG.format(4)}, "4"),
        # An empty pytest.ini is chosen all the same.
        ({"pytest.ini": "", "pyproject.toml": TOML.format(2)}, None),
        ({"pytest.ini": "[other]\n", "pyproject.toml": TOML.format(2)}, None),
        ({"setup.cfg": INI.format(4)}, None),
        ({"sub/pytest.ini": INI.format(5)}, None),
        ({}, None),
    ],
)
def test_the_order_is_pytests(files: dict[str, str], expected: str | None) -> None:
    assert keys(files).get("sandbox_timeout") == expected


def test_only_our_keys_and_nothing_is_expanded() -> None:
    text = "[pytest]\naddopts = --sandbox -p evil\nsandbox_env =\n  A=%(HOME)s\n  B=$HOME\nx = 1\n"
    found = keys({"pytest.ini": text})
    assert found == {"sandbox_env": "A=%(HOME)s\nB=$HOME"}
    assert resolve(ini=found)["env"] == ("A=%(HOME)s", "B=$HOME")


def test_toml_values_have_their_own_types() -> None:
    text = "[tool.pytest]\nsandbox_setup = ['a', 'b']\nsandbox_timeout = 90\nsandbox_network = true"
    options = resolve(ini=keys({"pyproject.toml": text}))
    assert options["setup"] == ("a", "b")
    assert options["timeout"] == 90
    assert options["network"] is True


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pytest.ini", "[pytest\nsandbox_timeout = 3"),
        ("pytest.ini", "[pytest]\n[pytest]\nsandbox_timeout = 3"),
        ("pytest.ini", b"[pytest]\nsandbox_timeout = \xff\xfe"),
        ("pytest.ini", "sandbox_timeout = 3"),
        ("pytest.ini", "[pytest]\nsandbox_timeout = 3\nsandbox_timeout = 4"),
        ("pyproject.toml", "[tool.pytest.ini_options\n"),
        ("pyproject.toml", "tool = 3"),
        ("pyproject.toml", "[tool]\npytest = 3"),
        ("pyproject.toml", "[tool.pytest]\nini_options = 3"),
        ("pyproject.toml", "a = " + "[" * 100_000),
        ("pytest.toml", "pytest = []"),
        ("setup.cfg", "\0\0\0"),
    ],
)
def test_a_broken_file_has_no_keys(name: str, text: str | bytes) -> None:
    """pytest in the sandbox says what is wrong with it; here nothing of it counts."""
    assert keys({name: text}) == {}
