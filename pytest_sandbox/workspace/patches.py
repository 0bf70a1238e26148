"""Applying a patch to a tree, and saying exactly why it cannot be applied.

Works on an index of its own: no file is written, whatever the patch names. Knows no checkout.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from pytest_sandbox.errors import BadInput, PatchError
from pytest_sandbox.workspace import judge, patchtext, trees
from pytest_sandbox.workspace.gitobjects import (
    EXECUTABLE,
    FILE,
    GITLINK,
    Change,
    Entry,
    printable,
    quoted,
)
from pytest_sandbox.workspace.gitstore import Output, Store

Tolerance = Literal["strict", "crlf", "whitespace", "recount", "fuzz", "3way"]

TOLERANCES: Final[dict[Tolerance, str]] = {
    "strict": "exactly, as `git apply` does",
    "crlf": "whatever its line ends are",
    "whitespace": "with other white space in lines it does not change",
    "recount": "with wrong line counts in its hunk headers",
    "fuzz": "with one line of context at each end of a hunk enough",
    "3way": "by merging with the versions it was made from",
}

_TIMEOUT: Final = 120.0
_FLAG: Final = "--sandbox-patch-tolerance"
_REFUSED: Final = re.compile(
    r"invalid path '|beyond a symbolic link|is outside (the )?repository|affected file .* is beyond"
)
_MALFORMED: Final = re.compile(
    r"corrupt patch|No valid patches|unrecognized input|patch fragment without header|"
    r"lacks filename|without full index line|corrupt binary patch|inconsistent|garbage|"
    r"invalid mode|unrecognized binary patch|git diff header|bad git-diff|unable to find filename"
)
_AT_LINE: Final = re.compile(r"(?:at line |at .{0,200}?:)(\d{1,9})")
_FAILED: Final = re.compile(r"^error: patch failed: (.*):(\d{1,9})$", re.M)
_NOT_THERE: Final = re.compile(r"^error: (.*): (?:does not exist in index|No such file.*)$", re.M)
_THERE: Final = re.compile(r"^error: (.*): already exists in index$", re.M)


@dataclass(frozen=True, slots=True)
class Result:
    """A tree, how the patch was applied ("strict", or the tolerance needed), what changed."""

    tree: str
    how: str
    paths: tuple[bytes, ...]


def apply(
    store: Store, base: str, patch: bytes, *, name: str, onto: str, tolerance: Tolerance = "strict"
) -> Result:
    """Apply ``patch`` to the tree ``base``. ``name`` and ``onto`` are for messages.

    Raises:
        PatchError: empty, malformed, conflict or refused.
        BadInput: an unknown tolerance, or a damaged repository.
    """
    if tolerance not in TOLERANCES:
        raise BadInput(f"{tolerance!r} is no patch tolerance; there are {', '.join(TOLERANCES)}")
    name = printable(name)
    patchtext.check(patch, name)
    before = {entry.path: entry for entry in trees.walk(store, base)}
    with _Trial(store, before, patch) as trial:
        first = None
        for kind in dict.fromkeys(("strict", tolerance)):
            output = trial.apply(kind)
            first = first or output
            if output.status == 0:
                how = kind if trial.strip == 1 else f"{kind}, -p0"
                return _accept(trial, name, onto, how)
        assert first is not None
        raise _explain(trial, first, name, onto, tolerance)


def _accept(trial: _Trial, name: str, onto: str, how: str) -> Result:
    before, after = trial.before, trial.after()
    paths = sorted(before.keys() | after.keys())
    changes = [
        Change(path, before.get(path), after.get(path))
        for path in paths
        if before.get(path) != after.get(path)
    ]
    if not changes:
        raise PatchError("empty", f"{name} changes nothing: {onto} already is what it makes")
    judge.screen(changes, name)
    known = {entry.blob for entry in before.values()}
    fresh = {change.new.blob for change in changes if change.new} - known
    judge.weigh(changes, trial.private.sizes(fresh), name)
    with trial.private.batch() as batch:
        for _, kind, size, chunks in batch.stream(sorted(fresh)):
            trial.store.write_stream(kind, size, chunks)
    judge.compare(trial.store, changes, before, after, name)
    tree = trees.build(trial.store, after.values())
    return Result(tree, how, tuple(change.path for change in changes))


class _Trial:
    """One patch and one tree, tried in several ways. Owns a store of its own.

    git applies the patch where only the files it names can be read: an `index` line could
    otherwise bring in any blob the user's repository holds, a later fix among them. And git
    touches the time of an object it writes anew, which there cannot be one of the user's.
    """

    def __init__(self, store: Store, before: Mapping[bytes, Entry], patch: bytes) -> None:
        self.store = store
        self.before = before
        self.patch = patch
        #: Path components dropped by the way that worked.
        self.strip = 1
        self.private = Store(store.algorithm, store.path)
        self._index = self.private.path / "base-index"
        self._used = self.private.path / "trial-index"
        self._lines = patchtext.scan(patch)
        #: By path, as a patch may name one file in any number of its headers.
        self._crlf: dict[bytes, bool | None] = {}
        self._bare = not any(
            path.startswith((b"a/", b"b/")) for path in patchtext.names(self._lines)
        )

    def __enter__(self) -> _Trial:
        try:
            rows = (
                f"{entry.mode} {entry.blob}\t".encode() + entry.path + b"\0"
                for entry in self.before.values()
            )
            self.private.run(
                "update-index", "-z", "--index-info", stdin=b"".join(rows), index=self._index
            )
            named = patchtext.names(self._lines)
            whole = named | {path.partition(b"/")[2] for path in named}
            self._lend(e.blob for p in whole if (e := self.before.get(p)) and e.mode != GITLINK)
        except BaseException:
            self.private.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.private.close()

    def _lend(self, blobs: Iterable[str]) -> None:
        with self.store.batch() as batch:
            for _, kind, size, chunks in batch.stream(dict.fromkeys(blobs)):
                self.private.write_stream(kind, size, chunks)

    def apply(self, kind: Tolerance, *extra: str) -> Output:
        patch, args = self._ways(kind)
        output = self._git(patch, *args, *extra)
        self.strip = 1
        if output.status and self._bare:
            # Paths without a/ and b/: another reading is possible only where that one failed.
            again = self._git(patch, "-p0", *args, *extra)
            if again.status == 0:
                self.strip = 0
                return again
        return output

    def _git(self, patch: bytes, *args: str) -> Output:
        shutil.copyfile(self._index, self._used)
        try:
            return self.private.run(
                *("apply", "--cached", "--whitespace=nowarn", *args, "-"),
                stdin=patch,
                index=self._used,
                ok=(),
                timeout=_TIMEOUT,
            )
        except BadInput as error:
            raise PatchError("refused", f"the patch is refused: {error}") from error

    def _ways(self, kind: Tolerance) -> tuple[bytes, Sequence[str]]:
        if kind == "crlf":
            return patchtext.line_ends(self.patch, self._uses_crlf), ()
        if kind == "recount":
            # What counts lines wrongly is often what forgets the last line end, too.
            ended = self.patch if self.patch.endswith(b"\n") else self.patch + b"\n"
            return ended, ("--recount",)
        if kind == "3way":
            # The versions it was made from, which only this tolerance may look at.
            asked = "".join(f"{oid}\n" for oid in sorted(patchtext.origins(self._lines)))
            answer = self.store.run(
                "cat-file", "--batch-check=%(objecttype) %(objectname)", stdin=asked.encode()
            )
            rows = (line.split() for line in answer.stdout.decode().splitlines())
            self._lend(row[1] for row in rows if len(row) == 2 and row[0] == "blob")
            return self.patch, ("--3way",)
        options: dict[Tolerance, Sequence[str]] = {
            "whitespace": ("--ignore-whitespace",),
            "fuzz": ("-C1",),
        }
        return self.patch, options.get(kind, ())

    def _uses_crlf(self, path: bytes) -> bool | None:
        if path not in self._crlf:
            self._crlf[path] = self._looks_crlf(path)
        return self._crlf[path]

    def _looks_crlf(self, path: bytes) -> bool | None:
        entry = self.before.get(path)
        if entry is None or entry.mode not in (FILE, EXECUTABLE):
            return None
        with self.store.batch() as batch:
            text = batch.read(entry.blob, "blob", limit=1 << 30)
        return text.count(b"\r\n") * 2 > text.count(b"\n")

    def after(self) -> dict[bytes, Entry]:
        """The files that the last successful way made."""
        listed = self.private.run("ls-files", "-z", "--stage", index=self._used)
        files: dict[bytes, Entry] = {}
        for line in listed.stdout.split(b"\0")[:-1]:
            head, _, path = line.partition(b"\t")
            mode, blob, _ = head.decode().split(" ")
            files[path] = Entry(path, mode, blob)
        return files


def _explain(
    trial: _Trial, output: Output, name: str, onto: str, tolerance: Tolerance
) -> PatchError:
    text = output.stderr
    if _REFUSED.search(text):
        return PatchError("refused", f"{name} is refused by git: {_first(text)}")
    if _MALFORMED.search(text):
        return _malformed(trial, text, name, tolerance)
    return _conflict(trial, text, name, onto, tolerance)


def _first(text: str) -> str:
    line = next((line for line in text.splitlines() if line.strip()), "git gave no reason")
    return printable(line.removeprefix("error: ").removeprefix("fatal: "))


def _malformed(trial: _Trial, text: str, name: str, tolerance: Tolerance) -> PatchError:
    lines = trial.patch.count(b"\n")
    at = _AT_LINE.search(text)
    if "without full index line" in text:
        why = f"holds a binary file without its content ({_first(text)}); make it with `git diff "
        return PatchError("malformed", f"{name} {why}--binary`")
    if at is None or "corrupt" not in text:
        return PatchError("malformed", f"{name} is not a usable diff: {_first(text)}")
    number = int(at[1])
    if not trial.patch.endswith(b"\n") and number >= lines:
        why = (
            f"does not end with a line end (line {lines + 1}), so it may have been cut off; make "
            "sure it is whole and add one"
        )
    elif number > lines:
        why = f"ends in the middle of a hunk, at line {lines}; get the whole of it"
    else:
        bad = trial.patch.split(b"\n")[number - 1]
        why = (
            f"is broken at line {number}, {quoted(bad, 80)}: the lines of its hunk are not as "
            "many as the hunk's header says, or one does not begin with a space, + or -"
        )
    return PatchError("malformed", f"{name} {why}{_hint(trial, tolerance, ('recount',))}")


def _hint(trial: _Trial, tolerance: Tolerance, kinds: Sequence[Tolerance]) -> str:
    """The tolerance with which it would apply, for the user to choose."""
    for kind in kinds:
        if kind != tolerance and trial.apply(kind).status == 0:
            return f". It applies {TOLERANCES[kind]}: {_FLAG} {kind}"
    return ""


def _conflict(trial: _Trial, text: str, name: str, onto: str, tolerance: Tolerance) -> PatchError:
    failed, missing, there = (p.search(text) for p in (_FAILED, _NOT_THERE, _THERE))
    if failed:
        where = f"{quoted(failed[1])}"
        hunk = patchtext.hunk_at(trial.patch, failed[1], int(failed[2]))
        if hunk:
            where += f", hunk {quoted(hunk[1], 120)} (line {hunk[0]} of the patch)"
        else:
            where += f" at line {failed[2]}"
    elif missing:
        where = f"{quoted(missing[1])} is not there"
    elif there:
        where = f"{quoted(there[1])} is there already, and the patch makes it anew"
    else:
        where = _first(text)
    if trial.apply("strict", "--reverse").status == 0:
        hint = ". The change is already there: the patch applies in reverse"
    else:
        hint = _hint(trial, tolerance, ("crlf", "whitespace", "fuzz", "3way"))
    return PatchError("conflict", f"{name} does not apply to {onto}: {where}{hint}")
