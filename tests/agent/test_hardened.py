"""A hardened worker shows tests what a plain one does, and runs nothing of the tree before them."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pytest_sandbox import wire
from tests.agent.support import EDGES, PYTEST_9, Story, python_of, run_agent, write_tree

Pair = tuple[str, tuple[str, ...]]

PLAIN: dict[str, Any] = {}
HARDENED: dict[str, Any] = {"hardened": True, "layers": {"on": [], "off": {}}}
#: Every Python with a pytest of its time, beside those of EDGES.
MORE = [
    pytest.param((python, (version,)), marks=pytest.mark.soak)
    for python, version in [
        ("3.8", "pytest>=8,<9"), ("3.9", "pytest==6.2.5"), ("3.9", "pytest>=8,<9"),
        ("3.10", "pytest>=9,<10"), ("3.11", "pytest==7.4.4"), ("3.12", "pytest>=9,<10"),
        ("3.13", "pytest>=8,<9"), ("3.13", "pytest>=9,<10"),
    ]
]  # fmt: skip

SURROUNDINGS = """
    import json, multiprocessing, os, pathlib, site, subprocess, sys, warnings
    import pytest

    def told():
        main = sys.modules["__main__"]
        child = "import sys; print(sys.path, sys.flags, sys.prefix)"
        run = subprocess.run([sys.executable, "-c", child], stdout=subprocess.PIPE)
        return {
            "path": sys.path, "flags": str(sys.flags), "prefix": [sys.prefix, sys.exec_prefix],
            "argv": sys.argv, "orig": getattr(sys, "orig_argv", None), "cwd": os.getcwd(),
            "main": [main.__spec__.name, main.__file__, main.__package__, sorted(vars(main))],
            "environ": sorted(os.environ.items()), "warnoptions": sys.warnoptions,
            "site": [exit.__class__.__name__, site.ENABLE_USER_SITE, site.USER_SITE],
            "interpreter": subprocess._args_from_interpreter_flags(),
            "finders": [getattr(f, "__name__", type(f).__name__) for f in sys.meta_path],
            "hooks": [getattr(h, "__qualname__", "") for h in sys.path_hooks],
            "hash": hash("a"), "child": run.stdout.decode(), "optimized": __debug__,
            "outside": sorted({
                name.partition(".")[0] for name, module in sys.modules.items()
                if "site-packages" in (getattr(module, "__file__", None) or "")
            }),
        }

    def test_told():
        pathlib.Path(os.environ["TOLD"]).write_text(json.dumps(told()))

    def double(x):
        return 2 * x

    @pytest.mark.parametrize("method", ["spawn", "forkserver"])
    def test_multiprocessing(method):
        with multiprocessing.get_context(method).Pool(1) as pool:
            assert pool.map(double, [1, 2]) == [2, 4]

    def test_pytest_in_a_child(tmp_path):
        (tmp_path / "test_x.py").write_text("def test_x(): import beside")
        subprocess.run([sys.executable, "-m", "pytest", "-q", str(tmp_path)], check=True)

    def test_assertions_are_explained():
        assert [1, 2] == [1, 3]
"""


def run(
    tmp_path: Path, files: Mapping[str, str], *args: str, pair: Pair = PYTEST_9, **plan: Any
) -> Story:
    return run_agent(tmp_path, files, *args, pair=pair, **{**HARDENED, **plan})


def layers(story: Story) -> wire.Layers:
    (found,) = story.all(wire.Layers)
    return found


@pytest.mark.parametrize("pair", [*EDGES, *MORE], ids=lambda pair: f"{pair[0]}-{pair[1][0]}")
def test_tests_see_what_they_would_without(tmp_path: Path, pair: Pair) -> None:
    files = {"test_it.py": SURROUNDINGS, "beside.py": "", "lib/more.py": ""}
    told, outcomes = [], []
    for name, more in (("plain", PLAIN), ("hardened", HARDENED)):
        (tmp_path / name).mkdir()
        where = tmp_path / name / "told"
        env = {
            "PATH": "/usr/bin:/bin", "TOLD": str(where), "PYTHONHASHSEED": "7",
            "PYTHONPATH": "lib:/nowhere", "PYTHONWARNINGS": "ignore::UserWarning",
        }  # fmt: skip
        story = run_agent(tmp_path / name, files, pair=pair, env=env, **more)
        text = where.read_text().replace(str(tmp_path / name), "TMP")
        told.append(json.loads(text))
        outcomes.append((story.outcomes, [r.longrepr for r in story.reports("test_assertions")]))
    assert told[1] == told[0]
    assert outcomes[1] == outcomes[0]
    assert outcomes[0][0]["test_assertions_are_explained"] == ".F."
    assert set("".join(outcomes[0][0].values())) == {".", "F"}
    assert layers(story) == wire.Layers(n=0, on=["hardened", "init"], off={})


@pytest.mark.parametrize("pair", EDGES, ids=lambda pair: f"{pair[0]}-{pair[1][0]}")
def test_what_a_candidate_adds_replaces_nothing(tmp_path: Path, pair: Pair) -> None:
    """Neither from where pytest starts, nor from folders that come first on sys.path later."""
    evil = "raise SystemExit('of the tree')"
    names = ["pytest", "_pytest", "pluggy", "iniconfig", "json", "random", "packaging", "mine"]
    files = {
        **{f"{name}.py": evil for name in names if name != "mine"},
        **{f"tests/{name}.py": evil for name in names if name != "mine"},
        "src/pluggy/__init__.py": evil,
        "mine.py": "",
        "tests/test_it.py": """
            import sys
            sys.path.insert(0, sys.path[0] + "/../src")
            def test_it():
                import importlib
                for name in ("iniconfig", "packaging.version", "json.tool", "random", "colorsys"):
                    sys.modules.pop(name, None)
                import iniconfig, json.tool, packaging.version, random, colorsys
                importlib.invalidate_caches()
                import pluggy, mine, pytest
        """,
        "setup.cfg": "[tool:pytest]\naddopts = -p no:doctest\n",
    }
    story = run(tmp_path, files, pair=pair, fresh=names)
    assert story.outcomes == {"test_it": "..."}
    assert layers(story).off == {}


def test_what_runs_the_tests_can_be_what_is_tested(tmp_path: Path) -> None:
    """A project of that name in the tree is imported by its tests, and not by pytest."""
    mine = "mine = True\n"
    files = {
        "iniconfig.py": mine,
        "pluggy/__init__.py": mine,
        "packaging/__init__.py": mine,
        "test_it.py": """
            import iniconfig, packaging, pluggy
            def test_it(pytestconfig):
                assert iniconfig.mine and packaging.mine and pluggy.mine
                assert "repo" not in type(pytestconfig.pluginmanager).__mro__[1].__module__
        """,
        "pytest.ini": "[pytest]\nminversion = 6.0\n",
    }
    story = run(tmp_path, {**files, "packaging/version.py": "class Version:\n    pass\n"})
    # pytest asks the tree's for versions: as it does without, where it cannot even start.
    assert "hardened" in layers(story).on
    del files["pytest.ini"]
    shutil.rmtree(tmp_path / "repo")
    story = run(tmp_path, files)
    assert story.outcomes == {"test_it": "..."}
    assert layers(story).off == {}


def test_a_tree_with_the_runner_itself_is_told(tmp_path: Path) -> None:
    site = Path(python_of(PYTEST_9)).parent.parent
    (packages,) = site.glob("lib/python*/site-packages")
    repo = write_tree(tmp_path / "repo", {"test_it.py": "def test_it(): pass"})
    for name in ("pytest", "_pytest"):
        shutil.copytree(packages / name, repo / name)
    story = run(tmp_path, {})
    assert story.outcomes == {"test_it": "..."}
    assert layers(story).on == ["init"]
    assert "provides what runs its tests: " in layers(story).off["hardened"]


@pytest.mark.parametrize("how", ["path", "hook"])
def test_an_editable_install_is_where_it_was(tmp_path: Path, how: str) -> None:
    """Also one of a package that pytest imports, and nobody else provides."""
    python = python_of(PYTEST_9)
    subprocess.run([python, "-m", "venv", "--without-pip", tmp_path / "env"], check=True)
    (packages,) = (tmp_path / "env").glob("lib/python*/site-packages")
    (given,) = python.parent.parent.glob("lib/python*/site-packages")
    (packages / "given.pth").write_text(f"{given}\n")
    source = tmp_path / "repo" / "src"
    if how == "path":
        (packages / "editable.pth").write_text(f"{source}\n")
    else:
        (packages / "editable.pth").write_text("import editable_finder\n")
        (packages / "editable_finder.py").write_text(
            "import sys\n"
            "from importlib.util import spec_from_file_location\n"
            "class Finder:\n"
            "    @classmethod\n"
            "    def find_spec(cls, name, path=None, target=None):\n"
            "        if name == 'project':\n"
            f"            return spec_from_file_location(name, '{source}/project.py')\n"
            "sys.meta_path.append(Finder)\n"
        )
    files = {
        "src/project.py": "",
        "test_it.py": "import project\ndef test_it(): assert '/src/' in project.__file__\n",
    }
    story = run(tmp_path, files, python=[str(tmp_path / "env" / "bin" / "python")])
    assert story.outcomes == {"test_it": "..."}
    assert layers(story).on == ["hardened", "init"]


def test_no_process_finds_caches_of_an_earlier_one(tmp_path: Path) -> None:
    """And none is removed that lies behind a link."""
    behind = tmp_path / "behind" / "__pycache__"
    behind.mkdir(parents=True)
    (behind / "kept").write_text("")
    files = {
        "conftest.py": """
            import os, pathlib
            here = pathlib.Path(__file__).parent
            found = [p for p in here.rglob("__pycache__") if "linked" not in str(p)]
            with open(here / "found", "a") as file:
                print(sorted(str(p.relative_to(here)) for p in found), file=file)
        """,
        "tests/__pycache__/old.pyc": "",
        "test_it.py": f"""
            import os
            def test_poisons():
                for folder in ("tests", "tests/deep", "d/" * 300):
                    os.makedirs(folder + "/__pycache__", exist_ok=True)
                os.symlink("{tmp_path}/behind", "linked")
                os.symlink("{behind}", "tests/deep/deeper-__pycache__")
                os.makedirs("more")
                os.symlink("{behind}", "more/__pycache__")
                os.abort()
            def test_after(): pass
        """,
    }
    story = run(tmp_path, files)
    assert story.outcomes == {"test_poisons": ".F[crash]", "test_after": "..."}
    repo = tmp_path / "repo"
    assert (repo / "found").read_text() == "[]\n[]\n"
    assert (behind / "kept").exists()
    assert not (repo / "more" / "__pycache__").is_symlink()


def test_what_a_process_does_to_its_environment_is_not_the_next_ones(tmp_path: Path) -> None:
    files = {
        "test_it.py": """
            import os
            def test_poisons():
                os.makedirs("evil", exist_ok=True)
                with open("evil/sitecustomize.py", "w") as file:
                    file.write("raise SystemExit('evil')")
                os.environ["PYTHONPATH"] = os.path.abspath("evil")
                os.environ["PYTHONSTARTUP"] = "evil"
                os.chdir("evil")
                os.abort()
            def test_after():
                assert "PYTHONPATH" not in os.environ
        """
    }
    story = run(tmp_path, files)
    assert story.outcomes == {"test_poisons": ".F[crash]", "test_after": "..."}
    assert len(story.all(wire.Layers)) == 1


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    story = run(tmp_path, {"test_it.py": ""}, cwd=str(tmp_path / "nowhere"))
    assert story.end.reason == "supervisor"
    assert "nowhere" in story.end.message
