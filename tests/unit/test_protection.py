"""Which of a candidate's changes run: decided on trees."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_sandbox.protection import Protection, note, protect, with_tests
from pytest_sandbox.protection.links import Way, ways
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
    "tests/parts/part.py": "PART = 1\n",
    "tests/data/expected.json": "{}\n",
    "more/a/pyproject.toml": "",
    "more/a/suite/test_more.py": "def test_more(): pass\n",
    "more/a/suite/data.txt": "1\n",
    "src/pkg/deep/conftest.py": "",
    "src/pkg/template/pyproject.toml": "",
    "src/space/one/__init__.py": "",
    "test_notes.txt": ">>> 1 + 1\n2\n",
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
    found = workspace.contents(workspace.files(made))
    return {path.decode(): text.decode() for path, text in found.items()}


PROTECTED = [
    "tests/test_a.py", "tests/support.py", "tests/data/expected.json", "tests/conftest.py",
    "conftest.py", "pyproject.toml", "Makefile", "src/pkg/inner/tests/test_inner.py",
    "src/pkg/helpers_test.py", "src/pkg/_fast.so", "src/pkg/deep/conftest.py",
    "more/a/pyproject.toml", "more/a/suite/test_more.py", "more/a/suite/data.txt", "test_notes.txt",
    "tests/parts/part.py",
]  # fmt: skip


@pytest.mark.parametrize("text", ["other\n", None], ids=["changed", "deleted"])
def test_tests_and_configuration_run_as_they_are_trusted(
    workspace: Workspace, text: str | None
) -> None:
    fix = {"src/pkg/__init__.py": "def f(): return 2\n"}
    made = protected(workspace, {**dict.fromkeys(PROTECTED, text), **fix})
    assert made.restored == tuple(sorted(PROTECTED))
    assert made.kept == ("src/pkg/__init__.py",)
    assert content(workspace, made.tree) == {**BASE, **fix}
    assert made.sealed == tuple(sorted(PROTECTED))
    assert "as at the base: Makefile, conftest.py" in note(made)
    # Who asks for it has it.
    let = protected(workspace, dict.fromkeys(PROTECTED, text), unprotect=("*",))
    assert let.kept == let.let_through == tuple(sorted(PROTECTED))
    assert (let.restored, let.sealed) == ((), ())
    assert note(let).startswith("let through: Makefile")


def test_what_is_tested_runs_as_the_candidate_has_it(workspace: Workspace) -> None:
    paths = (
        "README.md", "src/pkg/template/pyproject.toml", "src/pkg/testing.py",
        "src/pkg/testing/__init__.py",
    )  # fmt: skip
    made = protected(workspace, dict.fromkeys(paths, "new\n"))
    assert (made.kept, made.restored, made.dropped) == (paths, (), ())
    assert not set(paths) & set(made.sealed)
    assert note(made) == ""


DROPPED = {
    "sitecustomize.py": "every start",
    "src/usercustomize/__init__.py": "every start",
    "evil.pth": "read",
    "src/pkg/_other.so": "read",
    "src/pkg/__pycache__/x.py": "read",
    "tests/__pycache__/test_a.cpython-312-pytest-9.0.2.pyc": "read",
    "evil-1.0.dist-info/entry_points.txt": "read",
    "src/Evil.Egg-Info/entry_points.txt": "read",
    ".pytest_cache/v/cache/lastfailed": "read",
    "src/pkg/conftest.py": "how the tests run",
    "pytest.toml": "configure",
    ".pytest.ini": "configure",
    "tests/pytest.ini": "configure",
    "src/pkg/inner/tox.ini": "configure",
    ".github/workflows/ci.yml": "configure",
    "__init__.py": "imported",
    "tests/__init__.py": "imported",
    "src/pkg/inner/tests/__init__.py": "imported",
    "tests/support/__init__.py": "place of tests/support.py",
    "tests/test_a/__init__.py": "place of tests/test_a.py",
    "tests/parts.py": "place of tests/parts/",
    "tests/parts/__init__.py": "place of tests/parts/",
    "pytest.py": "runs the tests",
    "_pytest/__init__.py": "runs the tests",
    "src/pluggy.py": "runs the tests",
    "random.py": "standard library",
    "imp.py": "standard library",
    "src/json/__init__.py": "standard library",
    "src/json/decoder.py": "standard library",
    "tests/decimal.py": "standard library",
    "tests/new/string.py": "standard library",
    "src/tests/__init__.py": "place of tests/",
    "src/tests/support.py": "place of tests/",
    "src/parts.py": "place of tests/parts/",
    "pkg/__init__.py": "own 'pkg'",
    "tests/pkg.py": "own 'pkg'",
    "space/__init__.py": "own 'space'",
}


def test_what_acts_before_or_around_the_tests_is_not_run(workspace: Workspace) -> None:
    own = {"tests/new/test_new.py": "def test(): pass\n"}
    added = {**dict.fromkeys(DROPPED, "evil\n"), **own}
    made = protected(workspace, added)
    reasons = dict(made.dropped)
    assert reasons.keys() == DROPPED.keys()
    assert {path: why for path, why in DROPPED.items() if why not in reasons[path]} == {}
    assert content(workspace, made.tree) == {**BASE, **own}
    assert made.kept == ()
    let = protected(workspace, added, unprotect=("*",))
    assert let.kept == let.let_through == tuple(sorted(added))
    assert content(workspace, let.tree) == {**BASE, **added}


def test_names_deep_in_a_package_shadow_nothing(workspace: Workspace) -> None:
    paths = (
        "docs/conf.py", "newpkg/__init__.py", "src/new.py", "src/pkg/_pytest/__init__.py",
        "src/pkg/json/__init__.py", "src/pkg/pytest.py", "src/pkg/random.py", "src/support.py",
        "src/pkg/template/setup.py", "src/pkg/core/test_runner.py", "src/pkg/core/__init__.py",
        "requirements-test.txt",
    )  # fmt: skip
    made = protected(workspace, dict.fromkeys(paths, "fine\n"))
    assert (made.kept, made.dropped) == (tuple(sorted(paths)), ())
    assert made.fresh == ("new", "newpkg")
    assert [path for path, _ in made.flagged] == ["requirements-test.txt"]


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


PATCHES = {
    "a link in the place of the tests": (
        "diff --git a/tests/test_a.py b/tests/test_a.py\ndeleted file mode 100644\n"
        "--- a/tests/test_a.py\n+++ /dev/null\n@@ -1 +0,0 @@\n-def test_a(): pass\n"
        "diff --git a/tests b/tests\nnew file mode 120000\n--- /dev/null\n+++ b/tests\n"
        "@@ -0,0 +1 @@\n+src\n\\ No newline at end of file\n",
        {"restored": ("tests/test_a.py",),
         "dropped": (("tests", "it takes the place of the folder tests/"),)},
    ),
    "a move that no +++ line tells of": (
        "diff --git a/tests/test_a.py b/tests/test_moved.py\nsimilarity index 100%\n"
        "rename from tests/test_a.py\nrename to tests/test_moved.py\n",
        {"restored": ("tests/test_a.py",), "own_tests": ("tests/test_moved.py",)},
    ),
    "a mode alone": (
        "diff --git a/tests/test_a.py b/tests/test_a.py\nold mode 100644\nnew mode 100755\n"
        "diff --git a/src/a.py b/src/a.py\nold mode 100644\nnew mode 100755\n",
        {"restored": ("tests/test_a.py",), "kept": ("src/a.py",),
         "flagged": (("src/a.py", "only its mode changes"),)},
    ),
    "links that are packages": (
        "".join(
            f"diff --git a/{name} b/{name}\nnew file mode 120000\n--- /dev/null\n"
            f"+++ b/{name}\n@@ -0,0 +1 @@\n+src\n\\ No newline at end of file\n"
            for name in ("other", "pytest")
        ),
        {"kept": ("other",), "flagged": (("other", "a symbolic link"),),
         "dropped": (("pytest",
                      "it would be imported in place of 'pytest', which runs the tests"),)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PATCHES)
def test_patches_that_files_cannot_show(workspace: Workspace, name: str) -> None:
    patch, expected = PATCHES[name]
    base = tree(workspace, {"tests/test_a.py": "def test_a(): pass\n", "src/a.py": "A = 1\n"})
    candidate = workspace.apply(base, patch.encode(), name="p").tree
    made = protect(workspace, base, candidate)
    lists = {field: getattr(made, field) for field in ("kept", "restored", "dropped", "flagged")}
    lists["own_tests"] = made.own_tests
    assert {field: value for field, value in lists.items() if value} == expected
    assert content(workspace, made.tree)["tests/test_a.py"] == "def test_a(): pass\n"


@pytest.mark.parametrize(
    ("base", "changes", "kept"),
    [
        # "src" itself is the package.
        ({"src/__init__.py": "", "src/a.py": ""}, {"src/types.py": "1"}, ("src/types.py",)),
        ({"src/a.py": ""}, {"src/types.py": "1"}, ()),
        # A module becomes a package.
        ({"src/a.py": ""}, {"src/a.py": None, "src/a/__init__.py": ""},
         ("src/a.py", "src/a/__init__.py")),
        # What is imported from a folder of its own kind.
        ({"python/pkg/__init__.py": ""}, {"tests/pkg.py": "", "python/json.py": ""}, ()),
        # Where a conftest.py says that it is to look.
        ({"source/a.py": "", "tests/conftest.py":
          'import sys\nsys.path.insert(0, str(Path(__file__).parents[1] / "source"))\n'},
         {"source/statistics.py": ""}, ()),
        ({"a/b/a.py": "", "conftest.py": "sys.path.insert(0, join(dirname(__file__), 'a', 'b'))\n"},
         {"a/b/statistics.py": "", "a/types.py": ""}, ("a/types.py",)),
        ({"tests/fakes/a.py": "", "tests/conftest.py": "sys.path.insert(0, f'{here}/fakes')\n"},
         {"tests/fakes/statistics.py": ""}, ()),
        ({"a/a.py": "", "tests/conftest.py": "sys.path.insert(1, '../a')  # and b\n", "b/b.py": ""},
         {"a/json.py": "", "b/json.py": ""}, ("b/json.py",)),
        # A part of a namespace, for all that anybody knows.
        ({"space/a.py": "", "conftest.py": "# sys.path.insert(0, 'space')\nimport space.a\n"},
         {"space/types.py": ""}, ("space/types.py",)),
        # Nothing is hidden by what comes last; and a package's modules are its own.
        ({"a/a.py": "", "p/__init__.py": "",
          "conftest.py": "sys.path.append('a')\nsys.path.insert(0, 'p')\n"},
         {"a/types.py": "", "p/types.py": ""}, ("a/types.py", "p/types.py")),
    ],
)  # fmt: skip
def test_where_python_looks(
    workspace: Workspace,
    base: dict[str, str],
    changes: dict[str, str | None],
    kept: tuple[str, ...],
) -> None:
    base = {**base, "tests/test_a.py": ""}
    made = protect(workspace, tree(workspace, base), tree(workspace, {**base, **changes}))
    assert made.kept == kept
    assert len(made.dropped) == len(changes) - len(kept)


@pytest.mark.parametrize(
    ("ini", "path"),
    [
        ("python_files = checks/*.py", "checks/a.py"),
        ("python_files = *.py", None),
        ("addopts = --doctest-glob='*.rst'", "guide/usage.rst"),
        ("addopts = --doctest-glob *.rst -q", "guide/usage.rst"),
        ("addopts = 'unclosed", None),
        ("testpaths = check*", None),
        ("python_files = *.py\ntestpaths = check*", "checks/a.py"),
        ("python_files = *\ntestpaths = ./checks/", "checks/a.py"),
        # Any module may be the product's.
        ("python_files = *.py\ntestpaths = checks\naddopts = --doctest-modules", None),
        ("python_files = *.py\ntestpaths = checks\npythonpath = checks", None),
        ("python_files = *.py\ntestpaths = other", None),
    ],
)
def test_what_the_ini_says_of_tests(workspace: Workspace, ini: str, path: str | None) -> None:
    files = {"pytest.ini": f"[pytest]\n{ini}\n", "checks/a.py": "", "guide/usage.rst": ""}
    changes = {**files, "checks/a.py": "x", "guide/usage.rst": "x"}
    made = protect(workspace, tree(workspace, files), tree(workspace, changes))
    assert made.restored == (() if path is None else (path,))


def test_a_folder_of_tests_by_the_ini_alone(workspace: Workspace) -> None:
    """Where any module's name is a test's: but none of the product."""
    ini = "[pytest]\npython_files = *.py\ntestpaths = checks source pkg lib\n"
    paths = ("checks/a.py", "checks/deep/b.py", "lib/mod.py", "pkg/mod.py", "source/app/mod.py")
    base = {
        **dict.fromkeys((*paths, "checks/data.json", "source/app/__init__.py"), ""),
        "pkg/__init__.py": "", "pytest.ini": ini,
    }  # fmt: skip
    changes = dict.fromkeys(base, "x") | {"checks/__init__.py": "", "checks/new.py": ""}
    made = protect(workspace, tree(workspace, base), tree(workspace, changes))
    tests = ("checks/a.py", "checks/data.json", "checks/deep/b.py", "pytest.ini")
    assert made.restored == tests
    assert made.own_tests == ("checks/new.py",)
    assert [path for path, _ in made.dropped] == ["checks/__init__.py"]


def test_tests_in_the_same_folder_as_the_product(workspace: Workspace) -> None:
    """Where packages lie, ``testpaths`` says nothing of which modules are tests."""
    base = {"pytest.ini": "[pytest]\ntestpaths = lib\n", "lib/pkg/__init__.py": "",
            "lib/pkg/tests/test_a.py": ""}  # fmt: skip
    changes = dict.fromkeys((*base, "lib/pkg/new.py"), "[pytest]\n")
    made = protect(workspace, tree(workspace, base), tree(workspace, changes))
    assert made.kept == ("lib/pkg/__init__.py", "lib/pkg/new.py")


def linked(workspace: Workspace, files: Mapping[str, str | None], to: Mapping[str, str]) -> Tree:
    """``files``, and symbolic links."""
    text = "".join(
        f"diff --git a/{path} b/{path}\nnew file mode 120000\n--- /dev/null\n+++ b/{path}\n"
        f"@@ -0,0 +1 @@\n+{target}\n\\ No newline at end of file\n"
        for path, target in to.items()
    )
    return workspace.apply(tree(workspace, files), text.encode(), name="links").tree


LINKED: Mapping[str, tuple[Mapping[str, str], Mapping[str, str], tuple[str, ...]]] = {
    "a test": ({"tests/test_a.py": "../shared/checks.py"}, {"shared/checks.py": ""},
               ("shared/checks.py",)),
    "conftest.py": ({"tests/conftest.py": "../shared/fixtures.py"},
                    {"shared/fixtures.py": "", "shared/other.py": ""}, ("shared/fixtures.py",)),
    "a chain": ({"tests/test_a.py": "../now/a.py", "now": "v1", "v1/a.py": "../v0/b.py"},
                {"v0/b.py": "", "v1/b.py": ""}, ("v0/b.py",)),
    "configuration": ({"pytest.ini": "etc/pytest"}, {"etc/pytest": "", "etc/more": ""},
                      ("etc/pytest",)),
    "the folder of tests": ({"tests": "qa"}, {"qa/test_b.py": "", "qa/help.py": ""},
                            ("qa/help.py", "qa/test_b.py")),
    "data": ({"tests/data": "../data", "tests/one.json": "../more/one.json"},
             {"data/x.json": "", "more/one.json": "", "more/two.json": "", "data/in/y": ""},
             ("data/in/y", "data/x.json", "more/one.json")),
    # What the tests only import is the product.
    "the product": ({"tests/pkg": "../pkg", "tests/app.py": "../app.py", "tests/mod": "../flat",
                     "tests/schema.json": "../pkg/schema.json", "tests/top": ".."},
                    {"pkg/__init__.py": "", "pkg/schema.json": "", "app.py": "", "flat/a.py": "",
                     "flat/data": ""}, ()),
    "the product and its tests": ({"tests": "src"}, {"src/p/__init__.py": "", "src/p/a.py": "",
                                  "src/p/tests/test_p.py": ""}, ("src/p/tests/test_p.py",)),
}  # fmt: skip


@pytest.mark.parametrize("name", LINKED)
def test_what_the_tests_link_to(workspace: Workspace, name: str) -> None:
    links, files, restored = LINKED[name]
    base = {**files, "tests/test_z.py": ""} if "tests" not in links else files
    candidate = {**base, **dict.fromkeys(files, "x")}
    before = linked(workspace, base, links)
    made = protect(workspace, before, linked(workspace, candidate, links))
    assert made.restored == restored
    assert made.kept == tuple(sorted(files.keys() - set(restored)))
    assert set(restored) <= set(made.sealed)
    # Nor can the links be turned elsewhere.
    ours = {path for path in links if path in made.sealed}
    assert ours or name == "the product"
    moved = linked(workspace, base, {**links, **dict.fromkeys(ours, "elsewhere")})
    assert protect(workspace, before, moved).tree.id == before.id


def test_links_that_lead_nowhere() -> None:
    targets = {"a": "b", "b": "a", "c/d": "../../e", "f": "/g", "h": "i/x", "i": "j", "k": "./no"}
    assert ways(targets) == {"h": Way("j/x", ("i",)), "i": Way("j"), "k": Way("no")}


def test_what_a_link_of_the_tests_waits_for_is_not_run(workspace: Workspace) -> None:
    base = {"tests/test_a.py": ""}
    to = {"tests/conftest.py": "../shared/fixtures.py", "tests/x.json": "../made.json"}
    added = {**base, "shared/fixtures.py": "", "made.json": ""}
    made = protect(workspace, linked(workspace, base, to), linked(workspace, added, to))
    assert made.dropped == (("shared/fixtures.py", "a link of the tests leads to it"),)
    assert made.kept == ("made.json",)


def test_plugins_of_the_tests_are_told_of(workspace: Workspace) -> None:
    base = {
        "pytest.ini": "[pytest]\naddopts = -q -p tools.plug -pother\n",
        "conftest.py": "pytest_plugins: list[str] = [\n    'pkg.testing', \"pkg.more\",\n]\n",
        "lib/conftest.py": "pytest_plugins = 'single'\nx = ['pkg.none']\n",
    }
    paths = ("other.py", "single.py", "src/pkg/more/__init__.py", "src/pkg/testing.py",
             "tools/plug.py")  # fmt: skip
    others = ("another.py", "src/pkg/none.py", "src/pkg/more/part.py", "testing.py")
    candidate = {**base, **dict.fromkeys((*paths, *others), "")}
    made = protect(workspace, tree(workspace, base), tree(workspace, candidate))
    assert made.flagged == tuple((path, "the tests load it as a plugin") for path in paths)


def test_what_is_to_be_restored_besides(workspace: Workspace) -> None:
    base = tree(workspace, {"spec/a": "1", "other/b[1]": "1"})
    candidate = tree(workspace, {"spec/a": "2", "other/b[1]": "2", "spec/new": "1"})
    made = protect(workspace, base, candidate, restore=("spec/*", "other/b[[]1]"))
    assert made.restored == made.sealed == ("other/b[1]", "spec/a")
    assert made.own_tests == ("spec/new",)
    assert made.scored.id == base.id


def test_what_a_run_of_the_base_knows_to_be_tests(workspace: Workspace) -> None:
    changes = {"README.md": "x", "src/pkg/testing.py": None, "src/pkg/new.py": "", "Makefile": "x"}
    made = protected(workspace, changes, unprotect=("README*",), restore=("Make*",))
    assert made.kept == ("README.md", "src/pkg/new.py", "src/pkg/testing.py")
    # Nothing that is not known yet.
    assert with_tests(workspace, made, ["tests/test_a.py", "Makefile"]) is made
    found = with_tests(workspace, made, ["README.md", "src/pkg/testing.py", "tests/test_a.py"])
    assert found.kept == ("README.md", "src/pkg/new.py")
    assert found.let_through == ("README.md",)
    assert found.restored == ("Makefile", "src/pkg/testing.py")
    assert set(found.sealed) - set(made.sealed) == {"src/pkg/testing.py"}
    assert content(workspace, found.tree)["src/pkg/testing.py"] == BASE["src/pkg/testing.py"]
    assert with_tests(workspace, found, ["README.md", "src/pkg/testing.py"]) is found


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
    run, scored = (
        {entry.path.decode(): entry.blob for entry in workspace.files(one)}
        for one in (made.tree, made.scored)
    )
    right = {entry.path.decode(): entry.blob for entry in workspace.files(before)}
    listed = {*made.kept, *made.own_tests}
    assert {path for path in right | run if right.get(path) != run.get(path)} <= listed
    assert {path for path in right | scored if right.get(path) != scored.get(path)} <= set(
        made.kept
    )
    assert set(made.sealed) <= set(scored)
    assert all(right[path] == run[path] for path in made.sealed)
    lists = [*made.kept, *made.own_tests, *made.restored, *(path for path, _ in made.dropped)]
    changes = workspace.differences(before, after)
    assert sorted(lists) == [change.path.decode() for change in changes]
    again = protect(workspace, before, made.tree)
    assert (again.tree.id, again.dropped, again.restored) == (made.tree.id, (), ())
