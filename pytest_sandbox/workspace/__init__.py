"""A workspace: git trees in an object store of our own, over a repository that is only read.

Nothing the repository configures is run and nothing in it is written. Knows no provider and
not how tests run.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Literal

from pytest_sandbox.errors import BadInput
from pytest_sandbox.workspace import checkout, disk, history, judge, patches, pointers, trees
from pytest_sandbox.workspace.archives import DELETED, NO_TIME, Archive, gather
from pytest_sandbox.workspace.checkout import Checkout
from pytest_sandbox.workspace.gitobjects import FILE, SYMLINK, Missing, printable, quoted
from pytest_sandbox.workspace.gitobjects import Change as Change
from pytest_sandbox.workspace.gitobjects import Entry as Entry
from pytest_sandbox.workspace.gitstore import Store
from pytest_sandbox.workspace.gitstore import git_executable as git_executable
from pytest_sandbox.workspace.patches import Tolerance as Tolerance
from pytest_sandbox.workspace.spool import Spool

History = Literal["none", "tag", "full"]


@dataclass(frozen=True, slots=True)
class Tree:
    """A git tree in the workspace's store."""

    #: The content address.
    id: str
    #: The commit it came from or was made on, for history; None without one.
    commit: str | None
    #: What a person calls it: "HEAD", "working tree", "fix.diff on HEAD".
    label: str


@dataclass(frozen=True, slots=True)
class Applied:
    """What a patch made: the tree, "strict" or the tolerance it took, the paths it changed."""

    tree: Tree
    how: str
    paths: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Delta:
    """From one tree to another: files to write, paths to delete. Sorted."""

    changed: tuple[Entry, ...]
    deleted: tuple[bytes, ...]


class Workspace:
    """Owns one temporary git directory; a context manager. May be used from several threads."""

    def __init__(self, store: Store, found: Checkout | None, folder: Path) -> None:
        self._store = store
        self._found = found
        self._folder = folder
        self._lock = threading.Lock()
        self._have_references = False
        self._resolved: dict[str, str] = {}
        self._tagged: dict[str, list[history.Tag]] = {}
        self._archives = Spool(store.path)

    @classmethod
    def open(cls, path: Path, *, untrusted: bool = False, exact: bool = False) -> Workspace:
        """The workspace of the repository that ``path`` lies in, or of the plain folder it is.

        ``untrusted`` says that somebody else may have written its ``.git``: object directories
        outside it are then refused. ``exact`` takes ``path`` for the top, and for a plain
        folder when it is none, whatever repository may lie around it.

        Raises:
            BadInput: no folder, no git, or a repository that must not be used.
        """
        found = checkout.find(path, untrusted=untrusted, exact=exact)
        store = Store(found.algorithm if found else "sha1")
        if found is not None:
            store.link(found.objects)
        return cls(store, found, path.resolve())

    def __enter__(self) -> Workspace:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove the temporary git directory. May be called again."""
        self._store.close()

    @property
    def temporary(self) -> Path:
        """The one folder to remove when this process died before ``close``."""
        return self._store.path

    @property
    def root(self) -> Path | None:
        """Top-level folder of the work tree, None for a bare repository."""
        return self._found.root if self._found else self._folder

    @property
    def is_repository(self) -> bool:
        return self._found is not None

    def commit(self, rev: str) -> Tree:
        """The tree of a commit, by hash, branch, tag or any expression on them (``HEAD~2``).

        Raises:
            BadInput: names ``rev`` and what to do.
        """
        shown = quoted(rev)
        if self._found is None:
            raise BadInput(f"{self._folder} is not a git repository, so it has no {shown}")
        if not rev.strip() or rev.startswith("-") or not rev.isprintable() or len(rev) > 1024:
            raise BadInput(f"{shown} is not a revision; name a commit, branch or tag")
        self._references()
        oid = self._store.names(rev + "^{commit}")
        if oid is None:
            raise BadInput(self._unknown(rev))
        with self._store.batch() as batch:
            try:
                tree = history.read_commit(batch, oid).tree
            except Missing:
                raise BadInput(self._unknown(rev)) from None
        return Tree(tree, oid, rev)

    def _unknown(self, rev: str) -> str:
        assert self._found is not None
        message = f"{quoted(rev)} names no commit of {self._found.root or self._found.git_dir}"
        if rev.split("~")[0].split("^")[0] in ("HEAD", "@") and not self._store.names("HEAD"):
            return message + ": there is no commit yet; make one with `git commit`"
        if self._found.shallow is not None:
            return (
                f"{message}, which is a shallow clone: get the rest with `git fetch --unshallow`, "
                "or more of it with `git fetch --depth=N`"
            )
        oid = self._store.names(rev)
        if oid is not None:
            return (
                f"{message}: it stands for {oid}, which is missing, damaged or no commit; "
                f"`git fsck` and `git cat-file -t {oid}` tell which"
            )
        if "@{" in rev:
            return message + "; reflogs and upstreams are not read, so name the commit itself"
        return f"{message}; `git fetch origin` may bring it, `git log --all` shows what there is"

    def _references(self) -> None:
        """Copy the references once: git reads them here, under our configuration."""
        assert self._found is not None
        with self._lock:
            if self._have_references:
                return
            refs = dict(checkout.references(self._found))
            text = "".join(f"{oid} {name}\n" for name, oid in refs.items())
            git_dir = self._store.git_dir
            (git_dir / "packed-refs").write_bytes(text.encode("utf-8", "surrogateescape"))
            for name, content in checkout.pseudo_references(self._found):
                (git_dir / name).write_text(content + "\n", errors="surrogateescape")
            if self._found.shallow is not None:
                (git_dir / "shallow").write_bytes(self._found.shallow.read_bytes())
            self._have_references = True

    def working_tree(self) -> Tree:
        """Tracked and untracked, not ignored files as they are on disk.

        Raises:
            BadInput: a bare repository; a file that cannot be read or does not hold still.
        """
        if self.root is None:
            raise BadInput(
                f"{self._folder} is a bare repository without files; name a revision, "
                "--sandbox-base REV"
            )
        entries = disk.snapshot(self._store, self.root, self._found)
        tree = trees.build(self._store, entries)
        commit = None
        if self._found is not None:
            try:
                commit = self.commit("HEAD").commit
            except BadInput:
                if self._store.names("HEAD"):
                    raise
        return Tree(tree, commit, "working tree")

    def apply(
        self, tree: Tree, patch: bytes, *, name: str, tolerance: Tolerance = "strict"
    ) -> Applied:
        """Apply a patch that nobody trusts to ``tree``.

        Raises:
            PatchError: empty, malformed, conflict or refused; the message says where.
        """
        result = patches.apply(
            self._store, tree.id, patch, name=name, onto=tree.label, tolerance=tolerance
        )
        made = Tree(result.tree, tree.commit, f"{printable(name)} on {tree.label}")
        return Applied(made, result.how, result.paths)

    def tree_of(self, entries: Iterable[Entry]) -> str:
        """The hash of the tree that holds exactly ``entries``, whose content is known here."""
        return trees.build(self._store, entries)

    def edited(self, tree: Tree, edits: Mapping[bytes, Entry | None]) -> Tree:
        """``tree`` with these files, whose content is known here; None takes one away.

        A file takes the place of a folder, and what lies below a path that of a file there.
        """
        if not edits:
            return tree
        made = trees.edit(self._store, self._resolve(tree), edits)
        with self._lock:
            # Of files that are resolved, from trees that are.
            self._resolved[made] = made
        return replace(tree, id=made)

    def with_files(self, tree: Tree, files: Mapping[str, bytes | None]) -> Tree:
        """``tree`` with these contents by path; None takes a file away."""
        edits: dict[bytes, Entry | None] = {}
        for path, content in files.items():
            name = path.encode("utf-8", "surrogateescape")
            blob = None if content is None else self._store.write("blob", content)
            edits[name] = None if blob is None else Entry(name, FILE, blob)
        return self.edited(tree, edits)

    def differences(self, old: Tree, new: Tree) -> list[Change]:
        """The paths at which two trees differ, sorted."""
        return trees.diff(self._store, self._resolve(old), self._resolve(new))

    def contents(self, entries: Iterable[Entry], *, most: int = 1 << 20) -> dict[bytes, bytes]:
        """The files' content by path, but for those of more than ``most`` bytes and links."""
        files = [entry for entry in entries if entry.mode != SYMLINK]
        sizes = self._store.sizes(entry.blob for entry in files)
        small = [entry for entry in files if sizes[entry.blob] <= most]
        with self._store.batch() as batch:
            wanted = dict.fromkeys(entry.blob for entry in small)
            read = {oid: b"".join(chunks) for oid, _, _, chunks in batch.stream(wanted)}
        return {entry.path: read[entry.blob] for entry in small}

    def targets(self, entries: Iterable[Entry]) -> dict[bytes, bytes]:
        """What is written in the symbolic links among ``entries``, by path."""
        links = [entry for entry in entries if entry.mode == SYMLINK]
        if not links:
            return {}
        sizes = self._store.sizes(entry.blob for entry in links)
        # A path that is longer leads nowhere.
        small = [entry for entry in links if sizes[entry.blob] <= judge.MAX_PATH]
        with self._store.batch() as batch:
            wanted = dict.fromkeys(entry.blob for entry in small)
            read = {oid: b"".join(chunks) for oid, _, _, chunks in batch.stream(wanted)}
        return {entry.path: read[entry.blob] for entry in small}

    def changes(self, old: Tree, new: Tree) -> Delta:
        """What has to be written and deleted to make ``old`` into ``new``."""
        found = self.differences(old, new)
        return Delta(
            tuple(change.new for change in found if change.new),
            tuple(change.path for change in found if change.new is None),
        )

    def read(self, tree: Tree, path: str) -> bytes | None:
        """Content of a regular file, None when there is none at ``path`` (with ``/``)."""
        name = path.encode("utf-8", "surrogateescape")
        entry = trees.find(self._store, self._resolve(tree), name)
        if entry is None or entry.mode == SYMLINK:
            return None
        with self._store.batch() as batch:
            return batch.read(entry.blob, "blob", limit=1 << 30)

    def files(self, tree: Tree) -> Iterator[Entry]:
        """All files and symbolic links, submodules and large files included, sorted by path.

        Raises:
            BadInput: something is not on this machine; the message names the command to get it.
        """
        return trees.walk(self._store, self._resolve(tree))

    def _resolve(self, tree: Tree) -> str:
        with self._lock:
            known = self._resolved.get(tree.id)
        if known is None:
            at = pointers.place(self._found) if self._found else None
            known = pointers.resolve(self._store, tree.id, at)
            with self._lock:
                self._resolved[tree.id] = known
        return known

    def history_note(self, tree: Tree) -> str | None:
        """What a person should know of the history shipped as "tag", if anything."""
        return history.note(self._tags(tree))

    def _tags(self, tree: Tree) -> list[history.Tag]:
        if tree.commit is None:
            return []
        if tree.commit not in self._tagged:
            self._references()
            self._tagged[tree.commit] = history.nearest_tags(self._store, tree.commit)
        return self._tagged[tree.commit]

    def archive(
        self, tree: Tree, *, history: History = "tag", replacing: Collection[bytes] = ()
    ) -> Iterator[bytes]:
        """tar.gz of the files and of a ``.git`` made by us, whose HEAD is the tree's commit.

        "none": no ``.git``. "tag": one commit, and the nearest tag at its true distance.
        "full": everything the commit can reach. A plain folder has no ``.git`` either way.
        ``replacing`` names the files of an older tree: those that are gone are to be deleted.
        """
        key = (tree.id, tree.commit, history, frozenset(replacing))
        # Candidates on one base begin with the same.
        return self._archives.stream(key, lambda: gather(self._archive(tree, history, replacing)))

    def _archive(self, tree: Tree, kind: History, replacing: Collection[bytes]) -> Iterator[bytes]:
        store = self._store
        base = None
        if tree.commit is not None:
            with store.batch() as batch:
                base = history.read_commit(batch, tree.commit)
        archive = Archive(base.time if base else NO_TIME)
        if replacing:
            gone = set(replacing) - {entry.path for entry in self.files(tree)}
            yield from archive.data(DELETED, b"".join(path + b"\0" for path in sorted(gone)))
        yield from archive.files(store, trees.walk(store, self._resolve(tree)))
        if kind != "none" and self._found is not None:
            head = self._resolve(Tree(base.tree, tree.commit, tree.label) if base else tree)
            with ExitStack() as stack:
                if kind == "full" and base is not None and tree.commit is not None:
                    self._references()
                    made = history.all_commits(store, tree.commit, base.tree)
                else:
                    made = history.one_commit(store, head, base, self._tags(tree))
                yield from history.members(archive, stack.enter_context(made))
        yield from archive.end()

    def delta_archive(self, old: Tree, new: Tree) -> Iterator[bytes]:
        """tar.gz of the files that differ, and one member ".pytest-sandbox-deleted".

        That member holds the deleted paths, each followed by NUL; delete first, then unpack.
        """
        return gather(self._delta_archive(old, new))

    def _delta_archive(self, old: Tree, new: Tree) -> Iterator[bytes]:
        delta = self.changes(old, new)
        # Now, not the commit's time: Python takes a cached .pyc for valid when the source's
        # size and time are those of the file it replaces, and make rebuilds only what is newer.
        archive = Archive(int(time.time()) + 2)
        yield from archive.data(DELETED, b"".join(path + b"\0" for path in delta.deleted))
        yield from archive.files(self._store, delta.changed)
        yield from archive.end()
