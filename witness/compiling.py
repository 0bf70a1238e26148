"""Compiles the witness, once for each Python it is to work in. Needs a C compiler, no packages."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).parent / "native" / "witness.c"
#: What it was tried with: what it reads of code and frames is not promised for others.
TRIED = ((3, 12), (3, 13))
_ASK = """\
import json, sys, sysconfig
print(json.dumps([
    sys.implementation.name, list(sys.version_info[:2]), sysconfig.get_config_var("EXT_SUFFIX"),
    sysconfig.get_path("include"), bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
]))
"""


class Unfit(Exception):
    """No witness can be made for that Python, and why."""


def pythons() -> list[Path]:
    """Those named in WITNESS_PYTHONS, or all that look as if they would fit."""
    named = os.environ.get("WITNESS_PYTHONS")
    if named is not None:
        return [Path(name) for name in named.split(os.pathsep) if name]
    names = [f"python3.{minor}" for _, minor in TRIED]
    found = [Path(path) for path in map(shutil.which, names) if path]
    root = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
    found += sorted(root.glob("versions/3.*/bin/python"))
    return [Path(sys.executable), *found]


def compile_for(python: Path, folder: Path) -> Path:
    """Compile for one Python, into ``folder``.

    Raises:
        Unfit: it is too old, of another kind, or without headers.
        subprocess.CalledProcessError: the compiler failed; it has said why.
    """
    try:
        asked = subprocess.run(
            [python, "-I", "-c", _ASK], capture_output=True, text=True, check=False, timeout=60
        )
    except OSError as error:
        raise Unfit(f"{python} does not start: {error.strerror}") from None
    if asked.returncode != 0:
        raise Unfit(f"{python} does not start: {asked.stderr.strip()[-200:]}")
    name, version, suffix, include, free = json.loads(asked.stdout)
    if name != "cpython" or tuple(version) not in TRIED or free:
        raise Unfit(f"{python} is no CPython 3.12 or 3.13 with the global lock")
    if not Path(include, "Python.h").exists():
        raise Unfit(f"{python} has no headers: there is no {include}/Python.h")
    target = folder / f"_witness{suffix}"
    compiler = shlex.split(os.environ.get("CC", "cc"))
    flags = shlex.split(os.environ.get("CFLAGS", "-O2"))
    warnings = ["-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-missing-field-initializers"]
    subprocess.run(
        [*compiler, "-std=c11", "-D_GNU_SOURCE", *flags, *warnings, "-fPIC", "-shared", "-s",
         "-fvisibility=hidden", f"-I{include}", "-o", target, SOURCE],
        check=True,
    )  # fmt: skip
    return target


def compile_all(folder: Path) -> list[Path]:
    """Compile for every Python there is, into ``folder``; raises Unfit where that is none."""
    folder.mkdir(parents=True, exist_ok=True)
    made: dict[str, Path] = {}
    problems = []
    for python in pythons():
        try:
            path = compile_for(python, folder)
        except Unfit as problem:
            problems.append(str(problem))
        else:
            made[path.name] = path
    if not made:
        raise Unfit("no Python to build for; name some in WITNESS_PYTHONS\n" + "\n".join(problems))
    return sorted(made.values())


if __name__ == "__main__":
    for compiled in compile_all(Path(sys.argv[1])):
        print(compiled)
