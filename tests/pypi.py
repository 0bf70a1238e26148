"""Well-known projects from PyPI: their source distributions, as real git repositories.

It knows nothing of how tests are run.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from packaging.specifiers import SpecifierSet

from tests.fixture_repos import git
from tests.interpreters import CACHE


@dataclass(frozen=True, slots=True)
class Project:
    """One release, by the hash of its archive, and what its tests need."""

    name: str
    version: str
    sha256: str
    #: Relative to the repository.
    pythonpath: tuple[str, ...]
    #: What its tests need beside pytest.
    requires: tuple[str, ...]
    #: A file, a text in it, and the text that breaks some of the tests in its place.
    damage: tuple[str, str, str]
    args: tuple[str, ...] = ()
    #: The pytests that it works with.
    pytests: str = ""

    def __str__(self) -> str:
        return self.name

    def admits(self, pytest_version: str) -> bool:
        """Whether the project works with that pytest: "9.0.2" or "pytest==9.0.2"."""
        return pytest_version.removeprefix("pytest==") in SpecifierSet(self.pytests)

    def make(self, folder: Path) -> Path:
        """A git repository of the release in ``folder``, which has to be empty."""
        with tarfile.open(self._download()) as archive:
            # "filter" came with Python 3.11.4.
            safe = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
            archive.extractall(folder, **safe)  # type: ignore[arg-type]
        (repo,) = folder.iterdir()
        git(repo, "init", "-q", "-b", "main")
        git(repo, "add", "-A", "--force")
        git(repo, "commit", "-q", "-m", f"{self.name} {self.version}")
        return repo

    def patch(self, repo: Path) -> bytes:
        """The damage as a patch; the repository stays as it is."""
        name, old, new = self.damage
        text = (repo / name).read_text("utf-8")
        assert old in text, f"{name} of {self.name} {self.version} has no {old!r}"
        (repo / name).write_text(text.replace(old, new, 1), "utf-8")
        diff = git(repo, "diff").stdout.encode()
        git(repo, "checkout", "-q", "--", name)
        return diff

    def _download(self) -> Path:
        """The archive: from the cache, or by pip, which checks its hash."""
        folder = CACHE / "sdists"
        path = folder / f"{self.name}-{self.version}.tar.gz"
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder, prefix=".new-") as name:
                wanted = Path(name, "requirements.txt")
                wanted.write_text(f"{self.name}=={self.version} --hash=sha256:{self.sha256}\n")
                command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps"]
                # Not ":all:", which would also build the tools that pip makes metadata with.
                command += ["--no-binary", self.name, "--require-hashes", "-r", str(wanted)]
                subprocess.run([*command, "-d", f"{name}/got"], check=True, timeout=300)
                (got,) = Path(name, "got").iterdir()
                got.rename(path)
        assert hashlib.sha256(path.read_bytes()).hexdigest() == self.sha256, path
        return path


ITSDANGEROUS = Project(
    "itsdangerous", "2.2.0", "e0050c0b7da1eea53ffaf149c0cfbb5c6e2e2b69c4bef22c81fa6eb73e5f6173",
    ("src",), ("freezegun",),
    ("src/itsdangerous/encoding.py", "urlsafe_b64decode(string)", "urlsafe_b64decode(string[:-4])"),
)  # fmt: skip
BOLTONS = Project(
    "boltons", "24.0.0", "7153feccaea1ff2e1472f68d4b57fadb796a2ee49d29f638f1c9cd8fb5ebd916",
    (), (),
    ("boltons/mathutils.py", "return min(max(x, lower), upper)", "return max(x, lower)"),
    # Its conftest.py takes a py.path argument.
    pytests="<9",
)  # fmt: skip
MORE_ITERTOOLS = Project(
    "more-itertools", "10.5.0", "5482bfef7849c25dc3c6dd53a6173ae4795da2a41a80faea6700d9f5846c5da6",
    (), (),
    ("more_itertools/recipes.py", "islice(iterable, n, None)", "islice(iterable, n + 1, None)"),
)  # fmt: skip
CACHETOOLS = Project(
    "cachetools", "5.5.0", "2cc24fb4cbe39633fb7badd9db9ca6295d766d9c2995f245725a46715d050f2a",
    ("src",), (),
    ("src/cachetools/__init__.py", "return self.__maxsize\n", "return self.__maxsize + 1\n"),
)  # fmt: skip
TOOLZ = Project(
    "toolz", "1.0.0", "2c86e3d9a04798ac556793bced838816296a2f085017664e4995cb40a1047a02",
    (), (),
    ("toolz/itertoolz.py", "def second(seq):", "def second(seq, more):"),
)  # fmt: skip
PROJECTS = (ITSDANGEROUS, BOLTONS, MORE_ITERTOOLS, CACHETOOLS, TOOLZ)
