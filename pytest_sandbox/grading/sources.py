"""Where tasks are: which files hold them, and all that are in some files and folders.

Knows each format's reader, and nothing of pytest or sandboxes.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from pytest_sandbox.grading import harbor, swebench, taskfile
from pytest_sandbox.grading.fields import Problem, place, why_not_regular
from pytest_sandbox.grading.jsonvalues import shown
from pytest_sandbox.grading.model import Task

__all__ = ["Problem", "find", "is_own", "is_task_file"]

_ROWS: Final = (".jsonl", ".ndjson", ".json")
#: Bytes of a file that are looked at to tell whether it holds tasks.
_LOOK: Final = 1 << 20
_MAX_DEPTH: Final = 12
_TASK: Final = re.compile(rb"^[ \t]*(\[[ \t]*task[ \t]*\]|task[ \t]*(=[ \t]*\{|\.[ \t]*\w))", re.M)
#: A name in quotes that are not themselves in a text: predictions quote code that has them.
_INSTANCE: Final = re.compile(rb'(?<!\\)"(base_commit|f2p_tests)"\s*:')
_SKIPPED: Final = frozenset({"__pycache__", "node_modules", "venv", "site-packages"})


def is_task_file(path: Path) -> bool:
    """Whether a file holds tasks, told from its name and its first megabyte."""
    suffix = path.suffix.lower()
    if suffix not in (".toml", *_ROWS) or why_not_regular(path, 1 << 40):
        return False
    try:
        with path.open("rb") as stream:
            head = stream.read(_LOOK).removeprefix(b"\xef\xbb\xbf")
    except OSError:
        return False
    if suffix == ".toml":
        return bool(_TASK.search(head)) or _is_harbor(path)
    return head.lstrip()[:1] in (b"{", b"[") and bool(_INSTANCE.search(head))


def _is_harbor(path: Path) -> bool:
    return path.name == harbor.NAME and harbor.is_folder(path.parent)


def find(paths: Iterable[str | Path]) -> Iterator[Task | Problem]:
    """The tasks of files and folders, in their order and sorted by name within a folder.

    What cannot be used is a Problem, in its place; an id that comes again is one too. A file that
    is named is read whatever it looks like; in folders only what ``is_task_file``. Raises nothing.
    """
    seen: dict[str, str] = {}
    for path in paths:
        for entry in _of(Path(path)):
            if isinstance(entry, Task):
                if entry.id in seen:
                    first = seen[entry.id]
                    message = f"the task {shown(entry.id)} is in {first} already; ids are unique"
                    yield Problem(entry.source, message)
                    continue
                seen[entry.id] = entry.source
            yield entry


def _of(path: Path) -> Iterator[Task | Problem]:
    if path.is_dir():
        before = True
        for entry in _below(path, 0):
            before = False
            yield entry
        if before:
            yield Problem(place(path), "has no task files in it (TOML, JSONL, JSON or Harbor's)")
    else:
        yield from _file(path)


def _below(folder: Path, depth: int) -> Iterator[Task | Problem]:
    if harbor.is_folder(folder) and not is_own(folder / harbor.NAME):
        yield harbor.read(folder)
        return
    try:
        inside = sorted(folder.iterdir())
    except OSError as error:
        yield Problem(place(folder), f"cannot be read: {error.strerror}")
        return
    for path in inside:
        if path.name.startswith(".") or path.name in _SKIPPED:
            continue
        if not path.is_dir():
            if is_task_file(path):
                yield from _file(path)
        elif not path.is_symlink():
            # A link to a folder above would have no end.
            if depth < _MAX_DEPTH:
                yield from _below(path, depth + 1)
            else:
                yield Problem(place(path), f"lies more than {_MAX_DEPTH} folders deep")


def is_own(path: Path) -> bool:
    """Whether a task.toml is a task file of this package's, whatever lies beside it."""
    try:
        task = tomllib.loads(path.read_text("utf-8-sig")).get("task")
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(task, dict) and not {"repo", "base"}.isdisjoint(task)


def _file(path: Path) -> Iterator[Task | Problem]:
    suffix = path.suffix.lower()
    if suffix in _ROWS:
        yield from swebench.read(path)
    elif suffix == ".toml" and _is_harbor(path) and not is_own(path):
        yield harbor.read(path.parent)
    elif suffix == ".toml":
        try:
            yield taskfile.read(path)
        except taskfile.TaskFileError as error:
            yield from error.problems
    else:
        problem = why_not_regular(path, 1 << 40) or "is no task file: .toml, .jsonl or .json"
        yield Problem(place(path), problem)
