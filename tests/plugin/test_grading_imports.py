"""What is graded is data: sessions that grade or derive import nothing from beside the tasks."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.plugin.test_console import MARK
from tests.plugin.test_grader import patch
from tests.unit.gitrepo import Repo

GRADE, DERIVE = "--sandbox-predictions=preds", "--sandbox-derive"

#: The user's own: it brings the provider, so without it there is no session.
OWN = """
import sys
sys.path.append({root!r})
from pytest_sandbox.testing import FakeProvider
from tests.plugin.support import all_pass, collected

def pytest_sandbox_providers():
    return {{"fake": lambda: FakeProvider(collected("test_a"), all_pass)}}

def pytest_report_header():
    return "the user's own"

def pytest_runtest_logstart(nodeid):
    print("own hook for", nodeid)
"""


@dataclass
class Stage:
    """A user's folder with a repository, a task of theirs, and tasks that somebody published."""

    top: Path
    canary: Path

    def trap(self, *paths: str) -> None:
        for path in paths:
            file = self.top / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(MARK.format(canary=str(self.canary), name=path) + "def test_it(): 0\n")

    def run(
        self, *args: str, command: str = "pytest", cwd: str = "."
    ) -> subprocess.CompletedProcess[str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "GITHUB"))}
        plugins = "pytest_sandbox.plugin,xdist.plugin"
        kept |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": plugins}
        script = Path(sys.executable).with_name(command)
        return subprocess.run(
            [script, *args], cwd=self.top / cwd, env=kept, capture_output=True, text=True,
            timeout=120,
        )  # fmt: skip

    def marks(self) -> list[str]:
        return self.canary.read_text().splitlines() if self.canary.exists() else []


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    made = Stage(tmp_path / "top", tmp_path / "canary")
    repo = Repo.make(made.top / "tasks" / "repo", {"a.py": b"A = 0\n"})
    task = (
        f'[task]\nrepo = "{repo.path}"\nbase = "HEAD"\ngold = "gold.patch"\n'
        '[tests]\nfail_to_pass = ["test_a.py::test_a"]\n'
    )
    for folder, name in (("tasks", "mine"), ("tasks/package", "theirs")):
        (made.top / folder).mkdir(exist_ok=True)
        (made.top / folder / f"{name}.toml").write_text(task)
        (made.top / folder / "gold.patch").write_text(patch(1))
    harbor = made.top / "tasks" / "one"
    (harbor / "tests").mkdir(parents=True)
    (harbor / "task.toml").write_text("[verifier]\ntimeout_sec = 10\n")
    (harbor / "tests" / "test.sh").write_text("pytest\n")
    (made.top / "preds").mkdir()
    for name in ("mine", "theirs", "one"):
        (made.top / "preds" / f"{name}.patch").write_text(patch(1))
    (made.top / "conftest.py").write_text(OWN.format(root=str(Path(__file__).parents[2])))
    (made.top / "pytest.ini").write_text("[pytest]\n")
    made.trap(
        "tasks/conftest.py", "tasks/test_beside.py", "tasks/tests/conftest.py",
        "tasks/one/conftest.py", "tasks/one/tests/test_outputs.py", "tasks/one/tests/conftest.py",
        "tasks/one/tests/__init__.py", "tasks/package/__init__.py", "tasks/package/conftest.py",
        "tasks/repo/tests/conftest.py", "tasks/repo/tests/test_a.py",
    )  # fmt: skip
    return made


ASKED = [["tasks/"], [], ["tasks/package/theirs.toml", "tasks/one", "tasks"]]


@pytest.mark.parametrize("asked", ASKED, ids=" ".join)
def test_nothing_below_an_argument_is_imported(stage: Stage, asked: list[str]) -> None:
    done = stage.run(*asked, "--sandbox=fake", GRADE)
    assert stage.marks() == []
    # Harbor's own verdict is not ours to give.
    assert "1 failed, 2 passed" in done.stdout, done.stdout + done.stderr
    assert "base_broken  1" in done.stdout or "unsupported  1" in done.stdout
    assert done.returncode == 1


@pytest.mark.parametrize(
    ("mode", "asked"),
    [
        (DERIVE, ["tasks"]),
        (DERIVE, ["tasks/one/"]),
        (GRADE, ["tasks/one/task.toml"]),
        (GRADE, ["--doctest-modules", "."]),
    ],
)
def test_nor_does_looking_import_anything(stage: Stage, asked: list[str], mode: str) -> None:
    (stage.top / "tasks" / "conftest.py").write_text("")
    done = stage.run(*asked, "--sandbox=fake", "--collect-only", "-q", mode)
    assert stage.marks() == []
    assert ".py" not in done.stdout, done.stdout
    assert "task.toml" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0


def test_what_lies_above_the_arguments_is_the_user_s(stage: Stage) -> None:
    """Its hooks also act on the items, wherever pytest is started and in all processes."""
    for more in ([], ["-n2"]):
        done = stage.run("tasks/package", "--sandbox=fake", GRADE, "-s", *more)
        assert "the user's own" in done.stdout, done.stdout + done.stderr
        assert "own hook for tasks/package/theirs.toml::theirs[preds]" in done.stdout
        assert "1 passed" in done.stdout
        # Between the user's top and the argument: theirs as well. What is named is not.
        assert set(stage.marks()) == {"tasks/conftest.py"}
        stage.canary.unlink()
    done = stage.run("../tasks", "--sandbox=fake", "--sandbox-predictions=../preds", cwd="preds")
    assert "the user's own" in done.stdout, done.stdout + done.stderr
    assert "1 failed, 2 passed" in done.stdout
    assert stage.marks() == []


def test_a_python_file_is_no_task(stage: Stage) -> None:
    done = stage.run("tasks/test_beside.py", "--sandbox=fake", GRADE)
    assert done.returncode == 4
    assert "test_beside.py" in done.stderr
    assert stage.marks() == []


@pytest.mark.parametrize(("mode", "asked"), [(GRADE, "tasks"), (GRADE, "."), (DERIVE, "tasks/one")])
def test_of_a_checkout_nobody_trusts_not_even_the_top(stage: Stage, asked: str, mode: str) -> None:
    stage.trap("conftest.py")
    (stage.top / "pytest.ini").write_text("[pytest]\naddopts = -p evil\npythonpath = .\n")
    stage.trap("evil.py")
    done = stage.run(asked, "--collect-only", "-q", mode, command="pytest-sandbox")
    assert stage.marks() == []
    assert "task.toml" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0
