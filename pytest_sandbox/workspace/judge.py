"""Whether the tree a patch made is one we take: judged on trees, never on the patch's text.

A text can hide a path (quoting, renames without +++ lines); a tree cannot.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from pytest_sandbox.errors import PatchError
from pytest_sandbox.workspace import pointers, trees
from pytest_sandbox.workspace.gitobjects import GITLINK, SYMLINK, Change, Entry, quoted
from pytest_sandbox.workspace.gitstore import Store
from pytest_sandbox.workspace.patchtext import MAX_FILE, MAX_TOTAL

MAX_CHANGED: Final = 100_000
MAX_PATH: Final = 4096
MAX_NAME: Final = 255
#: Folders that a file may lie in, one in the other. Each takes a tree of its own, and its name.
MAX_FOLDERS: Final = 100
_HOPS: Final = 40
#: Folders and links that all links of one patch may lead through together.
_STEPS: Final = 2_000_000


def screen(changes: Sequence[Change], name: str) -> None:
    """Refuse by number, kind and path of what changed; needs no content.

    Raises:
        PatchError: refused, naming the path.
    """
    if len(changes) > MAX_CHANGED:
        raise _refused(name, f"changes {len(changes):,} files; at most {MAX_CHANGED:,} are taken")
    for change in changes:
        _check_kind(change, name)
        if change.new is not None:
            _check_path(change.path, name)


def weigh(changes: Sequence[Change], sizes: Mapping[str, int], name: str) -> None:
    """Refuse by size; ``sizes`` holds the bytes of each blob that is new.

    Raises:
        PatchError: refused, naming the path.
    """
    total = 0
    for change in changes:
        size = sizes.get(change.new.blob, 0) if change.new else 0
        total += size
        if size > MAX_FILE:
            raise _refused(
                name,
                f"makes {quoted(change.path)} {size:,} bytes large; at most {MAX_FILE:,} are taken",
            )
    if total > MAX_TOTAL:
        raise _refused(name, f"makes {total:,} bytes of files; at most {MAX_TOTAL:,} are taken")


def compare(
    store: Store,
    changes: Sequence[Change],
    before: Mapping[bytes, Entry],
    after: Mapping[bytes, Entry],
    name: str,
) -> None:
    """Refuse names and links that only together with the rest of the tree do harm.

    Raises:
        PatchError: refused, naming the path.
    """
    added = [change.path for change in changes if change.old is None]
    links = [change.new for change in changes if change.new and change.new.mode == SYMLINK]
    fresh = [change.new for change in changes if change.new]
    for entry, _, _ in pointers.large(store, after.values(), fresh):
        raise _refused(
            name,
            f"makes {quoted(entry.path)} a Git LFS pointer, which would bring in content that is "
            "not in the patch; make it with `git diff --binary` from the file itself",
        )
    if added:
        _check_twins(added, after, before, name)
    if links:
        _check_links(store, links, after.values(), name)


def _refused(name: str, what: str) -> PatchError:
    return PatchError("refused", f"{name} is refused: it {what}")


def _check_kind(change: Change, name: str) -> None:
    if GITLINK in (change.old.mode if change.old else "", change.new.mode if change.new else ""):
        raise _refused(
            name,
            f"changes the submodule {quoted(change.path)}, which would bring in code that "
            "is not in the patch; put that code into the base instead",
        )


def _check_path(path: bytes, name: str) -> None:
    shown = quoted(path)
    if any(byte < 32 or byte == 127 for byte in path):
        raise _refused(name, f"makes a file with control characters in its name: {shown}")
    parts = path.split(b"/")
    if any(part in (b"", b".", b"..") for part in parts):
        raise _refused(name, f"leaves the tree: {shown}")
    if any(trees.is_dotgit(part) for part in parts):
        raise _refused(name, f"writes to what some file systems take for .git: {shown}")
    if len(path) > MAX_PATH or any(len(part) > MAX_NAME for part in parts):
        raise _refused(name, f"makes a file whose name is too long: {shown}")
    if len(parts) - 1 > MAX_FOLDERS:
        text = f"makes a file in more than {MAX_FOLDERS} folders, one in the other: {shown}"
        raise _refused(name, text)


def _fold(path: bytes) -> str:
    text = path.decode("utf-8", "surrogateescape")
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


def _prefixes(path: bytes) -> Iterable[bytes]:
    at = path.find(b"/")
    while at >= 0:
        yield path[:at]
        at = path.find(b"/", at + 1)
    yield path


def _check_twins(
    added: Sequence[bytes], files: Iterable[bytes], before: Iterable[bytes], name: str
) -> None:
    """Names that are one name where case does not count: the second would hide the first."""
    fresh = {prefix for path in added for prefix in _prefixes(path)}
    folded = {_fold(path) for path in fresh}
    seen: dict[str, bytes] = {}
    known = {prefix for path in before for prefix in _prefixes(path)}
    for path in files:
        for prefix in _prefixes(path):
            fold = _fold(prefix)
            if fold not in folded:
                continue
            other = seen.setdefault(fold, prefix)
            if other != prefix and not (other in known and prefix in known):
                raise _refused(
                    name,
                    f"makes two names that differ in case only: {quoted(other)} and "
                    f"{quoted(prefix)}",
                )


def _check_links(store: Store, links: Sequence[Entry], files: Iterable[Entry], name: str) -> None:
    every = [entry for entry in files if entry.mode == SYMLINK]
    sizes = store.sizes(entry.blob for entry in every)
    small = [entry for entry in every if sizes[entry.blob] <= MAX_PATH]
    with store.batch() as batch:
        texts = {
            oid: b"".join(chunks)
            for oid, _, _, chunks in batch.stream(dict.fromkeys(e.blob for e in small))
        }
    targets = {entry.path: texts[entry.blob] for entry in small}
    steps = _STEPS
    for entry in links:
        shown = quoted(entry.path)
        target = targets.get(entry.path)
        if target is None or not target or b"\0" in target:
            raise _refused(name, f"makes the symbolic link {shown} with a target no link can have")
        why, taken = _follow(entry.path, targets, steps)
        steps -= taken
        if why:
            raise _refused(
                name, f"makes the symbolic link {shown} to {quoted(target)}, which {why}"
            )


def _follow(path: bytes, targets: dict[bytes, bytes], most: int) -> tuple[str | None, int]:
    """Why following ``path`` is not taken, and the steps it took.

    None when it stays in the tree (or dangles there).
    """
    at = b""
    todo = path.split(b"/")[::-1]
    hops = steps = 0
    while todo:
        part = todo.pop()
        steps += 1
        if steps > most:
            return "with the others leads through too many folders", steps
        if part in (b"", b"."):
            continue
        if part == b"..":
            if not at:
                return "leads out of the tree", steps
            at = at.rpartition(b"/")[0]
            continue
        if trees.is_dotgit(part):
            return "leads into .git", steps
        above, at = at, at + b"/" + part if at else part
        if len(at) > MAX_PATH:
            return "leads to a name that is too long", steps
        target = targets.get(at)
        if target is None:
            continue
        hops += 1
        if target.startswith((b"/", b"\\")) or target[1:2] == b":":
            return "is absolute", steps
        if hops > _HOPS:
            return "leads in a circle", steps
        at = above
        todo.extend(target.replace(b"\\", b"/").split(b"/")[::-1])
    return None, steps
