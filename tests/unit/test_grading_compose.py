"""What is graded of a candidate: by its patch and the task, with nothing run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_sandbox.grading.compose import Composed, Unfit, compose, with_tests
from pytest_sandbox.grading.model import Candidate, Task
from pytest_sandbox.workspace import Workspace
from tests.unit.gitrepo import Repo

FILES = {
    "src/a.py": b"A = 1\n",
    "checks/a.py": b"def test_a(): pass\n",
    "src/doc.py": b"D = 1\n",
    "own.ini": b"[pytest]\n",
    "conftest.py": b"C = 1\n",
}
Compose = Callable[..., Composed]


def changed(*paths: str, new: str = "2") -> str:
    return "".join(
        f"diff --git a/{path} b/{path}\n--- a/{path}\n+++ b/{path}\n@@ -1 +1 @@\n"
        f"-{FILES[path].decode()}+{new}\n"
        for path in paths
    )


def added(*paths: str) -> str:
    return "".join(
        f"diff --git a/{path} b/{path}\nnew file mode 100644\n--- /dev/null\n+++ b/{path}\n"
        "@@ -0,0 +1 @@\n+new\n"
        for path in paths
    )


@pytest.fixture
def composed(tmp_path: Path) -> Compose:
    repo = Repo.make(tmp_path / "repo", FILES)

    def make(patch: str, unprotect: tuple[str, ...] = (), **of_task: Any) -> Composed:
        task = Task(id="t", source="t.toml", repo=str(repo.path), base="HEAD", **of_task)
        candidate = Candidate(task_id="t", name="c", patch=patch.encode(), source="")
        with Workspace.open(repo.path) as workspace:
            base = workspace.commit("HEAD")
            trusted = with_tests(workspace, task, base)
            return compose(workspace, task, candidate, base, trusted, unprotect=unprotect)

    return make


def test_files_whose_tests_decide_are_protected_wherever_they_lie(composed: Compose) -> None:
    patch = changed("src/a.py", "checks/a.py", "src/doc.py", "own.ini")
    plain = composed(patch).protection
    assert plain.restored == ()
    made = composed(
        patch,
        fail_to_pass=("checks/a.py::test_a[1.5]", "src/doc.py::src.doc.D"),
        pass_to_pass=("test_it (tests.test_it.Case)",),
        args=("-c", "own.ini", "src/a.py"),
    ).protection
    assert made.restored == ("checks/a.py", "own.ini")
    assert made.kept == ("src/a.py", "src/doc.py")
    assert made.tree == made.scored


def test_what_is_left_of_nothing_is_empty(composed: Compose) -> None:
    patch = changed("conftest.py") + added("sitecustomize.py", "test_b.py")
    with pytest.raises(Unfit) as refused:
        composed(patch)
    assert refused.value.outcome == "empty"
    assert refused.value.reason == (
        "nothing that is run is changed by it: as trusted: conftest.py; not used: "
        "sitecustomize.py; tests of its own: test_b.py"
    )
    let = composed(patch, unprotect=("conftest.py",)).protection
    assert let.let_through == ("conftest.py",)
    assert let.tree.id != let.scored.id


def test_the_tasks_tests_cannot_be_let_through(composed: Compose) -> None:
    own = added("test_hidden.py").replace("+new", "+own")
    made = composed(
        changed("src/a.py") + own, unprotect=("*",), test_patch=added("test_hidden.py").encode()
    ).protection
    assert made.restored == ("test_hidden.py",)
    assert made.kept == ("src/a.py",)
    assert "test_hidden.py" in made.sealed
