"""A session ends in order however it is ended, and leaves nothing: at every stage of a run."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.e2e.sessions import Session, own_python, project

#: Seconds an interrupted session may still take.
SOON = 5.0

SLOW = {
    "test_slow.py": (
        "import subprocess, time\n"
        "def test_first(): pass\n"
        "def test_waits():\n"
        "    subprocess.Popen(['sleep', '300'], start_new_session=True)\n"
        "    time.sleep(300)\n"
        "def test_last(): pass\n"
    )
}


def staged(stage: str, tmp_path: Path, *args: str) -> Session:
    repo = project(tmp_path / "repo", {"test_a.py": "def test_a(): pass\n"})
    if stage in ("set-up",):
        args = (*args, "--sandbox-setup=true")
    else:
        args = (*args, f"--sandbox-venv={own_python()}")
    return Session(
        repo, "--sandbox=staged", "--sandbox-artifact=*.xml", *args, plugins=("staged",),
        STAGE=stage,
    )  # fmt: skip


def reach(session: Session, stage: str) -> None:
    """Wait until the session stays at ``stage``, and has said what came before it."""
    session.reach(f"<at {stage}>")
    # The sandbox's side may be there before pytest has reported what the sandbox has sent.
    session.reach({"run": "[ 50%]", "artifacts": "[100%]", "close": "[100%]"}.get(stage, ""))


def local(tmp_path: Path, files: dict[str, str], *args: str) -> Session:
    repo = project(tmp_path / "repo", files)
    return Session(repo, "--sandbox=local", f"--sandbox-venv={own_python()}", "-v", *args)


STAGES = ("enter", "check", "create", "upload", "set-up", "collect", "select", "run", "artifacts")


@pytest.mark.parametrize("stage", STAGES)
def test_interrupt_at_each_stage(stage: str, tmp_path: Path) -> None:
    with staged(stage, tmp_path, "-v") as session:
        reach(session, stage)
        session.interrupt(group=True)
        assert session.finish(SOON) == 2, session.output
        assert "KeyboardInterrupt" in session.output
        assert "INTERNALERROR" not in session.output
        assert "Traceback" not in session.output
        if stage == "run":
            assert "1 passed" in session.output
        if stage == "artifacts":
            assert "2 passed" in session.output
        session.assert_nothing_left()


def test_termination_is_as_orderly(tmp_path: Path) -> None:
    with staged("run", tmp_path, "-v") as session:
        reach(session, "run")
        session.interrupt(signal.SIGTERM)
        assert session.finish(SOON) == 2
        assert "SIGTERM" in session.output
        assert "1 passed" in session.output
        session.assert_nothing_left()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["TERM", "INT"])
def test_the_command_pytest_sandbox_heeds_what_is_sent_to_it(
    tmp_path: Path, number: signal.Signals
) -> None:
    session = local(tmp_path, SLOW)
    session.program = [str(Path(sys.executable).with_name("pytest-sandbox"))]
    with session:
        session.reach("test_first PASSED")
        session.interrupt(number)
        assert session.finish(SOON) == 2, session.output
        assert "1 passed" in session.output
        session.assert_nothing_left()


def test_a_slow_close_is_waited_for(tmp_path: Path) -> None:
    with staged("slow close", tmp_path) as session:
        assert session.finish(20) == 0
        session.assert_nothing_left()


def test_second_interrupt_while_closing_says_what_it_abandons(tmp_path: Path) -> None:
    with staged("close", tmp_path, "-v") as session:
        reach(session, "close")
        # All tests are over, and the sandbox does not end.
        session.interrupt()
        time.sleep(0.7)
        assert session.popen.poll() is None, session.output
        session.interrupt()
        assert session.finish(SOON) == 2
        assert "2 passed" in session.output
        assert "left behind" in session.output
        assert "--sandbox-reap" in session.output
        left = session.left()
        assert [name.split("/pytest-sandbox-")[0] for name in left] == [
            "state/pytest-sandbox/ledger"
        ], left
        # The next start ends it.
        session._variables["STAGE"] = ""
        session.start()
        assert session.finish() == 0, session.output
        assert "<reaped pytest-sandbox-" in session.output
        session.assert_nothing_left()


@pytest.mark.parametrize("group", [True, False], ids=["group", "process"])
def test_interrupt_while_a_test_runs_in_the_local_engine(tmp_path: Path, group: bool) -> None:
    with local(tmp_path, SLOW) as session:
        session.reach("test_first PASSED")
        time.sleep(0.5)
        session.reach("test_first PASSED")
        assert len(session.living()) > 4
        session.interrupt(group=group)
        assert session.finish(SOON) == 2, session.output
        assert "1 passed" in session.output
        session.assert_nothing_left()


def test_interrupt_while_the_local_engine_collects(tmp_path: Path) -> None:
    files = {"conftest.py": "import time\ntime.sleep(300)\n", "test_a.py": "def test_a(): pass\n"}
    with local(tmp_path, files, "--sandbox-artifact=*.xml") as session:
        session.reach("collecting")
        time.sleep(1)
        session.reach("collecting")
        session.interrupt(group=True)
        assert session.finish(SOON) == 2, session.output
        session.assert_nothing_left()


def test_interrupt_while_set_up_runs_in_the_local_engine(tmp_path: Path) -> None:
    repo = project(tmp_path / "repo", {"test_a.py": "def test_a(): pass\n"})
    with Session(repo, "--sandbox=local", "--sandbox-setup=sleep 300") as session:
        session.reach("sandbox set-up: sleep 300")
        time.sleep(0.3)
        session.reach("sleep 300")
        session.interrupt(group=True)
        assert session.finish(SOON) == 2, session.output
        session.assert_nothing_left()


def test_nothing_runs_on_when_the_session_is_killed(tmp_path: Path) -> None:
    with local(tmp_path, SLOW) as session:
        session.reach("test_first PASSED")
        time.sleep(0.5)
        session.reach("test_first PASSED")
        session.popen.kill()
        session.finish()
        deadline = time.monotonic() + 3
        while session.living() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not session.living()
        # Its notes and files are still there, until something looks.
        assert [name for name in session.left() if "ledger" in name]
        session.start("--sandbox-reap")
        assert session.finish() == 0
        assert "ended pytest-sandbox-" in session.output
        session.assert_nothing_left()


def test_the_next_start_cleans_up_after_a_killed_one(tmp_path: Path) -> None:
    with local(tmp_path, SLOW) as session:
        session.reach("test_first PASSED")
        session.popen.kill()
        session.finish()
        session.start(*session._args, "-k", "first or last")
        assert session.finish() == 0, session.output
        assert "2 passed" in session.output
        session.assert_nothing_left(3)


def kill_sandbox(session: Session) -> None:
    launcher = [
        pid for pid, _ in session.living()
        if b"inside/launcher.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]  # fmt: skip
    for pid in launcher:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_what_a_dead_sandbox_leaves_runs_in_another(tmp_path: Path) -> None:
    files = {"test_slow.py": SLOW["test_slow.py"].replace("sleep(300)", "sleep(8)")}
    with local(tmp_path, files) as session:
        session.reach("test_first PASSED")
        kill_sandbox(session)
        assert session.finish(60) == 0, session.output
        assert "A new sandbox for 2 tests without a result" in session.output
        assert "3 passed" in session.output
        assert session.output.count("test_first PASSED") == 1
        session.assert_nothing_left()


def test_an_infrastructure_error_is_no_test_result(tmp_path: Path) -> None:
    """The whole sandbox dies under a running test."""
    with local(tmp_path, SLOW, "--sandbox-retries=0") as session:
        session.reach("test_first PASSED")
        kill_sandbox(session)
        assert session.finish(30) == 31, session.output
        assert "1 passed" in session.output
        assert "failed" not in session.output.splitlines()[-1]
        assert "INTERNALERROR" not in session.output
        session.assert_nothing_left()
