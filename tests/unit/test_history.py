"""The ``.git`` that travels: what version tools see there, and what they never see."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import pytest

from pytest_sandbox.workspace import Workspace
from tests.unit.gitrepo import Repo, fingerprint, git, members, unpack

SECRET = b"the later fix"


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    """v1.0 (annotated) - two commits - base - the later fix (v2.0), with reflog and remotes."""
    repo = Repo.make(tmp_path / "repo", {"a.py": b"zero, and gone later\n"})
    repo.git("tag", "-a", "-m", "release", "v1.0")
    for number in range(3):
        repo.write({"a.py": b"%d\n" % number})
        repo.commit(f"change {number}")
    repo.git("tag", "nightly", "HEAD~1")
    repo.git("branch", "base")
    repo.write({"a.py": SECRET})
    repo.commit("fix")
    repo.git("tag", "v2.0")
    repo.git("branch", "other")
    repo.git("update-ref", "refs/remotes/origin/x", "HEAD")
    repo.git("config", "user.secret", "token")
    return repo


def ship(repo: Repo, to: Path, kind: Literal["none", "tag", "full"], rev: str = "base") -> Path:
    with Workspace.open(repo.path) as space:
        return unpack(space.archive(space.commit(rev), history=kind), to)


def everything(out: Path) -> bytes:
    """All objects, reachable or not, and all other files of a .git."""
    objects = git(out, "cat-file", "--batch-all-objects", "--batch").encode(
        "utf-8", "surrogateescape"
    )
    rest = b"".join(p.read_bytes() for p in (out / ".git").rglob("*") if p.is_file())
    return objects + rest


def test_none_ships_no_git(repo: Repo, tmp_path: Path) -> None:
    out = ship(repo, tmp_path / "out", "none")
    assert [path.name for path in out.iterdir()] == ["a.py"]


def test_tag_describes_as_the_original_and_holds_one_content(repo: Repo, tmp_path: Path) -> None:
    out = ship(repo, tmp_path / "out", "tag")
    for question in (("--tags",), (), ("--tags", "--match", "*[0-9]*")):
        command = ("describe", "--long", *question)
        there = git(out, *command).rsplit("-g", 1)[0]
        assert there == repo.git(*command, "base").rsplit("-g", 1)[0], question
    assert git(out, "status", "--porcelain") == ""
    assert git(out, "fsck", "--strict") == ""
    assert git(out, "log", "-1", "--format=%ad|%cd", "--date=raw") == (
        "1600000000 +0200|1600000100 +0200\n"
    )
    assert git(out, "tag").split() == ["nightly", "v1.0"]
    assert git(out, "cat-file", "-t", "v1.0") == "tag\n"
    assert git(out, "branch", "--format=%(refname)") == "refs/heads/main\n"
    shipped = everything(out)
    for text in (SECRET, b"zero, and", b"change 1", b"v2.0", b"token", os.fsencode(repo.path)):
        assert text not in shipped
    (out / "a.py").write_text("patched\n")
    assert git(out, "status", "--porcelain") == " M a.py\n"


def test_a_tag_on_the_base_itself(repo: Repo, tmp_path: Path) -> None:
    out = ship(repo, tmp_path / "out", "tag", "v1.0")
    assert git(out, "describe", "--tags", "--long").startswith("v1.0-0-g")
    assert git(out, "rev-list", "--count", "HEAD") == "1\n"


def test_full_stops_at_the_base(repo: Repo, tmp_path: Path) -> None:
    out = ship(repo, tmp_path / "out", "full")
    assert git(out, "rev-parse", "HEAD") == repo.git("rev-parse", "base")
    assert git(out, "describe", "--tags", "--long") == repo.git(
        "describe", "--tags", "--long", "base"
    )
    assert git(out, "rev-list", "--count", "--all") == "4\n"
    assert git(out, "tag").split() == ["nightly", "v1.0"]
    assert git(out, "status", "--porcelain") == ""
    assert git(out, "fsck", "--strict") == ""
    shipped = everything(out)
    for text in (SECRET, b"v2.0", b"other", b"origin", b"token", os.fsencode(repo.path)):
        assert text not in shipped
    assert b"zero, and" in shipped


def test_a_working_tree_shows_its_changes_against_head(repo: Repo, tmp_path: Path) -> None:
    repo.write({"a.py": b"dirty\n", "new": b""})
    with Workspace.open(repo.path) as space:
        out = unpack(space.archive(space.working_tree()), tmp_path / "out")
    assert git(out, "status", "--porcelain") == repo.git("status", "--porcelain")
    assert git(out, "describe", "--tags", "--dirty") != ""


def test_without_tags_there_is_one_commit(tmp_path: Path) -> None:
    repo = Repo.make(tmp_path / "r", {"a": b""})
    out = ship(repo, tmp_path / "out", "tag", "HEAD")
    assert git(out, "rev-list", "--count", "--all") == "1\n"
    assert git(out, "tag") == ""


def test_a_tag_too_far_away_is_put_on_the_base_and_said(tmp_path: Path) -> None:
    repo = Repo.make(tmp_path / "r", {"a": b""})
    repo.git("tag", "v1")
    text = b"".join(
        b"commit refs/heads/trunk\ncommitter C <c@e> 1600000200 +0000\ndata 1\nx\n"
        + (b"from refs/heads/trunk^0\n" if number == 0 else b"")
        for number in range(10_001)
    )
    repo.git("fast-import", "--quiet", stdin=text)
    with Workspace.open(repo.path) as space:
        tree = space.commit("trunk")
        note = space.history_note(tree)
        assert note is not None
        assert "10,001" in note
        out = unpack(space.archive(tree), tmp_path / "out")
        assert space.history_note(space.commit("trunk~1")) is None
    assert git(out, "describe", "--tags", "--long").startswith("v1-0-g")


@pytest.mark.parametrize("kind", ["tag", "full"])
def test_the_same_history_gives_the_same_bytes(
    repo: Repo, kind: Literal["tag", "full"], tmp_path: Path
) -> None:
    made = []
    for _ in range(2):
        with Workspace.open(repo.path) as space:
            made.append(b"".join(space.archive(space.commit("base"), history=kind)))
    assert made[0] == made[1]
    assert {m.mtime for m in members([made[0]]).values()} == {1600000100}


def test_shipping_history_touches_nothing(repo: Repo, tmp_path: Path) -> None:
    before = fingerprint(repo.path)
    ship(repo, tmp_path / "1", "tag")
    ship(repo, tmp_path / "2", "full")
    assert fingerprint(repo.path) == before
