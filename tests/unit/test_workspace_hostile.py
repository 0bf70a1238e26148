"""A repository whose ``.git`` somebody else wrote: nothing of it runs, nothing foreign is read."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import zlib
from pathlib import Path

import pytest

from pytest_sandbox.errors import BadInput
from pytest_sandbox.workspace import Workspace, checkout, disk
from tests.unit.gitrepo import ENV, Repo, fingerprint, git, unpack

MISNAMED = r"other content|parsed|damaged"
PATCH = b"--- a/f.txt\n+++ b/f.txt\n@@ -1 +1 @@\n-one\n+two\n"


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return Repo.make(tmp_path / "repo", {"f.txt": b"one\n", "sub/g.txt": b"g\n"})


def use_everything(path: Path, out: Path) -> None:
    with Workspace.open(path) as space:
        base = space.commit("HEAD")
        tree = space.working_tree()
        applied = space.apply(base, PATCH, name="p", tolerance="3way")
        for number, kind in enumerate(("none", "tag", "full")):
            unpack(space.archive(tree, history=kind), out / str(number))  # type: ignore[arg-type]
        unpack(space.delta_archive(base, applied.tree), out / "delta")


def test_nothing_that_the_repository_configures_runs(
    repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trap = tmp_path / "trap"
    ran = tmp_path / "ran"
    trap.write_text(f'#!/bin/sh\necho "$0 $@" >> {ran}\nexit 1\n')
    trap.chmod(0o755)
    (tmp_path / "included").write_text(f"[core]\n\tfsmonitor = {trap}\n")
    settings = {
        "core.fsmonitor": f"{trap}",
        "core.hooksPath": f"{repo.path}/.git/hooks",
        "core.sshCommand": f"{trap}",
        "core.gitProxy": f"{trap}",
        "core.pager": f"{trap}",
        "core.editor": f"{trap}",
        "core.askPass": f"{trap}",
        "core.alternateRefsCommand": f"{trap}",
        "credential.helper": f"!{trap}",
        "filter.evil.clean": f"{trap}",
        "filter.evil.smudge": f"{trap}",
        "filter.evil.process": f"{trap}",
        "filter.evil.required": "true",
        "diff.external": f"{trap}",
        "diff.evil.command": f"{trap}",
        "diff.evil.textconv": f"{trap}",
        "merge.evil.driver": f"{trap} %A",
        "gpg.program": f"{trap}",
        "uploadpack.packObjectsHook": f"{trap}",
        "include.path": f"{tmp_path}/included",
        "extensions.partialClone": "origin",
        "core.repositoryFormatVersion": "1",
        "remote.origin.promisor": "true",
        "remote.origin.url": f"ext::{trap} %S",
        "remote.origin.uploadpack": f"{trap}",
        "protocol.ext.allow": "always",
        "alias.apply": f"!{trap}",
        "alias.ls-files": f"!{trap}",
        "core.worktree": "/",
        "index.sparse": "true",
    }
    for key, value in settings.items():
        subprocess.run(
            ["git", "config", "--file", ".git/config", key, value],
            cwd=repo.path,
            check=True,
            env=ENV,
        )
    for hook in ("pre-commit", "post-checkout", "post-index-change", "fsmonitor-watchman"):
        shutil.copy(trap, repo.path / ".git/hooks" / hook)
    rules = "* filter=evil diff=evil merge=evil ident eol=crlf working-tree-encoding=UTF-16\n"
    (repo.path / ".gitattributes").write_text(rules)
    (repo.path / ".git/info/attributes").write_text(rules)
    (repo.path / "git").write_bytes(trap.read_bytes())
    (repo.path / "git").chmod(0o755)
    monkeypatch.chdir(repo.path)
    for name in ("GIT_EXTERNAL_DIFF", "GIT_SSH_COMMAND", "GIT_PAGER", "GIT_ASKPASS"):
        monkeypatch.setenv(name, str(trap))
    monkeypatch.setenv("GIT_DIR", str(repo.path / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(repo.path / ".git/index"))
    before = fingerprint(repo.path)
    use_everything(repo.path, tmp_path / "out")
    assert not ran.exists(), ran.read_text()
    assert fingerprint(repo.path) == before
    assert (tmp_path / "out/0/f.txt").read_bytes() == b"one\n"
    shipped = b"".join(p.read_bytes() for p in (tmp_path / "out/1/.git").rglob("*") if p.is_file())
    for secret in (b"evil", b"trap", os.fsencode(tmp_path), b"a@example.org"):
        assert secret not in shipped


def test_the_trap_of_the_test_above_does_snap(repo: Repo, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    (tmp_path / "trap").write_text(f"#!/bin/sh\ntouch {ran}\n")
    (tmp_path / "trap").chmod(0o755)
    repo.git("config", "core.fsmonitor", str(tmp_path / "trap"))
    repo.git("status")
    assert ran.exists()


def test_a_missing_object_is_not_fetched(repo: Repo, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    (tmp_path / "trap").write_text(f"#!/bin/sh\ntouch {ran}\n")
    (tmp_path / "trap").chmod(0o755)
    repo.git("config", "core.repositoryFormatVersion", "1")
    repo.git("config", "extensions.partialClone", "origin")
    repo.git("config", "remote.origin.url", str(tmp_path / "other"))
    repo.git("config", "remote.origin.uploadpack", str(tmp_path / "trap"))
    blob = repo.git("rev-parse", "HEAD:f.txt").strip()
    (repo.path / ".git/objects" / blob[:2] / blob[2:]).unlink()
    with Workspace.open(repo.path) as space:
        tree = space.commit("HEAD")
        with pytest.raises(BadInput, match="missing"):
            list(space.archive(tree))
    assert not ran.exists()


@pytest.mark.parametrize("kind", ["blob", "tree", "commit"])
def test_an_object_under_a_false_name_is_noticed(repo: Repo, kind: str) -> None:
    rev = {"blob": "HEAD:f.txt", "tree": "HEAD^{tree}", "commit": "HEAD"}[kind]
    oid = repo.git("rev-parse", rev).strip()
    data = subprocess.run(
        ["git", "cat-file", kind, oid], cwd=repo.path, env=ENV, capture_output=True, check=True
    ).stdout
    forged = data.replace(b"one", b"ONE") if kind == "blob" else data.replace(b"f", b"F")
    path = repo.path / ".git/objects" / oid[:2] / oid[2:]
    path.chmod(0o644)
    path.write_bytes(zlib.compress(f"{kind} {len(forged)}\0".encode() + forged))
    with (
        Workspace.open(repo.path) as space,
        pytest.raises(BadInput, match=MISNAMED),
    ):
        list(space.archive(space.commit("HEAD")))


def secret_repository(tmp_path: Path) -> tuple[Repo, str]:
    secret = Repo.make(tmp_path / "secret", {"password": b"hunter2\n"})
    return secret, secret.git("rev-parse", "HEAD").strip()


def test_a_git_file_to_a_foreign_repository_is_refused(tmp_path: Path) -> None:
    secret, _ = secret_repository(tmp_path)
    (tmp_path / "bait").mkdir()
    (tmp_path / "bait/.git").write_text(f"gitdir: {secret.path}/.git\n")
    with pytest.raises(BadInput, match="does not name this folder"):
        Workspace.open(tmp_path / "bait")
    (tmp_path / "link").mkdir()
    (tmp_path / "link/.git").symlink_to(secret.path / ".git")
    with pytest.raises(BadInput, match="symbolic link"):
        Workspace.open(tmp_path / "link")


@pytest.mark.parametrize("way", ["alternates", "objects", "pack", "one object", "commondir"])
def test_an_untrusted_repository_cannot_borrow_objects(
    repo: Repo, tmp_path: Path, way: str
) -> None:
    secret, oid = secret_repository(tmp_path)
    objects = repo.path / ".git/objects"
    foreign = secret.path / ".git/objects"
    if way == "alternates":
        (objects / "info/alternates").write_text(f"{foreign}\n")
    elif way == "objects":
        shutil.rmtree(objects)
        objects.symlink_to(foreign)
    elif way == "pack":
        secret.git("gc", "-q")
        shutil.rmtree(objects / "pack")
        (objects / "pack").symlink_to(foreign / "pack")
    elif way == "one object":
        (objects / oid[:2]).mkdir(exist_ok=True)
        (objects / oid[:2] / oid[2:]).symlink_to(foreign / oid[:2] / oid[2:])
    else:
        (repo.path / ".git/commondir").write_text(f"{secret.path}/.git\n")
    with pytest.raises(BadInput, match=r"leads out|not name this"):
        Workspace.open(repo.path, untrusted=True)


def test_alternates_of_ones_own_repository_work(repo: Repo, tmp_path: Path) -> None:
    git(tmp_path, "clone", "-q", "--shared", str(repo.path), "shared")
    with Workspace.open(tmp_path / "shared") as space:
        tree = space.commit("HEAD")
        assert space.read(tree, "f.txt") == b"one\n"
        assert space.working_tree().id == tree.id


def test_a_nested_git_file_is_not_followed(repo: Repo, tmp_path: Path) -> None:
    secret, _ = secret_repository(tmp_path)
    (repo.path / "inner").mkdir()
    (repo.path / "inner/.git").write_text(f"gitdir: {secret.path}/.git\n")
    (repo.path / "inner/file").write_text("x")
    with Workspace.open(repo.path) as space:
        paths = {entry.path for entry in space.files(space.working_tree())}
    assert b"inner/file" in paths
    assert b"inner/password" not in paths


def test_a_submodule_name_cannot_reach_a_foreign_repository(repo: Repo, tmp_path: Path) -> None:
    _, oid = secret_repository(tmp_path)
    (repo.path / ".git/modules").mkdir()
    (repo.path / ".git/modules/x").symlink_to(tmp_path / "secret/.git")
    text = '[submodule "{}"]\n\tpath = lib\n\turl = x\n'
    for name in ("../../../secret/.git", "x"):
        (repo.path / ".gitmodules").write_text(text.format(name))
        repo.git("add", ".gitmodules")
        repo.git("update-index", "--add", "--cacheinfo", f"160000,{oid},lib")
        repo.git("commit", "-q", "--allow-empty", "-m", "bait")
        with Workspace.open(repo.path) as space, pytest.raises(BadInput, match="submodule"):
            list(space.files(space.commit("HEAD")))


def test_dubious_ownership_names_the_command(
    repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("SUDO_UID", raising=False)
    if os.geteuid() == 0:
        place, owner = repo.path, 12345
        for top, folders, files in os.walk(place):
            for name in (*folders, *files, "."):
                os.lchown(os.path.join(top, name), owner, owner)
    else:
        # Only root can give a file away; what is root's is foreign to everyone else.
        place, owner = Path("/usr"), 0
    found = checkout.Checkout(place, place, place, "sha1", True)
    with pytest.raises(BadInput, match="dubious ownership") as caught:
        checkout.check_owner(found, None)
    command = str(caught.value).split("`")[1]
    assert command == f"git config --global --add safe.directory {place}"
    subprocess.run(command, shell=True, check=True, env=os.environ | {"HOME": str(home)})
    checkout.check_owner(found, None)
    with (home / ".gitconfig").open("a") as file:
        file.write("[safe]\n\tdirectory =\n")
    with pytest.raises(BadInput, match="dubious ownership"):
        checkout.check_owner(found, None)
    if os.geteuid() == 0:
        with pytest.raises(BadInput, match="dubious ownership"):
            Workspace.open(place)
        monkeypatch.setenv("SUDO_UID", str(owner))
        Workspace.open(place).close()


def test_files_that_would_hang_a_reader(repo: Repo) -> None:
    for name in ("config", "packed-refs", "shallow", "ORIG_HEAD", "refs/heads/pipe"):
        path = repo.path / ".git" / name
        path.unlink(missing_ok=True)
        os.mkfifo(path)
    with Workspace.open(repo.path) as space:
        assert space.working_tree().id == space.commit("trunk").id


def test_files_that_would_be_read_for_hours(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    large = repo.path / "large"
    large.touch()
    os.truncate(large, 1 << 40)
    with Workspace.open(repo.path) as space:
        with pytest.raises(BadInput, match=r"'large' has 1,099,511,627,776 bytes.*\.gitignore"):
            space.working_tree()
        large.write_bytes(b"x" * 600)
        (repo.path / "more").write_bytes(b"x" * 600)
        monkeypatch.setattr(disk, "MAX_TOTAL", 1000)
        with pytest.raises(BadInput, match="and 1,000 in all are taken"):
            space.working_tree()


def test_pipes_and_devices_among_the_objects(repo: Repo) -> None:
    os.mkfifo(repo.path / ".git/objects/pack/pack-x.idx")
    with pytest.raises(BadInput, match="neither a file nor a folder"):
        Workspace.open(repo.path, untrusted=True)
    (repo.path / ".git/objects/pack/pack-x.idx").unlink()
    (repo.path / ".git/index").unlink()
    (repo.path / ".git/index").symlink_to("/dev/zero")
    with Workspace.open(repo.path, untrusted=True) as space:
        assert space.working_tree().id == space.commit("HEAD").id


def test_a_tree_with_dotgit_in_it_never_becomes_an_archive(repo: Repo) -> None:
    blob = repo.git("hash-object", "-w", "--stdin", stdin=b"x").strip()
    for name in (b".git", b".GIT", b"git~1", b".g\xe2\x80\x8cit", b".git ", b"..", b".git::$INDEX"):
        data = b"100644 " + name + b"\0" + bytes.fromhex(blob)
        raw = b"tree %d\0" % len(data) + data
        oid = hashlib.sha1(raw).hexdigest()
        (repo.path / ".git/objects" / oid[:2]).mkdir(exist_ok=True)
        (repo.path / ".git/objects" / oid[:2] / oid[2:]).write_bytes(zlib.compress(raw))
        commit = repo.git("commit-tree", "-m", "x", oid).strip()
        with Workspace.open(repo.path) as space, pytest.raises(BadInput, match="may have"):
            list(space.archive(space.commit(commit)))


def test_a_tree_that_multiplies_itself(repo: Repo) -> None:
    oid = repo.git("mktree", stdin=b"").strip()
    blob = repo.git("hash-object", "-w", "--stdin", stdin=b"x").strip()
    oid = repo.git("mktree", stdin=f"100644 blob {blob}\tf\n".encode()).strip()
    for _ in range(9):
        rows = "".join(f"040000 tree {oid}\td{n}\n" for n in range(20))
        oid = repo.git("mktree", stdin=rows.encode()).strip()
    commit = repo.git("commit-tree", "-m", "bomb", oid).strip()
    with Workspace.open(repo.path) as space, pytest.raises(BadInput, match="more than"):
        list(space.files(space.commit(commit)))


def test_an_index_that_is_none(repo: Repo) -> None:
    (repo.path / ".git/index").write_bytes(b"DIRC" + os.urandom(500))
    with Workspace.open(repo.path) as space, pytest.raises(BadInput, match="ls-files"):
        space.working_tree()
