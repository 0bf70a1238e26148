"""Each fixture repository does what its expected.json says, in a direct run of pytest."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests import fixture_repos
from tests.direct import DirectRun, run_direct
from tests.fixture_repos import FixtureRepo, git

NAMES = fixture_repos.names()


def bare(
    fixture: FixtureRepo, repo: Path, python: str, args: Sequence[str], timeout: float = 120
) -> DirectRun:
    """A direct run with no plugin but what the project requires: loading the others takes longer
    than most of these runs."""
    plugins = ["-p", "pytest_asyncio.plugin"] if fixture.expected["requires"] else []
    return run_direct(
        repo,
        python,
        [*plugins, *args],
        pythonpath=fixture.expected["pythonpath"],
        env={"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        timeout=timeout,
    )


def observed(run: DirectRun) -> dict[str, Any]:
    """The run in the form of expected.json."""
    outcomes = {
        n: found[0] if len(found) == 1 else found for n, found in run.labels.items() if found
    }
    entry: dict[str, Any] = {"exit_status": run.exit_status, "outcomes": outcomes}
    if run.collect_errors:
        entry["collect_errors"] = sorted(run.collect_errors)
    missing = sorted(set(run.collected) - set(outcomes))
    # Items whose session stopped at a collection error were never meant to run.
    if missing and not (run.collect_errors and run.exit_status == 2):
        entry["missing"] = missing
    if run.deselected:
        entry["deselected"] = sorted(run.deselected)
    return entry


def prepare(fixture: FixtureRepo, repo: Path, tmp_path: Path) -> str:
    """The interpreter to run the project with: this one, or a new one where it needs set-up."""
    if not fixture.expected["setup"]:
        return sys.executable
    home = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
    environment = {**os.environ, "PATH": f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    for command in (
        f"python -m pip install pytest=={pytest.__version__}",
        *fixture.expected["setup"],
    ):
        done = subprocess.run(
            command, shell=True, cwd=repo, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return str(home / "bin" / "python")


def test_there_are_seven() -> None:
    assert NAMES == [
        "asyncsvc",
        "calc",
        "hookheavy",
        "idzoo",
        "ledger",
        "outcomes",
        "versioned",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_every_patch_is_expected(name: str) -> None:
    fixture = fixture_repos.load(name)
    stems = {patch.removesuffix(".patch") for patch in fixture.patches}
    assert {"good", "bad"} <= stems
    assert stems | {"none"} == set(fixture.expected["patches"])
    for differs in fixture.expected["differs"]:
        assert set(differs.get("patches", ())) <= stems | {"none"}
        assert set(differs.get("runs", ())) <= set(fixture.expected["runs"])


@pytest.mark.parametrize("name", NAMES)
def test_the_repository_is_always_the_same(name: str, tmp_path: Path) -> None:
    fixture = fixture_repos.load(name)
    heads = []
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        repo = fixture.make(tmp_path / place)
        assert git(repo, "status", "--porcelain").stdout == ""
        assert git(repo, "tag").stdout.split() == [tag for tag, _ in fixture.expected["tags"]]
        heads.append(git(repo, "rev-parse", "main").stdout)
    assert heads[0] == heads[1]


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n in ("calc", "hookheavy") else pytest.mark.soak) for n in NAMES],
)
def test_direct_runs(name: str, tmp_path: Path) -> None:
    fixture = fixture_repos.load(name)
    expected = fixture.expected
    repo = fixture.make(tmp_path)
    python = prepare(fixture, repo, tmp_path)
    for patch in expected["patches"]:
        wanted = fixture.patch_run(patch, pytest.__version__)
        if "patch_error" in wanted:
            continue
        if patch != "none":
            git(repo, "apply", "--index", str(fixture.patches[f"{patch}.patch"]))
        run = bare(fixture, repo, python, expected["args"])
        assert observed(run) == wanted, f"{name} with {patch}:\n{run.stdout}\n{run.stderr}"
        git(repo, "reset", "-q", "--hard")
        git(repo, "clean", "-fdq")


@pytest.mark.parametrize(
    ("name", "run_name"),
    [(name, run) for name in NAMES for run in fixture_repos.load(name).expected["runs"]],
)
def test_further_runs(name: str, run_name: str, tmp_path: Path) -> None:
    fixture = fixture_repos.load(name)
    wanted = fixture.further_run(run_name, pytest.__version__)
    args, timeout = wanted.pop("args"), wanted.pop("timeout", None)
    run = bare(fixture, fixture.make(tmp_path), sys.executable, args, timeout or 120)
    assert observed(run) == wanted, f"{run.stdout}\n{run.stderr}"
    assert run.timed_out == (timeout is not None)


@pytest.mark.parametrize("name", NAMES)
def test_patches_that_cannot_be_used(name: str, tmp_path: Path) -> None:
    fixture = fixture_repos.load(name)
    repo = fixture.make(tmp_path)
    for patch, wanted in fixture.expected["patches"].items():
        if "patch_error" not in wanted:
            continue
        applied = git(repo, "apply", "--index", str(fixture.patches[f"{patch}.patch"]), check=False)
        changed = git(repo, "status", "--porcelain").stdout
        if wanted.get("git_accepts"):
            assert changed, patch
            git(repo, "reset", "-q", "--hard")
        else:
            assert applied.returncode != 0 or wanted["patch_error"] == "empty", patch
            assert changed == "", patch
