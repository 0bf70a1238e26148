"""Temporary folders whose names say which process they belong to, and the removal of orphaned ones.

Knows nothing of what is in them.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path

_PREFIX = "pytest-sandbox-git-"
_NAME = re.compile(re.escape(_PREFIX) + r"(\d+)-(\d+)-\w+")


def make(parent: Path | None = None) -> Path:
    """A new folder below ``parent``, or where the system keeps temporary ones."""
    name = f"{_PREFIX}{_namespace()}-{os.getpid()}-"
    return Path(tempfile.mkdtemp(prefix=name, dir=parent))


def sweep() -> None:
    """Remove those of this user's that belong to dead processes."""
    if os.name == "nt":  # no way to ask whether a process lives without ending it
        return
    for path in Path(tempfile.gettempdir()).glob(_PREFIX + "*"):
        found = _NAME.fullmatch(path.name)
        # Of processes that are counted elsewhere, in another container, nothing can be said.
        if found is None or int(found[1]) != _namespace() or _alive(int(found[2])):
            continue
        try:
            ours = path.lstat().st_uid == os.getuid() and not path.is_symlink()
        except OSError:
            continue
        if ours:
            shutil.rmtree(path, ignore_errors=True)


def _namespace() -> int:
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return 0


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
