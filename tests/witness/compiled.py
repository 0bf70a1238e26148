"""The witness as this machine's Pythons load it, compiled once for each state of its source."""

from __future__ import annotations

import functools
import hashlib
import os
import runpy
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.interpreters import CACHE, interpreter

FOLDER = Path(__file__).parents[2] / "witness"
VERSIONS = ("3.12", "3.13")


@functools.cache
def library(version: str) -> Path:
    """The compiled file for a Python; made unless it is there."""
    python = interpreter(version)
    sources = [FOLDER / "compiling.py", *sorted((FOLDER / "native").iterdir())]
    text = b"".join(path.read_bytes() for path in sources) + os.fsencode(python)
    folder = CACHE / f"witness-{hashlib.sha256(text).hexdigest()[:16]}"
    if not folder.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        compile_for: Callable[[Path, Path], Path] = runpy.run_path(str(sources[0]))["compile_for"]
        with tempfile.TemporaryDirectory(dir=CACHE, prefix=".new-") as scratch:
            made = Path(scratch, "made")
            made.mkdir()
            compile_for(python, made)
            try:
                made.rename(folder)
            except OSError:
                if not folder.exists():  # else another process was faster
                    raise
    return next(folder.iterdir())


def suffix(version: str) -> str:
    return library(version).name.removeprefix("_witness")
