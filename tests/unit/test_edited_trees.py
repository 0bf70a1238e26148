"""Trees that are made of others: that they are git's own, whatever takes whose place."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_sandbox.errors import BadInput
from pytest_sandbox.workspace import Workspace
from tests.unit.gitrepo import Repo

_PATHS = st.lists(st.sampled_from(["a", "b", "a.b", "c"]), min_size=1, max_size=3).map("/".join)


def fits(files: dict[str, bytes]) -> bool:
    return not any(one != other and other.startswith(one + "/") for one in files for other in files)


_FILES = st.dictionaries(_PATHS, st.sampled_from([b"x", b"y"]), max_size=6).filter(fits)


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    with Workspace.open(tmp_path_factory.mktemp("plain"), exact=True) as made:
        yield made


@settings(max_examples=25, deadline=None)
@given(old=_FILES, put=_FILES, gone=st.sets(_PATHS, max_size=4))
def test_what_is_put_takes_its_place(
    space: Workspace, old: dict[str, bytes], put: dict[str, bytes], gone: set[str]
) -> None:
    before = space.with_files(space.working_tree(), old)
    edits: dict[str, bytes | None] = {**dict.fromkeys(gone), **put}
    made = space.with_files(before, edits)
    stays = {
        path: data
        for path, data in old.items()
        if path not in gone
        and not any(path.startswith(f"{new}/") or new.startswith(f"{path}/") for new in put)
    }
    expected = {**stays, **put}
    found = {path.decode(): data for path, data in space.contents(space.files(made)).items()}
    assert found == expected
    assert space.tree_of(space.files(made)) == made.id
    assert {path: space.read(made, path) for path in {*expected, *gone}} == {
        path: expected.get(path) for path in {*expected, *gone}
    }


def test_nothing_is_both_a_file_and_a_folder(space: Workspace) -> None:
    for files in ({"a": b"1", "a/b": b"1"}, {"a/b/c": b"1", "a/b": b"1"}):
        with pytest.raises(BadInput, match="a file and a folder"):
            space.with_files(space.working_tree(), dict(files))


def test_order_is_gits(tmp_path: Path, space: Workspace) -> None:
    files = {"a/x": b"1", "a.b": b"1", "a-b/y": b"1", "a0": b"1"}
    repo = Repo.make(tmp_path / "repo", files)
    made = space.with_files(space.working_tree(), dict(files))
    assert made.id == repo.git("rev-parse", "HEAD^{tree}").strip()


def test_large_files_and_links_have_no_content_here(tmp_path: Path) -> None:
    repo = Repo.make(tmp_path / "repo", {"small": b"1", "large": bytes(2000)})
    (repo.path / "link").symlink_to("small")
    with Workspace.open(repo.path) as opened:
        entries = list(opened.files(opened.working_tree()))
        assert len(entries) == 3
        assert opened.contents(entries, most=1000) == {b"small": b"1"}
        assert opened.contents([]) == {}
