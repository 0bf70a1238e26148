"""A temporary git directory of our own: objects are written here, and read here or elsewhere.

Runs git with nothing but this directory's configuration. Knows no checkout, patch or archive.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Final

from pytest_sandbox import scratch
from pytest_sandbox.errors import BadInput
from pytest_sandbox.workspace.gitobjects import Batch, Missing, ObjectFormat, printable

# Whatever a repository's own .gitattributes say, bytes are taken as they are.
_ATTRIBUTES: Final = "* -text -eol -ident -filter -working-tree-encoding -whitespace !merge\n"

_CONFIG: Final = """\
[core]
\trepositoryformatversion = {version}
\tfilemode = true
\tsymlinks = true
\tignorecase = false
\tprecomposeunicode = false
\tprotectHFS = true
\tprotectNTFS = true
\tautocrlf = false
\tsafecrlf = false
\tfsmonitor = false
\tuntrackedCache = false
\tsparseCheckout = false
\tcommitGraph = false
\tsplitIndex = false
\thooksPath = /dev/null
\tattributesFile = /dev/null
[protocol]
\tallow = never
[gc]
\tauto = 0
[maintenance]
\tauto = false
[apply]
\twhitespace = nowarn
\tignorewhitespace = no
[pack]
\tthreads = 1
\tcompression = 1
[index]
\tthreads = 1
"""

#: Processes that wait for somebody who reads objects; starting one takes milliseconds.
_IDLE = 4


@dataclass(frozen=True, slots=True)
class Output:
    status: int
    stdout: bytes
    #: Capped; not yet safe to show.
    stderr: str


def git_executable() -> str:
    """Absolute path of git, found once by GitPython's rules (GIT_PYTHON_GIT_EXECUTABLE, PATH).

    Raises:
        BadInput: there is none.
    """
    try:
        import git
    except ImportError as error:
        raise BadInput("git is needed and was not found on PATH: install it") from error
    found = shutil.which(git.Git.GIT_PYTHON_GIT_EXECUTABLE or "git")
    if found is None:
        raise BadInput("git is needed and was not found on PATH: install it")
    return os.path.abspath(found)


class Store:
    """Owns the temporary directory; ``close`` removes it. Methods may be called from threads."""

    def __init__(self, algorithm: ObjectFormat = "sha1", parent: Path | None = None) -> None:
        self.algorithm: ObjectFormat = algorithm
        self._git = git_executable()
        self._environ = {
            name: value for name, value in os.environ.items() if not name.startswith("GIT_")
        }
        self._lock = threading.Lock()
        self._linked: list[Path] = []
        self._idle: list[Batch] = []
        self._generation = 0
        self._closed = False
        self.path = scratch.make(parent)
        self.git_dir = self.path / "git"
        #: Where git looks for a work tree when it shall find none.
        self.empty = self.path / "empty"
        for folder in (self.empty, *(self.git_dir / n for n in ("objects/info", "refs", "info"))):
            folder.mkdir(parents=True)
        config = _CONFIG.format(version=0 if algorithm == "sha1" else 1)
        if algorithm != "sha1":
            config += f"[extensions]\n\tobjectformat = {algorithm}\n"
        (self.git_dir / "config").write_text(config)
        (self.git_dir / "HEAD").write_text("ref: refs/heads/none\n")
        (self.git_dir / "info/attributes").write_text(_ATTRIBUTES)

    def close(self) -> None:
        self._closed = True
        self._end_readers()
        shutil.rmtree(self.path, ignore_errors=True)

    def link(self, objects: Path) -> None:
        """Let objects be read from another object directory as well."""
        with self._lock:
            if objects in self._linked:
                return
            self._linked.append(objects)
            # Quoted as git quotes, since a folder's name may hold a newline.
            lines = (
                '"' + "".join(f"\\{byte:03o}" for byte in os.fsencode(path)) + '"\n'
                for path in self._linked
            )
            (self.git_dir / "objects/info/alternates").write_text("".join(lines))
        self._end_readers()

    def environment(self, index: Path | None, work_tree: Path | None) -> dict[str, str]:
        return self._environ | {
            "GIT_DIR": str(self.git_dir),
            "GIT_WORK_TREE": str(work_tree or self.empty),
            "GIT_INDEX_FILE": str(index or self.path / "no-index"),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_SYSTEM": os.devnull,
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_OPTIONAL_LOCKS": "0",
            "GIT_NO_REPLACE_OBJECTS": "1",
            # Older gits fetch missing objects all the same; they have no remote here.
            "GIT_NO_LAZY_FETCH": "1",
            "GIT_ALLOW_PROTOCOL": "none",
            "GIT_LITERAL_PATHSPECS": "1",
            "LC_ALL": "C",
        }

    def run(
        self,
        *args: str | bytes,
        stdin: bytes = b"",
        index: Path | None = None,
        work_tree: Path | None = None,
        ok: Sequence[int] = (0,),
        timeout: float = 600,
        extra: Mapping[str, str] | None = None,
    ) -> Output:
        """Run git to its end.

        Raises:
            BadInput: a status not in ``ok``, or longer than ``timeout`` seconds.
        """
        try:
            done = subprocess.run(
                [self._git, *args],
                input=stdin,
                capture_output=True,
                cwd=self.empty,
                env=self.environment(index, work_tree) | dict(extra or {}),
                timeout=timeout,
            )
        except subprocess.TimeoutExpired as error:
            raise BadInput(f"git {args[0]!r} did not end within {timeout:g} s") from error
        output = Output(done.returncode, done.stdout, done.stderr[:8192].decode("utf-8", "replace"))
        if ok and output.status not in ok:
            raise BadInput(
                f"git {args[0]!r} failed with {output.status}: {printable(output.stderr)}"
            )
        return output

    @contextmanager
    def batch(self) -> Iterator[Batch]:
        """A reader of objects for the block. Those that are through wait for the next."""
        with self._lock:
            batch = self._idle.pop() if self._idle else None
        if batch is None:
            batch = Batch(self._reader(), self.algorithm)
        batch.busy = False
        generation = self._generation
        try:
            yield batch
        finally:
            with self._lock:
                # What was started before a link does not look there.
                fit = not batch.busy and generation == self._generation and not self._closed
                if fit and len(self._idle) < _IDLE:
                    self._idle.append(batch)
                    batch = None
            if batch is not None:
                batch.close()

    def _reader(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [self._git, "cat-file", "--batch"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=self.empty,
            env=self.environment(None, None),
        )

    def _end_readers(self) -> None:
        with self._lock:
            self._generation += 1
            idle, self._idle = self._idle, []
        for batch in idle:
            batch.close()

    def sizes(self, oids: Iterable[str]) -> dict[str, int]:
        """Size in bytes of each object.

        Raises:
            Missing: for the first that is not there.
        """
        unique = list(dict.fromkeys(oids))
        if not unique:
            return {}
        request = "".join(oid + "\n" for oid in unique).encode()
        answer = self.run("cat-file", "--batch-check=%(objectname) %(objectsize)", stdin=request)
        found: dict[str, int] = {}
        for oid, line in zip(unique, answer.stdout.decode().splitlines(), strict=True):
            size = line.split()[-1]
            if not size.isdigit():
                raise Missing(oid)
            found[oid] = int(size)
        return found

    def names(self, rev: str) -> str | None:
        """The hash that ``rev`` stands for, whether or not that object is here."""
        answer = self.run("rev-parse", "--verify", "--quiet", "--end-of-options", rev, ok=())
        return answer.stdout.decode().strip() or None if answer.status == 0 else None

    @contextmanager
    def index(self) -> Iterator[Path]:
        """The path of an index that is nobody else's."""
        folder = Path(tempfile.mkdtemp(dir=self.path))
        try:
            yield folder / "index"
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def write(self, kind: str, data: bytes) -> str:
        """Store one object, return its hash."""
        return self.write_stream(kind, len(data), iter([data]))

    def write_stream(self, kind: str, size: int, chunks: Iterator[bytes]) -> str:
        """Store an object of exactly ``size`` bytes without holding it in memory."""
        with Writer(self, kind, size) as writer:
            for chunk in chunks:
                writer.write(chunk)
            return writer.keep()

    def hash(self, kind: str, data: bytes) -> str:
        head = f"{kind} {len(data)}\0".encode()
        return hashlib.new(self.algorithm, head + data, usedforsecurity=False).hexdigest()


class Writer:
    """Writes one loose object. Left without ``keep``, it leaves nothing."""

    def __init__(self, store: Store, kind: str, size: int) -> None:
        self._store = store
        self._left = size
        head = f"{kind} {size}\0".encode()
        self._digest = hashlib.new(store.algorithm, head, usedforsecurity=False)
        self._zlib = zlib.compressobj(1)
        handle, name = tempfile.mkstemp(dir=store.git_dir / "objects", prefix="tmp_obj_")
        self._file: IO[bytes] = os.fdopen(handle, "wb")
        self._path: Path | None = Path(name)
        self._file.write(self._zlib.compress(head))

    def write(self, data: bytes) -> None:
        self._left -= len(data)
        self._digest.update(data)
        self._file.write(self._zlib.compress(data))

    def keep(self) -> str:
        assert self._path is not None
        assert self._left == 0, "object has another size than announced"
        self._file.write(self._zlib.flush())
        self._file.close()
        oid = self._digest.hexdigest()
        folder = self._store.git_dir / "objects" / oid[:2]
        folder.mkdir(exist_ok=True)
        os.replace(self._path, folder / oid[2:])
        self._path = None
        return oid

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._path is not None:
            self._file.close()
            self._path.unlink(missing_ok=True)
