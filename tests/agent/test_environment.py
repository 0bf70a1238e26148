"""What tests see around them is what `python -m pytest` would show them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from pytest_sandbox import wire
from pytest_sandbox.agent import plan
from tests.agent.support import EDGES, direct, run_agent

Pair = tuple[str, tuple[str, ...]]

SURROUNDINGS = """
    import json, multiprocessing, os, pathlib, signal, sys, threading
    import pytest

    def told():
        return {
            "path": sys.path,
            "argv0": sys.argv[0],
            "main": [
                str(sys.modules["__main__"].__spec__.name), sys.modules["__main__"].__file__,
                sys.modules["__main__"].__package__,
            ],
            "names": sorted(set(vars(sys.modules["__main__"])) & {"_boot", "worker", "json"}),
            "environ": sorted(set(os.environ) - {"PYTEST_CURRENT_TEST"}),
            "cwd": os.getcwd(),
            "stdin": os.readlink("/proc/self/fd/0"),
            "threads": threading.active_count(),
            "sigint": str(signal.getsignal(signal.SIGINT)),
            "usr": [str(signal.getsignal(s)) for s in (signal.SIGUSR1, signal.SIGUSR2)],
            "pgid": os.getpgid(0) == os.getpid(),
            "stdout": type(sys.__stdout__).__name__,
            "modules": [name for name in sys.modules if name.startswith("pytest_sandbox")],
        }

    def test_told():
        where = "agent" if os.environ.get("AGENT") else "direct"
        os.environ.pop("AGENT", None)
        pathlib.Path(where + ".json").write_text(json.dumps(told()))

    def double(x):
        return 2 * x

    @pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
    def test_multiprocessing(method):
        with multiprocessing.get_context(method).Pool(1) as pool:
            assert pool.map(double, [1, 2]) == [2, 4]

    def test_cache(cache):
        assert cache.get("a/b", None) is None
        cache.set("a/b", 1)
        assert cache.get("a/b", None) == 1

    def test_input(capsys):
        print("x")
        assert capsys.readouterr().out == "x\\n"
"""


@pytest.mark.parametrize("pair", EDGES, ids=lambda pair: f"py{pair[0]}-{pair[1][0]}")
def test_surroundings_are_those_of_a_direct_run(tmp_path: Path, pair: Pair) -> None:
    story = run_agent(
        tmp_path,
        {"test_it.py": SURROUNDINGS},
        pair=pair,
        env={"AGENT": "1", "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8",
             "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert set(story.outcomes.values()) == {"..."}, story.outcomes
    direct(tmp_path, pair=pair)
    agent = json.loads((tmp_path / "repo" / "agent.json").read_text())
    plain = json.loads((tmp_path / "repo" / "direct.json").read_text())
    assert agent.pop("pgid")
    plain.pop("pgid")
    assert agent == plain
    # Nothing is left in the project but what its tests wrote.
    assert {path.name for path in (tmp_path / "repo").iterdir()} == {
        "test_it.py", "agent.json", "direct.json",
    }  # fmt: skip


def test_live_output_holds_what_tests_print_and_no_more(tmp_path: Path) -> None:
    files = {
        "test_it.py": """
            import os, sys
            def test_it():
                print("to stdout")
                sys.stderr.write("to stderr\\n")
                os.system("echo from a child")
        """
    }
    story = run_agent(tmp_path, files, "-s", "-v", live=True)
    text = "".join(frame.text for frame in story.all(wire.Output))
    assert text == "to stdout\nto stderr\nfrom a child\n"
    quiet = run_agent(tmp_path, files, live=True)
    assert quiet.all(wire.Output) == []


XDIST = ("3.11", ("pytest>=9,<10", "pytest-rerunfailures", "pytest-xdist"))


@pytest.mark.parametrize(
    "addopts", ["-n 2", "-n auto --dist loadscope", "--dist=load --tx 2*popen"]
)
def test_xdist_in_addopts_runs_here(tmp_path: Path, addopts: str) -> None:
    files = {
        "pytest.ini": f"[pytest]\naddopts = {addopts}\n",
        "test_it.py": "def test_a(): pass\ndef test_b(): assert 0\n",
    }
    story = run_agent(tmp_path, files, pair=XDIST)
    assert story.outcomes == {"test_a": "...", "test_b": ".F."}
    assert any(name.startswith("xdist-") for name in story.all(wire.Hello)[0].plugins)


def test_ini_keys_of_the_host_are_no_error(tmp_path: Path) -> None:
    files = {
        "pytest.ini": "[pytest]\naddopts = --strict-config\nsandbox_timeout = 3\n",
        "test_it.py": "def test_a(): pass\n",
    }
    story = run_agent(tmp_path, files, ini_keys=["sandbox_timeout", "sandbox_env"])
    assert story.outcomes == {"test_a": "..."}
    refused = run_agent(tmp_path, files)
    assert refused.end.reason == "usage"
    assert "sandbox_timeout" in refused.end.message


@pytest.mark.parametrize(
    ("files", "args", "message"),
    [
        ({}, ["--no-such-option"], "unrecognized arguments: --no-such-option"),
        ({}, ["missing.py"], "file or directory not found: missing.py"),
        ({"test_it.py": "def test_a(): pass\n"}, ["test_it.py::test_b"], "not found"),
        ({"conftest.py": "import missing_module\n"}, [], "missing_module"),
        ({"conftest.py": "raise SystemExit(3)\n"}, [], "SystemExit"),
        ({"conftest.py": "raise KeyError('odd')\n"}, [], "odd"),
        ({}, ["--version"], "pytest 9"),
        ({}, ["-p", "missing_plugin"], "missing_plugin"),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_refused(tmp_path: Path, files: dict[str, str], args: list[str], message: str) -> None:
    story = run_agent(tmp_path, files, *args)
    assert story.end.reason == "usage", story.end
    assert message in story.end.message
    assert "pytest_sandbox_agent" not in story.end.message


def test_no_pytest_says_so(tmp_path: Path) -> None:
    story = run_agent(tmp_path, {}, python=[sys.executable, "-I", "-S"])
    assert story.end.reason == "usage"
    assert "pytest cannot be imported" in story.end.message


def test_no_python_says_so(tmp_path: Path) -> None:
    story = run_agent(tmp_path, {}, python=["/no/such/python"])
    assert story.end.reason == "supervisor"
    assert "/no/such/python" in story.end.message


def test_nothing_collected(tmp_path: Path) -> None:
    story = run_agent(tmp_path, {})
    assert [frame.total for frame in story.all(wire.Ready)] == [0]
    assert (story.end.reason, story.end.exitstatus) == ("finished", 5)


@pytest.mark.parametrize(
    ("body", "text", "status"),
    [
        ("pytest.exit('enough', 7)", "enough", 7),
        ("raise KeyboardInterrupt", "KeyboardInterrupt", 2),
        ("request.session.shouldstop = 'please stop'", "please stop", 2),
    ],
)
def test_exit(tmp_path: Path, body: str, text: str, status: int) -> None:
    files = {
        "test_it.py": f"""
            import pytest
            def test_a(): pass
            def test_b(request): {body}
            def test_c(): pass
        """
    }
    story = run_agent(tmp_path, files)
    assert (story.end.reason, story.end.exitstatus) == ("exit", status)
    assert text in story.end.message
    assert "test_c" not in story.outcomes


def test_exit_while_collecting(tmp_path: Path) -> None:
    files = {
        "conftest.py": """
            import pytest
            def pytest_collection_modifyitems(): pytest.exit("not here", 8)
        """
    }
    story = run_agent(tmp_path, files)
    assert (story.end.reason, story.end.exitstatus) == ("exit", 8)
    assert "not here" in story.end.message


def test_internal_error(tmp_path: Path) -> None:
    files = {
        "conftest.py": "def pytest_runtest_logstart(): raise ValueError('a hook broke')\n",
        "test_it.py": "def test_a(): pass\n",
    }
    story = run_agent(tmp_path, files)
    assert (story.end.reason, story.end.exitstatus) == ("internalerror", 3)
    (error,) = story.all(wire.InternalError)
    assert "a hook broke" in error.text


def test_imports_say_where_packages_came_from(tmp_path: Path) -> None:
    files = {
        "calc/__init__.py": "",
        "spaces/inner.py": "",
        "test_it.py": "import calc, spaces.inner\ndef test_a(): import json\n",
    }
    story = run_agent(tmp_path, files, packages=["calc", "spaces", "absent"])
    root = tmp_path / "repo"
    for frame in story.all(wire.Imports):
        assert frame.paths == {
            "calc": [str(root / "calc" / "__init__.py")],
            "spaces": [str(root / "spaces")],
        }
    assert len(story.all(wire.Imports)) == 2


def test_heartbeats(tmp_path: Path) -> None:
    files = {"test_it.py": "import time\ndef test_a(): time.sleep(0.6)\n"}
    story = run_agent(tmp_path, files, heartbeat=0.1)
    beats = story.all(wire.Heartbeat)
    assert ("run", 0) in {(beat.phase, beat.item) for beat in beats}
    assert len(beats) >= 5


@pytest.mark.parametrize("pair", EDGES, ids=lambda pair: f"py{pair[0]}-{pair[1][0]}")
def test_without_the_cache_plugin_nothing_warns(tmp_path: Path, pair: Pair) -> None:
    files = {"test_it.py": "def test_a(pytestconfig): assert not hasattr(pytestconfig, 'cache')\n"}
    story = run_agent(tmp_path, files, "-p", "no:cacheprovider", "--strict-config", pair=pair)
    assert story.outcomes == {"test_a": "..."}
    assert story.all(wire.Warned) == []


def test_a_cache_folder_of_the_user_s_own_is_kept(tmp_path: Path) -> None:
    files = {"test_it.py": "def test_a(cache): cache.set('a/b', 1)\n"}
    story = run_agent(tmp_path, files, "-o", "cache_dir=own")
    assert story.outcomes == {"test_a": "..."}
    assert (tmp_path / "repo" / "own" / "v" / "a" / "b").read_text().strip() == "1"


@pytest.mark.parametrize("pair", EDGES, ids=lambda pair: f"py{pair[0]}-{pair[1][0]}")
def test_a_worker_that_leaves_quickly_leaves_nothing_undone(tmp_path: Path, pair: Pair) -> None:
    files = {
        "test_it.py": """
            import atexit, os, threading, time

            log = open("log.txt", "w")
            ring = [open("ring.txt", "w")]
            ring.append(ring)

            def late():
                time.sleep(0.3)
                open("thread.txt", "w").write("late")

            def test_a():
                log.write("never closed")
                ring[0].write("nor this")
                threading.Thread(target=late).start()
                atexit.register(log.write, ", but at exit")
        """
    }
    story = run_agent(tmp_path, files, "-p", "no:unraisableexception", pair=pair)
    assert story.end.reason == "finished"
    repo = tmp_path / "repo"
    assert (repo / "log.txt").read_text() == "never closed, but at exit"
    assert (repo / "ring.txt").read_text() == "nor this"
    assert (repo / "thread.txt").read_text() == "late"


def test_variables_that_act_on_any_program_pass_by_those_that_drop_privileges() -> None:
    env = {"LD_PRELOAD": "/a.so", "GLIBC_TUNABLES": "x=1", "PATH": "/bin", "OLD_": "1"}
    held = {"H_LD_PRELOAD": "/a.so", "H_GLIBC_TUNABLES": "x=1", "PATH": "/bin", "OLD_": "1"}
    for demote, prefix, expected in (
        (["enter"], "H_", held),
        (["enter"], None, env),
        ([], "H_", env),
    ):
        orders = {"demote": demote, "held_prefix": prefix, "env": env}
        assert plan.environment(orders) == expected
