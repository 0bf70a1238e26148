"""The command ``pytest-sandbox``: pytest for a checkout nobody trusts.

pytest reads the ini of the directory it starts in, imports what its ``addopts`` name, and puts
folders on ``sys.path``, all before a plugin could prevent it. So this starts pytest with an
ini of its own, the repository as rootdir, and nothing of the checkout to import.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import platformdirs

_HELP = "pytest-sandbox [--sandbox[=PROVIDER]] [--sandbox-base REV | --sandbox-patch FILE] ..."


def main(argv: Sequence[str] | None = None) -> int:
    """Run pytest on the repository in the current directory and return its exit status."""
    given = list(sys.argv[1:] if argv is None else argv)
    repo = _repository(given)
    cache = platformdirs.user_cache_path("pytest-sandbox") / "pytest"
    digest = hashlib.sha256(os.fsencode(repo)).hexdigest()[:16]
    with tempfile.TemporaryDirectory(prefix="pytest-sandbox-") as folder:
        ini = Path(folder, "pytest.ini")
        ini.write_text("[pytest]\n")
        args = [
            *("-c", str(ini)),
            f"--rootdir={repo}",
            "--noconftest",
            # A link in the checkout could lead pytest's cache anywhere.
            *("-o", f"cache_dir={cache / digest}"),
        ]
        if not any(arg == "--sandbox" or arg.startswith("--sandbox=") for arg in given):
            args.append("--sandbox")
        # A process of its own: this one may have been started with the checkout on sys.path
        # (python -m, an .egg-info in the current directory). -P keeps it out, -s the user's
        # site, and the environment must not bring either back.
        env = {k: v for k, v in os.environ.items() if k not in _DROPPED}
        command = [sys.executable, "-P", "-s", "-m", "pytest", *args, *given]
        return _run(command, env)


#: Variables that make Python or pytest import more than it is told.
_DROPPED = frozenset({"PYTHONPATH", "PYTHONSTARTUP", "PYTHONHOME", "PYTEST_PLUGINS"})


def _run(command: list[str], env: dict[str, str]) -> int:
    process = subprocess.Popen(command, env=env)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            # The terminal sent it to both; pytest closes the sandbox and then ends.
            continue


def _repository(args: Sequence[str]) -> Path:
    """The folder named by --sandbox-repo, or the top of the current repository."""
    for number, arg in enumerate(args):
        if arg.startswith("--sandbox-repo="):
            return Path(arg.partition("=")[2]).resolve()
        if arg == "--sandbox-repo" and number + 1 < len(args):
            return Path(args[number + 1]).resolve()
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / ".git").exists():
            return folder
    return here
