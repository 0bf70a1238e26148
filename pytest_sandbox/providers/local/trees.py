"""Folders of the engine on disk: removal that hostile content cannot stop, and snapshots."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import threading
import time
import uuid
from pathlib import Path

from pytest_sandbox.errors import BadInput
from pytest_sandbox.providers.local.inside.usage import disk_usage


def remove_tree(folder: Path) -> None:
    """Removes ``folder`` and all below it; one that is not there is fine.

    Modes are opened as needed, links are not followed, and depth does not matter: each folder
    found is first moved to the top, so no path grows long. Nothing may be running in there.

    Raises:
        OSError: something is there that we may not remove.
    """
    try:
        os.lstat(folder)
    except FileNotFoundError:
        return
    bin_folder = folder.with_name(f".trash-{uuid.uuid4().hex}")
    bin_folder.mkdir(mode=0o700)
    folder.rename(bin_folder / "0")
    for attempt in range(5):
        try:
            _empty(bin_folder)
        except OSError as error:
            # Somebody else is moving things in the same bin.
            if error.errno != errno.ENOTEMPTY or attempt == 4:
                raise
        else:
            return


def _empty(bin_folder: Path) -> None:
    """What vanishes meanwhile is fine: somebody else may finish the same removal."""
    gone = contextlib.suppress(FileNotFoundError)
    with gone:
        queue = sorted(os.listdir(bin_folder))
        count = 0
        while queue:
            current = bin_folder / queue.pop()
            with gone:
                if not stat.S_ISDIR(os.lstat(current).st_mode):
                    current.unlink()
                    continue
                current.chmod(0o700)
                for entry in list(os.scandir(current)):
                    with gone:
                        if not entry.is_dir(follow_symlinks=False):
                            os.unlink(entry.path)
                            continue
                        # Moving a folder to another parent needs write permission on it.
                        os.chmod(entry.path, 0o700)
                        count += 1
                        name = f"{os.getpid()}-{threading.get_ident()}-{count}"
                        os.rename(entry.path, bin_folder / name)
                        queue.append(name)
                current.rmdir()
        bin_folder.rmdir()


def empty_bins(folder: Path) -> None:
    """Finishes removals that were interrupted."""
    for left in folder.glob(".trash-*"):
        try:
            _empty(left)
        except OSError:
            continue


class SnapshotStore:
    """Snapshots below one folder: each a layer and a note of the layers it lies on."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _at(self, snapshot: str) -> Path:
        if not snapshot.isalnum():
            raise BadInput(f"{snapshot!r} is not the name of a snapshot of the local engine.")
        return self._folder / snapshot

    def layers(self, snapshot: str) -> list[Path] | None:
        """The layer folders, topmost first; None when any is missing."""
        if not snapshot.isalnum():
            return None
        try:
            note = json.loads((self._at(snapshot) / "snapshot.json").read_bytes())
            layers = [self._at(name) / "layer" for name in note["layers"]]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return layers if all(layer.is_dir() for layer in layers) else None

    def size(self, snapshot: str) -> int | None:
        """Bytes on disk of the topmost layer alone; None when there is no such snapshot."""
        try:
            return int(json.loads((self._at(snapshot) / "snapshot.json").read_bytes())["size"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def base_size(self, snapshot: str) -> int:
        """Bytes on disk of all layers."""
        layers = self.layers(snapshot) or []
        return sum(self.size(layer.parent.name) or 0 for layer in layers)

    def add(self, tree: Path, below: str | None) -> str:
        """Takes ``tree`` away from where it is as a new snapshot over ``below``."""
        chain: list[str] = []
        if below is not None:
            note = json.loads((self._at(below) / "snapshot.json").read_bytes())
            chain = list(note["layers"])
        name = uuid.uuid4().hex
        new = self._at(name)
        new.mkdir(parents=True)
        size, _ = disk_usage(str(tree))
        os.rename(tree, new / "layer")
        note = {"layers": [name, *chain], "created": time.time(), "size": size}
        part = new / "snapshot.part"
        part.write_text(json.dumps(note))
        part.rename(new / "snapshot.json")
        return name

    def remove(self, snapshot: str) -> None:
        if snapshot.isalnum():
            remove_tree(self._at(snapshot))
