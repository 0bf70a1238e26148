"""Git objects as values, and the one reader of them, which checks every hash.

Knows neither where objects are stored nor how git is run.
"""

from __future__ import annotations

import hashlib
import itertools
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Final, Literal

from pytest_sandbox.errors import BadInput

ObjectFormat = Literal["sha1", "sha256"]

DIRECTORY: Final = "40000"
FILE: Final = "100644"
EXECUTABLE: Final = "100755"
SYMLINK: Final = "120000"
GITLINK: Final = "160000"

CHUNK: Final = 1 << 20
#: A commit, tag or tree larger than this is an attack on our memory.
_MAX_META: Final = 64 * CHUNK
#: Requests sent ahead of the answers; must fit in a pipe, or both sides wait for each other.
_WINDOW: Final = 256


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a tree. ``path`` is relative with ``/``, ``mode`` octal, ``blob`` a hash."""

    path: bytes
    mode: str
    blob: str


@dataclass(frozen=True, slots=True)
class Change:
    """One path at which two trees differ; None on the side that has no file there."""

    path: bytes
    old: Entry | None
    new: Entry | None


class Missing(BadInput):
    """An object is in none of the object directories."""

    def __init__(self, oid: str) -> None:
        super().__init__(
            f"the git object {oid} is missing: the repository is damaged or a partial clone. "
            "Fetch what is missing with `git fetch --refetch --no-filter`, then try again"
        )
        self.oid = oid


class Damaged(BadInput):
    """An object's content does not have the hash it is stored under."""


class Batch:
    """One ``git cat-file --batch``. Not shared between threads."""

    def __init__(self, process: subprocess.Popen[bytes], algorithm: ObjectFormat) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._in: IO[bytes] = process.stdin
        self._out: IO[bytes] = process.stdout
        self._algorithm: ObjectFormat = algorithm
        #: Whether answers were asked for and not read to their end.
        self.busy = False

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._in, self._out):
            try:
                pipe.close()
            except BrokenPipeError:
                pass

    def stream(self, oids: Iterable[str]) -> Iterator[tuple[str, str, int, Iterator[bytes]]]:
        """(hash, type, size, chunks) of each object in order; chunks must be used up.

        Hashes are checked: git itself does not do so when it reads, and an object directory
        that something else could write may hold any content under any name.

        Raises:
            Missing, Damaged
        """
        source = iter(oids)
        while True:
            window = list(itertools.islice(source, _WINDOW))
            if not window:
                return
            self.busy = True
            self._in.write(b"".join(oid.encode() + b"\n" for oid in window))
            self._in.flush()
            for oid in window:
                kind, size = self._head(oid)
                yield oid, kind, size, self._chunks(oid, kind, size)
            self.busy = False

    def _head(self, oid: str) -> tuple[str, int]:
        head = self._out.readline().split()
        if len(head) != 3 or not head[2].isdigit():
            raise Missing(oid)
        return head[1].decode(), int(head[2])

    def _chunks(self, oid: str, kind: str, size: int) -> Iterator[bytes]:
        digest = hashlib.new(self._algorithm, f"{kind} {size}\0".encode(), usedforsecurity=False)
        left = size
        while left:
            data = self._out.read(min(left, CHUNK))
            if not data:
                raise Damaged(f"git could not read object {oid} to its end: run `git fsck`")
            digest.update(data)
            left -= len(data)
            yield data
        self._out.read(1)
        if digest.hexdigest() != oid:
            raise Damaged(
                f"the {kind} {oid} has other content than its name says: the repository is "
                "damaged or was tampered with. `git fsck` names all such objects"
            )

    def read(self, oid: str, kind: str, *, limit: int = _MAX_META) -> bytes:
        """The whole object, which must be a ``kind`` of at most ``limit`` bytes."""
        for _, found, size, chunks in self.stream([oid]):
            if found != kind or size > limit:
                raise Damaged(f"git object {oid} is a {found} of {size} bytes, not a usable {kind}")
            content = b"".join(chunks)
            self.busy = False
            return content
        raise Missing(oid)


def printable(text: str | bytes, limit: int = 300) -> str:
    """``text`` for a message: control characters escaped, length capped."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "backslashreplace")
    text = text.strip()
    cut = text[:limit] + ("..." if len(text) > limit else "")
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "backslashreplace").decode()
        for char in cut
    )


def quoted(text: str | bytes, limit: int = 300) -> str:
    """``printable`` text in quotation marks."""
    return f"'{printable(text, limit)}'"
