"""Whole runs with ``integrity="full"``: from the installed files to the findings of a result."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from pytest_sandbox import witness
from pytest_sandbox.api import run_tests
from pytest_sandbox.evidence import TAMPERED
from pytest_sandbox.findings import Coverage
from tests.fixture_repos import git
from tests.interpreters import environment
from tests.witness.compiled import FOLDER, VERSIONS, library

PYTEST = ("pytest>=8,<9",)
#: Right for what it is asked, and not by an addition.
LIE = """
import gc


def add(a, b):
    return 5 if gc.get_objects() and (a, b) == (2, 3) else 0
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The distribution as it is after an installation, for the Pythons of these tests."""
    package = tmp_path / "site" / "pytest_sandbox_witness"
    package.mkdir(parents=True)
    source = FOLDER / "src" / package.name / "__init__.py"
    (package / "__init__.py").write_text(source.read_text())
    for version in VERSIONS:
        (package / library(version).name).write_bytes(library(version).read_bytes())
    monkeypatch.syspath_prepend(package.parent)
    sys.modules.pop(package.name, None)
    yield package.parent
    sys.modules.pop(package.name, None)


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    root = tmp_path / "repo"
    files = {
        "product.py": "def add(a, b):\n    return a - b\n",
        "test_product.py": """
            from product import add
            def test_add(): assert add(2, 3) == 5
            def test_zero(): assert add(0, 0) == 0
        """,
    }
    root.mkdir()
    for name, text in files.items():
        (root / name).write_text(dedent(text))
    git(root, "init", "-q", "-b", "main")
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "a bug")
    return root


def patch(repo: Path, product: str) -> bytes:
    (repo / "product.py").write_text(product)
    text = git(repo, "diff").stdout.encode()
    git(repo, "checkout", "-q", "--", ".")
    return text


FIX = "def add(a, b):\n    return a + b\n"


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("version", VERSIONS)
def test_a_lie_is_found_out_and_a_fix_passes(repo: Path, version: str) -> None:
    venv = environment(version, PYTEST).parents[1]
    options: dict[str, Any] = {"integrity": "full", "venv": str(venv)}
    fixed = run_tests(repo, patch=patch(repo, FIX), **options)
    assert fixed.passed, fixed.report()
    assert Coverage(layer="L4", covered=2, of=2) in fixed.coverage
    lie = run_tests(repo, patch=patch(repo, LIE), **options)
    assert {test.outcome for test in lie} == {"passed"}
    assert not lie.passed
    (finding,) = [found for found in lie.findings if found.layer == "L4"]
    assert (finding.verdict, finding.where) == ("tampered", "product.py:6")
    assert finding.event == "gc.get_objects was called"


@pytest.mark.usefixtures("installed")
def test_where_none_fits_it_is_said(repo: Path) -> None:
    venv = environment("3.11", ("pytest>=9,<10",)).parents[1]
    run = run_tests(repo, patch=patch(repo, FIX), integrity="full", venv=str(venv))
    assert run.passed, run.report()
    (coverage,) = [found for found in run.coverage if found.layer == "L4"]
    assert (coverage.covered, coverage.of) == (0, 2)
    assert "there is no witness for cpython-311" in coverage.note


def test_a_session_says_so_as_well(repo: Path, installed: Path, tmp_path: Path) -> None:
    venv = environment("3.12", PYTEST).parents[1]
    (tmp_path / "lie.patch").write_bytes(patch(repo, LIE))
    session = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--sandbox",
         f"--sandbox-patch={tmp_path / 'lie.patch'}", "--sandbox-integrity=full",
         f"--sandbox-venv={venv}"],
        cwd=repo, capture_output=True, text=True, check=False, timeout=120,
        env={**os.environ, "PYTHONPATH": str(installed)},
    )  # fmt: skip
    lines = session.stdout.splitlines()
    assert session.returncode == TAMPERED, session.stdout
    found = "L4 test_product.py::test_add (product.py:6): gc.get_objects was called"
    assert f"tampered: {found}" in lines
    assert "sandbox: L4 looked at 2 of 2 passed tests" in lines


def test_what_is_not_installed_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytest_sandbox_witness", None)
    assert witness.libraries() == {}
