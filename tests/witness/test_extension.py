"""The compiled witness in real Pythons: what it counts, what it tells, what it leaves behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from pytest_sandbox.witness import Chain, Seen, read, worker_key
from tests.interpreters import interpreter
from tests.witness.compiled import FOLDER, VERSIONS, library

KEY = bytes(range(32))

#: What the scripts below run. ``suspect`` is what a candidate would change, ``tests`` is trusted.
TESTS = """
import asyncio
import suspect

def good(value=1):
    assert value
    return 3

def bad(value=0):
    assert value

def short(): return 1 in {1, 2.5, "a", b"c", (3, 4), None, 1 << 200, 2j}

async def waits():
    await asyncio.sleep(0)
    assert True

def asks(): assert suspect.answer() == 42

def expects(function):
    def wrapper():
        try:
            function()
        except ValueError:
            pass
    return wrapper

def raising():
    raise ValueError
wrapped = expects(raising)
"""

Run = Callable[..., list[Seen]]


@pytest.fixture(params=[VERSIONS[0], pytest.param(VERSIONS[1], marks=pytest.mark.soak)])
def texts(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., list[str]]:
    """Runs a script in a Python; the texts of its windows."""
    root = tmp_path / "root"
    root.mkdir()

    def run(script: str, suspect: str = "", **env: str) -> list[str]:
        (root / "tests.py").write_text(TESTS)
        (root / "suspect.py").write_text(dedent(suspect))
        (tmp_path / "script.py").write_text("import tests, sys\n" + dedent(script))
        out = subprocess.run(
            [interpreter(request.param), "-B", Path(__file__).with_name("driver.py"),
             library(request.param), root, worker_key(KEY, 0).hex(), tmp_path / "script.py"],
            capture_output=True, text=True, check=False, timeout=60, env={**os.environ, **env},
        )  # fmt: skip
        assert out.returncode == 0, out.stderr
        told: list[str] = json.loads(out.stdout)
        return told

    return run


@pytest.fixture
def run(texts: Callable[..., list[str]], tmp_path: Path) -> Run:
    """Runs a script in a Python; what was seen in each of its windows."""

    def see(script: str, suspect: str = "", **env: str) -> list[Seen]:
        chain = Chain(KEY, str(tmp_path / "root"))
        told = [read(chain.take(text)) for text in texts(script, suspect, **env)]
        assert not [seen.problem for seen in told if seen.problem]
        return told

    return see


def acts(seen: Seen) -> list[tuple[str, str, str]]:
    return [(act.event, act.where, act.detail) for act in seen.acts]


def counts(seen: Seen) -> tuple[int, int, int]:
    return seen.test.starts, seen.test.returns, seen.test.foreign


def test_starts_and_returns_are_counted(run: Run) -> None:
    good, bad, short, again = run(
        "run(tests.good); run(tests.bad); run(tests.short)\n"
        "run(tests.good, lambda: [tests.good() for _ in range(3)])"
    )
    assert [counts(seen) for seen in (good, bad, short, again)] == [
        (1, 1, 0), (1, 0, 0), (1, 1, 0), (3, 3, 0),
    ]  # fmt: skip
    assert {seen.begins for seen in (good, bad, short, again)} == {1}
    assert good.alive
    assert good.test.file == "tests.py"
    assert good.test.digest == again.test.digest != bad.test.digest
    assert not good.acts
    assert not good.via


def test_code_looks_the_same_in_every_process(run: Run) -> None:
    script = (
        "run(tests.short); [tests.short() for _ in range(100)]; run(tests.good); run(tests.short)"
    )
    one, two = (run(script, PYTHONHASHSEED=seed) for seed in ("1", "2"))
    assert [seen.test.digest for seen in one] == [seen.test.digest for seen in two]
    assert one[0].test.digest == one[2].test.digest


@pytest.mark.parametrize(
    "changed",
    [
        "def good(value=1):\n    assert value\n    return 4",
        "def good(value=1):\n    assert not value\n    return 3",
        "def good(value=1):\n    assert [value]\n    return 3",
        "def good(value=1):\n    assert values\n    return 3",
        "def good(value):\n    assert value\n    return 3",
    ],
)
def test_other_code_looks_different(run: Run, changed: str) -> None:
    text = "def good(value=1):\n    assert value\n    return 3"
    same, other = run(
        f"for text in ({text!r}, {changed!r}):\n"
        "    scope = {}; exec(text, scope); run(scope['good'])"
    )
    assert same.test.digest
    # Defaults are not part of code.
    assert (same.test.digest != other.test.digest) == ("good(value)" not in changed)


def test_coroutines_and_decorators(run: Run) -> None:
    waits, wrapped, missed = run(
        "import asyncio; run(tests.waits, lambda: asyncio.run(tests.waits()))\n"
        "run(tests.raising, tests.wrapped, outer=tests.wrapped)\n"
        "run(tests.waits)",
    )
    assert counts(waits) == (1, 1, 0)
    assert counts(wrapped) == (1, 0, 0)
    assert (wrapped.outer.starts, wrapped.outer.returns) == (1, 1)
    assert counts(missed) == (0, 0, 0)  # a coroutine nobody awaits


def test_nothing_counts_for_code_that_does_not_run(run: Run) -> None:
    """Callbacks that Python code calls, with the arguments that the interpreter would give."""
    stolen, inside, foreign = run("""
        import types
        events = sys.monitoring.events
        took = {}
        for event in (events.PY_START, events.PY_RETURN):
            took[event] = sys.monitoring.register_callback(4, event, None)
            sys.monitoring.register_callback(4, event, took[event])
        code = tests.bad.__code__

        def forge():
            for offset in range(0, len(code.co_code), 2):
                took[events.PY_START](code, offset)
                took[events.PY_RETURN](code, offset, None)

        run(tests.bad, forge)
        tests.suspect.answer = lambda: took[events.PY_RETURN](tests.asks.__code__, 0, None)
        run(tests.asks)
        run(tests.good, types.FunctionType(tests.good.__code__, {}), 1)
    """)
    assert counts(stolen) == (0, 0, 0)
    assert counts(inside) == (1, 0, 0)
    assert counts(foreign) == (0, 0, 2)


def test_monitoring_that_is_switched_off_is_missed(run: Run) -> None:
    off, dropped = run("""
        monitoring = sys.monitoring
        def switch_off():
            monitoring.set_local_events(4, tests.good.__code__, 0)
            tests.good()
        run(tests.good, switch_off)
        monitoring.register_callback(4, monitoring.events.PY_RETURN, None)
        run(tests.good)
    """)
    assert counts(off) == (0, 0, 0)
    assert off.alive
    assert counts(dropped) == (1, 0, 0)
    assert not dropped.alive


def test_whoever_calls_the_test_is_named(run: Run) -> None:
    direct, through = run(
        "run(tests.good); run(tests.good, tests.suspect.call, tests.good)",
        suspect="def call(test):\n    return test()\n",
    )
    assert direct.via == ()
    assert through.via == ("suspect.py:2",)


@pytest.mark.parametrize(
    ("suspect", "expected"),
    [
        ("sys.settrace(None)", ("sys.settrace", "")),
        ("sys.setprofile(None)", ("sys.setprofile", "")),
        ("sys.addaudithook(lambda *args: None)", ("sys.addaudithook", "")),
        ("import gc; gc.get_objects()", ("gc.get_objects", "")),
        ("import gc; gc.get_referrers(sys)", ("gc.get_referrers", "")),
        ("test.__code__ = (lambda value=1: 3).__code__", ("code", "tests.py")),
        ("class A: pass\nclass B(A): pass\nclass C: pass\nB.__bases__ = (C,)", ("bases", "B")),
        ("import ctypes", ("native", "ctypes")),
        ("import ctypes; ctypes.string_at(id(1), 1)", ("native", "ctypes")),
        ("open('/proc/self/mem', 'rb').close()", ("memory", "/proc/PID/mem")),
        ("import os; os.close(os.open(f'/proc/{os.getpid()}/task/{os.getpid()}/mem', os.O_RDWR))",
         ("memory", "/proc/PID/task/PID/mem")),
        ("import os; os.symlink('/proc/self/mem', 'link'); open('link', 'rb').close()",
         ("memory", "/proc/PID/mem")),
        ("import os; os.close(os.open('/proc/self', os.O_RDONLY))", ("memory", "/proc/PID")),
        ("open(test.__code__.co_filename, 'a').close()", ("write", "tests.py")),
        ("import os, shutil; shutil.copy(__file__, 'x')\nos.replace('x', __file__)",
         ("write", "suspect.py")),
        ("exec(compile('import sys; sys.settrace(None)', sys.__spec__.origin and '/usr/x.py',"
         " 'exec'))", ("named", "/usr/x.py")),
        ("exec(compile('import sys; sys.settrace(None)', '<string>', 'exec'))",
         ("sys.settrace", "")),
        ("test.__code__.replace(co_filename='/usr/x.py')", ("named", "/usr/x.py")),
        ("import marshal; marshal.loads(marshal.dumps(test.__code__))", ("marshal.loads", "")),
        ("import _json, os, shutil, importlib.util as u, importlib.machinery as m\n"
         "os.makedirs('libs', exist_ok=True); shutil.copy(_json.__file__, 'libs/_json.so')\n"
         "u.module_from_spec(u.spec_from_file_location('_json', 'libs/_json.so',"
         " loader=m.ExtensionFileLoader('_json', 'libs/_json.so')))", ("library", "libs/_json.so")),
        ("import types; types.FunctionType(test.__code__, {})", ("replay", "")),
        ("exec(test.__code__)", ("replay", "")),
        ("import threading; t = threading.Thread(target=act_in_thread); t.start(); t.join()",
         ("sys.settrace", "")),
    ],
    ids=lambda value: value[:60] if isinstance(value, str) else value[0],
)  # fmt: skip
def test_acts_are_told_with_their_place(
    run: Run, tmp_path: Path, suspect: str, expected: tuple[str, str]
) -> None:
    body = "".join(f"    {line}\n" for line in suspect.splitlines())
    (seen,) = run(
        f"import os; os.chdir({str(tmp_path)!r})\n"
        "run(tests.good, lambda: tests.suspect.act(tests.good))",
        suspect="import sys\ndef act_in_thread():\n    sys.settrace(None)\ndef act(test):\n" + body,
    )
    found = {
        (event, "/".join("PID" if part.isdigit() else part for part in detail.split("/")))
        for event, where, detail in acts(seen)
        if where.startswith("suspect.py:") and int(where.partition(":")[2]) >= 3
    }
    event, end = expected
    assert any(what == event and detail.endswith(end) for what, detail in found), seen.acts


def test_what_honest_code_does_is_not_told(run: Run) -> None:
    """The standard library does much of the same while it is imported or makes classes."""
    (seen,) = run(
        "run(tests.good, tests.suspect.work)",
        suspect="""
            def work():
                import asyncio, collections, dataclasses, json, multiprocessing, os, pickle
                import re, subprocess, sys, tempfile, threading, uuid, logging.config
                import types, typing
                Point = collections.namedtuple("Point", "x y")
                T = typing.TypeVar("T")

                class Generic(typing.NamedTuple, typing.Generic[T]):
                    x: T

                @dataclasses.dataclass(frozen=True)
                class Thing:
                    name: str = "a"

                assert eval("Point(1, 2).x", {"Point": Point}) == 1
                sys._getframe(1).f_locals
                with tempfile.TemporaryDirectory() as folder:
                    with open(os.path.join(folder, "x.txt"), "w") as file:
                        file.write(str(Thing()))
                open("/proc/self/status").close()
                threading.Thread(target=print, args=("",), kwargs={"end": ""}).start()
                subprocess.run([sys.executable, "-c", ""], check=True)
                pickle.loads(pickle.dumps(Point(1, 2)))
                asyncio.run(asyncio.sleep(0))
                os.waitpid(os.fork() or os._exit(0), 0)
        """,
    )
    assert acts(seen) == []


def test_an_act_is_told_once_and_too_many_are_said_to_be(run: Run) -> None:
    first, second, third = run(
        "run(tests.good, tests.suspect.once); run(tests.good, tests.suspect.once)\n"
        "run(tests.good, tests.suspect.many)",
        suspect="""
            import sys
            def once():
                for _ in range(1000):
                    sys.settrace(None)
            def many():
                for number in range(3000):
                    compile("", f"/x/{number}", "exec")
        """,
    )
    assert acts(first) == [("sys.settrace", "suspect.py:5", "")]
    assert acts(second) == []
    told = acts(third)
    assert len(told) < 1000
    assert told[-1] == ("overflow", "", "")


def test_a_child_process_tells_nothing(run: Run) -> None:
    (seen,) = run(
        "run(tests.good, tests.suspect.fork)",
        suspect="""
            import os, sys
            def fork():
                pid = os.fork()
                if pid == 0:
                    sys.settrace(None)
                    import tests
                    tests.good()
                    os._exit(0)
                os.waitpid(pid, 0)
        """,
    )
    assert acts(seen) == []
    assert counts(seen) == (0, 0, 0)


def test_names_of_files_are_escaped(run: Run, tmp_path: Path) -> None:
    name = "odd |\n é%name.py"
    (seen,) = run(
        f"import os; os.chdir({str(tmp_path / 'root')!r})\n"
        "run(tests.good, lambda: tests.suspect.act())",
        suspect=f"def act():\n    open({name!r}, 'w').close()",
    )
    assert acts(seen) == [("write", "suspect.py:2", name)]


def test_nothing_is_left_to_be_found(run: Run) -> None:
    """No module, no type, no second start; and the functions that are left do no harm."""
    assert run("""
        import gc, types
        assert not [name for name in sys.modules if "witness" in name]
        assert not [found for found in gc.get_objects()
                    if isinstance(found, types.ModuleType) and "witness" in found.__name__]
        assert begin.__self__ is None and begin.__module__ is None
        for arguments in ((), (1, 2, 3, 4), (1, None, None), (1, None, [], None)):
            try:
                begin(*arguments)
            except TypeError:
                pass
            else:
                assert False, arguments
        run(tests.good)
    """)


def test_a_record_that_is_hidden_or_changed_is_missed(
    texts: Callable[..., list[str]], tmp_path: Path
) -> None:
    first, second, third = texts(
        "run(tests.good, lambda: tests.suspect.act()); run(tests.bad); run(tests.good)",
        suspect="import sys\ndef act(): sys.settrace(None)",
    )
    assert not Chain(KEY, "").take(first).startswith("broken")
    _, test, _ = first.split("|")
    cases = {
        "hidden": [f"{test}|", second],
        "a text that is lost": [second, third],
        "in another order": [second, first],
        "twice": [first, first],
        "changed": [first, second.replace(" 1 0 0 ", " 1 1 0 ")],
        "cut": [first[:-20]],
        "under another number": [first, "3" + second[1:]],
    }
    for name, given in cases.items():
        chain = Chain(KEY, "")
        told = [chain.take(text) for text in given]
        assert any(text.startswith("broken: ") for text in told), name
        assert chain.take(third).startswith("broken: "), name  # and for good
    assert Chain(bytes(32), "").take(first).startswith("broken: record 0 is not authentic")


def test_a_wheel_holds_one_file_for_each_python(tmp_path: Path) -> None:
    env = {**os.environ, "WITNESS_PYTHONS": os.pathsep.join(str(interpreter(v)) for v in VERSIONS)}
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", tmp_path, FOLDER],
        check=True, env=env,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.startswith("pytest_sandbox_witness-")
    assert "-py3-none-linux" in wheel.name
    with zipfile.ZipFile(wheel) as archive:
        compiled = [name for name in archive.namelist() if name.endswith(".so")]
    assert len(compiled) == len(VERSIONS)


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ("3.11", "no CPython 3.12 or 3.13"),
        ("/nowhere/python", "/nowhere/python does not start: No such file"),
    ],
)
def test_what_cannot_be_compiled_for_is_said(tmp_path: Path, named: str, words: str) -> None:
    python = named if named.startswith("/") else str(interpreter(named))
    out = subprocess.run(
        [sys.executable, FOLDER / "compiling.py", tmp_path],
        capture_output=True, text=True, check=False, env={**os.environ, "WITNESS_PYTHONS": python},
    )  # fmt: skip
    assert out.returncode != 0
    assert words in out.stderr
