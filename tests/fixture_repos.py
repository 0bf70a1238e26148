"""The projects of fixtures_repos/, as data and as real git repositories.

It knows nothing of how tests are run; fixtures_repos/README.md documents expected.json.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[1] / "fixtures_repos"
_DATE = "2024-01-02T03:04:05+00:00"
_LEFT_OVER = shutil.ignore_patterns("__pycache__", ".pytest_cache", "*.egg-info", "_version.py")


@dataclass(frozen=True, slots=True)
class FixtureRepo:
    """One project: its plain tree, its patches by file name, and what is expected of it."""

    name: str
    source: Path
    patches: dict[str, Path]
    expected: dict[str, Any]

    def make(self, tmp_path: Path, *, tags: bool = True) -> Path:
        """Makes a git repository of the tree in ``tmp_path`` and returns its path.

        Two commits on main, always with the same hashes: the first holds the files that hold no
        code, the second everything. The tags of expected.json are set unless ``tags`` is false.
        """
        repo = tmp_path / self.name
        shutil.copytree(self.source, repo, symlinks=True, ignore=_LEFT_OVER)
        git(repo, "init", "-q", "-b", "main")
        start = [name for name in (".gitignore", "README.md") if (repo / name).exists()]
        git(repo, "add", *start)
        git(repo, "commit", "-q", "--allow-empty", "-m", "Start")
        git(repo, "add", "-A")
        git(repo, "commit", "-q", "-m", f"Add {self.name}")
        if tags:
            for tag, revision in self.expected["tags"]:
                git(repo, "tag", "-a", "-m", tag, tag, revision)
        return repo

    def patch_run(self, patch: str, pytest_version: str) -> dict[str, Any]:
        """What is expected with that patch (``"none"``: without one) under that pytest.

        Raises:
            KeyError: expected.json says nothing about the patch.
        """
        return self._expected("patches", patch, pytest_version)

    def further_run(self, run: str, pytest_version: str) -> dict[str, Any]:
        """What is expected of that entry of ``runs``, its ``args`` included.

        Raises:
            KeyError: there is no such run.
        """
        return self._expected("runs", run, pytest_version)

    def _expected(self, kind: str, name: str, pytest_version: str) -> dict[str, Any]:
        entry: dict[str, Any] = dict(self.expected[kind][name])
        for differs in self.expected["differs"]:
            specifier = SpecifierSet(differs["pytest"])
            if name not in differs.get(kind, ()) or not specifier.contains(
                pytest_version, prereleases=True
            ):
                continue
            entry["outcomes"] = {**entry["outcomes"], **differs["outcomes"]}
            entry.update(
                (key, value)
                for key, value in differs.items()
                if key not in ("pytest", "patches", "runs", "outcomes")
            )
        if "outcomes" in entry:
            entry["outcomes"] = {k: v for k, v in entry["outcomes"].items() if v is not None}
        return {key: value for key, value in entry.items() if value is not None}


def names() -> list[str]:
    """The names of all projects, sorted."""
    return sorted(path.parent.name for path in ROOT.glob("*/expected.json"))


def load(name: str) -> FixtureRepo:
    """The project of that name.

    Raises:
        FileNotFoundError: there is none.
    """
    folder = ROOT / name
    expected = json.loads((folder / "expected.json").read_text("utf-8"))
    patches = {path.name: path for path in sorted((folder / "patches").glob("*.patch"))}
    return FixtureRepo(name, folder / "repo", patches, expected)


def git(repo: Path, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Runs git in the repository with no configuration, hooks, dates or names of the machine."""
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": os.devnull,
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_AUTHOR_NAME": "Ada",
        "GIT_AUTHOR_EMAIL": "ada@example.org",
        "GIT_AUTHOR_DATE": _DATE,
        "GIT_COMMITTER_NAME": "Ada",
        "GIT_COMMITTER_EMAIL": "ada@example.org",
        "GIT_COMMITTER_DATE": _DATE,
    }
    return subprocess.run(
        ["git", "-c", "core.autocrlf=false", "-c", "core.quotePath=false", *args],
        cwd=repo,
        env=environment,
        check=check,
        capture_output=True,
        encoding="utf-8",
    )
