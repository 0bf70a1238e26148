"""Applying a patch to a tree, and saying exactly why it cannot be applied.

Works on an index of its own: no file is written, whatever the patch names. Knows no checkout.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from pytest_sandbox import judge, patchtext, trees
from pytest_sandbox.errors import BadInput, PatchError
from pytest_sandbox.gitobjects import Entry, printable
from pytest_sandbox.gitstore import Output, Store

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
_AT_LINE: Final = re.compile(r"(?:at line |at .{0,200}?:)(\d+)")
_FAILED: Final = re.compile(r"^error: patch failed: (.*):(\d+)$", re.M)
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
    with store.index() as index:
        store.run("read-tree", base, index=index)
        trial = _Trial(store, base, index, patch)
        first = None
        for kind in dict.fromkeys(("strict", tolerance)):
            output = trial.apply(kind)
            first = first or output
            if output.status == 0:
                how = kind if trial.strip == 1 else f"{kind}, -p0"
                return _accept(store, base, trial.tree(), name, onto, how)
        assert first is not None
        raise _explain(trial, first, name, onto, tolerance)


def _accept(store: Store, base: str, new: str, name: str, onto: str, how: str) -> Result:
    changes = trees.diff(store, base, new)
    if not changes:
        raise PatchError("empty", f"{name} changes nothing: {onto} already is what it makes")
    judge.judge(store, base, new, changes, name)
    return Result(new, how, tuple(change.path for change in changes))


class _Trial:
    """One patch and one tree, tried in several ways on copies of one index."""

    def __init__(self, store: Store, base: str, index: Path, patch: bytes) -> None:
        self._store = store
        self._base = base
        self._index = index
        self._used = index
        self.patch = patch
        #: Path components dropped by the way that worked.
        self.strip = 1
        heads = [line.text for line in patchtext.scan(patch) if line.kind == "header"]
        self._bare = not any(
            patchtext.unquote(head.split(b" ", 1)[1]).startswith((b"a/", b"b/"))
            for head in heads
            if head.startswith((b"--- ", b"+++ "))
        )

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
        self._used = self._index.with_name("trial")
        shutil.copyfile(self._index, self._used)
        try:
            return self._store.run(
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
        options: dict[Tolerance, Sequence[str]] = {
            "whitespace": ("--ignore-whitespace",),
            "fuzz": ("-C1",),
            "3way": ("--3way",),
        }
        return self.patch, options.get(kind, ())

    def _uses_crlf(self, path: bytes) -> bool | None:
        entry = self.find(path)
        if entry is None:
            return None
        with self._store.batch() as batch:
            text = batch.read(entry.blob, "blob", limit=patchtext.MAX_FILE)
        return text.count(b"\r\n") * 2 > text.count(b"\n")

    def find(self, path: bytes) -> Entry | None:
        listed = self._store.run("ls-files", "-z", "--stage", "--", path, index=self._index)
        for line in listed.stdout.split(b"\0")[:-1]:
            head, _, found = line.partition(b"\t")
            mode, blob, _ = head.decode().split(" ")
            if found == path and mode in ("100644", "100755"):
                return Entry(found, mode, blob)
        return None

    def tree(self) -> str:
        """The tree that the last successful way made."""
        return self._store.run("write-tree", index=self._used).stdout.decode().strip()


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
            f"is broken at line {number}, {printable(bad, 80)!r}: the lines of its hunk are not as "
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
        where = f"{printable(failed[1])!r}"
        hunk = patchtext.hunk_at(trial.patch, failed[1], int(failed[2]))
        if hunk:
            where += f", hunk {printable(hunk[1], 120)!r} (line {hunk[0]} of the patch)"
        else:
            where += f" at line {failed[2]}"
    elif missing:
        where = f"{printable(missing[1])!r} is not there"
    elif there:
        where = f"{printable(there[1])!r} is there already, and the patch makes it anew"
    else:
        where = _first(text)
    if trial.apply("strict", "--reverse").status == 0:
        hint = ". The change is already there: the patch applies in reverse"
    else:
        hint = _hint(trial, tolerance, ("crlf", "whitespace", "fuzz", "3way"))
    return PatchError("conflict", f"{name} does not apply to {onto}: {where}{hint}")
