"""What becomes of patches: applied, empty, malformed, conflict or refused, and what is said."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_sandbox.errors import BadInput, PatchError, PatchOutcome
from pytest_sandbox.workspace import Tree, Workspace, patchtext
from pytest_sandbox.workspace.gitobjects import printable
from pytest_sandbox.workspace.patches import TOLERANCES, Tolerance
from tests.unit.gitrepo import Repo, fingerprint

LINES = b"".join(b"line %d\n" % n for n in range(1, 13))
FILES = {
    "src/calc.py": LINES,
    "dos.txt": LINES.replace(b"\n", b"\r\n"),
    "top": b"one\n",
    "tests/keep": b"k\n",
    "bin.dat": bytes(range(256)) * 8,
}
GOOD = b"""\
--- a/src/calc.py
+++ b/src/calc.py
@@ -2,5 +2,5 @@
 line 2
 line 3
-line 4
+LINE 4
 line 5
 line 6
"""


@dataclass(frozen=True, slots=True)
class Base:
    repo: Repo
    space: Workspace
    tree: Tree

    def apply(self, patch: bytes, tolerance: Tolerance = "strict") -> tuple[str, dict[str, bytes]]:
        done = self.space.apply(self.tree, patch, name="fix.diff", tolerance=tolerance)
        found = {}
        for path in done.paths:
            data = self.space.read(done.tree, path.decode("utf-8", "surrogateescape"))
            found[path.decode("utf-8", "surrogateescape")] = b"<none>" if data is None else data
        return done.how, found

    def error(self, patch: bytes, tolerance: Tolerance = "strict") -> PatchError:
        with pytest.raises(PatchError) as caught:
            self.space.apply(self.tree, patch, name="fix.diff", tolerance=tolerance)
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 1500
        return caught.value


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Base]:
    repo = Repo.make(tmp_path_factory.mktemp("patches") / "repo", FILES)
    (repo.path / "link").symlink_to("src")
    repo.commit("link")
    before = fingerprint(repo.path.parent)
    with Workspace.open(repo.path) as space:
        yield Base(repo, space, space.commit("HEAD"))
    assert fingerprint(repo.path.parent) == before


def new_file(name: bytes, content: bytes = b"x\n", mode: bytes = b"100644") -> bytes:
    quoted = name if name.startswith(b'"') else b"b/" + name
    old = b'"a' + name[2:] if name.startswith(b'"') else b"a/" + name
    body = b"".join(b"+" + line for line in content.splitlines(keepends=True))
    tail = b"" if content.endswith(b"\n") else b"\n\\ No newline at end of file\n"
    count = len(content.splitlines())
    return b"diff --git %b %b\nnew file mode %b\n--- /dev/null\n+++ %b\n@@ -0,0 +1,%d @@\n%b%b" % (
        old,
        quoted,
        mode,
        quoted,
        count,
        body,
        tail,
    )


def link(name: bytes, target: bytes) -> bytes:
    return new_file(name, target, b"120000")


def binary(name: bytes, kind: bytes, size: int, data: bytes) -> bytes:
    packed = zlib.compress(data)[:52]
    line = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"[len(packed) - 1 :][:1]
    zeros = b"0" * 40
    return (
        b"diff --git a/%b b/%b\nnew file mode 100644\nindex %b..%b\nGIT binary patch\n"
        b"%b %d\n%b%b\n\nliteral 0\nHcmV?d00001\n\n"
        % (name, name, zeros, b"1" * 40, kind, size, line, base64.b85encode(packed, pad=True))
    )


MAIL = (
    b"From 0123456789012345678901234567890123456789 Mon Sep 17 00:00:00 2001\n"
    b"From: A <a@e>\nDate: Mon, 1 Jan 2024 00:00:00 +0000\nSubject: [PATCH] x\n\n"
    b"With code:\n```\nx\n```\n---\n src/calc.py | 2 +-\n\ndiff --git a/src/calc.py b/src/calc.py\n"
    + GOOD
    + b"-- \n2.39.0\n\n"
)
CHANGED = LINES.replace(b"line 4", b"LINE 4")

APPLIES: dict[str, tuple[bytes, str, dict[str, bytes]]] = {
    "git diff": (GOOD, "strict", {"src/calc.py": CHANGED}),
    "format-patch mail": (MAIL, "strict", {"src/calc.py": CHANGED}),
    "diff -u without prefixes": (
        GOOD.replace(b"a/src", b"src").replace(b"b/src", b"src"),
        "strict, -p0",
        {"src/calc.py": CHANGED},
    ),
    "diff -u with times": (
        GOOD.replace(b"calc.py\n", b"calc.py\t2024-01-01 00:00:00\n"),
        "strict",
        {"src/calc.py": CHANGED},
    ),
    "offset": (GOOD.replace(b"-2,5 +2,5", b"-3,5 +3,5"), "strict", {"src/calc.py": CHANGED}),
    "new file": (new_file(b"n/e/w.py"), "strict", {"n/e/w.py": b"x\n"}),
    "new file, odd name": (new_file(b'"b/caf\\303\\251 \\377"'), "strict", {"café \udcff": b"x\n"}),
    "deletion": (
        b"diff --git a/top b/top\ndeleted file mode 100644\n--- a/top\n+++ /dev/null\n"
        b"@@ -1 +0,0 @@\n-one\n",
        "strict",
        {"top": b"<none>"},
    ),
    "mode": (
        b"diff --git a/top b/top\nold mode 100644\nnew mode 100755\n",
        "strict",
        {"top": b"one\n"},
    ),
    "rename": (
        b"diff --git a/top b/moved\nsimilarity index 100%\nrename from top\nrename to moved\n",
        "strict",
        {"top": b"<none>", "moved": b"one\n"},
    ),
    "copy": (
        b"diff --git a/top b/twin\nsimilarity index 100%\ncopy from top\ncopy to twin\n",
        "strict",
        {"twin": b"one\n"},
    ),
    "link inside": (link(b"tests/l", b"../src/calc.py"), "strict", {"tests/l": b"<none>"}),
    "link through a link": (link(b"l2", b"link/calc.py"), "strict", {"l2": b"<none>"}),
    "case change by rename": (
        b"diff --git a/top b/TOP\nsimilarity index 100%\nrename from top\nrename to TOP\n",
        "strict",
        {"top": b"<none>", "TOP": b"one\n"},
    ),
    "ignored by .gitignore all the same": (
        new_file(b".gitignore", b"*\n") + new_file(b"ignored"),
        "strict",
        {".gitignore": b"*\n", "ignored": b"x\n"},
    ),
}


@pytest.mark.parametrize("case", APPLIES)
def test_applies(base: Base, case: str) -> None:
    patch, how, files = APPLIES[case]
    assert base.apply(patch) == (how, files)


def test_binary_made_by_git(base: Base, tmp_path: Path) -> None:
    repo = Repo.make(tmp_path / "r", FILES)
    new = FILES["bin.dat"][::-1]
    repo.write({"bin.dat": new})
    assert base.apply(repo.git("diff", "--binary").encode()) == ("strict", {"bin.dat": new})
    assert base.error(repo.git("diff").encode()).outcome == "malformed"


FENCED = b"```diff\n" + GOOD + b"```\n"
CRLF = GOOD.replace(b"\n", b"\r\n")
GITLINK = (
    b"diff --git a/sub b/sub\nnew file mode 160000\nindex 0000000..1111111\n--- /dev/null\n"
    b"+++ b/sub\n@@ -0,0 +1 @@\n+Subproject commit " + b"1" * 40 + b"\n"
)
TO_LINK = (
    b"diff --git a/src/calc.py b/src/calc.py\ndeleted file mode 100644\n--- a/src/calc.py\n"
    b"+++ /dev/null\n@@ -1,12 +0,0 @@\n" + b"".join(b"-line %d\n" % n for n in range(1, 13))
)

WRONG: dict[str, tuple[bytes, PatchOutcome, str]] = {
    "nothing": (b"", "empty", "nothing to test"),
    "blank": (b" \n\t\r\n", "empty", "nothing to test"),
    "no change": (GOOD.replace(b"LINE 4", b"line 4"), "empty", "changes nothing"),
    "same mode": (
        b"diff --git a/top b/top\nold mode 100644\nnew mode 100644\n",
        "malformed",
        "not a usable diff",
    ),
    "prose": (b"I would fix this by adding a check.\n", "malformed", "in prose"),
    "refusal": (b"Sorry.", "malformed", "begins with 'Sorry.'"),
    "fence": (FENCED, "malformed", "Markdown code block (line 1"),
    "prose and fence": (b"Here you are:\n\n" + FENCED, "malformed", "between the ``` marks"),
    "tilde fence": (b"~~~\n" + GOOD + b"~~~\n", "malformed", "Markdown"),
    "fenced code, no diff": (b"```python\nx = 1\n```\n", "malformed", "holds no diff"),
    "json": (b'{"model_patch": "x"}\n', "malformed", "is JSON"),
    "escaped": (GOOD.replace(b"\n", b"\\n"), "malformed", "line ends written as"),
    "utf-16": (GOOD.decode().encode("utf-16"), "malformed", "UTF-16"),
    "byte order mark": (b"\xef\xbb\xbf" + GOOD, "malformed", "byte order mark"),
    "context diff": (
        b"*** a/top\n--- b/top\n***************\n*** 1 ****\n! one\n--- 1 ----\n! two\n",
        "malformed",
        "context diff",
    ),
    "combined": (
        b"diff --cc top\nindex 1,2..3\n--- a/top\n+++ b/top\n@@@ -1,1 -1,1 +1,1 @@@\n"
        b"- a\n -b\n++c\n",
        "malformed",
        "",
    ),
    "cut in a hunk": (GOOD[: GOOD.index(b" line 5")], "malformed", "middle of a hunk, at line 7"),
    "cut in a line": (GOOD[:-3], "malformed", "does not end with a line end (line 9)"),
    "wrong counts": (
        GOOD.replace(b"-2,5 +2,5", b"-2,7 +2,9") + GOOD.replace(b"src/calc.py", b"top"),
        "malformed",
        "line",
    ),
    "hunk without file": (GOOD[GOOD.index(b"@@") :], "malformed", "fragment without header"),
    "binary without content": (
        b"diff --git a/bin.dat b/bin.dat\nindex 123..456 100644\n"
        b"Binary files a/bin.dat and b/bin.dat differ\n",
        "malformed",
        "git diff --binary",
    ),
    "broken binary": (
        b"diff --git a/n b/n\nnew file mode 100644\nindex %b..%b\nGIT binary patch\nliteral 5\n"
        b"!!!not base85\n\n" % (b"0" * 40, b"1" * 40),
        "malformed",
        "",
    ),
    "other content": (
        GOOD.replace(b"line 5", b"LINE FIVE"),
        "conflict",
        "'src/calc.py', hunk '@@ -2,5 +2,5 @@' (line 3 of the patch)",
    ),
    "no such file": (GOOD.replace(b"calc", b"other"), "conflict", "'src/other.py' is not there"),
    "already there": (new_file(b"top"), "conflict", "'top' is there already"),
    "already applied": (
        b"--- a/top\n+++ b/top\n@@ -1 +1 @@\n-zero\n+one\n",
        "conflict",
        "already there: the patch applies in reverse",
    ),
    "CRLF": (CRLF, "conflict", "--sandbox-patch-tolerance crlf"),
    "tabs": (GOOD.replace(b" line 3", b" line  3"), "conflict", "tolerance whitespace"),
    "little context": (GOOD.replace(b" line 2", b" line two"), "conflict", "tolerance fuzz"),
    "parent folder": (new_file(b"../out"), "refused", "leaves the tree through '..'"),
    "parent in the middle": (new_file(b"src/../../out"), "refused", "'..'"),
    "quoted parent": (new_file(b'"b/\\056\\056/out"'), "refused", "'..'"),
    "rename out": (
        b"diff --git a/top b/../x\nsimilarity index 100%\nrename from top\nrename to ../x\n",
        "refused",
        "'..'",
    ),
    "absolute": (
        b"--- /dev/null\n+++ /etc/passwd\n@@ -0,0 +1 @@\n+x\n",
        "refused",
        "'/etc/passwd' is absolute",
    ),
    "git folder": (new_file(b".git/hooks/post-checkout"), "refused", ".git"),
    "nested git folder": (new_file(b"src/.git/config"), "refused", ".git"),
    "git folder, case": (new_file(b".GIT/config"), "refused", ".GIT"),
    "git folder, NTFS": (new_file(b"git~1/config"), "refused", "git~1"),
    "git folder, NTFS tail": (new_file(b".git. /config"), "refused", ".git"),
    "git folder, NTFS stream": (new_file(b".git::$INDEX_ALLOCATION/x"), "refused", ".git"),
    "git folder, NTFS separator": (new_file(b'"b/x\\\\.git\\\\config"'), "refused", ".git"),
    "git folder, HFS": (new_file(b'"b/.g\\342\\200\\214it/config"'), "refused", "git"),
    "git folder by rename": (
        b"diff --git a/top b/.git/x\nsimilarity index 100%\nrename from top\nrename to .git/x\n",
        "refused",
        ".git",
    ),
    "submodule": (GITLINK, "refused", "submodule 'sub'"),
    "link out": (link(b"l", b"../outside"), "refused", "leads out of the tree"),
    "link out, deep": (link(b"src/l", b"../../x"), "refused", "leads out of the tree"),
    "link absolute": (link(b"l", b"/etc/passwd"), "refused", "is absolute"),
    "link, drive": (link(b"l", b"C:\\x"), "refused", "is absolute"),
    "link into git": (link(b"l", b".git/config"), "refused", "leads into .git"),
    "link out through a link": (
        link(b"src/a", b"..") + link(b"b", b"src/a/../x"),
        "refused",
        "leads out of the tree",
    ),
    "link circle": (link(b"l1", b"l2") + link(b"l2", b"l1"), "refused", "in a circle"),
    "write through a link of the patch": (
        link(b"away", b"src") + new_file(b"away/x.py"),
        "refused",
        "",
    ),
    "write through a link of the tree": (new_file(b"link/x.py"), "refused", "beyond a symbolic"),
    "newline in a name": (new_file(b'"b/a\\nb"'), "refused", "control characters"),
    "escape in a name": (new_file(b'"b/a\\033[2Jb"'), "refused", "control characters"),
    "case twins": (new_file(b"Top"), "refused", "differ in case only: 'Top' and 'top'"),
    "case twins, folder": (new_file(b"SRC/x.py"), "refused", "differ in case"),
    "twins by composition": (
        new_file(b'"b/caf\\303\\251"') + new_file(b'"b/cafe\\314\\201"'),
        "refused",
        "differ in case",
    ),
    "endless name": (new_file(b"n" * 300), "refused", "too long"),
    "endless folders": (new_file(b"a/" * 1990 + b"x"), "refused", "more than 100 folders"),
    "many folders": (new_file(b"a/" * 101 + b"x"), "refused", "more than 100 folders"),
    "binary of a terabyte": (binary(b"n", b"literal", 1 << 40, b""), "refused", "binary file of"),
    "binary delta of a terabyte": (
        binary(b"n", b"delta", 40, b"\0" + b"\x80\x80\x80\x80\x80\x20" + b"\0" * 9),
        "refused",
        "binary file of",
    ),
    "too large": (b"x" * ((50 << 20) + 1), "refused", "52,428,801 bytes"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong(base: Base, case: str) -> None:
    patch, outcome, says = WRONG[case]
    error = base.error(patch)
    assert (error.outcome, says in str(error)) == (outcome, True), str(error)
    assert "fix.diff" in str(error)


def test_deleting_a_file_and_linking_its_folder_is_judged_by_the_tree(base: Base) -> None:
    patch = TO_LINK + link(b"src", b"tests")
    assert base.apply(patch)[1] == {"src": b"<none>", "src/calc.py": b"<none>"}
    assert base.error(TO_LINK + link(b"src", b"..")).outcome == "refused"


TOLERATED: dict[str, tuple[bytes, Tolerance, str, dict[str, bytes]]] = {
    "not needed": (GOOD, "3way", "strict", {"src/calc.py": CHANGED}),
    "CRLF patch, LF file": (CRLF, "crlf", "crlf", {"src/calc.py": CHANGED}),
    "LF patch, CRLF file": (
        GOOD.replace(b"src/calc.py", b"dos.txt"),
        "crlf",
        "crlf",
        {"dos.txt": CHANGED.replace(b"\n", b"\r\n")},
    ),
    "white space": (
        GOOD.replace(b" line 3", b" line  3"),
        "whitespace",
        "whitespace",
        {"src/calc.py": CHANGED},
    ),
    "counts": (
        GOOD.replace(b"-2,5 +2,5", b"-2,9 +2,9"),
        "recount",
        "recount",
        {"src/calc.py": CHANGED},
    ),
    "last line end": (GOOD[:-1], "recount", "recount", {"src/calc.py": CHANGED}),
    "context": (GOOD.replace(b" line 2", b" line two"), "fuzz", "fuzz", {"src/calc.py": CHANGED}),
}


@pytest.mark.parametrize("case", TOLERATED)
def test_tolerances_are_chosen_and_recorded(base: Base, case: str) -> None:
    patch, tolerance, how, files = TOLERATED[case]
    assert base.apply(patch, tolerance) == (how, files)


def test_three_way(tmp_path: Path) -> None:
    repo = Repo.make(tmp_path / "r", {"f": LINES})
    repo.write({"f": LINES.replace(b"line 6", b"LINE 6")})
    patch = repo.git("diff").encode()
    repo.git("checkout", "-q", "f")
    repo.write({"f": LINES.replace(b"line 4", b"four").replace(b"line 9", b"9\n9b")})
    repo.commit("moved on")
    with Workspace.open(repo.path) as space:
        tree = space.commit("HEAD")
        with pytest.raises(PatchError, match=r"tolerance (fuzz|3way)"):
            space.apply(tree, patch, name="p")
        done = space.apply(tree, patch, name="p", tolerance="3way")
        assert done.how == "3way"
        data = space.read(done.tree, "f")
        assert data is not None
        assert b"LINE 6" in data
        assert b"four" in data


def test_an_unknown_tolerance_is_the_users_mistake(base: Base) -> None:
    with pytest.raises(BadInput, match="there are strict, crlf"):
        base.apply(GOOD, "loose")  # type: ignore[arg-type]


def test_names_of_patches_are_escaped(base: Base) -> None:
    with pytest.raises(PatchError) as caught:
        base.space.apply(base.tree, b"x", name="a\x1b[2J\nb")
    assert str(caught.value).isprintable()


def test_one_tree_from_two_texts(base: Base) -> None:
    one = base.space.apply(base.tree, GOOD, name="one")
    two = base.space.apply(base.tree, MAIL, name="two")
    assert one.tree.id == two.tree.id
    assert one.tree.commit == base.tree.commit
    assert one.tree.label == "one on HEAD"


PARTS = [
    GOOD,
    MAIL,
    CRLF,
    FENCED,
    GITLINK,
    TO_LINK,
    new_file(b"n"),
    link(b"l", b".."),
    *(patch for patch, _, _ in WRONG.values() if len(patch) < 4096),
]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    data = bytearray(b"".join(draw(st.lists(st.sampled_from(PARTS), min_size=1, max_size=3))))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, len(data)))
        size = draw(st.integers(0, 12))
        data[at : at + size] = draw(
            st.one_of(
                st.binary(max_size=8),
                st.sampled_from(
                    [b"../", b"/", b".git/", b"\n", b"\r", b"\0", b"@@ -1 +1 @@\n", b'"']
                ),
            )
        )
    return bytes(data)


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    patch=st.one_of(mutated(), st.binary(max_size=200)), kind=st.sampled_from(sorted(TOLERANCES))
)
def test_any_bytes_are_applied_or_a_patch_error(base: Base, patch: bytes, kind: Tolerance) -> None:
    try:
        done = base.space.apply(base.tree, patch, name="fix.diff", tolerance=kind)
    except PatchError as error:
        said = str(error)
        done = None
    assert done is not None or said.isprintable()
    if done is None:
        return
    assert done.paths
    for path in done.paths:
        assert b".." not in path.split(b"/")
        assert not path.startswith((b"/", b".git/"))
        assert printable(path)


def test_a_patch_cannot_fetch_a_blob_by_its_hash(tmp_path: Path) -> None:
    """The fix lies in the same repository; a binary patch may name it without holding it."""
    repo = Repo.make(tmp_path / "r", {"f": b"bug\n"})
    old = repo.git("rev-parse", "HEAD:f").strip()
    repo.write({"f": b"fix\n"})
    repo.commit("fix")
    new = repo.git("rev-parse", "HEAD:f").strip()
    head = f"diff --git a/f b/f\nindex {old}..{new} 100644\n"
    with Workspace.open(repo.path) as space:
        base = space.commit("HEAD~1")
        for tail in ("Binary files a/f and b/f differ\n", "GIT binary patch\nliteral 0\nHc$@\n\n"):
            for tolerance in TOLERANCES:
                with pytest.raises(PatchError):
                    space.apply(base, (head + tail).encode(), name="p", tolerance=tolerance)


def test_a_patch_cannot_fetch_a_large_file_by_its_hash(base: Base) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:%b\nsize 5\n" % (b"a" * 64)
    rules = new_file(b".gitattributes", b"*.bin filter=lfs\n")
    error = base.error(rules + new_file(b"sub/x.bin", pointer))
    assert (error.outcome, "LFS pointer" in str(error)) == ("refused", True)
    # Where nothing speaks of LFS it is a text like any other.
    assert base.apply(new_file(b"sub/x.bin", pointer))[1] == {"sub/x.bin": pointer}


# What follows took minutes or hours when its time grew with the square of the text.


@pytest.mark.timeout(60)
@pytest.mark.parametrize("start", [b"diff --git ", b"--- ", b"rename from "])
def test_a_header_of_many_quotes_is_read_in_one_go(start: bytes) -> None:
    line = start + b'"' + b'\\"' * 300_000 + b"\n"
    assert patchtext.names(patchtext.scan(line + line))


@pytest.mark.timeout(60)
def test_a_header_longer_than_any_paths_is_refused(base: Base) -> None:
    error = base.error(b'diff --git "' + b'\\"' * 400_000 + b"\n" + GOOD)
    assert error.outcome == "refused"
    assert "line 1 names files in 800,013 bytes; at most 65,536" in str(error)


def test_a_header_with_the_longest_paths_is_taken(base: Base) -> None:
    name = b'"b' + b"/".join([b"", *[b"\\303\\244" * 127] * 15, b"\\303\\244" * 100]) + b'"'
    how, found = base.apply(new_file(name))
    assert how == "strict"
    assert len(next(iter(found)).encode()) > 4000


@pytest.mark.timeout(60)
def test_more_lines_than_fit_into_memory_are_refused(base: Base) -> None:
    error = base.error(GOOD + b"\n" * 20_000_000)
    assert error.outcome == "refused"
    assert "more than 3,000,000 lines" in str(error)


@pytest.mark.timeout(60)
def test_a_file_that_many_headers_name_is_read_once(tmp_path: Path) -> None:
    repo = Repo.make(tmp_path / "repo", {"top": b"one\n", "large": b"x\r\n" * 1_000_000})
    patch = b"--- a/large\n" * 50_000 + b"--- a/top\n+++ b/top\n@@ -1 +1 @@\n-one\r\n+two\r\n"
    with Workspace.open(repo.path) as space:
        done = space.apply(space.commit("HEAD"), patch, name="p", tolerance="crlf")
        assert space.read(done.tree, "top") == b"two\n"


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("part", "more", "why"),
    [(b"d/", 300, "a name that is too long"), (b"./", 20_000, "too many folders")],
)
def test_links_that_take_for_ever_to_follow_are_refused(
    base: Base, part: bytes, more: int, why: str
) -> None:
    chain = [link(b"x/l%d" % n, b"l%d/%b" % (n + 1, part * 2000)) for n in range(39)]
    ways = [link(b"w/%d" % n, b"../x/l0") for n in range(more)]
    error = base.error(b"".join([*chain, *ways]))
    assert error.outcome == "refused"
    assert why in str(error)


def test_what_git_says_of_a_name_with_lines_in_it_is_no_number(base: Base) -> None:
    name = b'"a/f\\nerror: patch failed: f:' + b"1" * 5000 + b'\\nx"'
    text = b"diff --git %b %b\n--- %b\n+++ %b\n@@ -1 +1 @@\n-a\n+b\n"
    assert base.error(text % ((name,) * 4)).outcome == "conflict"
