"""Files in the workspace that nobody trusted put there, and that would act on the tests."""

from __future__ import annotations

import json
import os
import shutil
import stat
from time import monotonic
from typing import Iterator

from .ends import Over

#: What pytest, or Python itself, would take for part of its configuration.
ACTING = frozenset({
    "conftest.py", "pytest.ini", ".pytest.ini", "pytest.toml", ".pytest.toml", "tox.ini",
    "setup.cfg", "pyproject.toml", "sitecustomize.py", "usercustomize.py",
})  # fmt: skip
#: Folders that say what a distribution has, the group of pytest's plugins, and where a project
#: says which are its own.
_METADATA = (".dist-info", ".egg-info")
_GROUP = "pytest11"
_DECLARING = ("pyproject.toml", "setup.cfg", "setup.py")
#: Bytes of such a file.
_MOST = 1 << 20
_CACHES = ("__pycache__", ".pytest_cache")
#: Seconds for looking through the workspace, which tests may have filled with folders.
PATIENCE = 30.0


def note_or_remove(workspace: str, control: str) -> None:
    """The first time, note the files that act; the second time, remove those that came since."""
    note = os.path.join(control, "acting.json")
    entries = list(_entries(workspace))
    found = [entry.path for entry in entries if entry.name in ACTING]
    plugins = {entry.path: _plugins(entry) for entry in entries if _names_plugins(entry)}
    if not os.path.exists(note):
        texts = [_text(os.path.join(workspace, name)) or "" for name in _DECLARING]
        declared = [text for text in texts if _GROUP in text]
        with open(note, "w", encoding="ascii") as file:
            json.dump({"acting": found, "plugins": plugins, "declared": declared}, file)
        return
    with open(note, encoding="ascii") as file:
        known = json.load(file)
    acting = frozenset(known["acting"])
    for path in found:
        if path not in acting and not os.path.isdir(path):
            os.unlink(path)
    for path, named in plugins.items():
        before = known["plugins"].get(path, [])
        foreign = [one for one in named if one not in before]
        if all(_declares(known["declared"], one) for one in foreign):
            continue
        # A folder of that name is none that pytest reads.
        if os.path.islink(path) or not os.path.isdir(path):
            os.unlink(path)


def _names_plugins(entry: os.DirEntry[str]) -> bool:
    """Whether pytest would look there for plugins; a link is as good as the folder."""
    if entry.name.lower().endswith(_METADATA):
        return entry.is_symlink()
    folder = os.path.dirname(entry.path)
    return entry.name == "entry_points.txt" and folder.lower().endswith(_METADATA)


def _plugins(entry: os.DirEntry[str]) -> list[str]:
    """The lines of an ``entry_points.txt`` that name plugins for pytest."""
    text = None if entry.is_symlink() else _text(entry.path)
    if text is None:
        return ["(no file that a build makes)"]
    named = []
    within = False
    for line in map(str.strip, text.splitlines()):
        if line.startswith("["):
            within = _GROUP in line
        elif within and line:
            named.append(line)
    return named


def _declares(declared: list[str], line: str) -> bool:
    """Whether what configured the build, before it ran, has that plugin: the project is one."""
    name, _, value = (part.strip() for part in line.partition("="))
    module = value.partition("[")[0].strip()
    return bool(name and module) and any(name in text and module in text for text in declared)


def _text(path: str) -> str | None:
    """What a regular file of no great size holds; None for anything else."""
    try:
        # It may be a pipe by now.
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return None
            data = file.read(_MOST + 1)
    except OSError:
        return None
    return None if len(data) > _MOST else data.decode(errors="replace")


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
