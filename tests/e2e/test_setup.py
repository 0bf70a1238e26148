"""Set-up in the local engine: found, run once, kept, and never the source of a wrong result."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pytest_sandbox import assemble
from tests import fixture_repos
from tests.direct import DirectRun
from tests.fixture_repos import git
from tests.interpreters import interpreter
from tests.mirrored import run_mirrored
from tests.unit.gitrepo import Repo

SETUP = "sandbox set-up: "
SECRET = "correct-horse-battery"


class Project:
    """A repository, and sessions of the plugin in it."""

    def __init__(self, path: Path, scratch: Path) -> None:
        self.path = path
        self._scratch = scratch

    def run(self, *args: str, status: int = 0) -> DirectRun:
        done = run_mirrored(self.path, args, self._scratch)
        assert done.exit_status == status, done.stdout + done.stderr
        return done


def commands(run: DirectRun) -> list[str]:
    """The set-up commands that a session ran."""
    lines = [line.removeprefix(SETUP) for line in run.stdout.splitlines() if SETUP in line]
    return lines[1:]  # the first says how they were found


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own."""
    # Below the tests' own folder, which the engine's other uid can get through.
    folder = Path(os.environ["XDG_CACHE_HOME"]).parent / tmp_path.name
    folder.mkdir(mode=0o755, exist_ok=True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.mark.usefixtures("cache")
def test_set_up_once_for_all_that_depends_on_the_same_files(tmp_path: Path) -> None:
    fixture = fixture_repos.load("calc")
    project = Project(fixture.make(tmp_path), tmp_path / "scratch")
    first = project.run("tests/test_expression.py", status=1)
    assert "installs the project itself with its extra 'test'" in first.stdout
    assert len(commands(first)) == 3
    assert [entry.provider for entry in assemble.host().store.entries()] == ["local"]

    # A patch starts from what is there.
    again = project.run(f"--sandbox-patch={fixture.patches['good.patch']}")
    assert commands(again) == []

    # So does another base; of the old one nothing is left.
    (project.path / "tests" / "test_expression.py").unlink()
    (project.path / "tests" / "test_base.py").write_text(
        "import pathlib, subprocess\n"
        "from calc.fresh import VALUE\n"
        "def test_base():\n"
        "    here = pathlib.Path(__file__).parent\n"
        "    assert VALUE == 7\n"
        "    assert not (here / 'test_expression.py').exists()\n"
        "    log = subprocess.run(['git', 'status', '--porcelain'], cwd=here, check=True,\n"
        "                         capture_output=True, text=True).stdout\n"
        "    assert [line for line in log.splitlines() if 'egg-info' not in line\n"
        "            and '__pycache__' not in line and '.pytest_cache' not in line] == []\n"
    )
    (project.path / "src" / "calc" / "fresh.py").write_text("VALUE = 7\n")
    git(project.path, "add", "-A")
    git(project.path, "commit", "-q", "-m", "Another base")
    other = project.run("tests/test_base.py")
    assert commands(other) == []
    assert list(other.outcomes) == ["tests/test_base.py::test_base"]

    # A changed build file does not; and what fails is not kept.
    build = project.path / "pyproject.toml"
    build.write_text(build.read_text().replace("pytest>=6.2", "./no/such/folder"))
    failed = project.run("tests/test_base.py", status=32)
    assert len(commands(failed)) == 2
    assert "The end of its output:" in failed.stdout
    assert "no/such/folder" in failed.stdout
    assert len(assemble.host().store.entries()) == 1

    listed = housekeeping("list")
    assert listed.startswith(assemble.host().store.entries()[0].key[:12])
    assert "1 prepared environments" in listed
    assert "removed" in housekeeping("clear")
    assert housekeeping("list") == "0 prepared environments, 0 MiB\n"
    snapshots = Path(os.environ["XDG_CACHE_HOME"], "pytest-sandbox", "local", "snapshots")
    assert list(snapshots.iterdir()) == []


def housekeeping(action: str) -> str:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "pytest_sandbox.plugin",
            f"--sandbox-cache={action}",
        ],
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@contextmanager
def listener() -> Iterator[tuple[int, list[bytes]]]:
    """A port of this machine's loopback, and what was sent to it."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    heard.append(connection.recv(1000))

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1], heard
        server.shutdown(socket.SHUT_RDWR)
    thread.join()


PROBES = """
import os, pathlib, socket, sys
import pytest

@pytest.mark.parametrize("address", [("127.0.0.1", %d), ("1.1.1.1", 53)])
def test_no_network(address):
    with pytest.raises(OSError):
        socket.create_connection(address, timeout=5)

def test_no_secret():
    assert not [name for name, value in os.environ.items() if "horse" in value]
    for path in pathlib.Path("/sandbox").rglob("*"):
        if path.is_file() and path != pathlib.Path(__file__):
            assert b"correct-horse-" + b"battery" not in path.read_bytes(), path
    for path in pathlib.Path("/tmp").rglob("*.secret"):
        raise AssertionError(path)

def test_setup_did_run():
    assert pathlib.Path(sys.prefix, "heard").read_text() == "yes"

def test_environment():
    assert os.environ["GIVEN"] == "a b"
    assert os.environ["TAKEN"] == "from here"

def test_build():
    text = pathlib.Path("built.txt").read_text()
    assert text == "refused 1"

def test_artifact():
    folder = pathlib.Path(__file__).parent / "out" / "deep"
    folder.mkdir(parents=True)
    (folder / "shot.txt").write_text("seen")
"""
CONNECT = """
import os, pathlib, socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as connection:
    connection.sendall(os.environ["TOKEN"].encode())
pathlib.Path(sys.prefix, "heard").write_text("yes")
pathlib.Path.home().joinpath("x.secret").write_text(os.environ["TOKEN"])
"""
BUILD = """
import os, pathlib, socket, sys
assert "TOKEN" not in os.environ
try:
    socket.create_connection(("127.0.0.1", int(sys.argv[1])))
except OSError:
    here = pathlib.Path(__file__).parent
    here.joinpath("built.txt").write_text("refused " + here.joinpath("version").read_text())
"""


@pytest.mark.usefixtures("cache")
def test_what_reaches_set_up_build_and_tests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", SECRET)
    monkeypatch.setenv("TAKEN", "from here")
    with listener() as (port, heard):
        files = {
            "setup.py": "from setuptools import setup\n"
            "setup(name='plain', py_modules=['plain'], package_dir={'': 'src'})\n",
            "src/plain.py": "",
            "connect.py": CONNECT,
            "build.py": BUILD,
            "version": "1",
            "tests/test_probes.py": PROBES % port,
            "tests/test_plain.py": "import plain\ndef test_plain(): pass\n",
        }
        path = Repo.make(tmp_path / "p", {n: text.encode() for n, text in files.items()}).path
        project = Project(path, tmp_path / "scratch")
        options = [
            f"--sandbox-setup=python connect.py {port}",
            "--sandbox-setup=pip install -q . pytest",
            "--sandbox-setup-inputs=setup.py",
            "--sandbox-setup-secret=TOKEN",
            f"--sandbox-build=python build.py {port}",
            "--sandbox-env=GIVEN=a b",
            "--sandbox-env=TAKEN",
        ]
        run = project.run(
            *options,
            "--sandbox-artifact=tests/out/**/*.txt",
            f"--sandbox-artifact-dir={tmp_path / 'artifacts'}",
            "tests/test_probes.py",
        )
        assert heard == [SECRET.encode()]
        assert SECRET not in run.stdout + run.stderr
        assert len(commands(run)) == 3
        shot = tmp_path / "artifacts" / "tests" / "out" / "deep" / "shot.txt"
        assert shot.read_text() == "seen"

        # The build is the candidate's, every time.
        (path / "version").write_text("2")
        again = project.run(*options, "tests/test_probes.py", "-k", "build", status=1)
        assert commands(again) == []
        assert "refused 2" in again.stdout

        # What was installed is a copy: it would be tested whatever the patch does.
        wrong = project.run(*options, "tests/test_plain.py", status=34)
        assert re.search(r"import 'plain' from /sandbox/env/.*/plain\.py, not from", wrong.stdout)
        assert wrong.outcomes == {}
        assert heard == [SECRET.encode()]


@pytest.mark.usefixtures("cache")
def test_a_secret_that_set_up_leaves_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", SECRET)
    project = Project(Repo.make(tmp_path / "p", {"test_a.py": b""}).path, tmp_path / "scratch")
    run = project.run(
        "--sandbox-setup=echo $TOKEN; printf 'user:%s' $TOKEN | base64 > .netrc",
        "--sandbox-setup-secret=TOKEN",
        status=32,
    )
    assert "TOKEN in '/sandbox/repo/.netrc'" in run.stdout
    assert SECRET not in run.stdout + run.stderr
    assert assemble.host().store.entries() == []


def test_editable_installs_of_the_checkout_lead_to_the_workspace(tmp_path: Path) -> None:
    """Both of setuptools' kinds: a path, and a finder with a mapping."""
    fixture = fixture_repos.load("calc")
    src = Project(fixture.make(tmp_path), tmp_path / "scratch")
    flat = Repo.make(
        tmp_path / "flat",
        {
            "pyproject.toml": b'[project]\nname = "flat"\nversion = "1"\n'
            b'[build-system]\nrequires = ["setuptools"]\n'
            b'[tool.setuptools.packages.find]\ninclude = ["flat*"]\n',
            "flat/__init__.py": b"VALUE = 1\n",
            "other/x.txt": b"",
            "tests/test_flat.py": b"import flat\ndef test_flat(): assert flat.VALUE == 2\n",
        },
    ).path
    venv = tmp_path / "venv"
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    subprocess.run([interpreter(python), "-m", "venv", "--without-pip", venv], check=True)
    uv = Path(sys.executable).with_name("uv")
    install: list[str | Path] = [
        uv,
        "pip",
        "install",
        "-q",
        "-p",
        venv / "bin" / "python",
        "pytest",
    ]
    subprocess.run([*install, "-e", src.path, "-e", flat], check=True)
    names = {path.name for path in venv.glob("lib/python*/site-packages/__editable__*")}
    assert len(names) >= 2
    assert any("finder" in name for name in names), names

    before = src.run(f"--sandbox-venv={venv}", status=1)
    after = src.run(f"--sandbox-venv={venv}", f"--sandbox-patch={fixture.patches['good.patch']}")
    assert len(before.outcomes) == len(after.outcomes)
    (flat / "flat" / "__init__.py").write_text("VALUE = 2\n")
    assert len(Project(flat, tmp_path / "scratch").run(f"--sandbox-venv={venv}").outcomes) == 1


@pytest.mark.soak
def test_the_version_comes_from_the_tag(tmp_path: Path) -> None:
    fixture = fixture_repos.load("versioned")
    project = Project(fixture.make(tmp_path), tmp_path / "scratch")
    run = project.run(f"--sandbox-patch={fixture.patches['good.patch']}")
    assert len(run.outcomes) == len(fixture.expected["patches"]["good"]["outcomes"])
    assert not list(project.path.rglob("_version.py"))


TEST = b"from calc import add\nimport added\ndef test_add(): assert add(1, 2) == 3\n"
CALC = b"__version__ = '1'\ndef add(a, b): return a + b\n"
PROJECT = b'[project]\nname = "calc"\nversion = "1"\nrequires-python = ">=3.9"\n'
#: What only the right extra or group brings.
NEEDS = b'["iniconfig", "pytest"]'
SHAPES = {
    "setuptools extra": PROJECT + b"[project.optional-dependencies]\ntest = " + NEEDS
    + b'\n[tool.setuptools]\npackages = ["calc"]\n',
    "hatchling group": PROJECT + b"[dependency-groups]\ntest = " + NEEDS
    + b'\n[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n',
    "flit": b'[build-system]\nrequires = ["flit_core"]\nbuild-backend = "flit_core.buildapi"\n'
    + PROJECT + b'description = "x"\n[project.optional-dependencies]\ntests = ' + NEEDS + b"\n",
    "uv": PROJECT + b"[dependency-groups]\ndev = " + NEEDS
    + b'\n[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n',
    "poetry": b'[tool.poetry]\nname = "calc"\nversion = "1"\ndescription = ""\nauthors = []\n'
    b'[tool.poetry.dependencies]\npython = ">=3.9"\n'
    b'[tool.poetry.group.test]\noptional = true\n'
    b'[tool.poetry.group.test.dependencies]\niniconfig = "*"\npytest = "*"\n'
    # Named, as poetry asks pypi.org itself in a way that mirrors of it do not know.
    b'[[tool.poetry.source]]\nname = "index"\nurl = "https://pypi.org/simple/"\n'
    b'priority = "primary"\n'
    b'[build-system]\nrequires = ["poetry-core"]\nbuild-backend = "poetry.core.masonry.api"\n',
}  # fmt: skip


@pytest.mark.soak
@pytest.mark.parametrize("shape", SHAPES)
def test_projects_of_every_shape(shape: str, tmp_path: Path) -> None:
    files = {
        "pyproject.toml": SHAPES[shape],
        "calc/__init__.py": CALC,
        "tests/test_add.py": TEST.replace(b"import added", b"import iniconfig"),
    }
    path = Repo.make(tmp_path / "p", files).path
    if shape == "uv":
        uv = Path(sys.executable).with_name("uv")
        subprocess.run([uv, "lock", "-q"], cwd=path, check=True)
    elif shape == "poetry":
        tool = tmp_path / "poetry"
        uv = Path(sys.executable).with_name("uv")
        subprocess.run([uv, "venv", "-q", tool], check=True)
        subprocess.run(
            [uv, "pip", "install", "-q", "-p", tool / "bin/python", "poetry"], check=True
        )
        # No environment of its own, which would be left behind.
        env = {
            **os.environ,
            "POETRY_VIRTUALENVS_CREATE": "false",
            "POETRY_CACHE_DIR": str(tmp_path / "poetry-cache"),
        }
        subprocess.run([tool / "bin/poetry", "lock", "-n", "-q"], cwd=path, check=True, env=env)
    run = Project(path, tmp_path / "scratch").run()
    assert list(run.outcomes) == ["tests/test_add.py::test_add"]
