"""The corpus as patches: each row written over the base, and the difference taken by git."""

from __future__ import annotations

import importlib.util
import marshal
import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.fixture_repos import FixtureRepo, git
from tests.integrity.corpus.model import Append, Edit, Entry, Pyc, Swap

#: Stands for a file of the base, with assertions that hold.
_SOURCE = re.compile(r"@SOURCE:(\S+)@")
FOLDER = Path(__file__).resolve().parents[3] / "fixtures_repos" / "parcels"


@dataclass(frozen=True, slots=True)
class Made:
    """An entry's patch, the tree that it makes, and the revision that has it."""

    entry: Entry
    patch: bytes
    tree: str
    revision: str


def repository(folder: Path) -> Path:
    """The base, as a git repository in ``folder``."""
    return FixtureRepo("parcels", FOLDER / "repo", {}, {"tags": []}).make(folder)


def make(repo: Path, entries: Iterable[Entry], words: Mapping[str, str]) -> list[Made]:
    """The patches of ``entries`` on the repository's HEAD, which stays as it is.

    Args:
        words: what stands for what in the texts of the corpus, such as ``@IDS@``.
    """
    entries = list(entries)
    stream = bytearray()
    revisions = [f"refs/corpus/{number}" for number in range(len(entries))]
    for revision, entry in zip(revisions, entries, strict=True):
        stream += _commit(repo, revision, entry, words)
    subprocess.run(
        ["git", "fast-import", "--quiet", "--done"],
        cwd=repo, input=bytes(stream) + b"done\n", check=True, capture_output=True,
    )  # fmt: skip
    trees = git(repo, "rev-parse", *(f"{revision}^{{tree}}" for revision in revisions)).stdout
    return [
        Made(entry, _difference(repo, tree), tree, revision)
        for entry, tree, revision in zip(entries, trees.split(), revisions, strict=True)
    ]


def _difference(repo: Path, tree: str) -> bytes:
    return subprocess.run(
        ["git", "diff", "--binary", "--full-index", "--no-renames", "HEAD", tree],
        cwd=repo, check=True, capture_output=True,
    ).stdout  # fmt: skip


def _commit(repo: Path, ref: str, entry: Entry, words: Mapping[str, str]) -> bytes:
    head, time = git(repo, "log", "-1", "--format=%H %ct").stdout.split()
    who = f"committer a <a@example.org> {time} +0000"
    out = bytearray(f"commit {ref}\n{who}\ndata 0\n".encode())
    out += f"from {head}\n".encode()
    for named, edit in entry.files.items():
        path = _filled(named, words)
        if edit is None:
            if not (repo / path).is_file():
                raise ValueError(f"{entry.name}: there is no {path} to delete")
            out += f"D {path}\n".encode()
            continue
        try:
            data = content(repo, path, edit, words)
        except ValueError as error:
            raise ValueError(f"{entry.name}: {path}: {error}") from error
        out += f"M 100644 inline {path}\ndata {len(data)}\n".encode() + data + b"\n"
    return bytes(out)


def content(repo: Path, path: str, edit: Edit, words: Mapping[str, str]) -> bytes:
    """The file as an entry has it.

    Raises:
        ValueError: a text to swap is not there.
    """
    if isinstance(edit, bytes):
        return edit
    if isinstance(edit, Pyc):
        return _compiled(repo, edit, words)
    if isinstance(edit, str):
        return _filled(edit, words).encode()
    text = (repo / path).read_text("utf-8")
    for one in edit if isinstance(edit, tuple) else (edit,):
        if isinstance(one, Append):
            text += _filled(one.text, words)
        elif isinstance(one, Swap):
            if one.old not in text:
                raise ValueError(f"{one.old!r} is not in it")
            text = text.replace(one.old, _filled(one.new, words))
    return text.encode()


def _filled(text: str, words: Mapping[str, str]) -> str:
    for word, meaning in words.items():
        text = text.replace(word, meaning)
    return text


def _compiled(repo: Path, edit: Pyc, words: Mapping[str, str]) -> bytes:
    """What this Python, or pytest in it, takes for the compiled source."""
    text = _SOURCE.sub(lambda match: _without_asserts(repo / match[1]), _filled(edit.text, words))
    code = marshal.dumps(compile(text, edit.source, "exec"))
    if not edit.pytest:
        # By hash and unchecked: valid whatever the source holds.
        return importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little") + bytes(8) + code
    path = repo / edit.source
    time = int(git(repo, "log", "-1", "--format=%ct").stdout)
    head = importlib.util.MAGIC_NUMBER + bytes(4)
    return head + time.to_bytes(4, "little") + path.stat().st_size.to_bytes(4, "little") + code


def _without_asserts(path: Path) -> str:
    return path.read_text("utf-8").replace("assert ", "assert True or ")
