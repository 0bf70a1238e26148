"""Trees as plain values: reading, comparing and making them, hash-checked, without a work tree.

Knows no patch and no checkout.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from pytest_sandbox.errors import BadInput
from pytest_sandbox.workspace.gitobjects import (
    DIRECTORY,
    Batch,
    Change,
    Damaged,
    Entry,
    printable,
    quoted,
)
from pytest_sandbox.workspace.gitstore import Store

#: Paths one tree may hold, and how deep: beyond it a tree is an attack on our memory.
MAX_FILES = 2_000_000
MAX_DEPTH = 512

_Row = dict[bytes, tuple[str, str]]


def parse(data: bytes, raw: int) -> _Row:
    """name -> (mode, hash) of one tree object whose hashes are ``raw`` bytes long."""
    row: _Row = {}
    at = 0
    try:
        while at < len(data):
            space = data.index(b" ", at)
            end = data.index(b"\0", space)
            name = data[space + 1 : end]
            if name in row or name in (b"", b".", b"..") or b"/" in name or is_dotgit(name):
                raise Damaged(f"a git tree holds the name {name!r}, which no checkout may have")
            row[name] = (data[at:space].decode(), data[end + 1 : end + 1 + raw].hex())
            at = end + 1 + raw
    except ValueError as error:
        raise Damaged("a git tree object cannot be parsed: run `git fsck`") from error
    return row


def walk(store: Store, tree: str) -> Iterator[Entry]:
    """All files, links and gitlinks below ``tree``, sorted by path.

    Raises:
        Missing, Damaged
    """
    return iter(sorted((c.new for c in diff(store, None, tree) if c.new), key=lambda e: e.path))


def diff(store: Store, old: str | None, new: str | None) -> list[Change]:
    """The paths at which two trees differ, sorted. A rename is one deletion and one addition."""
    if old == new:
        return []
    raw = 20 if store.algorithm == "sha1" else 32
    changes: list[Change] = []
    level: list[tuple[bytes, str | None, str | None]] = [(b"", old, new)]
    with store.batch() as batch:
        for _ in range(MAX_DEPTH):
            if not level:
                return sorted(changes, key=lambda change: change.path)
            rows = _read(batch, (oid for _, a, b in level for oid in (a, b) if oid), raw)
            following: list[tuple[bytes, str | None, str | None]] = []
            for prefix, a, b in level:
                left = rows[a] if a else {}
                right = rows[b] if b else {}
                for name in left.keys() | right.keys():
                    was, now = left.get(name), right.get(name)
                    if was == now:
                        continue
                    path = prefix + name
                    sub = (_tree(was), _tree(now))
                    if sub != (None, None) and sub[0] != sub[1]:
                        following.append((path + b"/", *sub))
                    before, after = _file(path, was), _file(path, now)
                    if before or after:
                        changes.append(Change(path, before, after))
                # Inside the loop: a tree of trees that name each other grows exponentially.
                if len(changes) + len(following) > MAX_FILES:
                    raise BadInput(f"the tree holds more than {MAX_FILES:,} files")
            level = following
    raise BadInput(f"the tree's folders are nested deeper than {MAX_DEPTH}")


def _read(batch: Batch, oids: Iterable[str], raw: int) -> dict[str, _Row]:
    rows: dict[str, _Row] = {}
    for oid, kind, size, chunks in batch.stream(dict.fromkeys(oids)):
        if kind != "tree" or size > 1 << 28:
            raise Damaged(f"git object {oid} is a {kind} of {size} bytes where a tree belongs")
        rows[oid] = parse(b"".join(chunks), raw)
    return rows


def _tree(row: tuple[str, str] | None) -> str | None:
    return row[1] if row is not None and row[0] == DIRECTORY else None


def _file(path: bytes, row: tuple[str, str] | None) -> Entry | None:
    if row is None or row[0] == DIRECTORY:
        return None
    # Ancient gits wrote 100664; what counts is the executable bit.
    mode = "100644" if row[0] == "100664" else row[0]
    if mode not in ("100644", "100755", "120000", "160000"):
        raise Damaged(f"{quoted(path)} has the unknown mode {printable(mode)}: run `git fsck`")
    return Entry(path, mode, row[1])


def build(store: Store, entries: Iterable[Entry]) -> str:
    """Write the tree that holds exactly ``entries``, return its hash."""
    root: dict[bytes, object] = {}
    for entry in entries:
        *folders, name = entry.path.split(b"/")
        node = root
        for folder in folders:
            below = node.setdefault(folder, {})
            if not isinstance(below, dict):
                raise BadInput(f"{quoted(entry.path)} lies below something that is a file")
            node = below
        if name in node:
            raise BadInput(f"{quoted(entry.path)} occurs twice")
        node[name] = entry
    return _write(store, root)


def _write(store: Store, node: dict[bytes, object]) -> str:
    row: _Row = {}
    for name, value in node.items():
        if isinstance(value, dict):
            row[name] = (DIRECTORY, _write(store, value))
        else:
            assert isinstance(value, Entry)
            row[name] = (value.mode, value.blob)
    return _write_row(store, row)


def _write_row(store: Store, row: _Row) -> str:
    # git sorts a folder as if its name ended with a slash.
    ordered = sorted(row, key=lambda name: name + b"/" if row[name][0] == DIRECTORY else name)
    lines = (row[n][0].encode() + b" " + n + b"\0" + bytes.fromhex(row[n][1]) for n in ordered)
    return store.write("tree", b"".join(lines))


def find(store: Store, tree: str, path: bytes) -> Entry | None:
    """The file at ``path``. Only the folders on its way are read."""
    raw = 20 if store.algorithm == "sha1" else 32
    *folders, name = path.split(b"/")
    below: str | None = tree
    with store.batch() as batch:
        for folder in folders:
            assert below is not None
            below = _tree(_read(batch, [below], raw)[below].get(folder))
            if below is None:
                return None
        assert below is not None
        return _file(path, _read(batch, [below], raw)[below].get(name))


def edit(store: Store, tree: str, edits: Mapping[bytes, Entry | None]) -> str:
    """``tree`` with these files; None takes one away. Only the folders concerned are read.

    A file takes the place of a folder of its name, and what lies below a path that of a file.
    """
    root: dict[bytes, object] = {}
    # What is put first; a folder's own name, b"", marks that no file shall be in its place.
    for path, entry in sorted(edits.items(), key=lambda item: item[1] is None):
        *folders, name = path.split(b"/")
        node: object = root
        for folder in folders:
            node = node.setdefault(folder, {}) if isinstance(node, dict) else node
        if not isinstance(node, dict) or (entry is not None and name in node):
            if entry is not None:
                raise BadInput(f"{quoted(path)} is to be a file and a folder")
        elif entry is not None:
            node[name] = entry
        elif isinstance(below := node.setdefault(name, {}), dict):
            below[b""] = None
    with store.batch() as batch:
        return _edited(store, batch, tree, root) or store.write("tree", b"")


def _edited(store: Store, batch: Batch, oid: str | None, node: dict[bytes, object]) -> str | None:
    raw = 20 if store.algorithm == "sha1" else 32
    row = parse(batch.read(oid, "tree", limit=1 << 28), raw) if oid else {}
    for name, value in node.items():
        was = row.get(name)
        if isinstance(value, Entry):
            row[name] = (value.mode, value.blob)
        elif isinstance(value, dict):
            below = _edited(store, batch, _tree(was), value)
            if below is not None:
                row[name] = (DIRECTORY, below)
            elif was is not None and (_tree(was) is not None or b"" in value):
                del row[name]
    return _write_row(store, row) if row else None


# Characters that HFS+ ignores in names.
_IGNORED = dict.fromkeys(
    [*range(0x200C, 0x2010), *range(0x202A, 0x202F), *range(0x206A, 0x2070), 0xFEFF]
)


def is_dotgit(name: bytes) -> bool:
    """Whether some file system takes this name for ``.git`` (case, NTFS and HFS+ rules)."""
    text = name.decode("utf-8", "surrogateescape").translate(_IGNORED)
    # NTFS: a backslash separates, a colon starts a stream, trailing dots and spaces are dropped.
    for part in text.replace("\\", "/").split("/"):
        bare = part.split(":")[0].rstrip(". ").casefold()
        if bare == ".git" or (bare.startswith("git~") and bare[4:].isdigit()):
            return True
    return False
