"""Streams of bytes that are wanted again: made once, kept in files, the least used go first."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

_CHUNK: Final = 256 * 1024


class Spool:
    """Keeps the last ``most`` streams in ``folder``. May be used from several threads."""

    def __init__(self, folder: Path, most: int = 4) -> None:
        self._folder = folder
        self._most = most
        self._files: dict[Hashable, Path] = {}
        self._lock = threading.Lock()

    def stream(self, key: Hashable, make: Callable[[], Iterable[bytes]]) -> Iterator[bytes]:
        """The bytes that ``make`` gives; it is not asked where ``key`` has been read to its end.

        Nobody waits for another: those who come before the first is through make their own.
        """
        with self._lock:
            path = self._files.pop(key, None)
            if path is not None:
                self._files[key] = path
                # What is open can be read to its end, whatever becomes of its name.
                file = path.open("rb")
        if path is None:
            yield from self._made(key, make)
            return
        with file:
            while data := file.read(_CHUNK):
                yield data

    def _made(self, key: Hashable, make: Callable[[], Iterable[bytes]]) -> Iterator[bytes]:
        descriptor, name = tempfile.mkstemp(dir=self._folder, prefix="spool-")
        path = Path(name)
        try:
            with open(descriptor, "wb") as file:
                for data in make():
                    file.write(data)
                    yield data
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        with self._lock:
            gone = [self._files[key]] if key in self._files else []
            self._files[key] = path
            while len(self._files) > self._most:
                gone.append(self._files.pop(next(iter(self._files))))
        for old in gone:
            with suppress(OSError):
                os.unlink(old)
