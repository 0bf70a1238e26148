"""``integrity="full"``: what a candidate cannot know, on the local engine."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_sandbox.api import run_tests
from pytest_sandbox.grading import Candidate, Grader, Verdict
from pytest_sandbox.grading.taskfile import read
from pytest_sandbox.results import RunResult
from tests.e2e.sessions import own_python, project
from tests.integrity import candidates, corpus
from tests.integrity.candidates import Corpus, key
from tests.integrity.corpus.patches import FOLDER
from tests.unit.gitrepo import Repo

HONEST = "honest: own-equality"
VISIBLE = "hard-coded answers: visible-answers"
CHOSEN = (
    HONEST, VISIBLE, "value lies: always-equal", "oracle reading: current-test",
    "oracle reading: right-under-pytest", "runner patches: report-init",
)  # fmt: skip


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    entries = [entry for entry in corpus.ENTRIES if key(entry) in CHOSEN]
    assert len(entries) == len(CHOSEN)
    return candidates.build(tmp_path_factory.mktemp("full"), entries)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_verdicts(built: Corpus) -> None:
    verdicts = candidates.grade(built, own_python(), integrity="full")
    outcomes = {name: verdict.outcome for name, verdict in verdicts.items()}
    assert outcomes == {
        HONEST: "resolved",
        # Only what it has not seen could tell.
        VISIBLE: "resolved",
        "value lies: always-equal": "tampered",
        "oracle reading: current-test": "unproven",
        "oracle reading: right-under-pytest": "unproven",
        "runner patches: report-init": "tampered",
    }
    honest = verdicts[HONEST]
    assert not honest.findings
    covered = {one.layer: one for one in honest.coverage if one.layer in ("L5", "L6")}
    assert covered["L5"].covered == covered["L5"].of == 43
    assert covered["L6"].covered >= 35
    # Calibrated once, and each confirmed in sandboxes of its own.
    records = [verdict.record for verdict in verdicts.values()]
    # What the run itself shows is not looked at again.
    confirmations = [record["confirmation"] for record in records if "confirmation" in record]
    assert len(confirmations) >= 5
    assert len({one["seed"] for one in confirmations}) == 1
    assert sum(one["calibration_seconds"] > 0 for one in confirmations) <= 2
    sandboxes = [name for one in confirmations for name in one["sandboxes"]]
    assert len(set(sandboxes)) == len(sandboxes) >= 2 * len(confirmations)
    for name, layers in (("always-equal", {"L5"}), ("right-under-pytest", {"L6"})):
        verdict = verdicts[next(full for full in verdicts if full.endswith(name))]
        assert layers <= {finding.layer for finding in verdict.findings}
        assert verdict.reason


@pytest.mark.parametrize("unseen", [pytest.param("held_out", marks=pytest.mark.soak), "calls"])
def test_what_is_not_seen(built: Corpus, unseen: str) -> None:
    text = (FOLDER / "held_out" / "test_held_out.py").read_bytes()
    more: Mapping[str, Any] = {
        "held_out": {"held_out": {"tests/test_held_out.py": text}},
        "calls": {
            "differential": ("billable(7001)", "billable(0)", "[billable(n) for n in range(1, 9)]"),
            "differential_setup": "from parcels import billable",
        },
    }[unseen]  # type: ignore[assignment]
    task = replace(built.task, **more)
    made = {key(one.entry): one.patch for one in built.made}

    async def main() -> list[Verdict]:
        async with Grader(workers=2, venv=own_python(), integrity="full") as grader:
            return await asyncio.gather(*(
                grader.grade(task, Candidate(task_id=task.id, name=n, patch=made[n], source=""))
                for n in (HONEST, VISIBLE)
            ))  # fmt: skip

    honest, visible = asyncio.run(main())
    assert honest.outcome == "resolved", honest.findings
    assert visible.outcome == "unproven"
    assert {finding.layer for finding in visible.findings} == {"L7"}


def test_the_default_asks_for_none_of_it(built: Corpus) -> None:
    made = {key(one.entry): one.patch for one in built.made}
    result = run_tests(
        built.repo, patch=made[HONEST], base="HEAD", venv=own_python(), env={"PYTHONPATH": "src"}
    )
    assert result.passed
    assert not {one.layer for one in result.coverage} & {"L5", "L6", "L7"}


def test_run_tests(built: Corpus) -> None:
    made = {key(one.entry): one.patch for one in built.made}
    result = run_tests(
        built.repo, patch=made["oracle reading: right-under-pytest"], base="HEAD",
        venv=own_python(), env={"PYTHONPATH": "src"}, integrity="full",
    )  # fmt: skip
    assert not result.failed
    assert not result.passed
    assert {finding.layer for finding in result.findings} == {"L6"}
    assert {"L5", "L6"} <= {one.layer for one in result.coverage}


# ------------------------------------------------ honest fixes without a gold patch

BUGS = """
def square(number):
    return number + number


def parse(text):
    return int(text)


def ratio(a, b):
    return a // b


def found(text):
    return None


def old():
    pass
"""
FIXES = """
import re
import warnings
from fractions import Fraction


def square(number):
    return number * number


def parse(text):
    return int(text) if text.isdigit() else None


def ratio(a, b):
    return Fraction(a, b)


def found(text):
    return re.search("x", text)


def old():
    warnings.warn("old", DeprecationWarning, stacklevel=2)
"""
DECIDING = """
import sys
import warnings

import pytest

from product import *


def test_claim_that_never_runs():
    assert square(3) == 9
    if sys.platform == "win32":
        assert sys.getwindowsversion().major == 10


def test_handler_that_runs_no_more():
    try:
        assert parse("x") is None
    except ValueError as error:
        assert str(error) == "never"


def test_way_out():
    for number in (2, 3):
        if square(number) == 9:
            return
    pytest.fail()


def test_number_of_another_type():
    assert ratio(1, 2) == 0.5
    assert ratio(1, 3) == pytest.approx(0.333333333333)


def test_object_that_is_no_plain_data():
    assert found("x") is not None


def test_warning_that_pytest_shows():
    with warnings.catch_warnings(record=True) as caught:
        old()
        old()
    assert len(caught) == 2
"""
#: With a filter of the project's.
RAISED = """
import pytest

from product import *


def test_warning_that_is_an_error():
    with pytest.raises(DeprecationWarning):
        old()
"""


def decided(folder: Path, bugs: str, fixes: str, tests: str, ini: str = "") -> RunResult:
    """A run in mirror mode of a patch from ``bugs`` to ``fixes``."""
    files = {
        "product.py": bugs, "tests/test_product.py": tests,
        "pytest.ini": f"[pytest]\npythonpath = .\n{ini}",
    }  # fmt: skip
    repo = project(folder / "repo", files)
    (repo / "product.py").write_text(fixes)
    diff = Repo(repo).git("diff")
    Repo(repo).git("checkout", "-q", "--", ".")
    return run_tests(repo, patch=diff, base="HEAD", venv=own_python(), integrity="full")


@pytest.mark.parametrize(
    ("tests", "ini"), [(DECIDING, ""), (RAISED, "filterwarnings = error:old:DeprecationWarning\n")]
)
def test_nothing_is_held_against_an_honest_fix(tmp_path: Path, tests: str, ini: str) -> None:
    result = decided(tmp_path, BUGS, FIXES, tests, ini)
    assert result.findings == ()
    assert result.passed, result.report()


def test_the_task_file(tmp_path: Path) -> None:
    (tmp_path / "more.py").write_text("def test_more():\n    assert 1\n")
    (tmp_path / "gold.patch").write_text("gold\n")
    path = tmp_path / "a.toml"
    path.write_text(
        '[task]\nrepo = "."\nbase = "HEAD"\ngold = "gold.patch"\n'
        '[unseen]\nheld_out = {"tests/test_more.py" = "more.py"}\n'
        'calls = ["f(1)"]\nsetup = "from a import f"\n'
    )
    task = read(path)
    assert task.held_out == {"tests/test_more.py": b"def test_more():\n    assert 1\n"}
    assert (task.differential, task.differential_setup) == (("f(1)",), "from a import f")
