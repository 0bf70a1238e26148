"""What the layers cost: one tree as it is, as a candidate, and as a candidate with ``full``.

The three take turns. What is made once for a base (its own run, for ``full`` the calibration) is
told apart: it is what the first run takes longer than the later ones.
"""

from __future__ import annotations

import shutil
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks.grading import Cost, Run, broken_base, mending
from tests.fixture_repos import git
from tests.pypi import Project

#: The aims, as ratios of wall time: of the default layers, and of ``full``.
_AIMS = {"default": 1.05, "full": 2.5}


def layers(folder: Path, env: Mapping[str, str], run: Run, rounds: int, project: Project) -> None:
    """Print the figures."""
    folder.mkdir()
    (folder / "source").mkdir()
    repo = broken_base(project, folder / "source")
    patch = folder / "candidate.patch"
    patch.write_bytes(mending(project, repo, 0))
    solved = folder / "solved"
    shutil.copytree(repo, solved)
    git(solved, "apply", str(patch))
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "pytest_sandbox.plugin"]
    pytest += ["--sandbox=local", f"--sandbox-venv={sys.prefix}"]
    pytest += ["--sandbox-env=PYTEST_DISABLE_PLUGIN_AUTOLOAD"]
    candidate = [*pytest, f"--sandbox-patch={patch}"]
    sides = {
        "plain": (pytest, solved),
        "default": (candidate, repo),
        "full": ([*candidate, "--sandbox-integrity=full"], repo),
    }
    costs: dict[str, list[Cost]] = {side: [] for side in sides}
    for _ in range(rounds + 1):
        for side, (command, cwd) in sides.items():
            costs[side].append(run(command, cwd, dict(env)))
    first = {side: found.pop(0) for side, found in costs.items()}
    print(f"| {project.name} {project.version} | seconds | of plain | aim | CPU of plain "
          "| once for a base |")  # fmt: skip
    print("|---|---:|---:|---:|---:|---:|")
    for side, found in costs.items():
        pairs = list(zip(costs["plain"], found, strict=True))
        wall = statistics.median(one.wall for one in found)
        ratio = statistics.median(b.wall / a.wall for a, b in pairs)
        cpu = statistics.median(b.cpu / a.cpu for a, b in pairs)
        aim = f"{_AIMS[side]:.2f}" if side in _AIMS else ""
        once = f"{first[side].wall - wall:.1f} s"
        print(f"| {side} | {wall:.2f} | {ratio:.2f} | {aim} | {cpu:.2f} | {once} |")
