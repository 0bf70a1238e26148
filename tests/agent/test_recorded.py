"""The recorded frames in tests/frames are what the agent sends today.

They are real runs, with times, versions and paths made equal. To record one anew, delete its
file and run this module: it is written, the test fails once, and the new file is to be read
before it is committed.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from pytest_sandbox import wire
from tests.agent.support import agent_in, write_tree

FRAMES = Path(__file__).parents[1] / "frames"
PAIR = ("3.11", ("pytest==9.2.0",))

OUTCOMES = {
    "test_outcomes.py": """
        import warnings
        import pytest

        def test_pass():
            warnings.warn("look out")

        def test_fail():
            print("to stdout")
            assert 1 == 2

        def test_skip():
            pytest.skip("not today")

        @pytest.mark.xfail(reason="known")
        def test_xfail():
            assert 0

        @pytest.mark.xfail(reason="fixed")
        def test_xpass():
            pass

        @pytest.fixture
        def broken():
            raise ValueError("setup broke")

        def test_error(broken):
            pass

        @pytest.fixture
        def leaky():
            yield
            raise ValueError("teardown broke")

        def test_teardown_error(leaky):
            pass

        @pytest.mark.parametrize("x", ["a b", "[c]::d"])
        def test_param(x, record_property):
            record_property("x", x)
    """
}
SUBTESTS = {
    "test_subtests.py": """
        def test_sub(subtests):
            for i in range(3):
                with subtests.test("even", i=i):
                    assert i % 2 == 0
    """
}
DEATHS = {
    "test_deaths.py": """
        import os, signal, time

        def test_killed():
            os.kill(os.getpid(), signal.SIGKILL)

        def test_exit():
            os._exit(0)

        def test_hang():
            time.sleep(1000)

        def test_after():
            pass
    """
}
COLLECTION = {
    "test_broken.py": "raise ValueError('broken')\n",
    "test_fine.py": "def test_fine(): pass\n",
    "test_skipped.py": "import pytest\npytest.skip('not here', allow_module_level=True)\n",
}
EXIT = {"test_exit.py": "import pytest\ndef test_exit(): pytest.exit('enough', 7)\n"}
LIVE = {
    # Output and frames come through two pipes; the pause makes their order certain.
    "test_live.py": """
        import time
        def test_live():
            print("seen at once")
            time.sleep(0.5)
    """
}

RUNS: dict[str, tuple[dict[str, str], list[str], dict[str, object]]] = {
    "outcomes": (OUTCOMES, [], {}),
    "subtests": (SUBTESTS, [], {}),
    "deaths": (DEATHS, [], {"test_timeout": 1.0}),
    "collection": (COLLECTION, [], {}),
    "empty": ({}, [], {}),
    "exit": (EXIT, [], {}),
    "live": (LIVE, ["-s"], {"live": True}),
    "usage": ({}, ["missing.py"], {}),
}


def normal(line: str, root: Path) -> str:
    line = line.replace(str(root), "/sandbox/repo")
    line = re.sub(r"0x[0-9a-f]{6,}", "0x7f0000000000", line)
    frame = json.loads(line)
    for name, value in (
        ("duration", 0.001), ("start", 1.7e9), ("stop", 1.7e9 + 0.001), ("seconds", 0.1),
        ("python", "3.11.7"), ("platform", "linux"), ("packages", ["pytest==9.2.0"]),
    ):  # fmt: skip
        if name in frame:
            frame[name] = value
    return json.dumps(frame, separators=(",", ":")) + "\n"


@pytest.mark.parametrize("name", RUNS)
def test_recorded(tmp_path: Path, name: str) -> None:
    files, args, more = RUNS[name]
    workspace = write_tree(tmp_path / "repo", files)
    agent = agent_in(tmp_path, PAIR)
    agent.plan(workspace, args, heartbeat=1000.0, **more)
    agent.call("run", str(agent.control))
    agent.follow()
    spool = (agent.control / "spool").read_text(encoding="ascii")
    now = "".join(normal(line, workspace) for line in spool.splitlines())

    recorded = FRAMES / f"{name}.jsonl"
    if not recorded.exists():
        recorded.write_text(now, encoding="ascii")
        pytest.fail(f"{recorded} was recorded anew: read it, then commit it")
    assert now == recorded.read_text(encoding="ascii")
    decoder = wire.Decoder()
    frames = list(decoder.feed(now.encode()))
    assert isinstance(frames[-1], wire.End)
