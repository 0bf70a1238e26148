"""Pythons of this machine, for engines that can show host paths inside.

An existing virtual environment may lie in a checkout nobody trusts, so it is read as data:
nothing of it runs here.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlparse

from pytest_sandbox.errors import BadInput

_VERSION = re.compile(r"(?:c?python-?)?(3\.\d{1,2})(?:\.\d+)?")
#: The oldest Python the agent runs on.
OLDEST = (3, 8)


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python installation; ``prefix`` is the folder a sandbox has to see."""

    path: Path
    version: str
    prefix: Path

    @property
    def identity(self) -> str:
        """Differs where an environment made with it could differ."""
        return f"{self.path} {self.version}"


@dataclass(frozen=True, slots=True)
class HostVenv:
    """A virtual environment of this machine and the interpreter below it."""

    path: Path
    python: Path
    interpreter: Interpreter
    #: Folders that editable installs in it point to.
    editable: tuple[Path, ...]


def find_interpreter(name: str | None) -> Interpreter:
    """The Python called ``name``: a version such as "3.9", a path, or None for the one running us.

    Raises:
        BadInput: with what was looked for, and where.
    """
    if name is None:
        executable = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
        return Interpreter(executable, sys.version.split()[0], Path(sys.base_prefix))
    if os.sep in name:
        return _ask(Path(name))
    match = _VERSION.fullmatch(name)
    if match is None:
        raise BadInput(f"--sandbox-python {name!r} is neither a version such as 3.12 nor a path")
    for path in _candidates(match[1]):
        try:
            found = _ask(path)
        except BadInput:
            continue
        if found.version.startswith(match[1] + "."):
            return found
    raise BadInput(
        f"this machine has no Python {match[1]}: looked for python{match[1]} on PATH and in "
        f"{_pyenv()}; install it, or name its path with --sandbox-python"
    )


def _candidates(version: str) -> Iterator[Path]:
    # pyenv first: what it puts on PATH are shell scripts that choose a version by folder.
    folders = _pyenv().glob(f"{version}.*")
    yield from (f / "bin" / "python" for f in sorted(folders, key=_newest, reverse=True))
    found = shutil.which(f"python{version}")
    if found is not None:
        yield Path(found)


def _newest(folder: Path) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", folder.name))


def _pyenv() -> Path:
    return Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"


def _ask(path: Path) -> Interpreter:
    """What a Python the user named says of itself."""
    code = (
        "import sys; print(getattr(sys, '_base_executable', sys.executable)); "
        "print(sys.version.split()[0]); print(sys.base_prefix)"
    )
    try:
        told = subprocess.run(
            [path, "-I", "-S", "-c", code], capture_output=True, text=True, timeout=30, env={}
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BadInput(f"{path} does not run: {error}") from None
    lines = told.stdout.splitlines()
    if told.returncode != 0 or len(lines) != 3:
        raise BadInput(f"{path} is no Python that can be used: {told.stderr.strip()[:200]!r}")
    version = tuple(int(part) for part in re.findall(r"\d+", lines[1])[:2])
    if version < OLDEST:
        raise BadInput(f"{path} is Python {lines[1]}; the sandbox needs 3.8 or later")
    return Interpreter(Path(lines[0]).resolve(), lines[1], Path(lines[2]).resolve())


def read_venv(path: Path) -> HostVenv:
    """The virtual environment in ``path``.

    Raises:
        BadInput: it is none, or its interpreter's folder is not one to show to a sandbox.
    """
    path = Path(os.path.abspath(path))
    try:
        text = (path / "pyvenv.cfg").read_text("utf-8", "replace")[:65_536]
    except OSError:
        raise BadInput(
            f"{path} is no virtual environment: it has no pyvenv.cfg. Make one with "
            f"python -m venv {path}, or leave --sandbox-venv out"
        ) from None
    values = dict(re.findall(r"^\s*([\w-]+)\s*=\s*(.*?)\s*$", text, re.MULTILINE))
    home = Path(values.get("home", ""))
    interpreter = _from_home(home, path)
    python = next((path / "bin" / name for name in ("python", "python3")
                   if os.path.lexists(path / "bin" / name)), None)  # fmt: skip
    if python is None:
        raise BadInput(f"{path} is no virtual environment: it has no bin/python")
    return HostVenv(path, python, interpreter, tuple(_editable(path)))


def _from_home(home: Path, venv: Path) -> Interpreter:
    """The interpreter a pyvenv.cfg names, unless showing its folder would show more than it."""
    refused = f"{venv}/pyvenv.cfg names the interpreter folder {str(home)!r}, which"
    if not home.is_absolute() or not home.is_dir():
        raise BadInput(f"{refused} does not exist: was the Python it was made with removed?")
    home = home.resolve()
    prefix = home.parent
    found = [
        (binary, match[1])
        for binary in sorted(home.glob("python3.*"))
        if (match := re.fullmatch(r"python(3\.\d+)", binary.name))
        and (prefix / "lib" / f"python{match[1]}" / "os.py").is_file()
    ]
    cfg = (venv / "lib").glob("python3.*")
    wanted = {folder.name.removeprefix("python") for folder in cfg}
    found = [pair for pair in found if pair[1] in wanted] or found
    if not found:
        raise BadInput(f"{refused} holds no Python installation")
    if prefix == Path("/") or Path.home().is_relative_to(prefix) or prefix == Path.home():
        raise BadInput(f"{refused} cannot be shown to a sandbox: more than Python lies there")
    binary, version = found[-1]
    return Interpreter(binary.resolve(), version, prefix)


def _editable(venv: Path) -> Iterator[Path]:
    """Folders outside the environment that it imports from."""
    for site in (venv / "lib").glob("python3.*/site-packages"):
        for pth in sorted(site.glob("*.pth")):
            for line in _lines(pth):
                folder = Path(line)
                if not line.startswith(("import ", "import\t", "#")) and folder.is_absolute():
                    yield folder
        for url in sorted(site.glob("*.dist-info/direct_url.json")):
            text = "\n".join(_lines(url))
            match = re.search(r'"url"\s*:\s*"(file://[^"]+)"', text)
            if match and re.search(r'"editable"\s*:\s*true', text):
                yield Path(unquote(urlparse(match[1]).path))


def _lines(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            return file.read(65_536).decode("utf-8", "replace").splitlines()
    except OSError:
        return []
