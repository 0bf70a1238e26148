"""The ``.git`` folder that travels with a tree: made by us, holding nothing later than its base.

Knows no work tree: what is modified there shows because the files differ from the commit.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pytest_sandbox.errors import BadInput
from pytest_sandbox.workspace.archives import NO_TIME, Archive
from pytest_sandbox.workspace.gitobjects import Batch, Damaged
from pytest_sandbox.workspace.gitstore import Store

#: Commits put between the nearest tag and the base, so that their number stays true.
MAX_DISTANCE: Final = 10_000
BRANCH: Final = "main"

_IDENTITY: Final = "pytest-sandbox <pytest-sandbox@localhost>"
_DATE: Final = re.compile(rb"> (-?\d{1,12} [+-]\d{4})$")
# Which tags version tools look for: the nearest of any kind, the nearest with a number
# (setuptools_scm, hatch-vcs), the nearest annotated one (plain `git describe`).
_QUESTIONS: Final = (("--tags",), ("--tags", "--match", "*[0-9]*"), ())


@dataclass(frozen=True, slots=True)
class Commit:
    """What is kept of a commit. Dates as git writes them: seconds, a space, the time zone."""

    tree: str
    author: str
    committer: str

    @property
    def time(self) -> int:
        return max(0, int(self.committer.split()[0]))


@dataclass(frozen=True, slots=True)
class Tag:
    name: str
    #: Commits between the tag and the base, as ``git describe`` counts them.
    distance: int
    #: The tagger's date of an annotated tag, None for a lightweight one.
    tagger: str | None


def read_commit(batch: Batch, oid: str) -> Commit:
    """Raises: Missing, Damaged"""
    head = batch.read(oid, "commit").split(b"\n\n", 1)[0]
    fields: dict[bytes, bytes] = {}
    for line in head.split(b"\n"):
        key, _, value = line.partition(b" ")
        fields.setdefault(key, value)
    dates = [_DATE.search(fields.get(key, b"")) for key in (b"author", b"committer")]
    author, committer = (d[1].decode() if d else f"{NO_TIME} +0000" for d in dates)
    if b"tree" not in fields:
        raise Damaged(f"the commit {oid} names no tree: run `git fsck`")
    return Commit(fields[b"tree"].decode(), author, committer)


def nearest_tags(store: Store, commit: str) -> list[Tag]:
    """The tags that `git describe` would name, the nearest of any kind first."""
    tags: list[Tag] = []
    for question in _QUESTIONS:
        answer = store.run("describe", "--long", "--abbrev=40", *question, commit, ok=())
        if answer.status:
            if not question or not tags:
                continue
            break
        name, distance, _ = answer.stdout.decode("utf-8", "surrogateescape").strip().rsplit("-", 2)
        taken = {tag.name for tag in tags} | {tag.distance for tag in tags}
        # A second tag at the same distance could win where the first did in the original.
        if name in taken or int(distance) in taken or (tags and int(distance) > MAX_DISTANCE):
            continue
        found = _tagger(store, name)
        if found is not None:
            tags.append(Tag(name, int(distance), found or None))
    return tags


def _tagger(store: Store, name: str) -> str | None:
    """The date of an annotated tag, "" for a lightweight one, None when there is no such tag."""
    shown = store.run("rev-parse", "--verify", "--quiet", f"refs/tags/{name}", ok=())
    if shown.status:
        return None
    with store.batch() as batch:
        try:
            text = batch.read(shown.stdout.decode().strip(), "tag")
        except Damaged:
            return ""
    for line in text.split(b"\n\n", 1)[0].split(b"\n"):
        found = _DATE.search(line)
        if line.startswith(b"tagger ") and found:
            return found[1].decode()
    return f"{NO_TIME} +0000"


def note(tags: list[Tag]) -> str | None:
    """What a person should know of the shipped history, if anything."""
    if tags and tags[0].distance > MAX_DISTANCE:
        return (
            f"the nearest tag {tags[0].name} is {tags[0].distance:,} commits away; in the sandbox "
            f"it is put on the base commit itself (more than {MAX_DISTANCE:,} are not imitated; "
            "--sandbox-history=full ships the real ones)"
        )
    return None


@contextmanager
def one_commit(store: Store, tree: str, base: Commit | None, tags: list[Tag]) -> Iterator[Path]:
    """A git directory with one commit of ``tree`` and, empty, those back to the tags."""
    date = f"{NO_TIME} +0000"
    author, committer = (base.author, base.committer) if base else (date, date)
    near = [Tag(t.name, t.distance if t.distance <= MAX_DISTANCE else 0, t.tagger) for t in tags]
    empty = store.write("tree", b"")
    refs: dict[str, str] = {}
    parent: str | None = None
    for left in range(max((tag.distance for tag in near), default=0), -1, -1):
        text = f"tree {tree if left == 0 else empty}\n"
        text += f"parent {parent}\n" if parent else ""
        text += f"author {_IDENTITY} {author}\ncommitter {_IDENTITY} {committer}\n\n"
        text += "Base of this run\n" if left == 0 else f"{left} before the base of this run\n"
        parent = store.write("commit", text.encode())
        for tag in near:
            if tag.distance == left:
                refs[f"refs/tags/{tag.name}"] = _tag(store, tag, parent)
    assert parent is not None
    with _git_dir(store, parent, tree, refs, reuse=False) as folder:
        yield folder


def _tag(store: Store, tag: Tag, commit: str) -> str:
    if tag.tagger is None:
        return commit
    text = f"object {commit}\ntype commit\ntag {tag.name}\ntagger {_IDENTITY} {tag.tagger}\n\n"
    return store.write("tag", (text + tag.name + "\n").encode("utf-8", "surrogateescape"))


@contextmanager
def all_commits(store: Store, commit: str, tree: str) -> Iterator[Path]:
    """A git directory with what ``commit`` can reach, and the tags on it."""
    listed = store.run(
        *("for-each-ref", f"--merged={commit}", "--format=%(objectname) %(refname)", "refs/tags")
    )
    refs: dict[str, str] = {}
    for line in listed.stdout.decode("utf-8", "surrogateescape").splitlines():
        oid, _, name = line.partition(" ")
        refs[name] = oid
    cut = store.git_dir / "shallow"
    shallow = ""
    if cut.exists():
        reachable = set(store.run("rev-list", commit).stdout.decode().split())
        shallow = "".join(f"{oid}\n" for oid in cut.read_text().split() if oid in reachable)
    with _git_dir(store, commit, tree, refs, reuse=True) as folder:
        if shallow:
            (folder / "shallow").write_text(shallow)
        yield folder


@contextmanager
def _git_dir(
    store: Store, commit: str, tree: str, refs: dict[str, str], *, reuse: bool
) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(dir=store.path))
    try:
        (folder / "objects/pack").mkdir(parents=True)
        (folder / "objects/info").mkdir()
        (folder / "refs/heads").mkdir(parents=True)
        (folder / "refs/tags").mkdir()
        (folder / "HEAD").write_text(f"ref: refs/heads/{BRANCH}\n")
        config = "[core]\n\trepositoryformatversion = {}\n\tfilemode = true\n\tbare = false\n"
        text = config.format(0 if store.algorithm == "sha1" else 1)
        if store.algorithm != "sha1":
            text += f"[extensions]\n\tobjectformat = {store.algorithm}\n"
        (folder / "config").write_text(text)
        refs = refs | {f"refs/heads/{BRANCH}": commit}
        lines = "".join(f"{oid} {name}\n" for name, oid in sorted(refs.items()))
        (folder / "packed-refs").write_bytes(lines.encode("utf-8", "surrogateescape"))
        # Without reuse the bytes do not depend on how the user's repository is packed.
        packing = [] if reuse else ["--no-reuse-delta", "--no-reuse-object", "--window=0"]
        wanted = "".join(f"{oid}\n" for oid in dict.fromkeys(refs.values())).encode()
        try:
            store.run(
                *("pack-objects", "--quiet", "--revs", "--threads=1", *packing),
                str(folder / "objects/pack/pack"),
                stdin=wanted,
            )
        except BadInput as error:
            raise BadInput(f"the history cannot be packed: {error}") from error
        store.run("read-tree", tree, index=folder / "index")
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def members(archive: Archive, folder: Path, name: str = ".git") -> Iterator[bytes]:
    """The folder's content as archive members, sorted."""
    yield from archive.folder(name)
    for path in sorted(folder.iterdir()):
        inside = f"{name}/{path.name}"
        if path.is_dir():
            yield from members(archive, path, inside)
        else:
            yield from archive.file(inside, path)
