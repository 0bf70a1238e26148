"""Real git repositories for tests, made by the real git."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ENV = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "A",
    "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_AUTHOR_DATE": "1600000000 +0200",
    "GIT_COMMITTER_NAME": "C",
    "GIT_COMMITTER_EMAIL": "c@example.org",
    "GIT_COMMITTER_DATE": "1600000100 +0200",
    "GIT_ALLOW_PROTOCOL": "file",
}


def git(cwd: Path, *args: str | bytes, stdin: bytes = b"", ok: bool = True) -> str:
    done = subprocess.run(["git", *args], cwd=cwd, env=ENV, input=stdin, capture_output=True)
    if ok and done.returncode:
        raise AssertionError(f"git {args}: {done.stderr.decode(errors='replace')}")
    return done.stdout.decode("utf-8", "surrogateescape")


@dataclass(frozen=True, slots=True)
class Repo:
    path: Path

    @classmethod
    def make(cls, path: Path, files: dict[str, bytes] | None = None, *args: str) -> Repo:
        path.mkdir(parents=True, exist_ok=True)
        git(path, "init", "-q", "-b", "trunk", *args)
        repo = cls(path)
        if files:
            repo.write(files)
            repo.commit("first")
        return repo

    def git(self, *args: str | bytes, stdin: bytes = b"") -> str:
        return git(self.path, *args, stdin=stdin)

    def write(self, files: dict[str, bytes]) -> None:
        for name, data in files.items():
            path = self.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    def commit(self, message: str, *args: str) -> str:
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message, *args)
        return self.git("rev-parse", "HEAD").strip()


def fingerprint(folder: Path) -> dict[str, tuple[int, int, str]]:
    """Everything a writer could change below a folder: mode, time, content."""
    found: dict[str, tuple[int, int, str]] = {}
    for top, folders, files in os.walk(folder):
        for name in folders + files:
            path = Path(top, name)
            stat = path.lstat()
            data = os.readlink(path).encode() if path.is_symlink() else b""
            if path.is_file() and not path.is_symlink():
                data = path.read_bytes()
            digest = hashlib.sha256(data).hexdigest()
            found[str(path)] = (stat.st_mode, stat.st_mtime_ns, digest)
    return found


def unpack(chunks: Iterable[bytes], to: Path) -> Path:
    """Extract an archive as the agent does, file for file."""
    to.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks)), mode="r:gz") as archive:
        # Not the argument ``filter``: Python 3.11.0 to 3.11.3 do not know it.
        archive.extraction_filter = lambda member, path: member
        archive.extractall(to)
    return to


def members(chunks: Iterable[bytes]) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks)), mode="r:gz") as archive:
        return {member.name: member for member in archive.getmembers()}
