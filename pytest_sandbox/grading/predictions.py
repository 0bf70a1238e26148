"""Candidate patches from files: SWE-bench's predictions and their variants, or folders of patches.

Knows no tasks: whether there is one for a prediction is for others to say.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pytest_sandbox.grading.fields import (
    FieldError,
    Problem,
    as_bytes,
    checked_id,
    place,
    text_field,
    why_not_regular,
)
from pytest_sandbox.grading.jsonvalues import shown
from pytest_sandbox.grading.model import Candidate
from pytest_sandbox.grading.records import Record, records
from pytest_sandbox.grading.swebench import instance_id
from pytest_sandbox.wire import printable
from pytest_sandbox.workspace import patchtext

SUFFIXES: Final = (".patch", ".diff")
_MAX_NAME: Final = 300
#: Under which name each data set has the patch: SWE-bench and Live, Multi-SWE-bench, Pro.
_PATCHES: Final = ("model_patch", "fix_patch", "patch")

_INSTANCE: Final = frozenset({"base_commit", "test_patch", "f2p_tests"})


def read(*paths: str | Path) -> Iterator[Candidate | Problem]:
    """The candidates of files and folders, in their order; each bad entry is a Problem.

    A second patch of the same name for the same task is a Problem: which one was meant is not
    known here. Raises nothing.
    """
    seen: dict[tuple[str, str], str] = {}
    for path in map(Path, paths):
        for entry in _folder(path) if path.is_dir() else _file(path):
            if isinstance(entry, Candidate):
                pair = (entry.task_id, entry.name)
                if pair in seen:
                    yield Problem(
                        entry.source,
                        f"a patch of {shown(entry.name)} for {shown(entry.task_id)} is in "
                        f"{seen[pair]} already; remove one of them",
                    )
                    continue
                seen[pair] = entry.source
            yield entry


def _file(path: Path) -> Iterator[Candidate | Problem]:
    if path.suffix.lower() in SUFFIXES:
        # Its name is the task's, as in a folder of patches.
        yield _patch(path, path.stem, path.absolute().parent.name)
        return
    for record in records(path):
        yield record if isinstance(record, Problem) else _prediction(record, path)


def _prediction(record: Record, path: Path) -> Candidate | Problem:
    fields = record.fields
    try:
        return Candidate(
            task_id=instance_id(fields, record.key),
            name=_name(fields, path),
            patch=_field(fields),
            source=record.source,
        )
    except FieldError as error:
        return Problem(record.source, str(error))


def _field(fields: Mapping[str, Any]) -> bytes | None:
    present = [name for name in _PATCHES if name in fields]
    if _INSTANCE & set(fields) and "model_patch" not in fields:
        raise FieldError("this is an instance of a data set (its patch is the gold), no prediction")
    if not present:
        raise FieldError("field 'model_patch' is missing; it must be a patch, or null for none")
    if fields[present[0]] is None:
        return None
    patch = as_bytes(text_field(fields, present[0]))
    if len(patch) > patchtext.MAX_PATCH:
        raise FieldError(
            f"field {present[0]!r} has {len(patch):,} bytes; at most {patchtext.MAX_PATCH:,}"
        )
    return patch


def _name(fields: Mapping[str, Any], path: Path) -> str:
    """Who made the patch: Pro calls it prefix, Live has nothing of the kind."""
    for field in ("model_name_or_path", "prefix"):
        if fields.get(field) is not None:
            name = text_field(fields, field).strip()
            if name:
                return _checked(name, f"field {field!r}")
    return _checked(path.stem, "the file's name")


def _checked(name: str, what: str) -> str:
    if printable(name, line=True) != name or len(name) > _MAX_NAME:
        raise FieldError(
            f"{what}: {shown(name)} cannot be a name; it must have no control characters and at "
            f"most {_MAX_NAME} characters"
        )
    return name


def _folder(folder: Path) -> Iterator[Candidate | Problem]:
    """ID.patch, or MODEL/ID.patch; nothing deeper, and nothing that lies elsewhere."""
    found = False
    for path, problem in _inside(folder):
        if problem:
            yield Problem(place(path), problem)
        elif path.is_dir():
            for inner, inner_problem in _inside(path):
                if inner_problem or inner.is_dir():
                    message = inner_problem or "is too deep; patches are FOLDER/MODEL/ID.patch"
                    yield Problem(place(inner), message)
                elif inner.suffix.lower() in SUFFIXES:
                    found = True
                    yield _patch(inner, inner.stem, path.name)
        elif path.suffix.lower() in SUFFIXES:
            found = True
            yield _patch(path, path.stem, folder.absolute().name)
    if not found:
        yield Problem(place(folder), "has no ID.patch, ID.diff or MODEL/ID.patch in it")


def _inside(folder: Path) -> Iterable[tuple[Path, str | None]]:
    """What is in a folder, by name, without hidden files; and what is wrong with it."""
    try:
        paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        return [(folder, f"cannot be read: {error.strerror}")]
    # A link in what an agent left behind could lead to any file of this machine.
    return [(p, "is a link; it is not followed" if p.is_symlink() else None) for p in paths]


def _patch(path: Path, task_id: str, name: str) -> Candidate | Problem:
    source = place(path)
    problem = why_not_regular(path, patchtext.MAX_PATCH)
    if problem:
        return Problem(source, problem)
    try:
        return Candidate(
            task_id=checked_id(task_id, "the file's name"),
            name=_checked(name, "the folder's name"),
            patch=path.read_bytes(),
            source=source,
        )
    except FieldError as error:
        return Problem(source, str(error))
    except OSError as error:
        return Problem(source, f"cannot be read: {error.strerror}")
