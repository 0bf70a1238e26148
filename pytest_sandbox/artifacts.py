"""Files a sandbox sends back, written into a new folder and nowhere else."""

from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import Path, PurePosixPath

from pytest_sandbox.errors import BadInput, ProtocolError

_MAX_FILES = 10_000


def check_folder(folder: Path) -> None:
    """Refuse a folder that exists, before anything runs.

    Raises:
        BadInput: it exists; what is in it could be overwritten.
    """
    if folder.is_symlink() or folder.exists():
        raise BadInput(
            f"artifacts go into a new folder, and {folder} exists: remove it, or name another "
            "with --sandbox-artifact-dir"
        )


def extract(data: bytes, folder: Path) -> str:
    """Write the regular files of a tar into the new ``folder``.

    Only names and contents are taken: no links, modes, owners or times.

    Raises:
        BadInput: the folder exists by now, or cannot be made.
        ProtocolError: not a tar, or a name that leads out of the folder.
    """
    check_folder(folder)
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise BadInput(f"the folder for artifacts, {folder}: {error.strerror}") from None
    number = total = 0
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            for member in tar:
                # A sparse file says itself how large it is, whatever was sent.
                if not member.isreg() or member.issparse():
                    continue
                number += 1
                if number > _MAX_FILES:
                    raise ProtocolError(f"more than {_MAX_FILES} artifacts")
                target = folder.joinpath(*_parts(member.name))
                target.parent.mkdir(parents=True, exist_ok=True)
                content = tar.extractfile(member)
                assert content is not None
                with target.open("xb") as copy:
                    shutil.copyfileobj(content, copy)
                    total += copy.tell()
    except (tarfile.TarError, OSError, ValueError, OverflowError) as error:
        raise ProtocolError(f"the artifacts cannot be unpacked: {error!r}") from None
    return f"sandbox: {number} artifacts, {total} bytes, in {folder}"


def _parts(name: str) -> tuple[str, ...]:
    parts = PurePosixPath(name).parts
    # Two slashes at the beginning are a root of their own, as POSIX has it.
    strange = name.startswith("/") or any(
        part == ".." or ":" in part or "\\" in part or not part.isprintable() for part in parts
    )
    if not parts or strange:
        raise ProtocolError(f"an artifact's name is not acceptable: {name!a}")
    return parts
