"""A set of tasks over real projects: what becomes of every kind of candidate of each."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from pytest_sandbox.grading import Grader, Verdict
from tests import seeded
from tests.emulators.running import Running
from tests.seeded import OUTCOMES, Made, Seeded

SAMPLE = (seeded.ITSDANGEROUS,)


def checked(made: Made, verdicts: Mapping[str, Verdict]) -> None:
    """The outcomes are right, and so is each expected test, as direct runs say."""
    assert {name: verdict.outcome for name, verdict in verdicts.items()} == OUTCOMES
    for name, failing in made.failing.items():
        tests = (*verdicts[name].fail_to_pass, *verdicts[name].pass_to_pass)
        assert {test.expected for test in tests if not test.passed} == failing, name
        expected = {*made.task.fail_to_pass, *made.task.pass_to_pass}
        assert {test.expected for test in tests} == expected
    for name in OUTCOMES.keys() - made.failing.keys():
        # What does not apply costs no sandbox.
        assert "sandboxes" not in verdicts[name].record


def graded(made: Made, provider: str = "local", **options: object) -> dict[str, Verdict]:
    async def main() -> dict[str, Verdict]:
        async with Grader(provider, workers=2, **options) as grader:  # type: ignore[arg-type]
            calls = (grader.grade(made.task, one) for one in made.candidates)
            return {verdict.candidate: verdict for verdict in await asyncio.gather(*calls)}

    return asyncio.run(main())


@pytest.mark.parametrize("project", SAMPLE, ids=str)
def test_a_project(project: Seeded, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    made = seeded.make(project, tmp_path / "source")
    checked(made, graded(made, venv=str(made.venv)))


@pytest.mark.soak
@pytest.mark.parametrize("project", [one for one in seeded.ALL if one not in SAMPLE], ids=str)
def test_the_other_projects(project: Seeded, tmp_path: Path) -> None:
    test_a_project(project, tmp_path)


def task_file(made: Made) -> str:
    """The task as its owner writes it down."""
    task = made.task
    variables = ", ".join(f"{name} = {json.dumps(value)}" for name, value in task.env.items())
    return "\n".join([
        "[task]", f"repo = {json.dumps(task.repo)}", f"base = {json.dumps(task.base)}",
        "[environment]", f"env = {{{variables}}}",
        "[tests]", f"args = {json.dumps(task.args)}",
        f"fail_to_pass = {json.dumps(task.fail_to_pass)}",
        f"pass_to_pass = {json.dumps(task.pass_to_pass)}",
    ])  # fmt: skip


def test_on_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    made = seeded.make(seeded.CACHETOOLS, tmp_path / "source")
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / f"{made.task.id}.toml").write_text(task_file(made))
    rows = [
        {"instance_id": one.task_id, "model_name_or_path": one.name,
         "model_patch": (one.patch or b"").decode()}
        for one in made.candidates
    ]  # fmt: skip
    (tmp_path / "preds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "GITHUB"))}
    plugins = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": "pytest_sandbox.plugin"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "tasks/", "--sandbox=local", "-rA",
         "--sandbox-predictions", "preds.jsonl", f"--sandbox-venv={made.venv}"],
        cwd=tmp_path, env=kept | plugins, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"resolved 1 of {len(OUTCOMES)}" in done.stdout
    lines = (tmp_path / "sandbox-results" / "results.jsonl").read_text().splitlines()
    entries = {entry["candidate"]: entry for entry in map(json.loads, lines)}
    assert {name: entry["outcome"] for name, entry in entries.items()} == OUTCOMES
    for name, failing in made.failing.items():
        tests = [*entries[name]["fail_to_pass"], *entries[name]["pass_to_pass"]]
        assert {test["expected"] for test in tests if not test["passed"]} == failing, name
        shown = "PASSED" if name == "gold" else "FAILED"
        assert f"{shown} tasks/{made.task.id}.toml::{made.task.id}[{name}]" in done.stdout


#: What is another in every sandbox, or says which provider it was.
_OWN = ("key", "environment", "provider", "phases", "seconds", "sandboxes", "sandbox_seconds",
        "cost", "python", "packages")  # fmt: skip


def said(verdict: Verdict) -> dict[str, object]:
    """All that a verdict says of its candidate."""
    return {
        "outcome": verdict.outcome,
        "reason": verdict.reason,
        "fail_to_pass": verdict.fail_to_pass,
        "pass_to_pass": verdict.pass_to_pass,
        "other": verdict.other,
        "applied": verdict.applied,
        "findings": verdict.findings,
        "record": {name: value for name, value in verdict.record.items() if name not in _OWN},
    }


@pytest.mark.soak
def test_a_vendor_s_sandboxes_say_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "source").mkdir()
    made = seeded.make(seeded.CALC, tmp_path / "source")
    setup = ["python -m pip install -q pytest==9.0.2"]
    here = graded(made, setup=setup)
    with Running("e2b") as emulator:
        for name, value in emulator.env.items():
            monkeypatch.setenv(name, value)
        there = graded(made, "e2b", setup=setup)
        assert emulator.live() == []
        assert emulator.unknown() == []
    checked(made, here)
    assert {name: said(one) for name, one in there.items()} == {
        name: said(one) for name, one in here.items()
    }
