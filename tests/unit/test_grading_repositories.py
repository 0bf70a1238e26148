"""Repositories behind URLs: one cache for all that grade on a machine."""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pytest_sandbox.errors import BadInput, InfraError
from pytest_sandbox.grading.repositories import Repositories
from tests.unit.gitrepo import Repo


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return Repo.make(tmp_path / "repo", {"a": b"1"})


def commits(repo: Repo, number: int) -> list[str]:
    found = []
    for at in range(number):
        repo.write({"a": str(at + 2).encode()})
        repo.commit(str(at))
        found.append(repo.git("rev-parse", "HEAD").strip())
    return found


def content(repositories: Repositories, repo: Repo, base: str) -> bytes | None:
    workspace = repositories.workspace(f"file://{repo.path}", base)
    return workspace.read(workspace.commit(base), "a")


def test_many_fetch_at_the_same_time(repo: Repo, tmp_path: Path) -> None:
    """Each as a process of its own would: nothing but the folder is shared."""
    heads = commits(repo, 4)

    def fetch(number: int) -> bytes | None:
        with Repositories(tmp_path / "cache") as repositories:
            return content(repositories, repo, heads[number % 4])

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(fetch, range(8)))
    assert found == [b"2", b"3", b"4", b"5"] * 2


def test_a_branch_is_what_it_is_now(repo: Repo, tmp_path: Path) -> None:
    with Repositories(tmp_path / "cache") as repositories:
        assert content(repositories, repo, "trunk") == b"1"
        commits(repo, 1)
        # Not within a session, whose candidates are all for the same.
        assert content(repositories, repo, "trunk") == b"1"
    with Repositories(tmp_path / "cache") as repositories:
        assert content(repositories, repo, "trunk") == b"2"
    repo.path.rename(tmp_path / "elsewhere")
    with Repositories(tmp_path / "cache") as repositories:
        assert content(repositories, repo, "trunk") == b"2"


def test_what_is_not_there(repo: Repo, tmp_path: Path) -> None:
    with Repositories(tmp_path / "cache") as repositories:
        for base in ("nowhere", "0" * 40):
            with pytest.raises(BadInput, match="cannot be fetched"):
                content(repositories, repo, base)
        with pytest.raises(BadInput, match="cannot be fetched"):
            repositories.workspace(f"file://{tmp_path}/nothing", "trunk")


@pytest.mark.parametrize("base", ["trunk", "1" * 40])
def test_who_does_not_answer_says_nothing_of_what_is_there(base: str, tmp_path: Path) -> None:
    with socket.socket() as taken:
        # Bound and not listening: nothing else can answer there meanwhile.
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with Repositories(tmp_path / "cache") as repositories:
            for scheme in ("http", "git"):
                with pytest.raises(InfraError, match="cannot be reached"):
                    repositories.workspace(f"{scheme}://127.0.0.1:{port}/a/b", base)


def test_those_who_wait_for_a_fetch_have_its_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a thousand candidates of one task, each attempt that times out is one too many."""
    asked: list[str] = []
    everybody = threading.Barrier(8)

    def fetched(self: Repositories, url: str, base: str) -> Path:
        asked.append(url)
        time.sleep(0.5)
        raise InfraError("no answer")

    monkeypatch.setattr(Repositories, "_fetched", fetched)

    def ask(number: int) -> None:
        everybody.wait()
        with pytest.raises(InfraError, match="no answer"):
            repositories.workspace("http://127.0.0.1/a", str(number))

    with Repositories(tmp_path / "cache") as repositories:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(ask, range(8)))
        assert len(asked) == 1
        with pytest.raises(InfraError):
            repositories.workspace("http://127.0.0.1/a", "later")
        assert len(asked) == 2
