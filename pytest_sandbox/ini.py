"""What the target's ini file says, of pytest and of us, read as data from a tree.

Follows pytest's order of ini files. Nothing is imported or expanded; knows no options.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from iniconfig import IniConfig, ParseError

from pytest_sandbox.layout import parse_toml


class Reader(Protocol):
    def read(self, path: str) -> bytes | None: ...


_FILES = (
    ("pytest.toml", ("pytest",)),
    (".pytest.toml", ("pytest",)),
    ("pytest.ini", ("pytest",)),
    (".pytest.ini", ("pytest",)),
    ("pyproject.toml", ("tool", "pytest")),
    ("tox.ini", ("pytest",)),
    ("setup.cfg", ("tool:pytest",)),
)


def sandbox_keys(reader: Reader) -> dict[str, Any]:
    """The ``sandbox_*`` keys of the first ini file that pytest would choose.

    Raises nothing: see ``pytest_keys``.
    """
    found = pytest_keys(reader)
    return {key: value for key, value in found.items() if key.startswith("sandbox_")}


def pytest_keys(reader: Reader) -> Mapping[str, Any]:
    """All keys of the first ini file that pytest would choose, as they are written there.

    A file that cannot be parsed counts as one without keys: pytest in the sandbox will say
    what is wrong with it.
    """
    for name, section in _FILES:
        data = reader.read(name)
        if data is None:
            continue
        try:
            found = _section(name, data, section)
        except (ValueError, ParseError):
            return {}
        if found is not None:
            return found
    return {}


def _section(name: str, data: bytes, path: tuple[str, ...]) -> Mapping[str, Any] | None:
    if name.endswith(".toml"):
        table: Any = parse_toml(data)
        for part in path:
            table = table.get(part) if isinstance(table, dict) else None
        if not isinstance(table, dict):
            return None
        nested = table.get("ini_options")
        if name == "pyproject.toml" and isinstance(nested, dict):
            return nested
        return table
    sections = IniConfig(name, data=data.decode()).sections
    if path[0] in sections:
        return dict(sections[path[0]])
    # pytest takes a pytest.ini even when it is empty.
    return {} if name in ("pytest.ini", ".pytest.ini") else None
