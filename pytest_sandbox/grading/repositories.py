"""Repositories of tasks: opened once, those behind URLs fetched into a shared cache."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from pytest_sandbox.errors import BadInput, InfraError
from pytest_sandbox.wire import printable
from pytest_sandbox.workspace import Workspace, git_executable

_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_URL = re.compile(r"(https?|ssh|git|file)://[^\s'\"]+")
#: What git says where the remote has answered, and has no such repository or commit. (Who is asked
#: for a password by GitHub has named a repository that is not there, or is not public.)
_NOT_THERE = re.compile(
    r"couldn't find remote ref|not our ref|unadvertised object|invalid refspec"
    r"|repository (?:\S+ )?not found|does not appear to be a git repository"
    r"|repository not exported|terminal prompts disabled",
    re.IGNORECASE,
)
#: Seconds for getting one commit.
_PATIENCE = 900.0


class Repositories:
    """Workspaces by repository and commit; a context manager. May be used from several threads."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._open: dict[str, Workspace] = {}
        self._lock = threading.Lock()
        self._fresh: set[tuple[str, str]] = set()
        self._fetching: dict[str, threading.Lock] = {}
        #: When asking a URL last came to nothing, and why.
        self._failed: dict[str, tuple[float, str]] = {}

    def __enter__(self) -> Repositories:
        return self

    def __exit__(self, *exc: object) -> None:
        with self._lock:
            for workspace in self._open.values():
                workspace.close()
            self._open.clear()

    def workspace(self, repo: str, base: str) -> Workspace:
        """The workspace of a path or URL that has the commit ``base``.

        Raises:
            BadInput: there is no such repository or commit; the message names the task's field.
            InfraError: it could not be found out, such as without network.
        """
        if _URL.fullmatch(repo):
            asked = time.monotonic()
            with self._lock:
                lock = self._fetching.setdefault(repo, threading.Lock())
            with lock:
                when, why = self._failed.get(repo, (asked, ""))
                if when > asked:
                    # Who waited for it has its answer: each its own attempt would take for ever.
                    raise InfraError(why)
                try:
                    path = self._fetched(repo, base)
                except InfraError as error:
                    self._failed[repo] = time.monotonic(), str(error)
                    raise
        else:
            path = Path(repo)
            if not path.is_dir():
                raise BadInput(f"repo: there is no folder {repo!r}")
        with self._lock:
            if str(path) not in self._open:
                self._open[str(path)] = Workspace.open(path, exact=True)
            return self._open[str(path)]

    def _fetched(self, url: str, base: str) -> Path:
        """A bare repository in the cache that has the commit, and as little else as git allows."""
        name = re.sub(r"[^A-Za-z0-9._-]", "-", url.partition("://")[2])[-80:]
        path = self._cache / f"{name}-{hashlib.sha256(url.encode()).hexdigest()[:12]}.git"
        if not path.exists():
            self._made(path)
        commit = _COMMIT.fullmatch(base) is not None
        known = self._has(path, base)
        # A commit is what it is; a branch may have moved since another session.
        if known and (commit or (url, base) in self._fresh):
            return path
        # A name of its own: what FETCH_HEAD says may be another process's by then.
        ref = f"+{base}:refs/{'commits' if commit else 'heads'}/{base}"
        problem = self._fetch(path, "--no-tags", "--depth=1", url, ref)
        if problem and commit:
            # A server that hands out no single commits.
            problem = self._fetch(path, url, "+refs/*:refs/*")
        if not self._has(path, base) or (problem and not known):
            if problem and not _NOT_THERE.search(problem):
                raise InfraError(f"repo {url} cannot be reached: {printable(problem, line=True)}")
            problem = problem or "it was fetched, and is not there"
            raise BadInput(
                f"repo {url}: {base!r} cannot be fetched: {printable(problem, line=True)}"
            )
        self._fresh.add((url, base))
        return path

    def _made(self, path: Path) -> None:
        """An empty repository; whole, whoever else makes it at the same time."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=path.parent) as folder:
            new = Path(folder, "git")
            new.mkdir()
            self._git(new, "init", "-q", "--bare", ".")
            try:
                new.rename(path)
            except OSError:
                if not path.exists():
                    raise

    def _fetch(self, path: Path, *args: str) -> str:
        """What went wrong; git gives up at once where another process holds a lock."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            problem = self._git(path, "fetch", "-q", *args, check=False)
            busy = ".lock" in problem or "shallow file has changed" in problem
            if not busy or time.monotonic() > deadline:
                return problem
            time.sleep(0.2)

    def _has(self, path: Path, base: str) -> bool:
        while True:
            problem = self._git(path, "cat-file", "-e", f"{base}^{{tree}}", check=False)
            if "shallow" not in problem:
                return not problem
            time.sleep(0.05)  # git does not like it to change under its eyes

    def _git(self, path: Path, *args: str, check: bool = True) -> str:
        """What git said of what went wrong, "" when nothing did.

        Raises:
            InfraError: it could not be run to its end; with ``check``, when something went wrong.
        """
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("GIT_") or name in ("GIT_SSL_CAINFO", "GIT_SSH_COMMAND")
        }
        environment |= {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
        try:
            done = subprocess.run(
                [git_executable(), *args],
                cwd=path,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_PATIENCE,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise InfraError(f"git {args[0]} in {path} did not end well: {error}") from None
        if done.returncode == 0:
            return ""
        said = done.stderr.decode(errors="replace").strip() or f"status {done.returncode}"
        if check:
            raise InfraError(f"git {args[0]} in {path}: {printable(said, line=True)}")
        return said
