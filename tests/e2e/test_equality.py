"""A mirrored run says what a direct run says, outcome for outcome."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import comparison, fixture_repos, pypi
from tests.comparison import FIXTURES, PAIRS, counts, same

#: A fixed sample of the pairs: each pytest, and the oldest and newest Python.
#: The fixed sample: outcomes of every kind with and without a candidate, odd ids, a plugin.
FIXTURE_SAMPLE = [("outcomes", "good"), ("idzoo", "good"), ("asyncsvc", "good")]
SAMPLE = [("3.8", "pytest==6.2.5"), ("3.10", "pytest==7.4.4"), ("3.12", "pytest==8.4.2"),
          ("3.13", "pytest==9.0.2")]  # fmt: skip


def patches(name: str) -> list[str | None]:
    expected = fixture_repos.load(name).expected["patches"]
    usable = [patch for patch, entry in expected.items() if "patch_error" not in entry]
    return [None if patch == "none" else patch for patch in usable]


@pytest.mark.parametrize(
    ("name", "patch"),
    [
        pytest.param(n, p, marks=() if (n, p) in FIXTURE_SAMPLE else pytest.mark.soak)
        for n in FIXTURES
        for p in (None, "good")
    ],
)
def test_fixture_repositories(name: str, patch: str | None, tmp_path: Path) -> None:
    runs = comparison.fixture(name, patch, "3.12", "pytest==9.0.2", tmp_path)
    same(runs.direct, runs.mirrored)


@pytest.mark.parametrize(("python", "version"), SAMPLE)
def test_one_project_on_every_pytest(python: str, version: str, tmp_path: Path) -> None:
    runs = comparison.fixture("outcomes", None, python, version, tmp_path)
    same(runs.direct, runs.mirrored)


@pytest.mark.parametrize(
    "damaged", [pytest.param(False, marks=pytest.mark.soak), True], ids=["as released", "damaged"]
)
@pytest.mark.parametrize(
    "project",
    [
        pypi.ITSDANGEROUS,
        pytest.param(pypi.BOLTONS, marks=pytest.mark.soak),
        pytest.param(pypi.MORE_ITERTOOLS, marks=pytest.mark.soak),
    ],
    ids=str,
)
def test_projects_from_pypi(project: pypi.Project, damaged: bool, tmp_path: Path) -> None:
    version = "pytest==9.0.2" if project.admits("9.0.2") else "pytest==8.4.2"
    runs = comparison.project(project, damaged, "3.12", version, tmp_path)
    same(runs.direct, runs.mirrored)
    assert runs.direct.exit_status == (1 if damaged else 0)


@pytest.mark.soak
@pytest.mark.parametrize(("python", "version"), PAIRS)
@pytest.mark.parametrize("name", FIXTURES)
def test_all_pairs(name: str, python: str, version: str, tmp_path: Path) -> None:
    for patch in patches(name):
        folder = tmp_path / str(patch)
        folder.mkdir()
        # Compared with the checkout that has all of the patch, tests and configuration too.
        runs = comparison.fixture(name, patch, python, version, folder, "--sandbox-unprotect=*")
        if patch == "raw_ids":
            # Its ids hold control characters, which nothing of a sandbox's is shown with.
            assert counts(runs.mirrored) == counts(runs.direct)
            continue
        if runs.direct.exit_status == 3 and not runs.direct.reports:
            # An internal error while it collects: how far it came is not told.
            assert runs.mirrored.exit_status == 3, patch
            continue
        if not runs.direct.finished:
            # A process that ends before its session says nothing in a direct run. Here it does.
            assert runs.mirrored.exit_status not in (0, None), patch
            continue
        same(runs.direct, runs.mirrored)


@pytest.mark.soak
@pytest.mark.parametrize(
    ("project", "python", "version"),
    [(project, *pair) for project in pypi.PROJECTS for pair in comparison.pairs(project)],
    ids=str,
)
def test_all_pairs_on_projects_from_pypi(
    project: pypi.Project, python: str, version: str, tmp_path: Path
) -> None:
    for damaged in (False, True):
        runs = comparison.project(project, damaged, python, version, tmp_path / str(damaged))
        same(runs.direct, runs.mirrored)
