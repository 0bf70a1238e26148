"""A suite over several real sandboxes says what a direct run says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import comparison, pypi
from tests.comparison import FIXTURES, counts, same, settled

SPLIT = "--sandbox-split=3"


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name == "outcomes" else pytest.mark.soak) for name in FIXTURES],
)
def test_fixture_repositories(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    runs = comparison.fixture(name, None, "3.12", "pytest==9.0.2", tmp_path, SPLIT)
    if name == "hookheavy":
        # Its session fixture prints, in each of the sandboxes.
        assert settled(runs.mirrored) == settled(runs.direct)
        assert counts(runs.mirrored) == counts(runs.direct)
        return
    same(runs.direct, runs.mirrored)


@pytest.mark.soak
def test_a_project_from_pypi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Again with what was learnt of how long its tests take."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    project = pypi.MORE_ITERTOOLS
    version = "pytest==9.0.2" if project.admits("9.0.2") else "pytest==8.4.2"
    for damaged in (False, True):
        folder = tmp_path / str(damaged)
        folder.mkdir()
        runs = comparison.project(project, damaged, "3.12", version, folder, SPLIT)
        same(runs.direct, runs.mirrored)
