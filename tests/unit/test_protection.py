"""Which of a candidate's changes run: decided on trees."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_sandbox.protection import Protection, note, protect
from pytest_sandbox.workspace import Tree, Workspace

BASE: Mapping[str, str] = {
    "pyproject.toml": "[project]\nname = 'pkg'\n",
    "Makefile": "test:\n\tpytest\n",
    "README.md": "words\n",
    "src/pkg/__init__.py": "def f(): return 1\n",
    "src/pkg/testing.py": "def helper(): return 1\n",
    "src/pkg/testing/__init__.py": "",
    "src/pkg/inner/tests/test_inner.py": "def test_inner(): pass\n",
    "src/pkg/_fast.so": "binary",
    "conftest.py": "import pytest\n",
    "tests/conftest.py": "import pytest\n",
    "tests/test_a.py": "def test_a(): pass\n",
    "tests/support.py": "VALUE = 1\n",
    "tests/data/expected.json": "{}\n",
    "src/pkg/helpers_test.py": "def test_helpers(): pass\n",
}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    with Workspace.open(tmp_path_factory.mktemp("plain"), exact=True) as made:
        yield made


def tree(workspace: Workspace, files: Mapping[str, str | None]) -> Tree:
    empty = workspace.working_tree()
    return workspace.with_files(
        empty, {path: text.encode() for path, text in files.items() if text is not None}
    )


def protected(
    workspace: Workspace, changes: Mapping[str, str | None], **more: object
) -> Protection:
    candidate = {**BASE, **changes}
    return protect(workspace, tree(workspace, BASE), tree(workspace, candidate), **more)  # type: ignore[arg-type]


def content(workspace: Workspace, made: Tree) -> dict[str, str]:
    return {
        entry.path.decode(): (workspace.read(made, entry.path.decode()) or b"").decode()
        for entry in workspace.files(made)
    }


@pytest.mark.parametrize(
    "path",
    [
        "tests/test_a.py", "tests/support.py", "tests/data/expected.json", "tests/conftest.py",
        "conftest.py", "pyproject.toml", "Makefile", "src/pkg/inner/tests/test_inner.py",
        "src/pkg/helpers_test.py", "src/pkg/_fast.so",
    ],
)  # fmt: skip
@pytest.mark.parametrize("text", ["other\n", None], ids=["changed", "deleted"])
def test_tests_and_configuration_run_as_they_are_trusted(
    workspace: Workspace, path: str, text: str | None
) -> None:
    made = protected(workspace, {path: text, "src/pkg/__init__.py": "def f(): return 2\n"})
    assert made.restored == (path,)
    assert made.kept == ("src/pkg/__init__.py",)
    assert content(workspace, made.tree) == {**BASE, "src/pkg/__init__.py": "def f(): return 2\n"}
    assert path in made.sealed
    assert path in note(made)


@pytest.mark.parametrize("path", ["src/pkg/testing.py", "src/pkg/testing/__init__.py", "README.md"])
def test_what_is_tested_runs_as_the_candidate_has_it(workspace: Workspace, path: str) -> None:
    made = protected(workspace, {path: "new\n"})
    assert (made.kept, made.restored, made.dropped) == ((path,), (), ())
    assert path not in made.sealed
    assert note(made) == ""


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("sitecustomize.py", "every start"),
        ("src/usercustomize/__init__.py", "every start"),
        ("evil.pth", "read"),
        ("src/pkg/_other.so", "read"),
        ("src/pkg/__pycache__/x.py", "read"),
        ("tests/__pycache__/test_a.cpython-312-pytest-9.0.2.pyc", "read"),
        ("evil-1.0.dist-info/entry_points.txt", "read"),
        ("src/Evil.Egg-Info/entry_points.txt", "read"),
        (".pytest_cache/v/cache/lastfailed", "read"),
        ("src/pkg/conftest.py", "how the tests run"),
        ("pytest.toml", "configure"),
        (".pytest.ini", "configure"),
        ("tests/pytest.ini", "configure"),
        (".github/workflows/ci.yml", "configure"),
        ("tests/__init__.py", "imported"),
        ("src/pkg/inner/tests/__init__.py", "imported"),
        ("pytest.py", "runs the tests"),
        ("_pytest/__init__.py", "runs the tests"),
        ("src/pluggy.py", "runs the tests"),
        ("random.py", "standard library"),
        ("src/json/__init__.py", "standard library"),
        ("tests/decimal.py", "standard library"),
        ("pkg/__init__.py", "own 'pkg'"),
        ("tests/pkg.py", "own 'pkg'"),
        ("tests/pkg/__init__.py", "own 'pkg'"),
    ],
)
def test_what_acts_before_or_around_the_tests_is_not_run(
    workspace: Workspace, path: str, why: str
) -> None:
    made = protected(workspace, {path: "evil\n"})
    assert [dropped for dropped, _ in made.dropped] == [path]
    assert why in made.dropped[0][1]
    assert content(workspace, made.tree) == dict(BASE)
    # Who asks for it has it.
    let = protected(workspace, {path: "evil\n"}, unprotect=("*" + path.rpartition("/")[2],))
    assert let.kept == (path,)
    assert content(workspace, let.tree)[path] == "evil\n"


@pytest.mark.parametrize(
    "path",
    ["src/pkg/random.py", "src/pkg/pytest.py", "src/pkg/_pytest/__init__.py", "src/new.py",
     "newpkg/__init__.py", "docs/conf.py", "src/pkg/json/__init__.py"],
)  # fmt: skip
def test_names_deep_in_a_package_shadow_nothing(workspace: Workspace, path: str) -> None:
    made = protected(workspace, {path: "fine\n"})
    assert (made.kept, made.dropped) == ((path,), ())


def test_tests_that_the_candidate_adds_run_and_are_not_scored(workspace: Workspace) -> None:
    made = protected(
        workspace, {"tests/test_new.py": "def test(): pass\n", "tests/more.py": "", "src/n.py": ""}
    )
    assert made.own_tests == ("tests/more.py", "tests/test_new.py")
    assert made.fresh == ("more", "n", "test_new")
    assert "tests/test_new.py" in content(workspace, made.tree)
    assert content(workspace, made.scored) == {**BASE, "src/n.py": ""}
    assert not set(made.own_tests) & set(made.sealed)


def test_the_tests_of_the_task_take_the_place_of_the_candidates(workspace: Workspace) -> None:
    base = tree(workspace, BASE)
    trusted = tree(
        workspace, {**BASE, "tests/test_b.py": "trusted\n", "tests/test_a.py": None, "x/spec": "1"}
    )
    candidate = tree(
        workspace, {**BASE, "tests/test_b.py": "own\n", "x": "a file", "src/pkg/a.py": ""}
    )
    made = protect(workspace, base, candidate, trusted=trusted)
    expected: dict[str, str | None] = {**BASE, "tests/test_b.py": "trusted\n", "x/spec": "1"}
    expected["src/pkg/a.py"] = ""
    del expected["tests/test_a.py"]
    assert content(workspace, made.tree) == expected
    assert made.restored == ("tests/test_b.py",)
    assert made.dropped == (("x", "it takes the place of the folder x/"),)


def test_a_folder_in_the_place_of_a_test(workspace: Workspace) -> None:
    made = protected(workspace, {"tests/test_a.py": None, "tests/test_a.py/__init__.py": "evil\n"})
    assert content(workspace, made.tree) == dict(BASE)
    assert made.restored == ("tests/test_a.py",)
    assert [path for path, _ in made.dropped] == ["tests/test_a.py/__init__.py"]


def test_a_project_that_moves_shadows_nothing(workspace: Workspace) -> None:
    base = tree(workspace, {"pkg/__init__.py": "1", "tests/test_a.py": ""})
    moved = tree(workspace, {"src/pkg/__init__.py": "1", "tests/test_a.py": ""})
    made = protect(workspace, base, moved)
    assert made.dropped == ()
    assert made.tree.id == moved.id


def test_what_the_ini_calls_tests_is_protected(workspace: Workspace) -> None:
    files = {
        "pytest.ini": "[pytest]\npython_files=check_*.py\ntestpaths=checks\npythonpath=lib2\n",
        "checks/check_a.py": "",
        "checks/tools.py": "",
        "lib2/pkg.py": "",
    }
    base = tree(workspace, files)
    changed = tree(
        workspace,
        {**files, "checks/check_a.py": "x", "checks/tools.py": "x", "lib2/string.py": "x"},
    )
    made = protect(workspace, base, changed)
    assert made.restored == ("checks/check_a.py", "checks/tools.py")
    assert [path for path, _ in made.dropped] == ["lib2/string.py"]


_NAMES = st.sampled_from(
    ["tests", "src", "pkg", "test_a.py", "conftest.py", "__init__.py", "x.py", "a.so", "random.py"]
)
_FILES = st.dictionaries(
    st.lists(_NAMES, min_size=1, max_size=3).map("/".join), st.sampled_from("abc"), max_size=8
).filter(lambda files: not any(p != q and q.startswith(p + "/") for p in files for q in files))


@settings(max_examples=25, deadline=None)
@given(base=_FILES, change=_FILES)
def test_what_is_made_holds_nothing_of_the_candidates_but_what_is_listed(
    workspace: Workspace, base: dict[str, str], change: dict[str, str]
) -> None:
    before, after = tree(workspace, base), tree(workspace, change)
    made = protect(workspace, before, after)
    run, scored = content(workspace, made.tree), content(workspace, made.scored)
    listed = {*made.kept, *made.own_tests}
    assert {path for path in base | change if base.get(path) != run.get(path)} <= listed
    assert {path for path in base | change if base.get(path) != scored.get(path)} <= set(made.kept)
    assert set(made.sealed) <= set(scored)
    assert all(base[path] == run[path] for path in made.sealed)
    again = protect(workspace, before, made.tree)
    assert (again.tree.id, again.dropped, again.restored) == (made.tree.id, (), ())
