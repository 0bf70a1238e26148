"""A project of two tests as a task, with as many distinct candidates as are asked for.

Its pytest comes with the base, so that no index is asked. Knows no grader.
"""

from __future__ import annotations

import zipfile
from importlib import metadata
from pathlib import Path

from pytest_sandbox.grading.model import Candidate, Task
from tests.fixture_repos import git

_PACKAGES = ("pytest", "pluggy", "iniconfig", "packaging", "pygments")
_SETUP = (
    "python -I -c \"import sysconfig, zipfile; zipfile.ZipFile('packages.zip')"
    ".extractall(sysconfig.get_path('purelib'))\" && python -m pytest -q --collect-only"
)
_LIB = "def double(number):\n    return number\n"
_TESTS = """\
from lib import double


def test_double():
    assert double(2) == 4


def test_nothing():
    assert double(0) == 0
"""


def make(repo: Path, *, packages: bool = True) -> Task:
    """The task in a new repository: one test has to be mended, and one to stay as it is.

    Args:
        packages: whether pytest comes with it, and is set up from there.
    """
    repo.mkdir()
    (repo / "lib.py").write_text(_LIB)
    (repo / "test_lib.py").write_text(_TESTS)
    (repo / "conftest.py").write_text("")
    if packages:
        _pack(repo / "packages.zip")
    git(repo, "init", "-q", "-b", "main")
    git(repo, "add", "-A")
    git(repo, "commit", "-q", "-m", "Start")
    return Task(
        id="tiny-1",
        source="here",
        repo=str(repo),
        base="HEAD",
        setup=(_SETUP,) if packages else (),
        setup_inputs=("packages.zip",) if packages else (),
        fail_to_pass=("test_lib.py::test_double",),
        pass_to_pass=("test_lib.py::test_nothing",),
    )


def _pack(to: Path) -> None:
    with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in _PACKAGES:
            for path in metadata.files(name) or ():
                if path.suffix != ".pyc" and ".." not in path.parts:
                    archive.write(str(path.locate()), str(path))


#: What becomes of a candidate, by its number modulo 3.
OUTCOMES = ("resolved", "unresolved", "regressed")
_BODIES = ("2 * number", "number + 0", "number + 2")


def candidate(number: int) -> Candidate:
    """One of as many as wanted; no two make the same tree."""
    patch = (
        "--- a/lib.py\n+++ b/lib.py\n@@ -1,2 +1,2 @@\n def double(number):\n-    return number\n"
        f"+    return {_BODIES[number % 3]}  # way {number}\n"
    )
    return Candidate(task_id="tiny-1", name=f"c{number:04}", patch=patch.encode(), source="here")


def outcome(number: int) -> str:
    return OUTCOMES[number % 3]
