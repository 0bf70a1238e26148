"""``--sandbox-derive`` as its users run it, and grading with what it wrote."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests import fixture_repos
from tests.e2e.sessions import own_python

TASK = """\
# Division by a negative number rounds the wrong way.
[task]
repo = "../calc"
base = "HEAD"
test_patch = "calc.tests.patch"
gold = "calc.gold.patch"  # from the pull request

[environment]
env = { PYTHONPATH = "src" }
"""
TESTS = """\
diff --git a/tests/test_hidden.py b/tests/test_hidden.py
new file mode 100644
--- /dev/null
+++ b/tests/test_hidden.py
@@ -0,0 +1,5 @@
+from calc import div
+
+
+def test_exact():
+    assert div(3 * 10**18 + 3, 3) == 10**18 + 1
"""


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    loaded = fixture_repos.load("calc")
    loaded.make(tmp_path)
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    (tasks / "calc.toml").write_text(TASK)
    (tasks / "calc.tests.patch").write_text(TESTS)
    (tasks / "calc.gold.patch").write_bytes(loaded.patches["good.patch"].read_bytes())
    return tmp_path


def session(stage: Path, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "GITHUB"))}
    kept |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": "pytest_sandbox.plugin"}
    kept |= {"XDG_CACHE_HOME": str(stage / "cache"), **env}
    command = [
        sys.executable, "-m", "pytest", "--sandbox=local", f"--sandbox-venv={own_python()}",
        "-rA", *args,
    ]  # fmt: skip
    return subprocess.run(command, cwd=stage, env=kept, capture_output=True, text=True, timeout=300)


def test_lists_are_derived_written_and_graded_by(stage: Path) -> None:
    task = stage / "tasks" / "calc.toml"
    (stage / "preds").mkdir()
    good = (stage / "tasks" / "calc.gold.patch").read_bytes()
    (stage / "preds" / "calc.patch").write_bytes(good)
    grade = ("tasks/", "--sandbox-predictions=preds")
    before = session(stage, *grade)
    assert before.returncode == 1
    assert "base_broken" in before.stdout
    assert "--sandbox-derive" in before.stdout  # what to do about it

    done = session(stage, "tasks/calc.toml", "--sandbox-derive", "--sandbox-repeats=2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PASSED tasks/calc.toml::calc" in done.stdout
    text = task.read_text()
    assert text.startswith(TASK)  # comments and all
    tests: dict[str, Any] = tomllib.loads(text)["tests"]
    loaded = fixture_repos.load("calc")
    without = loaded.patch_run("none", "9.0.2")["outcomes"]
    right = loaded.patch_run("good", "9.0.2")["outcomes"]
    passed = [name for name, outcome in right.items() if outcome == "passed"]
    fail = [name for name in passed if without.get(name) != "passed"]
    assert set(tests["fail_to_pass"]) == {*fail, "tests/test_hidden.py::test_exact"}
    assert set(tests["pass_to_pass"]) == set(passed) - set(fail)
    assert f"{len(fail) + 1} fail_to_pass" in done.stdout

    after = session(stage, *grade)
    assert after.returncode == 0, after.stdout
    assert "resolved 1 of 1" in after.stdout


def test_what_cannot_be_derived_is_said_and_nothing_is_written(stage: Path) -> None:
    tasks = stage / "tasks"
    broken = {
        "no-gold": TASK.replace("gold =", "# gold ="),
        "gold-does-nothing": TASK.replace("calc.gold.patch", "empty.patch"),
        "gold-conflicts": TASK.replace("calc.gold.patch", "conflict.patch"),
        "no-base": TASK.replace('"HEAD"', '"v7"'),
        "tests-do-not-apply": TASK.replace("calc.tests.patch", "conflict.patch"),
        "typing": TASK.replace("repo =", "rebo ="),
    }
    (tasks / "calc.toml").unlink()
    patches = fixture_repos.load("calc").patches
    for name in ("conflict", "empty"):
        (tasks / f"{name}.patch").write_bytes(patches[f"{name}.patch"].read_bytes())
    for name, text in broken.items():
        (tasks / f"{name}.toml").write_text(text)
    row = {"instance_id": "a__b-1", "base_commit": "0" * 40, "repo": "a/b"}
    (tasks / "rows.jsonl").write_text(json.dumps(row) + "\n")
    done = session(stage, "tasks", "--sandbox-derive")
    assert done.returncode == 1
    out = done.stdout
    for sentence in (
        "gold_broken: the task has no gold patch",
        "gold_broken: empty: ",
        "gold_broken: conflict: ",
        "base_broken: ",
        "base_broken: the task's test_patch: ",
        "[task] rebo: is no field of it (did you mean 'repo'?)",
        "rows.jsonl: --sandbox-derive writes what it finds into a task file",
    ):
        assert sentence in out, sentence
    for name, text in broken.items():
        assert (tasks / f"{name}.toml").read_text() == text


@pytest.mark.soak
def test_with_xdist(stage: Path) -> None:
    """Each process writes its own files, and what they found is told at the end."""
    (stage / "tasks" / "more.toml").write_text(TASK)
    done = session(stage, "tasks", "--sandbox-derive", "--sandbox-repeats=1", "-p", "xdist", "-n2")
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("calc", "more"):
        assert f"tasks/{name}.toml: " in done.stdout.partition("= derived =")[2]
        assert "fail_to_pass" in (stage / "tasks" / f"{name}.toml").read_text()


def test_one_thing_at_a_time(stage: Path) -> None:
    (stage / "p.patch").write_text("")
    done = session(stage, "tasks", "--sandbox-derive", "--sandbox-predictions=p.patch")
    assert done.returncode == 4
    assert "two sessions" in done.stderr


def test_beyond_the_budget_nothing_is_written(stage: Path) -> None:
    done = session(stage, "tasks", "--sandbox-derive", "--sandbox-budget=0.1s")
    assert done.returncode == 31, done.stdout + done.stderr
    assert "--sandbox-budget" in done.stdout
    assert "nothing was written" in done.stdout
    assert (stage / "tasks" / "calc.toml").read_text() == TASK


def test_who_cannot_run_anything_says_so_in_a_sentence(stage: Path) -> None:
    done = session(stage, "tasks", "--sandbox-derive", "--sandbox=e2b", E2B_API_KEY="")
    assert done.returncode == 30, done.stdout + done.stderr
    assert "E2B_API_KEY" in done.stdout
    assert "INTERNALERROR" not in done.stdout
