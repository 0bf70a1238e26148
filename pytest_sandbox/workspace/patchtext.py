"""A patch as text: its lines, what it looks like when it is no patch, and its line ends.

Only for messages and chosen tolerances: whether a patch is safe is judged on trees.
"""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal

from pytest_sandbox.errors import PatchError
from pytest_sandbox.workspace.gitobjects import quoted

MAX_PATCH: Final = 50 << 20
MAX_FILE: Final = 100 << 20
#: Bytes that all files of one patch may hold together.
MAX_TOTAL: Final = 1 << 30
#: Each line takes a hundred bytes here, however short it is.
MAX_LINES: Final = 3_000_000
#: More than two paths as long as they may be, each byte in git's quotes.
MAX_HEADER: Final = 1 << 16

_HUNK: Final = re.compile(rb"@@ -(\d{1,9})(?:,(\d{1,9}))? \+(\d{1,9})(?:,(\d{1,9}))? @@")
_FENCE: Final = re.compile(rb"\s*(```|~~~)[\w-]*\s*$")
_BINARY: Final = re.compile(rb"(literal|delta) (\d+)\s*$")
_MAIL: Final = re.compile(rb"From [0-9a-f]{40}|From:|Subject:|Date:|Message-I[Dd]:")
# Without the last quote as well: a search that failed at each of many quotes would never end.
_QUOTED: Final = re.compile(rb'"(?:[^"\\]|\\.)*"?')
_INDEX: Final = re.compile(rb"index ([0-9a-f]{4,64})\.\.[0-9a-f]{4,64}\b")
_NAMES: Final = (b"--- ", b"+++ ", b"rename from ", b"rename to ", b"copy from ", b"copy to ")

Kind = Literal["header", "hunk", "body", "other"]


@dataclass(frozen=True, slots=True)
class Line:
    kind: Kind
    text: bytes


def scan(patch: bytes) -> list[Line]:
    """Tell the lines of hunks from those between, by the counts in the hunk headers."""
    lines: list[Line] = []
    old = new = 0
    seen_hunk = False
    for text in _split(patch):
        sign = text[:1]
        if (old or new) and (sign in b" +-\\" or text in (b"\n", b"\r\n")):
            old -= sign in b" -" or text in (b"\n", b"\r\n")
            new -= sign in b" +" or text in (b"\n", b"\r\n")
            old, new = max(old, 0), max(new, 0)
            lines.append(Line("body", text))
            continue
        match = _HUNK.match(text)
        if match:
            old = int(match[2]) if match[2] is not None else 1
            new = int(match[4]) if match[4] is not None else 1
            seen_hunk = True
            lines.append(Line("hunk", text))
        elif seen_hunk and sign == b"\\":
            lines.append(Line("body", text))
        else:
            old = new = 0
            header = text.startswith((b"diff --git ", *_NAMES))
            lines.append(Line("header" if header else "other", text))
    return lines


def _split(patch: bytes) -> list[bytes]:
    return [line + b"\n" for line in patch.split(b"\n")[:-1]] + (
        [last] if (last := patch.rsplit(b"\n", 1)[-1]) else []
    )


def check(patch: bytes, name: str) -> None:
    """Refuse what need not be shown to git.

    Raises:
        PatchError: empty, malformed or refused.
    """
    if not patch.strip():
        raise PatchError("empty", f"{name} is empty: there is nothing to test")
    if len(patch) > MAX_PATCH:
        raise PatchError(
            "refused", f"{name} has {len(patch):,} bytes; at most {MAX_PATCH:,} are taken"
        )
    if patch.count(b"\n") > MAX_LINES:
        raise PatchError("refused", f"{name} has more than {MAX_LINES:,} lines")
    if patch[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise _malformed(name, "is UTF-16 text, as PowerShell's `>` writes", "save it as UTF-8")
    if patch[:3] == b"\xef\xbb\xbf":
        raise _malformed(name, "begins with a byte order mark", "save it as UTF-8 without one")
    _check_shape(patch, name)
    _check_binary(patch, name)


def _malformed(name: str, what: str, mend: str) -> PatchError:
    return PatchError("malformed", f"{name} {what}: {mend}")


def _check_shape(patch: bytes, name: str) -> None:
    if patch.count(b"\\n") >= 3 and patch.count(b"\n") <= 2 and b"@@ -" in patch:
        raise _malformed(
            name, "is a diff with its line ends written as \\n (from JSON?)", "decode it first"
        )
    lines = scan(patch)
    if not any(line.kind == "hunk" for line in lines) and b"\n***************\n" in patch:
        raise _malformed(name, "is a context diff", "make a unified one, `diff -u` or `git diff`")
    heads = [
        number
        for number, line in enumerate(lines)
        if line.kind in ("header", "hunk") or line.text.startswith(b"GIT binary patch")
    ]
    before = [line.text for line in lines[: heads[0]]] if heads else [line.text for line in lines]
    mail = any(_MAIL.match(text) for text in before)
    fences = [number for number, text in enumerate(before, 1) if _FENCE.match(text)]
    if fences and heads and not mail:
        raise _malformed(
            name,
            f"is a diff inside a Markdown code block (line {fences[-1]} is "
            f"{quoted(before[fences[-1] - 1])})",
            "keep only the lines between the ``` marks",
        )
    if heads:
        _check_names(lines, name)
        return
    if any(t.startswith((b"diff --cc ", b"diff --combined ", b"@@@ ")) for t in before):
        raise _malformed(
            name,
            "is a combined diff of a merge, which cannot be applied",
            "make it against one parent, `git diff PARENT MERGE`",
        )
    if patch.lstrip()[:1] in (b"{", b"["):
        raise _malformed(name, "is JSON, not a diff", "take the diff out of it")
    first = next(text for text in before if text.strip())
    raise _malformed(
        name,
        f"holds no diff; it begins with {quoted(first, 80)}"
        + (", which looks like an answer in prose" if b" " in first.strip() else ""),
        "make it with `git diff`",
    )


def _check_names(lines: list[Line], name: str) -> None:
    """Paths that lead out, said clearly; what git makes of others is judged on the tree."""
    for number, line in enumerate(lines, 1):
        if line.kind != "header":
            continue
        if len(line.text) > MAX_HEADER:
            raise PatchError(
                "refused",
                f"{name}, line {number} names files in {len(line.text):,} bytes; at most "
                f"{MAX_HEADER:,} are taken",
            )
        for prefix in _NAMES:
            if not line.text.startswith(prefix):
                continue
            path = unquote(line.text[len(prefix) :].rstrip(b"\r\n").split(b"\t")[0])
            if b".." in path.replace(b"\\", b"/").split(b"/"):
                why = "leaves the tree through '..'"
            elif path.startswith(b"/") and path.rstrip() != b"/dev/null":
                why = "is absolute; make the patch with `git diff` in the repository"
            else:
                continue
            raise PatchError("refused", f"{name}, line {number}: the path {quoted(path)} {why}")


def names(lines: Iterable[Line]) -> set[bytes]:
    """Every path that the patch's headers may name, prefixes included."""
    found: set[bytes] = set()
    for line in lines:
        text = line.text.rstrip(b"\r\n")
        if line.kind != "header":
            continue
        for prefix in _NAMES:
            if text.startswith(prefix):
                rest = text[len(prefix) :]
                # A time may follow, after a tab or (long ago) a space.
                found |= {unquote(rest), unquote(rest.split(b"\t")[0]), rest.split(b" ")[0]}
                # Rename and copy lines have no prefix to drop.
                found |= {b"/" + unquote(rest)} if prefix[0] in b"rc" else set()
        if text.startswith(b"diff --git "):
            rest = text[len(b"diff --git ") :]
            half = len(rest) // 2
            found |= {unquote(rest[:half]), unquote(rest[half + 1 :])}
            found |= {unquote(part) for part in _QUOTED.findall(rest)}
    return found


def origins(lines: Iterable[Line]) -> set[str]:
    """Hashes of the versions that the patch says it was made from."""
    matches = (_INDEX.match(line.text) for line in lines if line.kind == "other")
    return {match[1].decode() for match in matches if match and match[1].strip(b"0")}


def unquote(path: bytes) -> bytes:
    """A path as git quotes it, "a/\\303\\244", in plain bytes."""
    if not (path.startswith(b'"') and path.rstrip().endswith(b'"') and len(path) > 1):
        return path
    plain = {b"n": b"\n", b"t": b"\t", b"r": b"\r", b"a": b"\a", b"b": b"\b", b"f": b"\f"}
    return re.sub(
        rb"\\([0-7]{3}|.)",
        lambda m: bytes([int(m[1], 8) & 255]) if len(m[1]) == 3 else plain.get(m[1], m[1]),
        path.rstrip()[1:-1],
    )


def _check_binary(patch: bytes, name: str) -> None:
    """Binary parts are compressed: what they grow to is known before git unpacks them."""
    if b"GIT binary patch" not in patch:
        return
    total = 0
    lines = patch.split(b"\n")
    for number, line in enumerate(lines):
        match = _BINARY.match(line)
        if not match:
            continue
        size = int(match[2][:20])
        if match[1] == b"delta" and number + 1 < len(lines):
            size = max(size, _delta_size(lines[number + 1]))
        total += size
        if size > MAX_FILE or total > MAX_TOTAL:
            raise PatchError(
                "refused",
                f"{name}, line {number + 1}: a binary file of {size:,} bytes ({total:,} so far); "
                f"at most {MAX_FILE:,} a file and {MAX_TOTAL:,} in all are taken",
            )


def _delta_size(line: bytes) -> int:
    """The size of the file that a delta makes, from its first line; 0 when git will refuse it."""
    try:
        data = zlib.decompressobj().decompress(base64.b85decode(line.strip()[1:]), 32)
    except (ValueError, zlib.error):
        return 0
    sizes: list[int] = []
    value = shift = 0
    for byte in data:
        value |= (byte & 127) << shift
        shift += 7
        if not byte & 128:
            sizes.append(value)
            value = shift = 0
    return sizes[1] if len(sizes) > 1 else 0


def hunk_at(patch: bytes, path: str, start: int) -> tuple[int, bytes] | None:
    """Line number and text of the hunk header of ``path`` that begins at old line ``start``."""
    wanted = path.encode("utf-8", "surrogateescape")
    inside = False
    for number, line in enumerate(scan(patch), 1):
        if line.kind == "header":
            inside = wanted in unquote(line.text.rstrip(b"\r\n").split(b"\t")[0]) or (
                inside and not line.text.startswith((b"diff --git ", b"--- "))
            )
        elif line.kind == "hunk" and inside:
            match = _HUNK.match(line.text)
            if match and int(match[1]) == start:
                return number, line.text.strip()
    return None


def line_ends(patch: bytes, uses_crlf: Callable[[bytes], bool | None]) -> bytes:
    """The patch with each file's hunks in that file's own line ends.

    ``uses_crlf`` says of a path whether its file ends lines with CRLF, None when there is none.
    """
    out: list[bytes] = []
    crlf: bool | None = None
    converted = False
    for line in scan(patch):
        bare = line.text.rstrip(b"\n").removesuffix(b"\r")
        end = b"\n" if line.text.endswith(b"\n") else b""
        if line.text.startswith(b"--- ") and line.kind == "header":
            converted = line.text.endswith(b"\r\n")
            path = unquote(bare[4:].split(b"\t")[0])
            crlf = uses_crlf(path.partition(b"/")[2])
            if crlf is None:
                crlf = uses_crlf(path)
        if line.kind != "body":
            out.append(bare + end)
        elif crlf is None and not converted:
            out.append(line.text)
        else:
            out.append(bare + (b"\r" if crlf and not bare.startswith(b"\\") else b"") + end)
    return b"".join(out)
