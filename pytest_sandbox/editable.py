"""Where the editable installs of a virtual environment lead, read as data.

The environment may lie in a checkout nobody trusts: nothing of it is imported, and a file in it
may be anything. Knows no runs.
"""

from __future__ import annotations

import ast
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlparse

_MAX_FILE = 1 << 20
_MAPPING = re.compile(r"^MAPPING\b[^=\n]*=\s*(\{.*\})\s*$", re.MULTILINE)
_URL = re.compile(r'"url"\s*:\s*"file://([^"]+)"')
_EDITABLE = re.compile(r'"editable"\s*:\s*true')


def folders(venv: Path) -> tuple[Path, ...]:
    """Folders outside the environment that its installs would put on ``sys.path``.

    Understands path lines in ``.pth`` files, setuptools' finder modules, symbolic links, and,
    for anything else that calls itself editable, guesses the project's top and its ``src``.
    """
    found: list[Path] = []
    for site in sorted((venv / "lib").glob("python3.*/site-packages/")):
        try:
            found += _in(site)
        except OSError:
            continue
    outside = (path for path in found if path.is_absolute() and not path.is_relative_to(venv))
    return tuple(dict.fromkeys(outside))


def inside(venv_folders: tuple[Path, ...], checkout: Path, workspace: str) -> tuple[str, ...]:
    """Those of ``folders`` that lie in ``checkout``, as they are called in ``workspace``."""
    tops = {checkout, Path(os.path.realpath(checkout))}
    found = []
    for folder in venv_folders:
        for path in (folder, Path(os.path.realpath(folder))):
            top = next((top for top in tops if path.is_relative_to(top)), None)
            if top is not None:
                relative = path.relative_to(top).as_posix()
                found.append(workspace if relative == "." else f"{workspace}/{relative}")
                break
    return tuple(dict.fromkeys(found))


def text(path: Path) -> str:
    """The beginning of a regular file; "" for anything else, which is never waited for.

    Undecodable bytes are kept as surrogates, so that paths stay what they are.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
    try:
        descriptor = os.open(path, flags)
    except (OSError, ValueError):
        return ""
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return ""
        return file.read(_MAX_FILE).decode("utf-8", "surrogateescape")


def _in(site: Path) -> list[Path]:
    found: list[Path] = []
    for pth in sorted(site.glob("*.pth")):
        for line in text(pth).splitlines():
            # Lines that begin with "import" are code, which is not run here.
            if line.startswith("/") and "\0" not in line:
                found.append(_normal(line))
    for finder in sorted(site.glob("__editable__*_finder.py")):
        found += _mapped(text(finder))
    found += [
        _normal(os.path.join(site, os.readlink(entry))).parent
        for entry in sorted(site.iterdir())
        if entry.is_symlink()
    ]
    for url in sorted(site.glob("*.dist-info/direct_url.json")):
        said = text(url)
        match = _URL.search(said)
        if match and _EDITABLE.search(said):
            project = _normal(
                unquote(urlparse(f"file://{match[1]}").path, errors="surrogateescape")
            )
            if not any(path.is_relative_to(project) for path in found):
                found += [project / "src", project]
    return found


def _mapped(source: str) -> Iterator[Path]:
    """Parents of what a finder's MAPPING leads to. A name other than the folder's cannot be
    said with a path, and is left out."""
    match = _MAPPING.search(source)
    if match is None:
        return
    try:
        mapping = ast.literal_eval(match[1])
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return
    for name, path in mapping.items() if isinstance(mapping, dict) else ():
        if not isinstance(name, str) or not isinstance(path, str) or not path.startswith("/"):
            continue
        parts = name.split(".")
        target = _normal(path.removesuffix(".py"))
        if "\0" not in path and target.parts[-len(parts) :] == tuple(parts):
            yield target.parents[len(parts) - 1]


def _normal(path: str) -> Path:
    return Path(os.path.normpath(path))
