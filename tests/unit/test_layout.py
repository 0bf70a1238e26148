"""Which import names a project provides, from files that may be made to deceive."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_sandbox.layout import table, toml, top_level_packages
from tests.unit.test_environment import Tree, files

#: name: (build files, other files, import names)
LAYOUTS: dict[str, tuple[dict[str, str], list[str], tuple[str, ...]]] = {
    "src": ({}, ["src/calc/__init__.py", "src/calc/sub/__init__.py"], ("calc",)),
    "src beside the top": ({}, ["src/calc/__init__.py", "other/__init__.py"], ("calc",)),
    "src with a name that is excluded at the top": ({}, ["src/tools/__init__.py"], ("tools",)),
    "flat": ({}, ["calc/__init__.py", "calc/sub/__init__.py", "tests/__init__.py"], ("calc",)),
    "modules": ({}, ["calc.py", "setup.py", "conftest.py", "test_a.py"], ("calc",)),
    "src modules": ({}, ["src/calc.py", "src/_calc.py"], ("_calc", "calc")),
    "namespace": (
        {},
        ["src/company/calc/__init__.py", "src/company/calc/a/__init__.py", "src/company/x/y.py"],
        ("company.calc",),
    ),
    "nothing below the top": ({}, ["a/b/__init__.py", "9.py", "not-a-name/__init__.py"], ()),
    "src of something else": ({}, ["src/main.c", "calc/__init__.py"], ("calc",)),
    "setuptools package-dir": (
        {"pyproject.toml": '[tool.setuptools.package-dir]\n"" = "lib"\n'},
        ["lib/calc/__init__.py"],
        ("calc",),
    ),
    "setuptools where": (
        {"pyproject.toml": '[tool.setuptools.packages.find]\nwhere = ["./python/"]\n'},
        ["python/calc/__init__.py", "other/__init__.py"],
        ("calc",),
    ),
    "poetry": (
        {"pyproject.toml": '[[tool.poetry.packages]]\ninclude = "calc"\nfrom = "lib"\n'},
        ["lib/calc/__init__.py"],
        ("calc",),
    ),
    "hatch": (
        {"pyproject.toml": '[tool.hatch.build.targets.wheel]\npackages = ["lib/py/calc"]\n'},
        ["lib/py/calc/__init__.py"],
        ("calc",),
    ),
    "hatch flat": (
        {"pyproject.toml": '[tool.hatch.build.targets.wheel]\npackages = ["calc"]\n'},
        ["calc/__init__.py"],
        ("calc",),
    ),
    "maturin": (
        {"pyproject.toml": '[tool.maturin]\npython-source = "python"\n'},
        ["python/calc/__init__.py", "src/lib.rs"],
        ("calc",),
    ),
    "uv": (
        {"pyproject.toml": '[tool.uv.build-backend]\nmodule-root = "lib"\n'},
        ["lib/calc/__init__.py"],
        ("calc",),
    ),
    "setup.cfg": (
        {"setup.cfg": "[options]\npackage_dir =\n    = lib\n"},
        ["lib/calc/__init__.py"],
        ("calc",),
    ),
    "setup.cfg where": (
        {"setup.cfg": "[options.packages.find]\nwhere = lib\n"},
        ["lib/calc/__init__.py"],
        ("calc",),
    ),
    "setup.py": (
        {"setup.py": "setup(package_dir={'': 'lib'}, packages=find_packages(where='lib'))"},
        ["lib/calc/__init__.py"],
        ("calc",),
    ),
    "outside": (
        {"pyproject.toml": '[tool.maturin]\npython-source = "../../etc"\n'},
        ["calc/__init__.py"],
        ("calc",),
    ),
    "wrong types": (
        {"pyproject.toml": '[tool]\nsetuptools = 1\npoetry.packages = "x"\nuv = []\n'},
        ["calc/__init__.py"],
        ("calc",),
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_names(layout: str) -> None:
    build, others, expected = LAYOUTS[layout]
    assert top_level_packages(files({**build, **dict.fromkeys(others, "")})) == expected


words = st.recursive(
    st.sampled_from(["..", "/", "", "src", "a b", "\x00", "x" * 300, 1, True]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["from", "where", "packages", "find", "package-dir", ""]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


def written(value: object) -> str:
    """A value as TOML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f'"{k}" = {written(v)}' for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(written, value)) + "]"
    if isinstance(value, str):
        return '"' + value.replace("\x00", "\\u0000") + '"'
    return str(value).lower()


@given(
    st.dictionaries(st.sampled_from(["setuptools", "poetry", "maturin", "uv", "pdm"]), words),
    st.sets(st.text("ab/._é\udc80", max_size=12)),
)
def test_nothing_raises(tools: dict[str, object], names: set[str]) -> None:
    content = f"tool = {written(tools)}\n".encode()
    project = Tree({**{f"{name}.py": b"" for name in names}, "pyproject.toml": content})
    assert not toml(project, "pyproject.toml")[1]
    for name in top_level_packages(project):
        assert all(part.isidentifier() for part in name.split("."))


def test_files_made_to_take_long_are_left_out() -> None:
    started = time.monotonic()
    for text in (".".join("a" * 200_000) + " = 1", "a = " + "[" * 100_000, "# " + "x" * 2_000_000):
        assert toml(files({"pyproject.toml": text}), "pyproject.toml") == ({}, True)
    parts = "a" + ".a" * 499
    lines = "".join(f"[x{n}.{parts}]\n" for n in range(100))
    toml(files({"pyproject.toml": lines}), "pyproject.toml")
    assert time.monotonic() - started < 10


def test_tables() -> None:
    data = {"a": {"b": {"c": 1}}}
    assert table(data, "a", "b") == {"c": 1}
    assert table(data, "a", "b", "c") == table(data, "x") == {}
