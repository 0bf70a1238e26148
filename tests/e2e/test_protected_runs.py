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


OWN_SUPPORT = b"""\
--- /dev/null
+++ b/tests/conftest.py
@@ -0,0 +1,4 @@
+import pytest
+@pytest.fixture
+def number():
+    return 1
--- /dev/null
+++ b/tests/test_own.py
@@ -0,0 +1,2 @@
+def test_number(number):
+    assert number == 1
"""


def test_whose_own_tests_need_what_did_not_run_is_told(tmp_path: Path) -> None:
    repo = CALC.make(tmp_path)
    told = "of its changes, these did not run: not used: tests/conftest.py (--sandbox-unprotect"
    run = mirrored(CALC, repo, OWN_SUPPORT, "-q", "-k", "number or add")
    assert "fixture 'number' not found" in run.stdout
    assert f"sandbox: the candidate's own tests failed; {told}" in run.stdout
    # It says nothing of other tests.
    weaker = mirrored(CALC, repo, CALC.patches["weakens_test.patch"].read_bytes(), "-q")
    assert weaker.exit_status == 1
    assert "own tests failed" not in weaker.stdout


@pytest.mark.soak
def test_over_two_sandboxes(tmp_path: Path) -> None:
    """They protect as one does: the same fails, and is told once."""
    repo = CALC.make(tmp_path)
    patch = CALC.patches["weakens_test.patch"].read_bytes()
    one = mirrored(CALC, repo, patch)
    two = mirrored(CALC, repo, patch, "--sandbox-split=2")
    assert failed(two) == failed(one) == BROKEN, two.stdout + two.stderr
    assert two.labels == one.labels
    assert two.stdout.count("sandbox protects") == 1
    good = mirrored(CALC, repo, CALC.patches["good.patch"].read_bytes(), "--sandbox-split=2")
    assert good.exit_status == 0, good.stdout + good.stderr


#: Right in no test's eyes but those that ask whether it is equal.
EQUAL_TO_ANYTHING = """
    class Quotient(int):
        def __eq__(self, other):
            return True
        __hash__ = int.__hash__
    return Quotient(a // b)
"""


def test_full(tmp_path: Path) -> None:
    """The session says what the closer look found, and its exit status."""
    repo = CALC.make(tmp_path)
    good = mirrored(CALC, repo, CALC.patches["good.patch"].read_bytes(), "--sandbox-integrity=full")
    assert good.exit_status == 0, good.stdout + good.stderr
    assert "L5" in good.stdout
    path = repo / "src" / "calc" / "arithmetic.py"
    head, mark, rest = path.read_text().partition("    result = a / b\n")
    assert mark
    path.write_text(head + EQUAL_TO_ANYTHING.lstrip("\n") + rest[rest.index("\n\n\ndef ") :])
    patch = fixture_repos.git(repo, "diff").stdout.encode()
    fixture_repos.git(repo, "checkout", "-q", ".")
    fooled = mirrored(CALC, repo, patch)
    assert fooled.exit_status == 0, fooled.stdout + fooled.stderr
    found = mirrored(CALC, repo, patch, "--sandbox-integrity=full")
    assert found.exit_status == 24, found.stdout + found.stderr
    assert "tampered" in found.stdout


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
