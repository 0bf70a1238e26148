"""The worker dies, hangs, floods or lies: what becomes of its tests."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from pytest_sandbox import wire
from tests.agent.support import EDGES, Story, agent_in, run_agent, write_tree


def message(story: Story, name: str, when: str = "call") -> str:
    longrepr = story.report(name, when).longrepr
    assert longrepr is not None
    return longrepr.text


@pytest.mark.parametrize("pair", EDGES, ids=lambda pair: f"py{pair[0]}-{pair[1][0]}")
def test_a_crash_is_the_failure_of_one_test(
    tmp_path: Path, pair: tuple[str, tuple[str, ...]]
) -> None:
    files = {
        "test_crash.py": """
            import ctypes, os, pytest
            def test_before(): pass
            def test_segv():
                ctypes.string_at(0)
            def test_between(): pass
            def test_exit():
                os._exit(0)
            @pytest.fixture
            def lethal():
                yield
                os.abort()
            def test_teardown(lethal): pass
            def test_after(): pass
        """
    }
    story = run_agent(tmp_path, files, pair=pair)
    assert story.outcomes == {
        "test_before": "...",
        "test_segv": ".F[crash]",
        "test_between": "...",
        "test_exit": ".F[exit]",
        "test_teardown": "..F[crash]",
        "test_after": "...",
    }
    assert "killed by SIGSEGV (signal 11)" in message(story, "test_segv")
    assert "test_crash.py::test_segv" in message(story, "test_segv")
    (section,) = story.report("test_segv").sections
    assert "Segmentation fault" in section[1]
    assert "exit status 0 before the session finished" in message(story, "test_exit")
    assert "SIGABRT" in message(story, "test_teardown", "teardown")
    assert (story.end.reason, story.end.exitstatus) == ("finished", 1)
    assert len(story.all(wire.Hello)) == 4
    assert len(story.items) == 6
    assert [(d.cause, d.status, story.items[d.item or 0].name) for d in story.all(wire.Died)] == [
        ("crash", None, "test_segv"), ("exit", 0, "test_exit"), ("crash", None, "test_teardown"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("hook", "phase", "reason", "item"),
    [
        ("def pytest_configure(): os._exit(0)", "start", "died", None),
        ("def pytest_collection_modifyitems(): os._exit(0)", "collect", "died", None),
        ("def pytest_runtest_logreport(report):\n    report.when != 'call' or os._exit(0)", "run",
         "finished", 0),
        # After the last test, whose end is told with what comes next.
        ("def pytest_runtest_logfinish(): os._exit(0)", "run", "finished", 0),
        ("def pytest_sessionfinish(): os._exit(0)", "run", "finished", 0),
        ("@pytest.hookimpl(trylast=True)\ndef pytest_sessionfinish(): os._exit(0)", "stop",
         "finished", None),
    ],
)  # fmt: skip
def test_a_process_that_ends_itself_is_told_wherever_it_does(
    tmp_path: Path, hook: str, phase: str, reason: str, item: int | None
) -> None:
    files = {"conftest.py": f"import os, pytest\n{hook}\n", "test_it.py": "def test_it(): pass"}
    story = run_agent(tmp_path, files)
    (died,) = story.all(wire.Died)
    assert (died.cause, died.status, died.phase, died.item) == ("exit", 0, phase, item)
    assert (story.end.reason, story.end.exitstatus) == (reason, 1 if reason == "finished" else None)


def test_a_hang_is_stopped_and_its_stack_shown(tmp_path: Path) -> None:
    files = {
        "test_hang.py": """
            import os, signal, time
            def test_sleep():
                wait_for_ever()
            def wait_for_ever():
                time.sleep(1000)
            def test_stopped():
                os.kill(os.getpid(), signal.SIGSTOP)
            def test_after(): pass
        """
    }
    story = run_agent(tmp_path, files, test_timeout=0.7)
    assert story.outcomes == {
        "test_sleep": ".F[timeout]",
        "test_stopped": ".F[timeout]",
        "test_after": "...",
    }
    assert "Timeout: the test took more than 0.7 s" in message(story, "test_sleep")
    assert "in wait_for_ever" in message(story, "test_sleep")
    assert story.report("test_sleep").duration >= 0.7


def test_the_run_has_a_deadline(tmp_path: Path) -> None:
    files = {"test_it.py": "import time\ndef test_a(): time.sleep(100)\ndef test_b(): pass\n"}
    story = run_agent(tmp_path, files, run_timeout=1.5)
    assert story.outcomes == {"test_a": ".F[timeout]"}
    assert story.end.reason == "timeout"
    assert "the run took more than 1.5 s" in story.end.message


def test_collection_has_a_deadline(tmp_path: Path) -> None:
    files = {"test_it.py": "import time\ntime.sleep(100)\n"}
    story = run_agent(tmp_path, files, collect_timeout=4.0)
    assert story.end.reason == "timeout"
    assert "collection took more than 4 s" in story.end.message
    assert "test_it.py" in story.end.message


def test_a_death_during_collection_ends_the_run(tmp_path: Path) -> None:
    files = {"test_it.py": "import os\nos.write(2, b'last words')\nos._exit(7)\n"}
    story = run_agent(tmp_path, files, "-s")
    assert story.end.reason == "died"
    assert "exit status 7" in story.end.message
    assert "during collection" in story.end.message
    assert "last words" in story.end.message


def test_restarts_are_counted(tmp_path: Path) -> None:
    files = {
        "test_it.py": """
            import os, pytest
            @pytest.mark.parametrize("i", range(5))
            def test_it(i): os._exit(1)
        """
    }
    story = run_agent(tmp_path, files, restarts=2)
    assert list(story.outcomes) == ["test_it[0]", "test_it[1]", "test_it[2]"]
    assert story.end.reason == "died"
    assert "replaced 2 times" in story.end.message
    assert "2 tests were not run" in story.end.message


def test_maxfail_goes_on_counting_after_a_crash(tmp_path: Path) -> None:
    files = {
        "test_it.py": """
            import os
            def test_a(): assert 0
            def test_b(): os._exit(1)
            def test_c(): assert 0
            def test_d(): pass
        """
    }
    story = run_agent(tmp_path, files, maxfail=3)
    assert list(story.outcomes) == ["test_a", "test_b", "test_c"]
    assert (story.end.reason, story.end.exitstatus) == ("finished", 1)
    story = run_agent(tmp_path, files, "--maxfail=2")
    assert list(story.outcomes) == ["test_a", "test_b"]


def test_tests_with_one_id_are_told_apart_after_a_crash(tmp_path: Path) -> None:
    files = {
        "conftest.py": """
            import pytest
            class Item(pytest.Item):
                def runtest(self):
                    if self.number == 1:
                        import os
                        os._exit(1)
                    assert self.number != 2
            class File(pytest.File):
                def collect(self):
                    for number in range(4):
                        item = Item.from_parent(self, name="same")
                        item.number = number
                        yield item
            def pytest_collect_file(file_path, parent):
                if file_path.suffix == ".same":
                    return File.from_parent(parent, path=file_path)
        """,
        "x.same": "",
    }
    story = run_agent(tmp_path, files)
    outcomes = [(r.item, r.outcome, r.cause) for r in story.all(wire.Report) if r.when == "call"]
    assert outcomes == [
        (0, "passed", "test"),
        (1, "failed", "exit"),
        (2, "failed", "test"),
        (3, "passed", "test"),
    ]


def test_a_test_that_is_gone_after_a_crash_fails(tmp_path: Path) -> None:
    files = {
        "test_it.py": """
            import os, pathlib, pytest
            count = 3 if not pathlib.Path("mark").exists() else 2
            @pytest.mark.parametrize("i", range(count))
            def test_it(i):
                pathlib.Path("mark").touch()
                if i == 0:
                    os._exit(1)
        """
    }
    story = run_agent(tmp_path, files)
    assert story.outcomes["test_it[2]"] == "F[crash]"
    assert "not collected again" in message(story, "test_it[2]", "setup")
    assert story.outcomes["test_it[1]"] == "..."


def test_output_is_limited(tmp_path: Path) -> None:
    files = {
        "test_it.py": """
            import os
            def test_flood():
                while True:
                    os.write(2, b"x" * 10000)
            def test_after(): pass
        """
    }
    story = run_agent(tmp_path, files, "-s", output_limit=1_000_000)
    assert story.outcomes == {"test_flood": ".F[output]", "test_after": "..."}
    assert "more than 1000000 bytes of output" in message(story, "test_flood")


def test_output_while_no_test_runs_ends_the_run(tmp_path: Path) -> None:
    files = {"test_it.py": "import os\nwhile True: os.write(1, b'x' * 10000)\n"}
    story = run_agent(tmp_path, files, "-s", output_limit=1_000_000)
    assert story.end.reason == "output"


def test_results_are_limited(tmp_path: Path) -> None:
    files = {
        "test_it.py": """
            import pytest
            @pytest.mark.parametrize("i", range(100))
            def test_it(i):
                print("x" * 100_000)
        """
    }
    story = run_agent(tmp_path, files, frame_limit=2_000_000)
    assert story.end.reason == "output"
    assert 5 < len(story.finished) < 20


def test_out_of_memory_is_named(tmp_path: Path) -> None:
    notice = tmp_path / "oom"
    files = {
        "test_it.py": f"""
            import os, signal
            def test_it():
                open({str(notice)!r}, "w").close()
                os.kill(os.getpid(), signal.SIGKILL)
        """
    }
    story = run_agent(tmp_path, files, oom_notice=str(notice))
    assert story.outcomes == {"test_it": ".F[memory]"}
    assert "out of memory" in message(story, "test_it")
    assert "SIGKILL" in message(story, "test_it")


def test_a_prefix_may_turn_signals_into_exit_statuses(tmp_path: Path) -> None:
    files = {"test_it.py": "import os\ndef test_it(): os._exit(139)\n"}
    story = run_agent(tmp_path, files, demote=["/usr/bin/env"])
    assert "SIGSEGV (signal 11)" in message(story, "test_it")


def alive(mark: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and mark.encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def test_no_descendant_outlives_the_run(tmp_path: Path) -> None:
    files = {
        "test_it.py": """
            import os, subprocess, sys, time
            def daemon():
                if os.fork() == 0:
                    os.setsid()
                    if os.fork() == 0:
                        time.sleep(1000)
                    os._exit(0)
            def test_daemon():
                daemon()
                subprocess.Popen(["sleep", "1000"], start_new_session=True)
            def test_crash():
                daemon()
                os._exit(1)
            def test_after():
                daemon()
        """
    }
    mark = f"MARK_{os.getpid()}_{time.time_ns()}"
    env = {"PATH": os.environ["PATH"], mark: "1"}
    seen = []
    story = run_agent(
        tmp_path, files, env=env, on_frame=lambda frame: seen.append(len(alive(mark)))
    )
    assert story.outcomes == {"test_daemon": "...", "test_crash": ".F[exit]", "test_after": "..."}
    assert max(seen) > 1
    assert alive(mark) == []


@pytest.mark.parametrize(
    "code",
    [
        "threading.Thread(target=time.sleep, args=(1000,)).start()",
        pytest.param("atexit.register(time.sleep, 1000)", marks=pytest.mark.soak),
    ],
)
def test_a_process_that_does_not_end_is_ended(tmp_path: Path, code: str) -> None:
    files = {"test_it.py": f"import atexit, threading, time\ndef test_it():\n    {code}\n"}
    story = run_agent(tmp_path, files)
    assert story.outcomes == {"test_it": "..."}
    assert (story.end.reason, story.end.exitstatus) == ("finished", 0)
    assert story.seconds < 10


def test_a_forked_child_that_comes_back_says_nothing(tmp_path: Path) -> None:
    files = {
        "test_it.py": """
            import os
            def test_fork():
                pid = os.fork()
                if pid == 0:
                    raise RuntimeError("the child goes on as if it were pytest")
                os.waitpid(pid, 0)
            def test_after(): pass
        """
    }
    story = run_agent(tmp_path, files)
    assert story.outcomes == {"test_fork": "...", "test_after": "..."}
    assert story.end.exitstatus == 0


#: Finds what only the agent knows, so that a lie gets past its mark and number.
FIND_CHANNEL = """
    import gc, os
    def say(data, marked=True):
        (found,) = [o for o in gc.get_objects() if type(o).__name__ == "Channel"]
        if marked:
            data = f"{found._mark} {found._count} ".encode() + data
            found._count += 1
        while data:
            data = data[os.write(found._fd, data):]
"""

LIES = [
    b"nonsense\n",
    b"[]\n",
    b'{"kind":"end","reason":"finished","exitstatus":0,"message":""}\n',
    b'{"kind":"heartbeat","phase":"run","item":0,"elapsed":1}\n',
    b'{"kind":"finish","item":1}\n',
    b'{"kind":"start","item":1}\n',
    b'{"kind":"finish","item":"0"}\n',
    b'{"kind":"report","item":0,"when":"call","outcome":"passed","duration":NaN,"start":1,'
    b'"stop":1}\n',
    b'{"kind":"report","item":0,"when":"call","outcome":"passed","duration":1,"start":1,'
    b'"stop":1,"cause":"crash"}\n',
    b'{"kind":"report","item":1,"when":"call","outcome":"passed","duration":1,"start":1,'
    b'"stop":1}\n',
    b'{"kind":"internalerror","text":"\\ud800"}\n',
    b'{"kind":"internalerror","text":"' + b"x" * 3_500_000 + b'"}\n',
    b'{"kind":"hello"}\n',
    b'{"kind":"ready","total":0,"deselected":0,"seconds":0,"maxfail":0}\n',
    b"[" * 100_000 + b"\n",
]


def test_a_lie_is_a_death(tmp_path: Path) -> None:
    for number, lie in enumerate(LIES):
        (tmp_path / str(number)).write_bytes(lie)
    files = {
        "channel.py": FIND_CHANNEL,
        "test_it.py": f"""
            import time
            import pytest
            from channel import say
            @pytest.mark.parametrize("number", range({len(LIES)}))
            def test_lie(number):
                say(open(f"{tmp_path}/{{number}}", "rb").read())
                time.sleep(100)
            def test_other(): pass
        """,
    }
    story = run_agent(tmp_path, files, restarts=100)
    for number, lie in enumerate(LIES):
        name = f"test_lie[{number}]"
        assert story.outcomes[name] == ".F[protocol]", lie
        assert "broke the protocol" in message(story, name), lie
    assert story.outcomes["test_other"] == "..."


def test_a_faked_session_end_does_not_count_for_tests_not_run(tmp_path: Path) -> None:
    files = {
        "channel.py": FIND_CHANNEL,
        "test_it.py": """
            import os
            from channel import say
            def test_lie():
                say(b'{"kind":"session","exitstatus":0,"exit":null,"refused":""}\\n')
                os._exit(0)
            def test_other(): pass
        """,
    }
    story = run_agent(tmp_path, files)
    assert story.end.exitstatus == 0
    assert story.finished == []  # the host fails what has no result


def test_frames_without_a_mark_are_a_death(tmp_path: Path) -> None:
    files = {
        "channel.py": FIND_CHANNEL,
        "test_it.py": """
            import time
            from channel import say
            def test_lie():
                say(b'{"kind":"finish","item":0}\\n', marked=False)
                time.sleep(100)
            def test_other(): pass
        """,
    }
    story = run_agent(tmp_path, files)
    assert story.outcomes == {"test_lie": ".F[protocol]", "test_other": "..."}
    assert "without its mark and number" in message(story, "test_lie")


def test_closing_descriptors_is_survived_or_named(tmp_path: Path) -> None:
    files = {
        "test_it.py": """
            import os
            def test_low(): os.closerange(3, 200)
            def test_all(): os.closerange(3, 4096)
            def test_after(): pass
        """
    }
    story = run_agent(tmp_path, files, "-p", "no:capture", "-p", "no:faulthandler")
    assert story.outcomes == {"test_low": "...", "test_all": ".F[exit]", "test_after": "..."}


def test_the_working_directory_may_vanish(tmp_path: Path) -> None:
    files = {
        "test_it.py": """
            import os, tempfile
            def test_vanish():
                gone = tempfile.mkdtemp()
                os.chdir(gone)
                os.rmdir(gone)
            def test_after(): assert 0
        """
    }
    story = run_agent(tmp_path, files)
    assert story.outcomes["test_vanish"] == "..."
    assert ".F" in story.outcomes["test_after"]


def test_the_host_can_stop_it(tmp_path: Path) -> None:
    files = {"test_it.py": "import time\ndef test_it(): time.sleep(100)\n"}
    workspace = write_tree(tmp_path / "repo", files)
    agent = agent_in(tmp_path)
    agent.plan(workspace)
    agent.call("run", str(agent.control))

    def stop(frame: wire.Frame) -> None:
        if isinstance(frame, wire.Start):
            (agent.control / "stop").touch()

    story = agent.follow(on_frame=stop)
    assert story.end.reason == "stopped"
    assert story.seconds < 5


def test_follow_tells_that_the_supervisor_is_gone(tmp_path: Path) -> None:
    workspace = write_tree(tmp_path / "repo", {"test_it.py": "def test_it(): pass\n"})
    agent = agent_in(tmp_path)
    agent.plan(workspace)
    agent.call("run", str(agent.control))
    pid = int((agent.control / "supervisor.pid").read_text().split()[0])
    os.kill(pid, signal.SIGKILL)
    followed = agent.call("follow", str(agent.control), "0", check=False)
    assert followed.returncode == 3
    assert b"supervisor" in followed.stderr


def test_follow_resumes_at_an_offset_and_sends_whole_lines(tmp_path: Path) -> None:
    workspace = write_tree(tmp_path / "repo", {"test_it.py": "def test_it(): pass\n"})
    agent = agent_in(tmp_path)
    agent.plan(workspace)
    agent.select([0])
    agent.call("run", str(agent.control))
    whole = agent.call("follow", str(agent.control), "0").stdout
    offset = whole.index(b"\n", len(whole) // 2) + 1
    assert agent.call("follow", str(agent.control), str(offset)).stdout == whole[offset:]
    (agent.control / "spool").write_bytes(whole[: len(whole) - 20])
    cut = agent.call("follow", str(agent.control), "0", check=False)
    assert cut.returncode == 3
    assert cut.stdout == whole[: whole.rindex(b"\n", 0, -1) + 1]


def test_workers_in_a_pid_namespace_are_stopped_and_understood(tmp_path: Path) -> None:
    files = {
        "test_it.py": """
            import os, subprocess, time
            def test_hang():
                assert os.getpid() < 10
                subprocess.Popen(["sleep", "1000"], start_new_session=True)
                time.sleep(1000)
            def test_crash():
                os.abort()
            def test_after(): pass
        """
    }
    prefix = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child"]
    # The shell is the namespace's first process, which no signal from inside can kill.
    prefix += ["--mount-proc", "sh", "-c", '"$@"; exit $?', "sh"]
    story = run_agent(tmp_path, files, demote=prefix, test_timeout=1.0)
    assert story.outcomes == {
        "test_hang": ".F[timeout]",
        "test_crash": ".F[crash]",
        "test_after": "...",
    }
    assert "in test_hang" in message(story, "test_hang").split("Stacks")[1]
    assert "SIGABRT" in message(story, "test_crash")


def test_nothing_is_left_in_the_temporary_folder(tmp_path: Path) -> None:
    files = {
        "test_it.py": """
            import os
            def test_crash(cache):
                cache.set("a/b", 1)
                os._exit(1)
            def test_after(cache):
                assert cache.get("a/b", None) == 1
            def test_last(cache): os._exit(1)
        """
    }
    tmp = tmp_path / "tmp"
    tmp.mkdir()
    story = run_agent(tmp_path, files, env={"PATH": os.environ["PATH"], "TMPDIR": str(tmp)})
    assert story.outcomes["test_after"] == "..."
    assert list(tmp.iterdir()) == []
    assert not (tmp_path / "repo" / ".pytest_cache").exists()
