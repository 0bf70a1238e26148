"""What of a patch runs, in whole sessions: mirrored, in sandboxes of the local engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import fixture_repos
from tests.direct import DirectRun
from tests.e2e.sessions import own_python
from tests.fixture_repos import FixtureRepo
from tests.mirrored import run_mirrored

CALC = fixture_repos.load("calc")
#: The tests that its bug fails.
BROKEN = {
    "tests/test_calc.py::test_div",
    "tests/test_expression.py::test_large_quotients_are_exact",
}


def mirrored(fixture: FixtureRepo, repo: Path, patch: bytes | None, *args: str) -> DirectRun:
    options = [f"--sandbox-venv={own_python()}", *args]
    options += [f"--sandbox-env=PYTHONPATH={':'.join(fixture.expected['pythonpath'])}"]
    if patch is not None:
        options.append("--sandbox-patch=-")
    return run_mirrored(repo, options, repo.parent / "record", stdin=patch or b"")


def failed(run: DirectRun) -> set[str]:
    return {
        name
        for name, phases in run.outcomes.items()
        if any(phase.outcome == "failed" for phase in phases)
    }


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("weakens_test", "as at the base: tests/test_calc.py, tests/test_expression.py"),
        ("deletes_test", "as at the base: tests/test_calc.py, tests/test_expression.py"),
        ("cheats", "not used: conftest.py"),
    ],
)
def test_a_patch_of_tests_alone_mends_nothing(name: str, told: str, tmp_path: Path) -> None:
    run = mirrored(CALC, CALC.make(tmp_path), CALC.patches[f"{name}.patch"].read_bytes())
    assert run.exit_status == 1, run.stdout + run.stderr
    assert failed(run) == BROKEN
    assert f"sandbox protects: {told} (--sandbox-unprotect lets a file through)" in run.stdout


def test_tests_that_a_patch_adds_run(tmp_path: Path) -> None:
    repo = CALC.make(tmp_path)
    both = mirrored(CALC, repo, CALC.patches["new_test.patch"].read_bytes())
    assert both.exit_status == 0, both.stdout + both.stderr
    assert "tests/test_division.py::test_exact_and_negative" in both.outcomes
    assert "sandbox protects" not in both.stdout
    alone = mirrored(CALC, repo, CALC.patches["new_test_only.patch"].read_bytes())
    assert alone.exit_status == 1
    assert failed(alone) > BROKEN


def test_what_is_asked_for_is_let_through(tmp_path: Path) -> None:
    patch = CALC.patches["weakens_test.patch"].read_bytes()
    run = mirrored(CALC, CALC.make(tmp_path), patch, "--sandbox-unprotect=tests/test_calc.py")
    assert failed(run) == {"tests/test_expression.py::test_large_quotients_are_exact"}
    assert "as at the base: tests/test_expression.py (--sandbox-unprotect" in run.stdout
    assert "; let through: tests/test_calc.py" in run.stdout


def test_a_checkout_as_the_candidate(tmp_path: Path) -> None:
    repo = CALC.make(tmp_path)
    (repo / "conftest.py").write_text("raise SystemExit(0)\n")
    (repo / "tests" / "test_calc.py").unlink()
    (repo / "tests" / "test_expression.py").write_text("def test_nothing(): pass\n")
    (repo / "tests" / "__init__.py").write_text("import os; os._exit(0)\n")
    run = mirrored(CALC, repo, None, "--sandbox-base=HEAD")
    assert failed(run) == BROKEN, run.stdout + run.stderr
    assert "not used: conftest.py, tests/__init__.py" in run.stdout
    trusted = mirrored(CALC, repo, None)
    assert "sandbox protects" not in trusted.stdout
    assert trusted.exit_status != 1  # it is what the checkout makes of it
