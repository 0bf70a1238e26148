"""Files that the tests' user can read only, because they and their folders are another's."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from typing import Iterator

from .namespaces import refused
from .places import ROOT

GITCONFIG = "/etc/gitconfig"


def seal(folder: str, owner: int) -> None:
    """Seal the files named on standard input; say what cannot be.

    Args:
        folder: what the names, each followed by NUL, are relative to.
        owner: the tests' user and group.
    """
    names = [os.fsdecode(name) for name in sys.stdin.buffer.read().split(b"\0") if name]
    files = [name for name in names if _is_ours(os.path.join(folder, name))]
    folders = {above for name in files for above in _above(name)}
    if files and not _trusted_by_git(folder):
        sys.stdout.write("git would refuse a folder that is another user's")
        return
    if files and not refused(owner):
        sys.stdout.write("the tests' user can make namespaces, and mount over files in them")
        return
    uid = os.getuid()
    places = [os.path.join(folder, name) if name else folder for name in sorted(folders)]
    for path in [ROOT, *places] if places else ():
        os.chown(path, uid, owner)
        # They may make files there, and rename or remove what is theirs.
        os.chmod(path, 0o1775)  # noqa: S103
    for name in files:
        path = os.path.join(folder, name)
        os.chown(path, uid, uid, follow_symlinks=False)
        if not os.path.islink(path):
            os.chmod(path, 0o755 if os.stat(path).st_mode & 0o111 else 0o644)
    for name in sorted({os.path.dirname(name) for name in files if name.endswith(".py")}):
        cache = os.path.join(folder, name, "__pycache__")
        if os.path.islink(cache):
            os.unlink(cache)
        shutil.rmtree(cache, ignore_errors=True)
        os.makedirs(cache, exist_ok=True)
        os.chmod(cache, 0o755)  # noqa: S103
    left = len(names) - len(files)
    if left:
        sys.stdout.write(f"{left} of {len(names)} are no files")


def _is_ours(path: str) -> bool:
    """Whether a file or link is there, with no link on the way."""
    try:
        mode = os.lstat(path).st_mode
        parent = os.path.dirname(path)
        return os.path.realpath(parent) == parent and (stat.S_ISREG(mode) or stat.S_ISLNK(mode))
    except OSError:
        return False


def _above(name: str) -> Iterator[str]:
    """The folders that a relative path goes through, and "" for the one that it starts in."""
    parts = name.split("/")[:-1]
    return ("/".join(parts[:depth]) for depth in range(len(parts) + 1))


def _trusted_by_git(folder: str) -> bool:
    """Have git work in the folder for its user; whether it will, or there is nothing for it."""
    if not os.path.lexists(os.path.join(folder, ".git")):
        return True
    try:
        with open(GITCONFIG, "a", encoding="utf-8") as file:
            file.write(f"[safe]\n\tdirectory = {folder}\n")
    except OSError:
        return False
    return True
