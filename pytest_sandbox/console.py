"""The command ``pytest-sandbox``: pytest for a checkout nobody trusts.

pytest reads the ini of the directory it starts in, imports what its ``addopts`` name, and puts
folders on ``sys.path``, all before a plugin could prevent it. So this starts pytest with an
ini of its own, the repository as rootdir, and nothing of the checkout to import.
"""

from __future__ import annotations

import hashlib
import os
import site
import sys
from collections.abc import Sequence
from pathlib import Path

import platformdirs

#: Variables that make Python or pytest import more than it is told.
_DROPPED = frozenset({"PYTHONSTARTUP", "PYTHONHOME", "PYTEST_PLUGINS"})
#: In place of the checkout's.
_INI = Path(__file__).with_name("console.ini")


def main(argv: Sequence[str] | None = None) -> int:
    """Become pytest for the repository in the current directory; return only what is refused."""
    given = list(sys.argv[1:] if argv is None else argv)
    if any(arg.startswith(("-c", "--config-file")) for arg in given):
        sys.stderr.write(
            "ERROR: pytest-sandbox reads no configuration here, as it may be the checkout's. "
            "For the pytest in the sandbox: --sandbox-pytest-args='-c FILE'\n"
        )
        return 4
    repo = _repository(given)
    cache = platformdirs.user_cache_path("pytest-sandbox") / "pytest"
    digest = hashlib.sha256(os.fsencode(repo)).hexdigest()[:16]
    before = [
        # Also where the loading of plugins is switched off: it keeps conftest.py out.
        *("-p", "pytest_sandbox"),
        # A link in the checkout could lead pytest's cache anywhere.
        *("-o", f"cache_dir={cache / digest}"),
    ]
    if _grades(given):
        # Nothing here is the user's own; a session that mirrors leaves it out by itself.
        before.append("--noconftest")
    if not any(arg == "--sandbox" or arg.startswith("--sandbox=") for arg in given):
        # The value spares a first positional argument from being taken for it.
        before.append("--sandbox=")
    # Behind what was given, as the last one counts: -qcFILE is hard to see.
    after = ["-c", str(_INI), f"--rootdir={repo}"]
    end = given.index("--") if "--" in given else len(given)
    args = [*before, *given[:end], *after, *given[end:]]
    # Another program in this process: this one may have been started with the checkout on
    # sys.path (python -m, an .egg-info in the current directory). -P keeps it out, -s the user's
    # site, and the environment must not bring either back. Signals are pytest's own this way.
    flags = ["-P"] if _in_user_site() else ["-P", "-s"]
    command = [sys.executable, *flags, "-m", "pytest", *args]
    os.execve(command[0], command, _environment(repo))  # noqa: S606 - no shell is meant


def _grades(args: Sequence[str]) -> bool:
    """Whether candidates are graded, or tasks derived."""
    flags = ("--sandbox-predictions", "--sandbox-derive")
    more = os.environ.get("PYTEST_ADDOPTS", "")
    return any(arg.startswith(flags) for arg in args) or any(flag in more for flag in flags)


def _environment(repo: Path) -> dict[str, str]:
    """This environment, without what would make Python look for modules in the checkout."""
    env = {k: v for k, v in os.environ.items() if k not in _DROPPED}
    path = [
        entry
        for entry in env.pop("PYTHONPATH", "").split(os.pathsep)
        if os.path.isabs(entry) and not Path(entry).resolve().is_relative_to(repo.resolve())
    ]
    if path:
        env["PYTHONPATH"] = os.pathsep.join(path)
    return env


def _in_user_site() -> bool:
    """Whether this package was installed with pip's --user."""
    found = site.getusersitepackages()
    return bool(site.ENABLE_USER_SITE) and Path(__file__).is_relative_to(found)


def _repository(args: Sequence[str]) -> Path:
    """The folder named by --sandbox-repo, or the top of the current repository."""
    for number, arg in enumerate(args):
        if arg.startswith("--sandbox-repo="):
            return Path(arg.partition("=")[2]).resolve()
        if arg == "--sandbox-repo" and number + 1 < len(args):
            return Path(args[number + 1]).resolve()
    if os.environ.get("PYTEST_SANDBOX_REPO"):
        return Path(os.environ["PYTEST_SANDBOX_REPO"]).resolve()
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / ".git").exists():
            return folder
    return here
