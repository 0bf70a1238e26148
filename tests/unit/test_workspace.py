"""Trees of every kind of repository, and what of it travels."""

from __future__ import annotations

import os
import shutil
import stat
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import pytest

from pytest_sandbox.errors import BadInput
from pytest_sandbox.workspace import Workspace
from tests.unit.gitrepo import Repo, fingerprint, git, members, unpack

FILES = {"src/a.py": b"A = 1\n", "tests/test_a.py": b"def test(): pass\n", "README": b"hello\n"}


def names(space: Workspace, rev: str | None = None) -> dict[bytes, str]:
    tree = space.working_tree() if rev is None else space.commit(rev)
    return {entry.path: entry.mode for entry in space.files(tree)}


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return Repo.make(tmp_path / "repo", FILES)


def test_a_commits_tree_is_gits_own(repo: Repo) -> None:
    with Workspace.open(repo.path / "src") as space:
        tree = space.commit("HEAD")
        assert tree.id == repo.git("rev-parse", "HEAD^{tree}").strip()
        assert tree.commit == repo.git("rev-parse", "HEAD").strip()
        assert tree.label == "HEAD"
        assert space.root == repo.path
        assert space.is_repository
        assert space.working_tree().id == tree.id
        assert space.read(tree, "src/a.py") == b"A = 1\n"
        assert space.read(tree, "nowhere") is None


def test_revisions_by_every_name(repo: Repo) -> None:
    first = repo.git("rev-parse", "HEAD").strip()
    repo.git("tag", "-a", "-m", "x", "v1")
    repo.git("branch", "side/way")
    repo.git("pack-refs", "--all")
    repo.write({"new": b"n"})
    second = repo.commit("second")
    repo.git("update-ref", "refs/remotes/origin/trunk", first)
    repo.git("symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/trunk")
    with Workspace.open(repo.path) as space:
        for rev in ("HEAD~1", "v1", "side/way", first[:10], "origin/trunk", "origin", "trunk^"):
            assert space.commit(rev).commit == first, rev
        assert space.commit("trunk").commit == second


@pytest.mark.parametrize(
    "rev", ["--all", "", " ", "no/such", "HEAD~99", "a\nb", "x" * 5000, "v1@{u}"]
)
def test_a_revision_that_is_none(repo: Repo, rev: str) -> None:
    with Workspace.open(repo.path) as space, pytest.raises(BadInput) as caught:
        space.commit(rev)
    assert rev.strip()[:1] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_dirty_tree_is_taken_as_it_is_on_disk(repo: Repo) -> None:
    repo.write({".gitignore": b"*.log\nbuild/\n", "gone": b"", "staged": b"1"})
    repo.commit("more")
    repo.write({"src/a.py": b"A = 2\r\n", "new/deep.txt": b"u", "x.log": b"no", "build/o": b"no"})
    repo.write({"staged": b"2", "added": b"in index"})
    repo.git("add", "staged", "added")
    repo.write({"staged": b"3"})
    (repo.path / "gone").unlink()
    (repo.path / "added").unlink()
    before = fingerprint(repo.path)
    with Workspace.open(repo.path) as space:
        tree = space.working_tree()
        found = names(space)
        assert b"gone" not in found
        assert b"added" not in found
        assert not {b"x.log", b"build/o"} & found.keys()
        assert space.read(tree, "staged") == b"3"
        assert space.read(tree, "src/a.py") == b"A = 2\r\n"
        assert space.read(tree, "new/deep.txt") == b"u"
        delta = space.changes(space.commit("HEAD"), tree)
        assert {e.path for e in delta.changed} == {b"src/a.py", b"new/deep.txt", b"staged"}
        assert delta.deleted == (b"gone",)
    assert fingerprint(repo.path) == before


def test_nothing_of_the_repository_is_touched_not_even_a_time(repo: Repo, tmp_path: Path) -> None:
    repo.git("gc", "-q")
    repo.write({"src/a.py": b"A = 3\n"})
    before = fingerprint(repo.path)
    patch = b"--- a/README\n+++ b/README\n@@ -1 +1 @@\n-hello\n+bye\n"
    with Workspace.open(repo.path) as space:
        base = space.commit("HEAD")
        applied = space.apply(base, patch, name="p")
        unpack(space.archive(space.working_tree(), history="full"), tmp_path / "out")
        unpack(space.delta_archive(base, applied.tree), tmp_path / "delta")
        store = space.temporary
        assert store.is_dir()
    assert not store.exists()
    assert fingerprint(repo.path) == before


def test_modes_links_and_odd_names_survive(tmp_path: Path) -> None:
    repo = Repo.make(tmp_path / "r")
    odd = [
        b"a b",
        b"new\nline",
        b"tab\t",
        b'quo"te',
        b"back\\slash",
        b"caf\xc3\xa9",
        b"raw\xff\xfe",
    ]
    odd += [b"-dash", b":colon", b"*star", b"dir/" + b"x" * 200, b"trailing ", b"[set]"]
    for name in odd:
        path = os.fsencode(repo.path) + b"/" + name
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(name)
    tool = repo.path / "tool"
    tool.write_bytes(b"#!/bin/sh\n")
    tool.chmod(0o755)
    (repo.path / "link").symlink_to("tool")
    (repo.path / "dangling").symlink_to("../outside/nothing")
    (repo.path / "dirlink").symlink_to("dir")
    repo.commit("odd")
    with Workspace.open(repo.path) as space:
        tree = space.commit("HEAD")
        assert space.working_tree().id == tree.id
        out = unpack(space.archive(tree), tmp_path / "out")
    for name in odd:
        with open(os.fsencode(out) + b"/" + name, "rb") as file:
            assert file.read() == name
    assert (out / "tool").stat().st_mode & stat.S_IXUSR
    assert os.readlink(out / "link") == "tool"
    assert os.readlink(out / "dangling") == "../outside/nothing"
    assert git(out, "status", "--porcelain") == ""


def test_export_ignore_drops_nothing(tmp_path: Path) -> None:
    files = FILES | {".gitattributes": b"tests export-ignore\n* text=auto eol=crlf ident\n"}
    repo = Repo.make(tmp_path / "r", files)
    with Workspace.open(repo.path) as space:
        out = unpack(space.archive(space.commit("HEAD")), tmp_path / "out")
    assert (out / "tests/test_a.py").read_bytes() == FILES["tests/test_a.py"]


def test_bare_clone_needs_a_revision(repo: Repo, tmp_path: Path) -> None:
    git(tmp_path, "clone", "-q", "--bare", str(repo.path), "bare.git")
    with Workspace.open(tmp_path / "bare.git") as space:
        assert space.root is None
        assert b"README" in names(space, "trunk")
        with pytest.raises(BadInput, match="bare"):
            space.working_tree()


def test_linked_worktree_has_its_own_head_and_index(repo: Repo, tmp_path: Path) -> None:
    repo.git("worktree", "add", "-q", "-b", "side", str(tmp_path / "wt"))
    side = Repo(tmp_path / "wt")
    side.write({"only-here": b"1"})
    commit = side.commit("side")
    with Workspace.open(side.path) as space:
        assert space.commit("HEAD").commit == commit
        assert space.working_tree().id == space.commit("side").id
        assert space.root == side.path


def test_empty_repository(tmp_path: Path) -> None:
    repo = Repo.make(tmp_path / "r")
    repo.write({"a": b"1"})
    with Workspace.open(repo.path) as space:
        tree = space.working_tree()
        assert tree.commit is None
        out = unpack(space.archive(tree), tmp_path / "out")
        with pytest.raises(BadInput, match="no commit yet"):
            space.commit("HEAD")
    assert git(out, "status", "--porcelain") == ""


def test_plain_folder(tmp_path: Path) -> None:
    folder = tmp_path / "plain"
    plain = Repo(folder)
    plain.write({"a.py": b"1", "sub/b.py": b"2", ".gitignore": b"secret\n", "secret": b"s"})
    plain.write({"env/pyvenv.cfg": b"", "env/lib/x.py": b"", ".venv/y": b"", "node_modules/z": b""})
    plain.write({"__pycache__/a.pyc": b"", "sub/__pycache__/b.pyc": b"", ".hg/store": b""})
    with Workspace.open(folder) as space:
        assert not space.is_repository
        assert space.root == folder
        tree = space.working_tree()
        assert set(names(space)) == {b"a.py", b"sub/b.py", b".gitignore"}
        assert not [n for n in members(space.archive(tree)) if n.startswith(".git/")]
        with pytest.raises(BadInput, match="not a git repository"):
            space.commit("HEAD")


def test_global_and_info_excludes_count(
    repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home/.gitconfig").write_text("[core]\n\texcludesFile = ~/mine\n")
    (tmp_path / "home/mine").write_text("*.swp\n")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (repo.path / ".git/info/exclude").write_text("private\n")
    repo.write({"x.swp": b"", "private": b"", "public": b""})
    with Workspace.open(repo.path) as space:
        assert {b"x.swp", b"private", b"public"} & names(space).keys() == {b"public"}


def test_sparse_checkout_sends_what_is_not_on_disk(repo: Repo) -> None:
    repo.git("sparse-checkout", "set", "--no-cone", "/src/*")
    assert not (repo.path / "README").exists()
    with Workspace.open(repo.path) as space:
        assert space.working_tree().id == space.commit("HEAD").id


def test_a_sparse_index_is_expanded(repo: Repo) -> None:
    repo.git("sparse-checkout", "set", "--cone", "--sparse-index", "src")
    assert "040000" in repo.git("ls-files", "--stage", "--sparse")
    with Workspace.open(repo.path) as space:
        assert space.working_tree().id == space.commit("HEAD").id


def test_patches_and_archives_from_many_threads(repo: Repo) -> None:
    patch = b"--- a/README\n+++ b/README\n@@ -1 +1 @@\n-hello\n+bye %d\n"
    with Workspace.open(repo.path) as space, ThreadPoolExecutor(8) as pool:

        def run(number: int) -> tuple[str, bytes]:
            base = space.commit("HEAD")
            new = space.apply(base, patch % (number % 4), name="p").tree
            found = space.read(new, "README")
            assert found == b"bye %d\n" % (number % 4)
            return new.id, b"".join(space.archive(new))

        results = list(pool.map(run, range(16)))
    assert len(set(results)) == 4


def test_an_archive_that_is_given_up_leaves_nothing(repo: Repo) -> None:
    with Workspace.open(repo.path) as space:
        before = sorted(os.listdir(space.temporary))
        chunks = space.archive(space.commit("HEAD"))
        next(chunks)
        cast("Generator[bytes, None, None]", chunks).close()
        assert sorted(os.listdir(space.temporary)) == before


def test_odd_names_can_be_patched(tmp_path: Path) -> None:
    repo = Repo.make(
        tmp_path / "r", {"back\\slash": b"1\n", 'quo"te ': b"1\n", "dir with/é": b"1\n"}
    )
    repo.write({"back\\slash": b"2\n", 'quo"te ': b"2\n", "dir with/é": b"2\n"})
    patch = repo.git("diff").encode()
    with Workspace.open(repo.path) as space:
        done = space.apply(space.commit("HEAD"), patch, name="p")
        assert done.tree.id == space.working_tree().id


@pytest.mark.parametrize("setting", ["core.splitIndex", "index.sparse", "core.untrackedCache"])
def test_indexes_of_every_make(repo: Repo, setting: str) -> None:
    repo.git("config", setting, "true")
    repo.git("update-index", "--split-index" if "split" in setting else "--refresh")
    repo.write({"README": b"changed\n"})
    with Workspace.open(repo.path) as space:
        assert space.read(space.working_tree(), "README") == b"changed\n"


def test_a_folder_that_became_a_link_is_not_followed(repo: Repo, tmp_path: Path) -> None:
    (tmp_path / "private").mkdir()
    (tmp_path / "private/a.py").write_text("SECRET")
    shutil.rmtree(repo.path / "src")
    (repo.path / "src").symlink_to(tmp_path / "private")
    os.mkfifo(repo.path / "pipe")
    (repo.path / "README").unlink()
    os.mkfifo(repo.path / "README")
    with Workspace.open(repo.path) as space:
        assert names(space) == {b"src": "120000", b"tests/test_a.py": "100644"}


def test_a_file_that_never_holds_still_is_an_error_or_whole(repo: Repo) -> None:
    stop = threading.Event()
    said: list[str] = []
    path = repo.path / "busy"

    def write() -> None:
        size = 0
        while not stop.is_set():
            size = (size + 70_001) % 3_000_000
            path.write_bytes(bytes([size % 251]) * size)

    writer = threading.Thread(target=write)
    path.write_bytes(b"")
    writer.start()
    try:
        with Workspace.open(repo.path) as space:
            for _ in range(10):
                try:
                    data = space.read(space.working_tree(), "busy")
                except BadInput as error:
                    said.append(str(error))
                else:
                    assert data is not None
                    assert len(set(data)) <= 1
    finally:
        stop.set()
        writer.join()
    assert all("'busy' changes" in message for message in said)


def test_shallow_clone_says_how_to_get_more(repo: Repo, tmp_path: Path) -> None:
    first = repo.git("rev-parse", "HEAD").strip()
    repo.write({"b": b""})
    repo.commit("second")
    git(tmp_path, "clone", "-q", "--depth=1", f"file://{repo.path}", "shallow")
    with Workspace.open(tmp_path / "shallow") as space:
        out = unpack(space.archive(space.commit("HEAD"), history="full"), tmp_path / "out")
        for rev in (first, "HEAD~1"):
            with pytest.raises(BadInput, match=r"shallow.*git fetch --unshallow.*--depth"):
                space.commit(rev)
    assert git(out, "log", "--format=%s") == "second\n"
    assert git(out, "fsck") == ""


def test_partial_clone_fetches_nothing_and_says_so(repo: Repo, tmp_path: Path) -> None:
    repo.git("config", "uploadpack.allowFilter", "true")
    url = f"file://{repo.path}"
    git(tmp_path, "clone", "-q", "--no-checkout", "--filter=blob:none", url, "partial")
    before = fingerprint(tmp_path / "partial")
    with Workspace.open(tmp_path / "partial") as space:
        tree = space.commit("HEAD")
        with pytest.raises(BadInput, match=r"partial clone.*git fetch"):
            list(space.archive(tree))
    assert fingerprint(tmp_path / "partial") == before


def test_sha256_repository(tmp_path: Path) -> None:
    repo = Repo.make(tmp_path / "r", FILES, "--object-format=sha256")
    with Workspace.open(repo.path) as space:
        tree = space.working_tree()
        assert tree.id == space.commit("HEAD").id
        assert len(tree.id) == 64
        out = unpack(space.archive(tree), tmp_path / "out")
    assert git(out, "status", "--porcelain") == ""


def submodule(repo: Repo, tmp_path: Path, at: str = "vendor/lib") -> Repo:
    library = Repo.make(tmp_path / "library", {"lib.py": b"L = 1\n"})
    repo.git("-c", "protocol.file.allow=always", "submodule", "add", "-q", str(library.path), at)
    repo.commit("submodule")
    return Repo(repo.path / at)


def test_submodules_travel_as_files(repo: Repo, tmp_path: Path) -> None:
    inner = submodule(repo, tmp_path)
    with Workspace.open(repo.path) as space:
        tree = space.commit("HEAD")
        assert space.read(tree, "vendor/lib/lib.py") == b"L = 1\n"
        inner.write({"lib.py": b"L = 2\n", "fresh": b""})
        dirty = space.working_tree()
        assert {e.path for e in space.changes(tree, dirty).changed} == {
            b"vendor/lib/lib.py",
            b"vendor/lib/fresh",
        }
        out = unpack(space.archive(tree), tmp_path / "out")
    assert git(out, "status", "--porcelain") == ""
    assert (out / "vendor/lib/lib.py").read_bytes() == b"L = 1\n"
    with Workspace.open(inner.path) as space:
        assert space.root == inner.path
        assert set(names(space)) == {b"lib.py", b"fresh"}


def test_a_submodule_that_is_absent_is_named_with_its_command(repo: Repo, tmp_path: Path) -> None:
    submodule(repo, tmp_path)
    git(tmp_path, "clone", "-q", str(repo.path), "clone")
    with Workspace.open(tmp_path / "clone") as space:
        for tree in (space.commit("HEAD"), space.working_tree()):
            with pytest.raises(BadInput, match=r"git submodule update --init .*vendor/lib"):
                list(space.archive(tree))


def test_a_nested_repository_is_plain_files(repo: Repo) -> None:
    inner = Repo.make(repo.path / "nested", {"n.py": b"N\n", ".gitignore": b"*.log\n"})
    inner.write({"x.log": b""})
    with Workspace.open(repo.path) as space:
        found = set(names(space))
    assert {b"nested/n.py", b"nested/.gitignore"} <= found
    assert not [name for name in found if b".git/" in name or name.endswith(b".log")]


def lfs(tmp_path: Path) -> tuple[Repo, Path, bytes]:
    import hashlib

    data = bytes(range(256)) * 5000
    oid = hashlib.sha256(data).hexdigest()
    head = f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {len(data)}\n"
    rules = b"*.bin filter=lfs diff=lfs merge=lfs -text\n"
    repo = Repo.make(tmp_path / "lfs", {".gitattributes": rules, "data/big.bin": head.encode()})
    return repo, repo.path / ".git/lfs/objects" / oid[:2] / oid[2:4] / oid, data


def test_lfs_pointers_are_resolved(tmp_path: Path) -> None:
    repo, place, data = lfs(tmp_path)
    place.parent.mkdir(parents=True)
    place.write_bytes(data)
    with Workspace.open(repo.path) as space:
        tree = space.commit("HEAD")
        assert space.read(tree, "data/big.bin") == data
        out = unpack(space.archive(tree), tmp_path / "out")
        assert (out / "data/big.bin").read_bytes() == data
        repo.write({"data/big.bin": data})
        assert not space.changes(tree, space.working_tree()).changed


@pytest.mark.parametrize(
    "damage",
    [
        lambda path, data: None,
        lambda path, data: path.write_bytes(data[:-1]),
        lambda path, data: path.write_bytes(b"x" * len(data)),
        lambda path, data: path.symlink_to("/etc/passwd"),
        lambda path, data: os.mkfifo(path),
    ],
)
def test_lfs_content_that_is_not_there(
    tmp_path: Path, damage: Callable[[Path, bytes], None]
) -> None:
    repo, place, data = lfs(tmp_path)
    place.parent.mkdir(parents=True)
    damage(place, data)
    with Workspace.open(repo.path) as space:
        tree = space.commit("HEAD")
        with pytest.raises(BadInput, match=r"'data/big.bin'.*git lfs fetch"):
            list(space.archive(tree))


def test_the_same_tree_gives_the_same_bytes(repo: Repo, tmp_path: Path) -> None:
    git(tmp_path, "clone", "-q", str(repo.path), "clone")
    git(tmp_path / "clone", "gc", "-q")
    made = []
    for path in (repo.path, tmp_path / "clone", repo.path):
        with Workspace.open(path) as space:
            made.append(b"".join(space.archive(space.commit("HEAD"))))
    assert made[0] == made[1] == made[2]
    assert str(tmp_path).encode() not in made[0]


def test_delta_archive(repo: Repo) -> None:
    patch = (
        b"diff --git a/README b/README\ndeleted file mode 100644\n--- a/README\n+++ /dev/null\n"
        b"@@ -1 +0,0 @@\n-hello\n"
        b"diff --git a/src/a.py b/src/a.py\nold mode 100644\nnew mode 100755\n"
    )
    with Workspace.open(repo.path) as space:
        base = space.commit("HEAD")
        new = space.apply(base, patch, name="p").tree
        found = members(space.delta_archive(base, new))
        base_time = members(space.archive(base))["src/a.py"].mtime
    assert set(found) == {".pytest-sandbox-deleted", "src/a.py"}
    assert found["src/a.py"].mode == 0o755
    assert found[".pytest-sandbox-deleted"].size == len(b"README\0")
    # A .pyc made from the base must not pass for that of the changed source.
    assert found["src/a.py"].mtime > base_time
    assert {(m.uid, m.gid, m.uname, m.gname) for m in found.values()} == {(0, 0, "", "")}


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="not a folder"):
        Workspace.open(tmp_path / "nowhere")
