"""Folders opened below a root, never through a symbolic link."""

from __future__ import annotations

import errno
import os

FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | getattr(os, "O_CLOEXEC", 0)


class Unsafe(Exception):
    """An archive asks for something outside of its folder, or for a special file."""


class Folder:
    """Opens folders below a root, never through a symbolic link."""

    def __init__(self, root: str) -> None:
        self._open: list[tuple[str, int]] = [("", os.open(root, os.O_RDONLY | os.O_DIRECTORY))]

    def enter(self, parts: list[str], *, make: bool) -> int:
        """A descriptor of the folder, valid until the next call."""
        keep = 1
        while keep < len(self._open) and keep <= len(parts):
            if self._open[keep][0] != parts[keep - 1]:
                break
            keep += 1
        while len(self._open) > keep:
            os.close(self._open.pop()[1])
        for part in parts[keep - 1 :]:
            parent = self._open[-1][1]
            if make:
                try:
                    os.mkdir(part, 0o755, dir_fd=parent)
                except FileExistsError:
                    pass
            try:
                fd = os.open(part, FLAGS, dir_fd=parent)
            except NotADirectoryError:
                raise Unsafe(f"{'/'.join(parts)!r} leads through a link or a file") from None
            except OSError as error:
                if error.errno == errno.ELOOP:  # what O_NOFOLLOW says of a link
                    raise Unsafe(f"{'/'.join(parts)!r} leads through a link") from None
                raise
            self._open.append((part, fd))
        return self._open[-1][1]

    def close(self) -> None:
        while self._open:
            os.close(self._open.pop()[1])
