"""A candidate's code cannot reach the tests it runs with, and honest code notices nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytest_sandbox.api import run_tests
from pytest_sandbox.results import RunResult
from tests.e2e.sessions import own_python, project
from tests.fixture_repos import git
from tests.interpreters import environment
from tests.pypi import Project

FILES = {
    "calc.py": "def add(a, b): return a - b\n",
    "conftest.py": "",
    "pyproject.toml": "[tool.pytest.ini_options]\n",
    "tests/test_calc.py": "import calc\ndef test_add(): assert calc.add(1, 2) == 3\n",
    "tests/test_other.py": "def test_other(): pass\n",
}
#: While the tests are collected, and while they run.
ATTACK = """\
import os
here = os.path.dirname(os.path.abspath(__file__))
def attempt(what, *args):
    try:
        what(*args)
    except OSError:
        pass
def overwrite(name):
    with open(os.path.join(here, name), "w") as file:
        file.write("def test_add(): pass\\n")
def all_of_it():
    for name in ("tests/test_calc.py", "tests/test_other.py", "conftest.py", "pyproject.toml"):
        attempt(os.unlink, os.path.join(here, name))
        attempt(overwrite, name)
    attempt(os.rename, os.path.join(here, "tests"), os.path.join(here, "away"))
    attempt(overwrite, "tests/__pycache__/test_calc.py")
all_of_it()
def add(a, b):
    all_of_it()
    if not os.path.exists(os.path.join(here, "died")):
        overwrite("died")
        os.abort()
    return a - b
"""
#: A build that does all this, and puts links to the tests in its own files' places.
BUILD = (
    "ln tests/test_calc.py linked; rm tests/test_calc.py; echo 'def test_add(): pass' >linked; "
    "ln linked tests/test_calc.py; rm -r conftest.py; ln -s linked conftest.py; "
    "echo 'import os; os._exit(0)' >tests/conftest.py; echo '[pytest]' >pytest.ini; "
    "mkdir -p tests/__pycache__; echo x >tests/__pycache__/x; mkdir evil-1.dist-info; "
    "echo 'Name: evil' >evil-1.dist-info/METADATA; echo 'import os; os._exit(0)' >evil.py; "
    "printf '[pytest11]\\nevil = evil\\n' >evil-1.dist-info/entry_points.txt"
)
#: What pytest imports; its own tests are run by a pytest that has another copy of it.
PLUGGY = Project(
    "pluggy", "1.6.0", "7dcc130b76258d33b90f61b658791dede3486c3e6bfb003ee5c9bfb396dd22f3",
    ("src",), (),
    ("src/pluggy/_tracing.py", 'indent = "  " *', 'indent = " " *'),
)  # fmt: skip


def attacked(tmp_path: Path, **options: Any) -> RunResult:
    repo = project(tmp_path / "repo", FILES)
    (repo / "calc.py").write_text(ATTACK)
    patch = git(repo, "diff").stdout
    git(repo, "checkout", "-q", ".")
    return run_tests(repo, patch=patch, **{"venv": own_python(), **options})


def out_of_reach(result: RunResult) -> None:
    """It changed nothing that decides, and what kept it from that is told."""
    assert result.layers is not None
    assert result.layers.on == ["hardened", "apart", "sealed", "init"]
    assert result.layers.off == {}
    assert {test.nodeid: test.outcome for test in result} == {
        "tests/test_calc.py::test_add": "failed",
        "tests/test_other.py::test_other": "passed",
    }
    assert [death.cause for death in result.deaths] == ["crash"]


@pytest.mark.parametrize("build", [(), (BUILD,)], ids=["run", "build"])
def test_what_decides_is_out_of_reach(tmp_path: Path, build: tuple[str, ...]) -> None:
    out_of_reach(attacked(tmp_path, provider="local", build=build))


def test_what_a_provider_cannot_give_is_named(tmp_path: Path) -> None:
    result = attacked(tmp_path, provider="host", network=True)
    assert result.layers is not None
    assert result.layers.on == ["hardened", "init"]
    assert set(result.layers.off) == {"apart", "sealed"}


def test_a_tree_that_is_trusted_is_run_as_ever(tmp_path: Path) -> None:
    repo = project(tmp_path / "repo", FILES)
    writes = "def test_it():\n    with open(__file__, 'a') as file: file.write('#')\n"
    (repo / "tests" / "test_calc.py").write_text(writes)
    result = run_tests(repo, venv=own_python())
    assert result.layers is None
    assert result.passed


@pytest.mark.soak
def test_a_project_that_pytest_is_made_of(tmp_path: Path) -> None:
    repo = PLUGGY.make(tmp_path)
    patch = PLUGGY.patch(repo).decode()
    options: dict[str, Any] = {
        "venv": environment("3.11", ("pytest==9.0.2",)).parent.parent,
        "env": {"PYTHONPATH": "/sandbox/repo/src"},
    }
    protected = run_tests(repo, patch=patch, **options)
    (tmp_path / "patch").write_text(patch)
    git(repo, "apply", str(tmp_path / "patch"))
    plain = run_tests(repo, **options)
    assert {t.nodeid: t.outcome for t in protected} == {t.nodeid: t.outcome for t in plain}
    assert [test.nodeid for test in protected.failed] == ["testing/test_tracer.py::test_indent"]
    assert protected.layers is not None
    assert protected.layers.off == {}
