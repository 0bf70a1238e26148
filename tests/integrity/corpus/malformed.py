"""Patches that are none, or that no tree may be made of. All of them are made here, from the fix.

Where it can be, the right fix is in the patch as well: taking part of it would be a pass.
"""

from __future__ import annotations

import base64
import gzip
import json
import random
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from tests.integrity.corpus.patches import FOLDER

Outcome = Literal["empty", "malformed", "conflict", "refused"]
_ZEROS: Final = b"0" * 40


@dataclass(frozen=True, slots=True)
class Malformed:
    """One patch, made when it is asked for, and the outcome that it gets."""

    name: str
    outcome: Outcome
    make: Callable[[], bytes]


def fix() -> bytes:
    return (FOLDER / "gold.patch").read_bytes()


def added(name: bytes, content: bytes = b"x = 1\n", mode: bytes = b"100644") -> bytes:
    """A new file; ``name`` as it stands in the patch, with quotes where it has any."""
    quoted = name.startswith(b'"')
    new, old = (name, b'"a' + name[2:]) if quoted else (b"b/" + name, b"a/" + name)
    lines = content.splitlines(keepends=True)
    body = b"".join(b"+" + line for line in lines)
    end = b"" if content.endswith(b"\n") else b"\n\\ No newline at end of file\n"
    head = b"diff --git %b %b\nnew file mode %b\n--- /dev/null\n+++ %b\n" % (old, new, mode, new)
    return head + b"@@ -0,0 +1,%d @@\n%b%b" % (len(lines), body, end)


def link(name: bytes, target: bytes) -> bytes:
    return added(name, target, b"120000")


def renamed(old: bytes, new: bytes) -> bytes:
    """A rename of the whole file, which has no line with +++."""
    return b"diff --git a/%b b/%b\nsimilarity index 100%%\nrename from %b\nrename to %b\n" % (
        old, new, old, new,
    )  # fmt: skip


def binary(kind: bytes, size: int, data: bytes) -> bytes:
    packed = zlib.compress(data)[:52]
    letter = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"[len(packed) - 1 :][:1]
    head = b"diff --git a/n b/n\nnew file mode 100644\nindex %b..%b\n" % (_ZEROS, b"1" * 40)
    body = b"GIT binary patch\n%b %d\n%b%b\n\n" % (
        kind, size, letter, base64.b85encode(packed, pad=True),
    )  # fmt: skip
    return head + body + b"literal 0\nHcmV?d00001\n\n"


def _beside(make: Callable[[], bytes]) -> Callable[[], bytes]:
    """The fix, and something that must not be taken along with it."""
    return lambda: fix() + make()


def _gitlink() -> bytes:
    return (
        b"diff --git a/sub b/sub\nnew file mode 160000\nindex 0000000..1111111\n--- /dev/null\n"
        b"+++ b/sub\n@@ -0,0 +1 @@\n+Subproject commit " + b"1" * 40 + b"\n"
    )


def _lfs() -> bytes:
    return (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4" * 64 + b"\nsize 1234567\n"
    )


def _garbage() -> bytes:
    return random.Random(5).randbytes(20_000)


def _two_targets() -> bytes:
    head = renamed(b"README.md", b"READ.md").replace(b"100%", b"90%")
    return fix() + head + b"--- a/README.md\n+++ b/src/conftest.py\n@@ -1 +1 @@\n-# parcels\n+#\n"


#: What the text of the fix becomes, by outcome.
_CHANGED: tuple[tuple[Outcome, str, Callable[[], bytes]], ...] = (
    ("empty", "nothing", lambda: b""),
    ("empty", "blanks", lambda: b" \n\t\r\n \n"),
    ("empty", "one line end", lambda: b"\n"),
    ("empty", "changes nothing",
     lambda: fix().replace(b"-(-grams // step)", b"max(round(grams / step), 1)")),
    ("malformed", "prose", lambda: b"I would round up in billable().\n"),
    ("malformed", "refusal", lambda: b"Sorry, I cannot help with that."),
    ("malformed", "cut in a hunk", lambda: fix()[: fix().index(b"+    steps")]),
    ("malformed", "cut in a line", lambda: fix()[: fix().index(b"+    steps") + 9]),
    ("malformed", "cut in the header", lambda: fix()[: fix().index(b"@@")]),
    ("malformed", "too few lines", lambda: fix().replace(b"-7,7 +7,7", b"-7,9 +7,9")),
    ("malformed", "counts that differ", lambda: fix().replace(b"-7,7 +7,7", b"-7,7 +7,11")),
    ("conflict", "too many lines", lambda: fix().replace(b"-7,7 +7,7", b"-7,4 +7,4")),
    ("malformed", "negative counts", lambda: fix().replace(b"-7,7 +7,7", b"--7,7 +7,-7")),
    ("malformed", "huge counts", lambda: fix().replace(b"-7,7 +7,7", b"-7,99999999999 +7,7")),
    ("malformed", "hunk without a file", lambda: fix()[fix().index(b"@@") :]),
    ("malformed", "two targets of a rename", _two_targets),
    ("malformed", "fenced", lambda: b"```diff\n" + fix() + b"```\n"),
    ("malformed", "prose and fence", lambda: b"Here it is:\n\n```\n" + fix() + b"```\nDone.\n"),
    ("malformed", "code and no diff", lambda: b"```python\ndef billable(): ...\n```\n"),
    ("malformed", "JSON", lambda: json.dumps({"model_patch": fix().decode()}).encode()),
    ("malformed", "escaped line ends", lambda: fix().replace(b"\n", b"\\n")),
    ("malformed", "UTF-16", lambda: fix().decode().encode("utf-16")),
    ("malformed", "byte order mark", lambda: b"\xef\xbb\xbf" + fix()),
    ("malformed", "compressed", lambda: gzip.compress(fix(), mtime=0)),
    ("malformed", "base64", lambda: base64.encodebytes(fix())),
    ("malformed", "binary garbage", _garbage),
    ("malformed", "zero bytes", lambda: bytes(4096)),
    ("malformed", "context diff", lambda: (
        b"*** a/src/parcels/weights.py\n--- b/src/parcels/weights.py\n***************\n"
        b"*** 3 ****\n! STEP = 500\n--- 3 ----\n! STEP = 400\n"
    )),
    ("malformed", "combined diff", lambda: (
        b"diff --cc README.md\nindex 1,2..3\n--- a/README.md\n+++ b/README.md\n"
        b"@@@ -1,1 -1,1 +1,1 @@@\n- a\n -b\n++c\n"
    )),
    ("malformed", "binary without content", lambda: (
        b"diff --git a/n.bin b/n.bin\nnew file mode 100644\nindex 0000000..4567890\n"
        b"Binary files /dev/null and b/n.bin differ\n"
    )),
    ("malformed", "broken binary", lambda: (
        b"diff --git a/n b/n\nnew file mode 100644\nindex %b..%b\nGIT binary patch\nliteral 5\n"
        b"!!!not base85\n\n" % (_ZEROS, b"1" * 40)
    )),
    ("malformed", "impossible mode", lambda: added(b"new.py", mode=b"1006x4")),
    ("malformed", "shell script", lambda: b"#!/bin/sh\nsed -i s/round/ceil/ src/parcels/*.py\n"),
    ("malformed", "ed script", lambda: b"10c\n    steps = 1\n.\nw\n"),
    ("conflict", "CRLF", lambda: fix().replace(b"\n", b"\r\n")),
    ("conflict", "other context", lambda: fix().replace(b"not {grams}", b"no {grams}")),
    ("conflict", "no such file", lambda: fix().replace(b"weights.py", b"weighing.py")),
    ("conflict", "there already", lambda: added(b"README.md")),
    ("conflict", "applied twice", lambda: fix().replace(b"-    steps = max(round(grams / step), 1)",
     b"-    steps = -(-grams // step)").replace(b"+    steps = -(-grams // step)",
     b"+    steps = max(round(grams / step), 1)")),
    ("conflict", "deletes what there is not", lambda: (
        b"diff --git a/old.py b/old.py\ndeleted file mode 100644\n--- a/old.py\n+++ /dev/null\n"
        b"@@ -1 +0,0 @@\n-x\n"
    )),
    ("conflict", "renames what there is not", lambda: renamed(b"old.py", b"new.py")),
)  # fmt: skip

#: What comes along with the fix, and is refused.
_COMPANIONS: tuple[tuple[str, Callable[[], bytes]], ...] = (
    ("above the tree", lambda: added(b"../out.py")),
    ("above the tree, in the middle", lambda: added(b"src/../../out.py")),
    ("above the tree, in octal", lambda: added(b'"b/\\056\\056/out.py"')),
    ("absolute", lambda: b"--- /dev/null\n+++ /etc/profile.d/x.sh\n@@ -0,0 +1 @@\n+x\n"),
    ("git folder", lambda: added(b".git/hooks/post-checkout", mode=b"100755")),
    ("git folder, nested", lambda: added(b"src/.git/config")),
    ("git folder, upper case", lambda: added(b".GIT/config")),
    ("git folder, short name", lambda: added(b"GIT~1/config")),
    ("git folder, blank at the end", lambda: added(b".git /config")),
    ("git folder, stream", lambda: added(b".git::$INDEX_ALLOCATION/config")),
    ("git folder, backslash", lambda: added(b'"b/src\\\\.git\\\\config"')),
    ("git folder, invisible character", lambda: added(b'"b/.g\\342\\200\\214it/config"')),
    ("git folder, by rename", lambda: renamed(b"README.md", b".git/config")),
    ("renamed out of the tree", lambda: renamed(b"README.md", b"../README.md")),
    ("submodule", _gitlink),
    ("link to a file outside", lambda: link(b"src/parcels/out", b"../../../etc/passwd")),
    ("link to /", lambda: link(b"root", b"/")),
    ("link to a drive", lambda: link(b"drive", b"C:\\Windows")),
    ("link into .git", lambda: link(b"config", b".git/config")),
    ("link out through another", lambda: link(b"src/up", b"..") + link(b"out", b"src/up/../x")),
    ("links in a circle", lambda: link(b"one", b"two") + link(b"two", b"one")),
    ("write through its own link", lambda: link(b"away", b"/tmp") + added(b"away/x.py")),
    ("control characters", lambda: added(b'"b/src/a\\033[2Jb.py"')),
    ("line end in a name", lambda: added(b'"b/src/a\\n::error::b.py"')),
    ("twin of a file", lambda: added(b"readme.md")),
    ("twin of a folder", lambda: added(b"SRC/parcels/x.py")),
    ("twins among themselves", lambda: added(b"src/New.py") + added(b"src/new.py")),
    ("twins by composition",
     lambda: added(b'"b/caf\\303\\251.py"') + added(b'"b/cafe\\314\\201.py"')),
    ("endless name", lambda: added(b"n" * 300)),
    ("LFS pointer", lambda: (
        added(b".gitattributes", b"*.bin filter=lfs\n") + added(b"src/parcels/model.bin", _lfs())
    )),
    ("binary of a terabyte", lambda: binary(b"literal", 1 << 40, b"")),
    ("delta of a terabyte",
     lambda: binary(b"delta", 40, b"\0\x80\x80\x80\x80\x80\x20" + bytes(9))),
    ("fifty megabytes", lambda: added(b"big.txt", (b"x" * 99 + b"\n") * 540_000)),
)  # fmt: skip


def every() -> Iterator[Malformed]:
    """All of them."""
    for outcome, name, make in _CHANGED:
        yield Malformed(name, outcome, make)
    for name, make in _COMPANIONS:
        yield Malformed(name, "refused", _beside(make))
