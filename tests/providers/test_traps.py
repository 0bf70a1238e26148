"""What the vendors' SDKs do to a process, kept from the user's session.

Signals, proxies, ``.env`` files, warnings as errors, other plugins.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import fixture_repos
from tests.emulators.running import Running

PROVIDERS = ("e2b", "modal", "daytona")

#: Fails the session when an SDK changed what is not its own; prints when it is through.
WATCH = """
import asyncio, os, signal, sys, threading, pytest

before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGALRM, signal.SIGCHLD)}
environment = dict(os.environ)
cwd = os.getcwd()
ticks = []

def pytest_sessionstart(session):
    signal.signal(signal.SIGALRM, lambda *a: ticks.append(1))
    signal.setitimer(signal.ITIMER_REAL, 1000.0)

@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session):
    left = signal.getitimer(signal.ITIMER_REAL)[0]
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert 500 < left < 1000, f"the timer says {left}"
    assert signal.getsignal(signal.SIGINT) == before[signal.SIGINT], "SIGINT"
    assert signal.getsignal(signal.SIGCHLD) == before[signal.SIGCHLD], "SIGCHLD"
    assert os.getcwd() == cwd
    changed = {n for n in {*environment, *os.environ} if environment.get(n) != os.environ.get(n)}
    assert changed <= {"PYTEST_VERSION", "PYTEST_CURRENT_TEST"}, changed

def pytest_unconfigure(config):
    print("WATCHED", flush=True)
"""

DOT_ENV = """
E2B_API_KEY=from-the-repository
E2B_DOMAIN=evil.invalid
E2B_API_URL=http://evil.invalid
MODAL_TOKEN_ID=from-the-repository
MODAL_SERVER_URL=http://evil.invalid
DAYTONA_API_KEY=from-the-repository
DAYTONA_API_URL=http://evil.invalid/api
DAYTONA_TARGET=evil
DAYTONA_OTEL_ENABLED=true
DAYTONA_EXPERIMENTAL_OTEL_ENABLED=true
OTEL_EXPORTER_OTLP_ENDPOINT=http://evil.invalid
"""

OWN_TESTS = """
import asyncio, pytest

SETUP = dict(patch=None)

@pytest.mark.parametrize("number", range(3))
def test_plain(sandbox, number):
    assert sandbox.exec(["python", "-c", f"print({number})"]).text == f"{number}\\n"

async def test_in_a_loop(sandbox):
    await asyncio.sleep(0)
    assert sandbox.exec(["true"]).returncode == 0
"""

#: What loads it, and what has it act on these tests.
PLUGINS = {
    "xdist": ("xdist.plugin", ["-n2"]),
    "timeout": ("pytest_timeout", ["--timeout=120", "--timeout-method=signal"]),
}


@pytest.fixture(scope="module", params=PROVIDERS)
def emulator(request: pytest.FixtureRequest) -> Iterator[tuple[str, Running]]:
    with Running(request.param) as running:
        yield request.param, running
        assert running.live() == []
        assert running.unknown() == []


def session(
    folder: Path, running: Running, plugins: str, args: list[str], scratch: Path, **more: str
) -> subprocess.CompletedProcess[str]:
    """pytest in a process of its own, with every variable of a CI job but those of this session."""
    scratch.mkdir(exist_ok=True)
    (scratch / "watch.py").write_text(WATCH)
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTEST", "COV_", "E2B", "MODAL", "DAYTONA"))
    }
    env |= {
        "PYTHONPATH": str(scratch),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTEST_PLUGINS": f"pytest_sandbox.plugin,{plugins}",
        "XDG_STATE_HOME": str(scratch / "state"),
        "XDG_CACHE_HOME": str(scratch / "cache"),
        **running.env,
        **more,
    }
    return subprocess.run(
        [sys.executable, "-m", "pytest", *args],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.mark.parametrize(
    "emulator",
    [PROVIDERS[0], *(pytest.param(name, marks=pytest.mark.soak) for name in PROVIDERS[1:])],
    indirect=True,
)
def test_a_mirrored_session_leaves_the_process_as_it_was(
    emulator: tuple[str, Running], tmp_path: Path
) -> None:
    """Warnings are errors, a dead proxy is set, the repository brings a ``.env``."""
    provider, running = emulator
    repo = fixture_repos.load("calc").make(tmp_path)
    for name in (".env", ".env.local"):
        (repo / name).write_text(DOT_ENV)
    setup = "--sandbox-setup=python -I -m pip install -q pytest"
    proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), "http://127.0.0.1:9")
    proxies["NO_PROXY"] = "127.0.0.1,localhost"
    began = time.monotonic()
    path = "--sandbox-env=PYTHONPATH=/sandbox/repo/src"
    args = ["-W", "error", f"--sandbox={provider}", setup, path]
    done = session(repo, running, "watch", args, tmp_path / "scratch", **proxies)
    assert "2 failed, 19 passed" in done.stdout, done.stdout + done.stderr
    assert "WATCHED" in done.stdout
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr, done.stderr
    assert time.monotonic() - began < 200


#: The fixed sample has each provider, and each plugin.
BESIDE = (("e2b", "xdist"), ("modal", "timeout"), ("daytona", "xdist"))


@pytest.mark.parametrize(
    ("emulator", "beside"),
    [
        pytest.param(*pair, marks=() if pair in BESIDE else pytest.mark.soak)
        for pair in itertools.product(PROVIDERS, PLUGINS)
    ],
    indirect=["emulator"],
)
def test_the_fixture_beside_other_plugins(
    emulator: tuple[str, Running], beside: str, tmp_path: Path
) -> None:
    provider, running = emulator
    plugin, plugin_args = PLUGINS[beside]
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "test_own.py").write_text(OWN_TESTS)
    args = [
        "-W", "error", "-o", "asyncio_mode=auto", "-o",
        "asyncio_default_fixture_loop_scope=function", f"--sandbox-provider={provider}",
        *plugin_args,
    ]  # fmt: skip
    plugins = f"pytest_asyncio.plugin,{plugin}"
    done = session(tmp_path / "own", running, plugins, args, tmp_path / "scratch")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout


def test_the_local_engine_imports_no_sdk(tmp_path: Path) -> None:
    repo = fixture_repos.load("calc").make(tmp_path)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (scratch / "guard.py").write_text(
        "import sys\n"
        "def pytest_unconfigure(config):\n"
        "    found = {'e2b', 'modal', 'daytona', 'docker', 'grpclib', 'aiohttp', 'httpx'}\n"
        "    assert not found & set(sys.modules), found & set(sys.modules)\n"
        "    print('GUARDED')\n"
    )
    venv = Path(sys.prefix)
    path = "--sandbox-env=PYTHONPATH=/sandbox/repo/src"
    args = ["--sandbox=local", f"--sandbox-venv={venv}", path]
    done = session(repo, Running("e2b"), "guard", args, scratch)
    assert "2 failed, 19 passed" in done.stdout, done.stdout + done.stderr
    assert "GUARDED" in done.stdout
