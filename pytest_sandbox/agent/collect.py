"""Artifacts: what the tests left in the workspace, in an archive for the host."""

from __future__ import annotations

import json
import os
import re
import stat
import tarfile
from typing import Iterator

from .folders import FLAGS


def collect(control: str, globs: list[str], limit: int, count: int) -> list[str]:
    """Write CONTROL/artifacts.tar and return what was left out, in words."""
    with open(os.path.join(control, "plan.json"), encoding="utf-8") as file:
        workspace = json.load(file)["workspace"]
    wanted = re.compile("|".join(f"(?:{_glob(glob)})" for glob in globs) or "(?!)", re.DOTALL)
    left_out = []
    path = os.path.join(control, "artifacts.tar")
    with tarfile.open(
        path, "w", format=tarfile.PAX_FORMAT, encoding="utf-8", errors="surrogateescape"
    ) as tar:
        for name, parent in _walk(os.open(workspace, os.O_RDONLY | os.O_DIRECTORY), ""):
            if not wanted.fullmatch(name):
                continue
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
            try:
                fd = os.open(name.rsplit("/", 1)[-1], flags, dir_fd=parent)
            except OSError as error:
                left_out.append(f"{name!r} cannot be read: {error.strerror}")
                continue
            try:
                status = os.fstat(fd)
                if not stat.S_ISREG(status.st_mode):
                    continue
                if status.st_size > limit:
                    left_out.append(f"{name!r}: {status.st_size} bytes are over the limit")
                    continue
                if count <= 0:
                    left_out.append(f"{name!r} and what follows: too many files")
                    break
                limit -= status.st_size
                count -= 1
                info = tarfile.TarInfo(name)
                info.size = status.st_size
                info.mtime = int(status.st_mtime)
                info.mode = 0o755 if status.st_mode & 0o111 else 0o644
                tar.addfile(info, _Padded(fd, status.st_size))  # type: ignore[arg-type]
            finally:
                os.close(fd)
    return left_out


def _walk(fd: int, prefix: str, depth: int = 0) -> Iterator[tuple[str, int]]:
    """All entries that look like files below ``fd``, which is closed in the end."""
    try:
        for name in sorted(os.listdir(fd)):
            try:
                inner = os.open(name, FLAGS, dir_fd=fd)
            except OSError:
                yield prefix + name, fd
                continue
            if depth < 200:
                yield from _walk(inner, f"{prefix}{name}/", depth + 1)
            else:
                os.close(inner)
    finally:
        os.close(fd)


def _glob(pattern: str) -> str:
    """A regular expression for a glob over relative paths; ``**`` spans folders."""
    parts = []
    for part in pattern.strip("/").split("/"):
        if part == "**":
            parts.append("(?:[^/]+/)*")
            continue
        text = ""
        at = 0
        while at < len(part):
            char = part[at]
            end = part.find("]", at + 2) if char == "[" else -1
            if char == "*":
                text += "[^/]*"
            elif char == "?":
                text += "[^/]"
            elif end > 0:
                chars = part[at + 1 : end].replace("\\", "\\\\").replace("[", "\\[")
                text += "(?!/)[" + ("^" + chars[1:] if chars[0] == "!" else chars) + "]"
                at = end
            else:
                text += re.escape(char)
            at += 1
        parts.append(text + "/")
    expression = "".join(parts)
    if pattern.rstrip("/").endswith("**"):
        return expression + "[^/]+"
    return expression[:-1]


class _Padded:
    """A file read as exactly ``size`` bytes, whatever happens to it meanwhile."""

    def __init__(self, fd: int, size: int) -> None:
        self._fd = fd
        self._left = size

    def read(self, size: int) -> bytes:
        size = min(size, self._left)
        data = os.read(self._fd, size) if size else b""
        if len(data) < size:
            rest = os.read(self._fd, size - len(data)) if data else b""
            data = (data + rest).ljust(size, b"\0")
        self._left -= size
        return data
