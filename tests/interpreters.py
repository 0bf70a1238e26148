"""Real Python environments for tests: an interpreter with some packages, made once and kept."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import platformdirs

CACHE = platformdirs.user_cache_path("pytest-sandbox-tests")


@functools.cache
def interpreter(python: str) -> Path:
    """The interpreter of a version like "3.8": from PATH or pyenv.

    Raises:
        LookupError: this machine has none.
    """
    candidates = []
    if f"{sys.version_info[0]}.{sys.version_info[1]}" == python:
        candidates.append(Path(sys.base_prefix, "bin", f"python{python}"))
    found = shutil.which(f"python{python}")
    if found is not None:
        candidates.append(Path(found))
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates += sorted(versions.glob(f"{python}.*/bin/python"), reverse=True)
    for candidate in candidates:
        code = "import sys; print('%d.%d' % sys.version_info[:2])"
        told = subprocess.run([candidate, "-c", code], capture_output=True, text=True, check=False)
        if told.returncode == 0 and told.stdout.strip() == python:
            return candidate
    raise LookupError(
        f"these tests need Python {python}, and there is none on PATH or in {versions}: "
        f"install it, for example with 'pyenv install {python}'"
    )


@functools.cache
def environment(python: str, requirements: tuple[str, ...]) -> Path:
    """The Python of a virtual environment with ``requirements``; made unless it is there.

    Raises:
        LookupError: this machine has no such interpreter.
        subprocess.CalledProcessError: the packages cannot be installed.
    """
    base = interpreter(python)
    key = hashlib.sha256(repr((str(base), sorted(requirements))).encode()).hexdigest()[:16]
    home = CACHE / f"{python}-{key}"
    if not home.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        # Made aside and renamed, so that a half-made one is never used.
        scratch = Path(tempfile.mkdtemp(dir=CACHE, prefix=".new-"))
        uv = shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
        if uv is None:
            raise LookupError("these tests need uv: pip install -e '.[dev]'")
        try:
            made = scratch / "venv"
            subprocess.run([uv, "venv", "-q", "--relocatable", "-p", base, made], check=True)
            subprocess.run(
                [uv, "pip", "install", "-q", "-p", made / "bin" / "python", *requirements],
                check=True,
            )
            try:
                made.rename(home)
            except OSError:
                if not home.exists():  # else another process was faster
                    raise
        finally:
            shutil.rmtree(scratch)
    return home / "bin" / "python"
