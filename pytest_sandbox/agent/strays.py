"""Files in the workspace that nobody trusted put there, and that would act on the tests."""

from __future__ import annotations

import json
import os
import shutil
from time import monotonic
from typing import Iterator

from .ends import Over

#: What pytest, or Python itself, would take for part of its configuration.
ACTING = frozenset({
    "conftest.py", "pytest.ini", ".pytest.ini", "pytest.toml", ".pytest.toml", "tox.ini",
    "setup.cfg", "pyproject.toml", "sitecustomize.py", "usercustomize.py",
})  # fmt: skip
_CACHES = ("__pycache__", ".pytest_cache")
#: Seconds for looking through the workspace, which tests may have filled with folders.
PATIENCE = 30.0


def note_or_remove(workspace: str, control: str) -> None:
    """The first time, note the files that act; the second time, remove those that came since."""
    note = os.path.join(control, "acting.json")
    found = [entry.path for entry in _entries(workspace) if entry.name in ACTING]
    if not os.path.exists(note):
        with open(note, "w", encoding="ascii") as file:
            json.dump(found, file)
        return
    with open(note, encoding="ascii") as file:
        known = frozenset(json.load(file))
    for path in found:
        if path not in known and not os.path.isdir(path):
            os.unlink(path)


def remove_caches(workspace: str) -> None:
    """Leave no compiled code that an earlier process may have put in the place of a source's.

    Call it while nothing runs that is not trusted; a link is not followed.

    Raises:
        Over: there is more to look through than there is time for.
    """
    end = monotonic() + PATIENCE
    for entry in _entries(workspace):
        if entry.name in _CACHES:
            if entry.is_dir(follow_symlinks=False):
                # What is sealed stays, and has nothing in it.
                shutil.rmtree(entry.path, ignore_errors=True)
            elif entry.is_symlink():
                os.unlink(entry.path)
        if monotonic() > end:
            text = "the tests left more files than can be looked through before others run"
            raise Over("died", None, text)


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    """Everything below, but for what is in caches. As deep as it may be: os.walk() recurses."""
    folders = [folder]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False) and entry.name not in _CACHES:
                        folders.append(entry.path)
                    yield entry
        except OSError:
            continue  # nor can Python look there
