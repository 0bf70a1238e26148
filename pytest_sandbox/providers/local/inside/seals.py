"""Files that what is not trusted can read only: a mount for each, in the outer world.

The inner worlds that begin from then on have them as well, and nobody there may mount.
"""

from __future__ import annotations

import os
import shutil
import stat

from pytest_sandbox.providers.local.inside import linux

#: Every world that begins copies its mounts, so their number has a price.
MOST = 2000


def seal(folder: str, paths: list[str]) -> str:
    """Seal ``paths`` below ``folder``; what cannot be, in words."""
    files = [path for path in paths if _is_file(os.path.join(folder, path))]
    others = len(paths) - len(files)
    kept, left = files[:MOST], len(files) - MOST
    # From the top down: each lies in the one before. As mounts of their own they cannot be
    # renamed, which would take what is sealed away from where it is looked for.
    for parent in sorted({above for path in kept for above in _above(path)}):
        whole = os.path.join(folder, parent) if parent else folder
        linux.bind(whole, whole)
    caches = {os.path.dirname(path) for path in kept if path.endswith(".py")}
    for cache in (os.path.join(folder, parent, "__pycache__") for parent in sorted(caches)):
        if os.path.islink(cache):
            os.unlink(cache)
        shutil.rmtree(cache, ignore_errors=True)
        os.makedirs(cache, exist_ok=True)
        _freeze(cache)
    for path in kept:
        _freeze(os.path.join(folder, path))
    problems = []
    if left > 0:
        problems.append(f"{left} of {len(paths)} files are more than can be sealed")
    if others:
        problems.append(f"{others} of {len(paths)} are links or no files")
    return "; ".join(problems)


def _freeze(path: str) -> None:
    linux.bind(path, path)
    linux.restrict(path, linux.MS_RDONLY)


def _is_file(path: str) -> bool:
    """Whether a file is there, with no link on the way."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode) and os.path.realpath(path) == path
    except OSError:
        return False


def _above(path: str) -> list[str]:
    """The folders that a relative path goes through, and "" for the one that it starts in."""
    parts = path.split("/")[:-1]
    return ["/".join(parts[:depth]) for depth in range(len(parts) + 1)]
