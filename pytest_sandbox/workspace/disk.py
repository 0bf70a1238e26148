"""The files of a work tree as they are on disk, made into git objects without running a filter.

Reads each file once, through folders that are not symbolic links; writes only to the store.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

from pytest_sandbox.errors import BadInput
from pytest_sandbox.workspace import checkout
from pytest_sandbox.workspace.checkout import Checkout
from pytest_sandbox.workspace.gitobjects import (
    CHUNK,
    EXECUTABLE,
    FILE,
    GITLINK,
    SYMLINK,
    Entry,
    quoted,
)
from pytest_sandbox.workspace.gitstore import Store, Writer

# What is no part of any project, and differs from run to run or works on this machine only.
_NEVER: Final = b".hg/\n.svn/\n.bzr/\nCVS/\n_darcs/\n__pycache__/\n*.pyc\n"
# Without a repository there may be no .gitignore that says so.
_CACHES: Final = (
    b".venv/\nvenv/\n.env/\nnode_modules/\n.tox/\n.nox/\n.eggs/\n.mypy_cache/\n"
    b".pytest_cache/\n.ruff_cache/\n.hypothesis/\n.direnv/\n.DS_Store\n"
)
#: Bytes that one file may have, and all of a work tree together: a sparse file costs whoever made
#: it nothing, and reading it takes hours.
MAX_FILE: Final = 2 << 30
MAX_TOTAL: Final = 8 << 30
_ATTEMPTS: Final = 3
_NESTING: Final = 32
_HAS_DIR_FD: Final = os.open in os.supports_dir_fd and os.readlink in os.supports_dir_fd


@dataclass(frozen=True, slots=True)
class _Known:
    """What the index says of a path."""

    mode: str
    blob: str
    skip: bool


class _Budget:
    """What may still be read."""

    def __init__(self) -> None:
        self._left = MAX_TOTAL

    def take(self, path: bytes, size: int) -> None:
        self._left -= size
        for what, at_most in ((size, MAX_FILE), (MAX_TOTAL - self._left, MAX_TOTAL)):
            if what > at_most:
                raise BadInput(
                    f"{quoted(path)} has {size:,} bytes; at most {MAX_FILE:,} a file and "
                    f"{MAX_TOTAL:,} in all are taken; let .gitignore name what is no part of it"
                )


def snapshot(
    store: Store,
    root: Path,
    found: Checkout | None,
    depth: int = 0,
    budget: _Budget | None = None,
) -> Iterator[Entry]:
    """The tracked and the untracked, not ignored files below ``root``.

    Paths that the user's sparse checkout leaves out come from the index. Repositories inside
    are taken as the plain files they are.

    Raises:
        BadInput: a file cannot be read, is too large, or does not hold still.
    """
    if depth > _NESTING:
        raise BadInput(f"{root}: repositories inside repositories, more than {_NESTING} deep")
    known, others = _listing(store, root, found)
    budget = budget or _Budget()
    with _Reader(store, root, budget) as reader:
        for path in sorted(known.keys() | others):
            row = known.get(path)
            if (row is not None and row.mode == GITLINK) or path.endswith(b"/"):
                yield from _inner(store, root, found, path.rstrip(b"/"), row, depth, budget)
                continue
            entry = reader.entry(path, row, found is None or found.file_mode)
            if entry is not None:
                yield entry
            elif row is not None and row.skip:
                yield Entry(path, row.mode, row.blob)


def _inner(
    store: Store,
    root: Path,
    found: Checkout | None,
    path: bytes,
    row: _Known | None,
    depth: int,
    budget: _Budget,
) -> Iterator[Entry]:
    """A submodule or another repository in the work tree."""
    folder = root / os.fsdecode(path)
    inside = folder.resolve() == folder and folder.is_dir()
    repository = checkout.nested(folder, found) if inside else None
    if row is not None and repository is None:
        # Not initialised here: the commit it stands for is looked up when it is needed.
        if inside or row.skip:
            yield Entry(path, GITLINK, row.blob)
        return
    if inside:
        for entry in snapshot(store, folder, repository, depth + 1, budget):
            yield Entry(path + b"/" + entry.path, entry.mode, entry.blob)


def _listing(
    store: Store, root: Path, found: Checkout | None
) -> tuple[dict[bytes, _Known], set[bytes]]:
    with store.index() as index:
        exclude = _NEVER if found is not None else _NEVER + _CACHES
        if found is not None:
            _copy_index(found, index, store)
            own = found.common / "info/exclude"
            if own.is_file():
                exclude += own.read_bytes()
        rules = index.parent / "exclude"
        rules.write_bytes(exclude)
        known: dict[bytes, _Known] = {}
        if index.exists():
            listed = store.run("ls-files", "-z", "-t", "--stage", index=index, work_tree=root)
            for line in listed.stdout.split(b"\0")[:-1]:
                head, _, path = line.partition(b"\t")
                tag, mode, blob, _ = head.decode().split(" ")
                known[path] = _Known(mode, blob, tag == "S")
        own_rules = checkout.user_excludes()
        listed = store.run(
            "ls-files",
            "-z",
            "--others",
            "--exclude-per-directory=.gitignore",
            # Later lists win over earlier ones.
            *([f"--exclude-from={own_rules}"] if own_rules.is_file() else []),
            f"--exclude-from={rules}",
            index=index,
            work_tree=root,
        )
    others = set(listed.stdout.split(b"\0")[:-1])
    # A virtual environment works at one place of one machine only.
    venvs = tuple(p.removesuffix(b"pyvenv.cfg") for p in others if p.endswith(b"/pyvenv.cfg"))
    return known, {path for path in others if not (venvs and path.startswith(venvs))}


def _copy_index(found: Checkout, index: Path, store: Store) -> None:
    pairs = [(found.git_dir / "index", index)]
    shared = found.git_dir.glob("sharedindex.*")
    pairs += [(path, store.git_dir / path.name) for path in shared]
    for source, target in pairs:
        try:
            with checkout.regular(source) as file, target.open("wb") as copy:
                shutil.copyfileobj(file, copy)
        except FileNotFoundError:
            continue


class _Reader:
    """Opens files below one folder, never through a symbolic link. Owns folder descriptors."""

    def __init__(self, store: Store, root: Path, budget: _Budget) -> None:
        self._store = store
        self._root = root
        self._budget = budget
        self._open: list[tuple[bytes, int]] = []
        self._top = os.open(root, os.O_RDONLY) if _HAS_DIR_FD else -1

    def __enter__(self) -> _Reader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for _, handle in self._open:
            os.close(handle)
        if self._top >= 0:
            os.close(self._top)

    def _folder(self, folders: list[bytes]) -> int:
        """A descriptor of the folder; paths come sorted, so most of the way is open already."""
        same = 0
        for (name, _), wanted in zip(self._open, folders, strict=False):
            if name != wanted:
                break
            same += 1
        while len(self._open) > same:
            os.close(self._open.pop()[1])
        for name in folders[same:]:
            above = self._open[-1][1] if self._open else self._top
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
            self._open.append((name, os.open(name, flags, dir_fd=above)))
        return self._open[-1][1] if self._open else self._top

    def entry(self, path: bytes, known: _Known | None, file_mode: bool) -> Entry | None:
        """What is at ``path`` now; None when nothing is, or nothing a tree can hold."""
        *folders, name = path.split(b"/")
        where = name
        at: int | None = None
        try:
            if _HAS_DIR_FD:
                at = self._folder(folders)
            else:
                where = os.fsencode(self._root) + b"/" + path
                if any(self._is_link(folders[: n + 1]) for n in range(len(folders))):
                    return None
            for _ in range(_ATTEMPTS):
                found = os.stat(where, dir_fd=at, follow_symlinks=False)
                if stat.S_ISLNK(found.st_mode):
                    target = os.readlink(where, dir_fd=at)
                    return Entry(path, SYMLINK, self._keep(target, known))
                if not stat.S_ISREG(found.st_mode):
                    return None
                entry = self._file(path, where, at, known, file_mode)
                if entry is not None:
                    return entry
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno == errno.ELOOP:  # A folder on the way is a symbolic link.
                return None
            raise BadInput(
                f"{quoted(path)} cannot be read: {error.strerror}; make it readable, or let "
                ".gitignore name it"
            ) from error
        raise BadInput(
            f"{quoted(path)} changes while it is being read; stop what writes it, or let "
            ".gitignore name it"
        )

    def _is_link(self, folders: list[bytes]) -> bool:
        return os.path.islink(os.fsencode(self._root) + b"/" + b"/".join(folders))

    def _keep(self, data: bytes, known: _Known | None) -> str:
        blob = self._store.hash("blob", data)
        if known is None or known.blob != blob:
            self._store.write("blob", data)
        return blob

    def _file(
        self, path: bytes, where: bytes, at: int | None, known: _Known | None, mode: bool
    ) -> Entry | None:
        """None when the file changed meanwhile."""
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        flags |= getattr(os, "O_BINARY", 0)
        handle = os.open(where, flags, dir_fd=at)
        try:
            before = os.fstat(handle)
            if not stat.S_ISREG(before.st_mode):
                return None
            size = before.st_size
            self._budget.take(path, size)
            if size <= CHUNK:
                data = os.read(handle, size + 1)
                if len(data) != size:
                    return None
                blob = self._keep(data, known)
            else:
                with Writer(self._store, "blob", size) as writer:
                    while data := os.read(handle, CHUNK):
                        size -= len(data)
                        if size < 0:
                            return None
                        writer.write(data)
                    if size:
                        return None
                    blob = writer.keep()
            after = os.fstat(handle)
        finally:
            os.close(handle)
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            return None
        if mode or known is None:
            bits = EXECUTABLE if after.st_mode & stat.S_IXUSR else FILE
        else:
            bits = known.mode if known.mode in (FILE, EXECUTABLE) else FILE
        return Entry(path, bits, blob)
