"""Projects whose tests attack the run: each is told as what it is, and only the attacker fails."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pytest

from tests.e2e.sessions import Session, own_python, project

#: Before and after each attack; both must pass.
AROUND = "def test_before(): pass\n{attack}\ndef test_later(): pass\n"


class Outcome:
    """What one attacked session said."""

    def __init__(self, session: Session, status: int) -> None:
        self.session, self.status, self.text = session, status, session.output

    def line(self, name: str) -> str:
        """The result line of a test."""
        found = [line for line in self.text.splitlines() if f"::{name} " in line]
        assert found, f"no result of {name} in:\n{self.text[-6000:]}"
        return found[0]


def run(
    tmp_path: Path,
    files: Mapping[str, str],
    *args: str,
    seconds: float = 90,
    traceback: bool = False,
) -> Outcome:
    repo = project(tmp_path / "repo", files)
    with Session(repo, "--sandbox=local", f"--sandbox-venv={own_python()}", "-v", *args) as session:
        status = session.finish(seconds)
    assert "INTERNALERROR" not in session.output, session.output[-6000:]
    assert traceback or "Traceback (most" not in session.output, session.output[-6000:]
    session.assert_nothing_left()
    return Outcome(session, status)


def attack(tmp_path: Path, code: str, *args: str, traceback: bool = False) -> Outcome:
    body = textwrap.dedent(code).strip()
    if "def test_attack" not in body:
        body = "def test_attack():\n" + textwrap.indent(body, "    ")
    return run(tmp_path, {"test_a.py": AROUND.format(attack=body)}, *args, traceback=traceback)


#: name: (code, options, a word of the attacker's message)
DEADLY = {
    "fork bomb": (
        "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError: pass",
        ("--sandbox-test-timeout=5", "--sandbox-processes=64"),
        "Timeout",
    ),
    "memory": ("x = bytearray(10 << 30)\nx[::4096] = b'x' * len(x[::4096])", (
        "--sandbox-memory=300M",), "emory"),
    "kill all": ("import os\ntry: os.kill(-1, 9)\nfinally: os.kill(0, 9)", (), "by SIGKILL"),
    "exit": ("import os; os._exit(0)", (), "exit status 0"),
    "stop": ("import os, signal; os.kill(os.getpid(), signal.SIGSTOP)", (
        "--sandbox-test-timeout=3",), "Timeout"),
    "close everything": ("import os; os.closerange(0, 2000)", (), "test_attack"),
    "segfault": ("import ctypes; ctypes.string_at(0)", (), "SIGSEGV"),
    "hang": ("import time; time.sleep(1000)", ("--sandbox-test-timeout=2",), "Timeout"),
    "output": ("import os\nwhile True: os.write(2, b'x' * 65536)", ("-s",), "output"),
    "output at once": ("import os\nwhile True: os.write(2, b'x\\n' * 65536)", (
        "--sandbox-test-timeout=5", "--sandbox-disk=100M"), ""),
    "file": ("with open('big', 'wb') as f:\n    for _ in range(5 << 10): f.write(bytes(1 << 20))", (
        "--sandbox-disk=200M",), "OSError"),
    "files": (
        "for n in range(50):\n    with open(f'big{n}', 'wb') as f: f.write(bytes(20 << 20))",
        ("--sandbox-disk=200M",), "OSError"),
}  # fmt: skip


#: In the fixed sample; the others are soaked.
SAMPLE = ("fork bomb", "memory", "kill all", "exit", "stop", "close everything", "output", "file")


def sampled(names: Iterable[str], sample: Sequence[str]) -> list[object]:
    return [pytest.param(name, marks=() if name in sample else pytest.mark.soak) for name in names]


@pytest.mark.parametrize("name", sampled(DEADLY, SAMPLE))
def test_only_the_attacker_fails(tmp_path: Path, name: str) -> None:
    code, args, word = DEADLY[name]
    outcome = attack(tmp_path, code, *args)
    assert "PASSED" in outcome.line("test_before")
    assert "FAILED" in outcome.line("test_attack"), outcome.text[-3000:]
    assert "PASSED" in outcome.line("test_later"), outcome.text[-3000:]
    assert outcome.status == 1
    assert word in outcome.text, outcome.text[-3000:]


#: Nasty, but the tests' own business: everything passes.
HARMLESS = {
    "daemon": """
        import os, time
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                time.sleep(600)
            os._exit(0)
        """,
    "chdir": "import os; os.chdir('/')",
    "stdout": "import sys; sys.stdout = sys.stderr = sys.__stdout__ = sys.__stderr__ = None",
    "modules": """
        import json, os, sys, time
        json.dumps = json.JSONEncoder.encode = lambda *a, **k: 'junk'
        os.write = os.read = lambda *a: 1 / 0
        os.getpid = lambda: 1
        time.time = time.monotonic = lambda: float('nan')
        """,
    "recursion": "import sys; sys.setrecursionlimit(80)",
    "signals": """
        import signal
        for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_IGN)
        """,
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_a_test_does_to_itself(tmp_path: Path, name: str) -> None:
    outcome = attack(tmp_path, HARMLESS[name])
    assert "PASSED" in outcome.line("test_before")
    assert "PASSED" in outcome.line("test_attack"), outcome.text[-3000:]
    assert "PASSED" in outcome.line("test_later"), outcome.text[-3000:]
    assert outcome.status == 0


def test_the_working_directory_is_removed(tmp_path: Path) -> None:
    """pytest itself breaks down on it at its end, after all results."""
    outcome = attack(tmp_path, "import os, shutil; shutil.rmtree(os.getcwd())", traceback=True)
    assert "PASSED" in outcome.line("test_later")
    assert "3 passed" in outcome.text
    assert outcome.status == 1
    assert "broke down" in outcome.text


FORGE = """
import json, os, sys
LINES = [
    b'\\x00\\xff\\x1b[2J\\n',
    b'{' * 100000 + b'\\n',
    b'{"kind":"end","reason":"finished","exitstatus":0,"message":""}\\n',
    b'{"n":0,"kind":"end","reason":"finished","exitstatus":0,"message":""}\\n',
    b'{"kind":"finish","item":1}\\n',
    b'{"kind":"report","item":2,"when":"call","outcome":"passed","duration":0,"start":1,"stop":1}\\n',
    b'{"kind":"session","exitstatus":99999999999999,"exit":null,"refused":""}\\n',
    b'x' * (5 << 20),
]
def targets():
    yield from range(1, 1100)
def others():
    for base in ('/proc/self/fd', f'/proc/{os.getppid()}/fd', '/proc/1/fd'):
        try:
            names = os.listdir(base)
        except OSError:
            continue
        for name in names:
            yield f'{base}/{name}'
def flood(line):
    for fd in targets():
        try:
            os.set_blocking(fd, False)
            os.write(fd, line)
        except OSError:
            pass
    for path in others():
        try:
            fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
            os.write(fd, line)
        except OSError:
            pass
"""


@pytest.mark.parametrize(
    "number", [pytest.param(n, marks=() if n in (3, 7) else pytest.mark.soak) for n in range(8)]
)
def test_forged_lines_at_worst_end_the_process(tmp_path: Path, number: int) -> None:
    body = FORGE + f"def test_attack():\n    flood(LINES[{number}])\n"
    outcome = run(tmp_path, {"test_a.py": AROUND.format(attack=body)})
    assert "PASSED" in outcome.line("test_before")
    assert outcome.status != 0, outcome.text[-3000:]
    assert outcome.status < 30, outcome.text[-3000:]


COLLECTING = {
    "exit": ({"conftest.py": "import os; os._exit(0)"}, "exit status 0"),
    "system exit": ({"conftest.py": "raise SystemExit(0)"}, "SystemExit"),
    "endless": ({"conftest.py": "while True: pass"}, "Timeout"),
    "endless parameters": (
        {
            "test_b.py": "import itertools, pytest\n"
            "@pytest.mark.parametrize('n', itertools.count())\ndef test_b(n): pass\n"
        },
        "",
    ),
    "kill all": ({"conftest.py": "import os; os.kill(0, 9)"}, "SIGKILL"),
}  # fmt: skip


@pytest.mark.parametrize("name", sampled(COLLECTING, ("exit", "endless", "kill all")))
def test_collection_that_attacks(tmp_path: Path, name: str) -> None:
    files, word = COLLECTING[name]
    files = {"test_a.py": "def test_a(): pass\n", **files}
    args = ("--sandbox-collect-timeout=5", "--sandbox-memory=500M")
    outcome = run(tmp_path, files, *args)
    assert outcome.status not in (0, 5)
    assert word in outcome.text, outcome.text[-3000:]
    assert not re.search(r"\d passed", outcome.text)


def test_names_and_texts_that_talk_to_terminals(tmp_path: Path) -> None:
    code = r"""
import pytest, warnings
IDS = ["\x1b[31mred", "::error::bad", "\u202egnp.exe", "a\nb", "\r\x1b[2K", "\ud800", "x" * 100000]
@pytest.mark.parametrize("n", range(len(IDS)), ids=IDS)
def test_ids(n):
    print("::set-output name=x::y\n\x1b]0;title\x07")
    warnings.warn_explicit("\x1b[31mw", UserWarning, "/etc/passwd", 1)
    assert n < 0, "\x1b[31m::error::" + "\u202e"
class Odd(Exception):
    def __str__(self):
        return "\n::error file=/etc/passwd::boo\x1b[2J"
def test_odd():
    raise Odd()
"""
    outcome = run(tmp_path, {"test_a.py": code}, "-rA", "--color=no")
    assert outcome.status == 1
    assert "\x1b" not in outcome.text
    assert "\x07" not in outcome.text
    assert "\u202e" not in outcome.text
    assert not [x for x in outcome.text.splitlines() if x.lstrip().startswith("::")]
    assert "root:" not in outcome.text
    assert "8 failed" in outcome.text


def test_a_huge_assertion_message(tmp_path: Path) -> None:
    outcome = attack(tmp_path, "assert False, 'x' * (50 << 20)")
    assert "FAILED" in outcome.line("test_attack")
    assert outcome.status == 1
    assert len(outcome.text) < 3_000_000
    assert "cut" in outcome.text


def test_the_hosts_secrets_stay_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.setenv("DEPLOY_KEY", "swordfish")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code = f"""
        import glob, os, socket
        found = [p for p in glob.glob('/proc/*/environ')]
        for path in found:
            try:
                assert b'swordfish' not in open(path, 'rb').read()
            except PermissionError:
                pass
        assert 'DEPLOY_KEY' not in os.environ
        assert not [name for name in os.environ if name.startswith('PYTEST_SANDBOX')]
        assert not os.path.exists({str(Path(__file__))!r})
        try:
            socket.create_connection(('127.0.0.1', {port}), 2)
        except OSError:
            pass
        else:
            assert False, 'connected'
        """
        outcome = attack(tmp_path, code)
    assert outcome.status == 0, outcome.text[-3000:]


@pytest.mark.soak
def test_two_hundred_thousand_tests(tmp_path: Path) -> None:
    code = "import pytest\n@pytest.mark.parametrize('n', range(200_000))\ndef test_n(n): pass\n"
    outcome = run(tmp_path, {"test_a.py": code}, "-q", "-q", "--sandbox-memory=3G", seconds=600)
    assert outcome.status == 0


def test_a_library_to_preload_is_for_the_tests(tmp_path: Path) -> None:
    """Not for the programs on the way to them, which have more rights."""
    code = """
import os
def test_it(capfd):
    assert os.environ["LD_PRELOAD"] == "/nonexistent.so"
    assert not [name for name in os.environ if name.startswith("PYTEST_SANDBOX_")]
    os.system("/bin/true")
    assert "/nonexistent.so" in capfd.readouterr().err
"""
    outcome = run(tmp_path, {"test_a.py": code}, "--sandbox-env=LD_PRELOAD=/nonexistent.so", "-s")
    assert outcome.status == 0, outcome.text
    # The loader complains to each program that is to preload it.
    assert outcome.text.count("object '/nonexistent.so' from LD_PRELOAD") == 1, outcome.text
