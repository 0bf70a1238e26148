"""What was found out once, as files by key. Knows nothing of what it is."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final, Generic, TypeVar

import msgspec

T = TypeVar("T")
#: Bytes of one; a larger one is found out again each time.
_MAX_FILE: Final = 64 << 20


class Kept(Generic[T]):
    """Values by key in one folder: lost, torn or of another version is as if never made.

    Args:
        folder: None to keep nothing.
        most: values that are kept; the least recently used go first.
    """

    def __init__(self, folder: Path | None, kind: type[T], most: int = 100) -> None:
        self._folder = folder
        self._decoder = msgspec.json.Decoder(kind)
        self._most = most

    def get(self, key: str) -> T | None:
        if self._folder is None:
            return None
        path = self._folder / f"{key}.json"
        try:
            if path.stat().st_size > _MAX_FILE:
                return None
            found = self._decoder.decode(path.read_bytes())
            os.utime(path)
        except (OSError, msgspec.MsgspecError, ValueError, RecursionError):
            return None
        return found

    def put(self, key: str, value: T) -> None:
        data = msgspec.json.encode(value)
        if self._folder is None or len(data) > _MAX_FILE:
            return
        with suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            descriptor, scratch = tempfile.mkstemp(dir=self._folder, prefix=".new-")
            try:
                with open(descriptor, "wb") as file:
                    file.write(data)
                os.replace(scratch, self._folder / f"{key}.json")
            except OSError:
                os.unlink(scratch)
                raise
            files = sorted(self._folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
            for path in files[: -self._most]:
                path.unlink(missing_ok=True)
