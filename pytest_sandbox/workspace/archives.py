"""Trees as tar.gz streams: the same tree gives the same bytes, in bounded memory.

Knows how files travel, not where they come from.
"""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from pytest_sandbox.workspace.gitobjects import CHUNK, EXECUTABLE, GITLINK, SYMLINK, Entry
from pytest_sandbox.workspace.gitstore import Store

#: Member of a delta archive: paths to delete, each followed by NUL.
DELETED: Final = ".pytest-sandbox-deleted"
#: For trees without a commit: 1980-01-01, the earliest that zip files (wheels) can express.
NO_TIME: Final = 315532800


class Archive:
    """Turns members into chunks of a tar.gz. Used once, front to back."""

    def __init__(self, mtime: int) -> None:
        # A zlib gzip header holds neither time nor name.
        self._zlib = zlib.compressobj(1, zlib.DEFLATED, 31)
        self._mtime = mtime
        self._size = 0

    def files(self, store: Store, entries: Iterable[Entry]) -> Iterator[bytes]:
        """Regular files and symbolic links, contents read from the store and hash-checked."""
        wanted = [entry for entry in entries if entry.mode != GITLINK]
        with store.batch() as batch:
            stream = batch.stream(entry.blob for entry in wanted)
            for entry, (_, _, size, chunks) in zip(wanted, stream, strict=True):
                name = entry.path.decode("utf-8", "surrogateescape")
                if entry.mode == SYMLINK:
                    target = b"".join(chunks).decode("utf-8", "surrogateescape")
                    yield from self._header(name, 0, 0o777, link=target)
                else:
                    mode = 0o755 if entry.mode == EXECUTABLE else 0o644
                    yield from self._header(name, size, mode)
                    yield from self._body(size, chunks)

    def data(self, name: str, content: bytes, mode: int = 0o644) -> Iterator[bytes]:
        yield from self._header(name, len(content), mode)
        yield from self._body(len(content), iter([content]))

    def file(self, name: str, path: Path, mode: int = 0o644) -> Iterator[bytes]:
        """A file of this machine's, which must not change meanwhile."""
        size = path.stat().st_size
        yield from self._header(name, size, mode)
        with path.open("rb") as file:
            yield from self._body(size, iter(lambda: file.read(CHUNK), b""))

    def folder(self, name: str) -> Iterator[bytes]:
        yield from self._header(name, 0, 0o755, folder=True)

    def end(self) -> Iterator[bytes]:
        yield from self._add(b"\0" * 1024)
        yield from self._add(b"\0" * (-self._size % tarfile.RECORDSIZE))
        yield self._zlib.flush()

    def _header(
        self, name: str, size: int, mode: int, *, link: str | None = None, folder: bool = False
    ) -> Iterator[bytes]:
        info = tarfile.TarInfo(name)
        info.size = size
        info.mode = mode
        info.mtime = self._mtime
        if link is not None:
            info.type = tarfile.SYMTYPE
            info.linkname = link
        elif folder:
            info.type = tarfile.DIRTYPE
        yield from self._add(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))

    def _body(self, size: int, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            yield from self._add(chunk)
        yield from self._add(b"\0" * (-size % tarfile.BLOCKSIZE))

    def _add(self, data: bytes) -> Iterator[bytes]:
        self._size += len(data)
        out = self._zlib.compress(data)
        if out:
            yield out


def gather(chunks: Iterable[bytes], size: int = 256 * 1024) -> Iterator[bytes]:
    """The same bytes in chunks worth sending."""
    waiting: list[bytes] = []
    held = 0
    for chunk in chunks:
        waiting.append(chunk)
        held += len(chunk)
        if held >= size:
            yield b"".join(waiting)
            waiting, held = [], 0
    if waiting:
        yield b"".join(waiting)
