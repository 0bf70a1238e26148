"""Sessions of the plugin in processes of their own, to be interrupted, killed and watched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.interpreters import environment
from tests.unit.gitrepo import Repo

#: What would change a session; without the last, output is buffered, as it is for users.
_UNTYPICAL = ("COLUMNS", "LINES", "PYTEST", "COV_", "CI", "PYTHONUNBUFFERED")
#: (pid, start time in clock ticks)
Process = tuple[int, str]


def own_python() -> str:
    """A folder with an environment of this Python that has pytest."""
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    return str(environment(version, ("pytest==9.0.2",)).parent.parent)


def project(path: Path, files: Mapping[str, str]) -> Path:
    """A git repository with these files, committed."""
    Repo.make(path, {name: content.encode() for name, content in files.items()})
    return path


def processes() -> dict[Process, int]:
    """Every process that is no zombie, and its parent."""
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                text = Path(f"/proc/{entry}/stat").read_text(errors="replace")
            except OSError:
                continue
            fields = text.rpartition(")")[2].split()
            if fields[0] not in "ZX":
                found[int(entry), fields[19]] = int(fields[1])
    return found


def descendants(pid: int) -> set[Process]:
    parents = processes()
    found: set[Process] = set()
    known = {pid}
    while True:
        new = {p for p, parent in parents.items() if parent in known} - found
        if not new:
            return found
        found |= new
        known = {p[0] for p in new}


def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether ``condition`` comes true in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


class Session:
    """One session of pytest in a group of its own, with cache, state and temporary files.

    Use it as a context manager: at the end nothing of it runs.
    """

    def __init__(
        self, repo: Path, *args: str, plugins: Sequence[str] = (), **variables: str
    ) -> None:
        # Below the tests' own folder, which an engine's other uid can get through.
        base = Path(os.environ["XDG_CACHE_HOME"]).parent
        base.mkdir(exist_ok=True)
        self.home = Path(tempfile.mkdtemp(dir=base))
        self.home.chmod(0o755)
        for name in ("cache", "state", "tmp"):
            (self.home / name).mkdir()
        self._repo, self._args, self._plugins = repo, args, plugins
        self._variables = variables
        self._seen: set[Process] = set()
        self.program = [sys.executable, "-m", "pytest"]

    def __enter__(self) -> Session:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self.popen.poll() is None:
            self.popen.kill()
            self.popen.wait()

    def start(self, *args: str) -> None:
        """Start it; a second time with other arguments, on the same state."""
        with open(self.home / "out", "wb") as out:
            self.popen = self.launch(out.fileno(), *args)

    def launch(self, output: int, *args: str, errors: int = -1) -> subprocess.Popen[bytes]:
        """Start it with its output, and its errors if they are to go elsewhere, to descriptors."""
        here = Path(__file__).parent
        env = {k: v for k, v in os.environ.items() if not k.startswith(_UNTYPICAL)}
        env |= {
            "PYTEST_PLUGINS": ",".join(("pytest_sandbox.plugin", *self._plugins)),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTHONPATH": os.pathsep.join(map(str, (here, here.parent.parent))),
            "XDG_CACHE_HOME": str(self.home / "cache"),
            "XDG_STATE_HOME": str(self.home / "state"),
            "TMPDIR": str(self.home / "tmp"),
            **self._variables,
        }
        return subprocess.Popen(
            [*self.program, *(args or self._args)],
            cwd=self._repo,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output if errors < 0 else errors,
            start_new_session=True,
        )

    @property
    def output(self) -> str:
        return (self.home / "out").read_text(errors="replace")

    def reach(self, text: str, seconds: float = 60) -> None:
        """Wait until ``text`` is part of the output; whatever runs then is remembered."""
        reached = until(lambda: text in self.output or self.popen.poll() is not None, seconds)
        assert reached, f"no {text!r} in:\n{self.output}"
        assert text in self.output
        self._seen |= descendants(self.popen.pid)

    def interrupt(self, number: int = signal.SIGINT, *, group: bool = False) -> None:
        if group:
            os.killpg(self.popen.pid, number)
        else:
            self.popen.send_signal(number)

    def finish(self, seconds: float = 60) -> int:
        """The exit status, which must come in time."""
        try:
            return self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still there after {seconds} s:\n{self.output}") from None

    def living(self) -> set[Process]:
        return self._seen & processes().keys()

    def left(self) -> list[str]:
        """Everything that should not be there any more."""
        found = [f"process {pid}" for pid, _ in self.living()]
        for folder in ("state/pytest-sandbox/ledger", "cache/pytest-sandbox/local/running", "tmp"):
            path = self.home / folder
            if path.is_dir():
                found += [f"{folder}/{name}" for name in sorted(os.listdir(path))]
        return found

    def assert_nothing_left(self, seconds: float = 0) -> None:
        until(lambda: not self.left(), seconds)
        assert self.left() == [], self.output
