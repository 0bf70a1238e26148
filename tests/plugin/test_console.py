"""The command pytest-sandbox on a checkout that wants to get out: nothing of it runs here.

Every way in that pytest, Python or git offer leads to one canary file in the checkout's code;
the tests themselves run in a sandbox, where leaving the mark does no harm here.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fixture_repos import git
from tests.interpreters import environment

TARGET = ("pytest==8.3.5",)

#: Python that leaves a mark; run on this machine it would be found, in a sandbox it is not.
MARK = """\
import os, sys
try:
    with open({canary!r}, "a") as file:
        file.write({name!r} + "\\n")
except OSError:
    pass
"""

TESTS = """\
import app

def test_good():
    assert app.add(1, 2) == 3

def test_bad():
    assert app.add(1, 2) == 4
"""


@dataclass
class Hostile:
    """A checkout with a trap everywhere."""

    repo: Path
    canary: Path
    outside: Path
    python: Path

    def trap(self, path: str, more: str = "") -> None:
        file = self.repo / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(MARK.format(canary=str(self.canary), name=path) + more)

    def run(
        self, *args: str, cwd: Path | None = None, env: dict[str, str] | None = None,
        plain: bool = False, autoload: bool = False,
    ) -> subprocess.CompletedProcess[str]:  # fmt: skip
        """The command as it is installed, or pytest itself."""
        script = Path(sys.executable).with_name("pytest" if plain else "pytest-sandbox")
        variables = {
            name: value for name, value in os.environ.items() if not name.startswith("PYTEST")
        }
        if not plain and not autoload:
            # Importing every plugin that is installed here takes seconds.
            variables["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        return subprocess.run(
            [script, f"--sandbox-venv={self.python.parent.parent}", *args],
            cwd=cwd or self.repo, env={**variables, **(env or {})}, capture_output=True,
            text=True, check=False, timeout=120,
        )  # fmt: skip

    def marks(self) -> list[str]:
        return self.canary.read_text().splitlines() if self.canary.exists() else []


@pytest.fixture
def hostile(tmp_path: Path) -> Iterator[Hostile]:
    made = Hostile(
        tmp_path / "repo", tmp_path / "canary", tmp_path / "outside",
        environment("3.12", TARGET),
    )  # fmt: skip
    made.repo.mkdir()
    made.outside.mkdir()
    git(made.repo, "init", "-q", "-b", "main")
    (made.repo / "app.py").write_text("def add(a, b):\n    return a + b\n")
    (made.repo / "sub").mkdir()
    (made.repo / "sub/test_app.py").write_text(TESTS)
    (made.repo / "pytest.ini").write_text("[pytest]\npythonpath = .\n")
    git(made.repo, "add", "-A")
    git(made.repo, "commit", "-q", "-m", "What is trusted")
    set_traps(made)
    yield made
    found = {path.name for path in made.outside.rglob("*")}
    assert found <= {"precious"}, "something was written outside of the checkout"


def set_traps(made: Hostile) -> None:
    """Everything a pull request could bring, and what an agent could do to ``.git``."""
    repo = made.repo
    (repo / "pytest.ini").write_text(
        "[pytest]\npythonpath = .\naddopts = -p evil\npython_files = *_app.py\n"
        "filterwarnings =\n  error::evil.Evil\nminversion = 8.0\n"
        "sandbox_network = on\nsandbox_setup = touch /setup\n"
    )
    (repo / "pyproject.toml").write_text('[tool.pytest.ini_options]\naddopts = "-p evil"\n')
    made.trap("evil.py", "class Evil(Warning): pass\n")
    made.trap("conftest.py")
    made.trap("sub/conftest.py")
    for name in ("sitecustomize.py", "usercustomize.py", "src/sitecustomize.py", "setup.py"):
        made.trap(name)
    for folder in ("", "src/"):
        (repo / f"{folder}evil.pth").write_text("import evil\n")
        for info in ("evil.egg-info", "evil-1.dist-info"):
            where = repo / folder / info
            where.mkdir(parents=True)
            where.joinpath("entry_points.txt").write_text("[pytest11]\nevil = evil\n")
            name = "PKG-INFO" if "egg" in info else "METADATA"
            where.joinpath(name).write_text("Metadata-Version: 2.1\nName: evil\nVersion: 1\n")
    # Below src, as at the top they would stand in the way of the pytest in the sandbox.
    for name in ("pluggy", "iniconfig", "git", "anyio", "msgspec", "platformdirs"):
        made.trap(f"src/{name}/__init__.py")
    made.trap("pytest_sandbox/__init__.py")
    made.trap("pytest_sandbox/plugin.py")
    (repo / ".python-version").write_text("evil\n")
    (repo / ".pytest_cache").symlink_to(made.outside)
    (made.outside / "precious").write_text("kept")
    (repo / ".coveragerc").write_text("[run]\nplugins = evil\n")
    (repo / "bin").mkdir()
    script = repo / "bin/git"
    script.write_text(f"#!/bin/sh\necho git >> {made.canary}\n")
    script.chmod(0o755)
    with (repo / ".git/config").open("a") as config:
        config.write(
            f"[core]\n\tfsmonitor = {script}\n\tsshCommand = {script}\n\tpager = {script}\n"
            f"\thooksPath = {repo}/bin\n\tattributesFile = {repo}/attributes\n"
            f"[filter \"evil\"]\n\tclean = {script}\n\tsmudge = {script}\n\tprocess = {script}\n"
            f"[diff]\n\texternal = {script}\n[alias]\n\tversion = !{script}\n"
            f"[include]\n\tpath = {repo}/included\n"
        )  # fmt: skip
    (repo / ".gitattributes").write_text("* filter=evil diff=evil\n")
    hook = repo / ".git/hooks/post-index-change"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(script.read_text())
    hook.chmod(0o755)


def check(
    done: subprocess.CompletedProcess[str], hostile: Hostile, name: str = "sub/test_app.py"
) -> None:
    """The results are right, and nothing of the checkout ran here."""
    assert hostile.marks() == []
    text = done.stdout + done.stderr
    assert f"\n{name} .F" in done.stdout or f"\n{name}::test_bad FAILED" in done.stdout, text
    assert "1 failed, 1 passed" in done.stdout, text
    assert "assert 3 == 4" in done.stdout, text
    assert done.returncode == 1, text


@pytest.mark.parametrize(
    "args",
    [
        ["--sandbox-base", "HEAD"],
        [
            "--sandbox=local",
            "--sandbox-base",
            "HEAD",
            "sub",
            "-vrA",
            "--junitxml=report.xml",
            "-k",
            "test_",
            "-W",
            "default",
        ],
    ],
)
def test_nothing_of_it_runs_here(hostile: Hostile, args: list[str]) -> None:
    check(hostile.run(*args), hostile)


def test_in_a_folder_below(hostile: Hostile) -> None:
    # pytest there looks for -p evil where it is started, as a direct run would.
    hostile.trap("sub/evil.py", "class Evil(Warning): pass\n")
    done = hostile.run("--sandbox-base=HEAD", "test_app.py", cwd=hostile.repo / "sub")
    check(done, hostile, "test_app.py")


def test_with_an_environment_that_points_into_it(hostile: Hostile) -> None:
    repo = str(hostile.repo)
    # Of what a shell may hold, PYTHONPATH is the one that acts before we do: it is left to the
    # test below.
    env = {
        "PYTHONSAFEPATH": "",
        "PYTEST_PLUGINS": "evil",
        "PYTEST_ADDOPTS": "-q -v",
        "PYTHONSTARTUP": f"{repo}/evil.py",
        "GIT_EXTERNAL_DIFF": f"{repo}/bin/git",
    }
    check(hostile.run("--sandbox-base=HEAD", env=env), hostile)


@pytest.mark.parametrize(
    "path", [pytest.param("", marks=pytest.mark.soak), "{repo}/src:{outside}:.:src"]
)
def test_a_python_path_into_it_goes_no_further(hostile: Hostile, path: str) -> None:
    """The variable acts on our own start: a sitecustomize of the checkout is beyond prevention,
    and only that; pytest's process never sees it."""
    for name in ("sitecustomize.py", "usercustomize.py", "src/sitecustomize.py"):
        (hostile.repo / name).unlink()
    for name in ("pytest_sandbox", "src/platformdirs"):
        for file in (hostile.repo / name).iterdir():
            file.unlink()
        (hostile.repo / name).rmdir()
    path = path.format(repo=hostile.repo, outside=hostile.outside)
    check(hostile.run("--sandbox-base=HEAD", env={"PYTHONPATH": path}), hostile)


def test_its_own_configuration_is_not_read_for_it(hostile: Hostile) -> None:
    for args in (["-c", "pytest.ini"], ["--config-file=pytest.ini"], ["-cpytest.ini"]):
        done = hostile.run("--sandbox-base=HEAD", *args)
        assert done.returncode == 4
        assert "--sandbox-pytest-args='-c FILE'" in done.stderr
    check(hostile.run("--sandbox-base=HEAD", "-qvcpytest.ini", "--", "sub"), hostile)
    assert hostile.marks() == []


def test_with_automatic_plugins(hostile: Hostile) -> None:
    check(hostile.run("--sandbox-base=HEAD", autoload=True), hostile)


def test_the_cache_is_kept_for_it_elsewhere(hostile: Hostile) -> None:
    check(hostile.run("--sandbox-base=HEAD"), hostile)
    done = hostile.run("--sandbox-base=HEAD", "--lf")
    assert "1 failed, 1 deselected" in done.stdout
    assert hostile.marks() == []


def test_what_the_plain_form_cannot_prevent(hostile: Hostile) -> None:
    """pytest imports what the ini names before any plugin can say no. It is said afterwards."""
    (hostile.repo / "pytest.ini").write_text("[pytest]\npythonpath = .\naddopts = -p evil\n")
    # A package of the checkout would even take the place of this one.
    for file in (hostile.repo / "pytest_sandbox").iterdir():
        file.unlink()
    (hostile.repo / "pytest_sandbox").rmdir()
    refused = hostile.run("--sandbox", "--sandbox-base=HEAD", "-o", "addopts=", plain=True)
    assert "goes through a symbolic link" in refused.stderr
    assert refused.returncode == 4
    (hostile.repo / ".pytest_cache").unlink()
    hostile.canary.unlink(missing_ok=True)
    done = hostile.run("--sandbox", "--sandbox-base=HEAD", plain=True)
    assert hostile.marks() == ["evil.py"], done.stdout + done.stderr
    assert "made this pytest import evil" in done.stdout
    assert "use the command pytest-sandbox" in done.stdout
    assert "1 failed, 1 passed" in done.stdout
