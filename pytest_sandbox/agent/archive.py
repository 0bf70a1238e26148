"""Trees from the host: unpacked below a folder, and nowhere else."""

from __future__ import annotations

import os
import tarfile
from typing import IO, Any

from .folders import FLAGS, Folder, Unsafe

DELETED = ".pytest-sandbox-deleted"


def unpack(archives: list[str], dest: str, owner: int | None = None) -> None:
    """Unpack tar.gz files below ``dest``, in order: first what each deletes, then what it brings.

    Args:
        owner: whom everything shall belong to, and with whose rights it is written.

    Raises:
        Unsafe: a member leads outside, through a link, or is a special file.
    """
    # With our own rights, before they are given up.
    sources = [open(archive, "rb") for archive in archives]  # noqa: SIM115
    if owner is not None:
        os.setegid(owner)
        os.seteuid(owner)
    os.makedirs(dest, exist_ok=True)
    folder = Folder(dest)
    try:
        for source in sources:
            with source:
                _unpack(source, folder)
    finally:
        folder.close()


def _unpack(source: IO[bytes], folder: Folder) -> None:
    text: Any = {"encoding": "utf-8", "errors": "surrogateescape"}
    with tarfile.open(fileobj=source, mode="r:gz", **text) as tar:
        # The host puts the list of deletions first; elsewhere it costs a second pass.
        for member in tar:
            if member.name == DELETED:
                content = tar.extractfile(member)
                if content is not None:
                    for path in content.read().split(b"\0"):
                        if path:
                            _delete(folder, os.fsdecode(path))
                break
        for member in tar:
            if member.name not in (DELETED, ".", "./"):
                _extract(folder, tar, member)


def _delete(folder: Folder, name: str) -> None:
    parts = _parts(name)
    try:
        parent = folder.enter(parts[:-1], make=False)
    except FileNotFoundError:
        return
    try:
        os.unlink(parts[-1], dir_fd=parent)
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):
        try:
            os.rmdir(parts[-1], dir_fd=parent)
        except OSError:
            raise Unsafe(f"{name!r} is to be deleted, but is a folder with content") from None
    _forget_bytecode(parent, parts[-1])
    for depth in range(len(parts) - 1, 0, -1):
        try:
            os.rmdir(parts[depth - 1], dir_fd=folder.enter(parts[: depth - 1], make=False))
        except OSError:
            return


def _forget_bytecode(parent: int, name: str) -> None:
    # Python takes a cached file for current by second and size of its source, and a patch may
    # keep both; a folder with nothing but a cache would still be importable.
    if not name.endswith(".py"):
        return
    try:
        cache = os.open("__pycache__", FLAGS, dir_fd=parent)
    except OSError:
        return
    try:
        for entry in os.listdir(cache):
            if entry.startswith(name[:-2]) and entry.endswith(".pyc"):
                os.unlink(entry, dir_fd=cache)
    except OSError:
        pass
    finally:
        os.close(cache)
    try:
        os.rmdir("__pycache__", dir_fd=parent)
    except OSError:
        pass


def _extract(folder: Folder, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    parts = _parts(member.name)
    if member.isdir():
        folder.enter(parts, make=True)
        return
    if not (member.isreg() or member.issym()):
        raise Unsafe(f"{member.name!r} is neither a file nor a folder nor a symbolic link")
    parent = folder.enter(parts[:-1], make=True)
    name = parts[-1]
    try:
        os.unlink(name, dir_fd=parent)  # never written through, were it a link
        _forget_bytecode(parent, name)
    except FileNotFoundError:
        pass
    except (IsADirectoryError, PermissionError):
        try:
            os.rmdir(name, dir_fd=parent)
        except OSError:
            raise Unsafe(f"{member.name!r} is to replace a folder with content") from None
    if member.issym():
        os.symlink(member.linkname, name, dir_fd=parent)
        return
    source = tar.extractfile(member)
    assert source is not None
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    fd = os.open(name, flags, 0o755 if member.mode & 0o111 else 0o644, dir_fd=parent)
    with open(fd, "wb") as target:
        while True:
            data = source.read(1 << 20)
            if not data:
                break
            target.write(data)


def _parts(name: str) -> list[str]:
    parts = name.rstrip("/").split("/")
    if name.startswith("/") or any(part in ("", ".", "..") for part in parts) or "\0" in name:
        raise Unsafe(f"{name!r} is not a path below the folder to unpack in")
    return parts
