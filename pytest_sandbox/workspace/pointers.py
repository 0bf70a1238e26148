"""What stands in a tree for something else, replaced by it: submodules and Git LFS pointers.

Only what lies on this disk already is used; nothing is fetched.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from pytest_sandbox.errors import BadInput
from pytest_sandbox.workspace import checkout, trees
from pytest_sandbox.workspace.checkout import Checkout
from pytest_sandbox.workspace.gitobjects import (
    CHUNK,
    GITLINK,
    SYMLINK,
    Entry,
    Missing,
    printable,
    quoted,
)
from pytest_sandbox.workspace.gitstore import Store

_POINTER: Final = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\n(?:ext-\d[^\n]*\n)*"
    rb"oid sha256:([0-9a-f]{64})\nsize (\d{1,18})\n"
)
_POINTER_MAX: Final = 1024
_NESTING: Final = 32


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tree's submodules and large files may lie."""

    #: The work tree the tree belongs to, None when there is none.
    root: Path | None
    #: Its git directory, where ``modules`` and ``lfs`` lie.
    common: Path
    #: The outermost repository.
    top: Checkout


def place(found: Checkout) -> Place:
    return Place(found.root, found.common, found)


def resolve(store: Store, tree: str, at: Place | None) -> str:
    """The tree in which every gitlink is a folder and every LFS pointer its file.

    Raises:
        BadInput: names the path that cannot be resolved, and the command that gets it.
    """
    entries = list(trees.walk(store, tree))
    resolved = list(_resolve(store, entries, at, b"", 0))
    if resolved == entries:
        return tree
    return trees.build(store, resolved)


def _resolve(
    store: Store, entries: list[Entry], at: Place | None, prefix: bytes, depth: int
) -> Iterator[Entry]:
    if depth > _NESTING:
        raise BadInput(f"submodules are nested more than {_NESTING} deep")
    files = [entry for entry in entries if entry.mode != GITLINK]
    replaced = {
        entry.path: Entry(
            entry.path, entry.mode, _large_file(store, at, prefix + entry.path, oid, size)
        )
        for entry, oid, size in large(store, files, files)
    }
    for entry in entries:
        if entry.mode != GITLINK:
            yield replaced.get(entry.path, entry)
            continue
        inner, tree = _submodule(store, entries, entry, at, prefix)
        below = list(trees.walk(store, tree))
        full = prefix + entry.path + b"/"
        for found in _resolve(store, below, inner, full, depth + 1):
            yield Entry(entry.path + b"/" + found.path, found.mode, found.blob)


def _submodule(
    store: Store, entries: list[Entry], link: Entry, at: Place | None, prefix: bytes
) -> tuple[Place | None, str]:
    name = _module_name(store, entries, link.path)
    for candidate in _candidates(link.path, name, at):
        store.link(candidate.common / "objects")
        try:
            with store.batch() as batch:
                commit = batch.read(link.blob, "commit")
        except Missing:
            continue
        return candidate, commit[5 : commit.index(b"\n")].decode()
    path = printable(os.fsdecode(prefix + link.path))
    raise BadInput(
        f"the submodule {path!r} is not here at commit {link.blob[:12]}, which the tree names: "
        f"`git submodule update --init --recursive -- {path}` gets it"
    )


def _candidates(path: bytes, name: str | None, at: Place | None) -> Iterator[Place]:
    if at is None:
        return
    folder = None if at.root is None else at.root / os.fsdecode(path)
    if folder is not None and folder.is_dir() and folder.resolve() == folder:
        found = checkout.nested(folder, at.top)
        if found is not None:
            yield Place(folder, found.common, at.top)
    modules = at.common / "modules"
    for guess in dict.fromkeys((name, os.fsdecode(path))):
        if guess and ".." not in guess.split("/") and (modules / guess / "objects").is_dir():
            inner = modules / guess
            if inner.resolve().is_relative_to(at.top.common.resolve()):
                yield Place(folder, inner, at.top)


def _module_name(store: Store, entries: list[Entry], path: bytes) -> str | None:
    for entry in entries:
        if entry.path == b".gitmodules" and entry.mode not in (SYMLINK, GITLINK):
            listed = store.run(
                *("config", "--no-includes", "--null", "--blob", entry.blob),
                *("--get-regexp", r"^submodule\..*\.path$"),
                ok=(),
            )
            for item in listed.stdout.split(b"\0"):
                key, _, value = item.partition(b"\n")
                if value == path:
                    return os.fsdecode(key[len(b"submodule.") : -len(b".path")])
    return None


def large(
    store: Store, files: Iterable[Entry], among: Iterable[Entry]
) -> Iterator[tuple[Entry, str, int]]:
    """(entry, SHA-256, size) of each LFS pointer ``among`` a tree's ``files``.

    None are when no .gitattributes of the tree speaks of LFS.
    """
    rules = [e.blob for e in files if e.path.rsplit(b"/", 1)[-1] == b".gitattributes"]
    regular = [e for e in among if e.mode not in (SYMLINK, GITLINK)]
    if not rules or not regular:
        return
    with store.batch() as batch:
        uses = False
        for _, _, _, chunks in batch.stream(dict.fromkeys(rules)):
            # All of it is read, to stay in step with git's answers.
            parts = [part for number, part in enumerate(chunks) if number == 0]
            uses = uses or b"filter=lfs" in b"".join(parts)
        if not uses:
            return
        sizes = store.sizes(entry.blob for entry in regular)
        small = [entry for entry in regular if sizes[entry.blob] <= _POINTER_MAX]
        texts = {
            oid: b"".join(chunks)
            for oid, _, _, chunks in batch.stream(dict.fromkeys(e.blob for e in small))
        }
    for entry in small:
        match = _POINTER.fullmatch(texts[entry.blob])
        if match is not None:
            yield entry, match[1].decode(), int(match[2])


def _large_file(store: Store, at: Place | None, path: bytes, oid: str, size: int) -> str:
    shown = quoted(path)
    if at is not None:
        stored = at.common / "lfs/objects" / oid[:2] / oid[2:4] / oid
        try:
            with checkout.regular(stored, follow=False) as file:
                blob = _take(store, file, oid, size)
        except FileNotFoundError:
            blob = None
        if blob is not None:
            return blob
    raise BadInput(
        f"{shown} is a Git LFS pointer to {size:,} bytes that are not in this repository: "
        "`git lfs fetch` gets what the current commit needs, `git lfs fetch --all` everything"
    )


def _take(store: Store, file: IO[bytes], oid: str, size: int) -> str | None:
    """Store the file as a blob, None when it is not what the pointer names."""
    if os.fstat(file.fileno()).st_size != size:
        return None
    digest = hashlib.sha256()

    def chunks() -> Iterator[bytes]:
        while data := file.read(CHUNK):
            digest.update(data)
            yield data

    blob = store.write_stream("blob", size, chunks())
    return blob if digest.hexdigest() == oid else None
