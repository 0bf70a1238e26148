"""The ledger: whose owner is dead, and whose only looks so."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import anyio
import pytest

from pytest_sandbox import reaper
from pytest_sandbox.inside import Host
from pytest_sandbox.ledger import Ledger
from pytest_sandbox.store import PreparedStore

CHILD = (
    "import sys; from pathlib import Path; from pytest_sandbox.ledger import Ledger; "
    "Ledger(Path(sys.argv[1])).open('child', provider='local', expires=60).created('id-1'); "
    "print('entered', flush=True); sys.stdin.read()"
)


def test_an_entry_of_a_living_process(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "new" / "ledger")
    assert ledger.entries() == ledger.orphans() == []
    entry = ledger.open("one", provider="local", expires=60)
    (found,) = Ledger(tmp_path / "new" / "ledger").entries()
    assert (found.name, found.provider, found.sandbox_id) == ("one", "local", None)
    entry.created("id-1")
    assert ledger.entries()[0].sandbox_id == "id-1"
    assert ledger.orphans() == []
    entry.close()
    entry.close()
    assert list((tmp_path / "new" / "ledger").iterdir()) == []


def test_a_killed_process_leaves_an_orphan(tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"entered\n"
        ledger = Ledger(tmp_path)
        assert ledger.orphans() == []
        child.send_signal(signal.SIGKILL)
        # Before it is waited for it is a zombie, which is dead as well.
        end = time.monotonic() + 10
        while not ledger.orphans() and time.monotonic() < end:
            time.sleep(0.01)
        (orphan,) = ledger.orphans()
    assert (orphan.name, orphan.sandbox_id) == ("child", "id-1")
    assert [entry.name for entry in ledger.orphans()] == ["child"]


def change(path: Path, **changed: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))


@pytest.mark.parametrize(
    ("changed", "orphan"),
    [
        ({}, False),
        ({"started": "1"}, True),  # the pid is another process's now
        ({"boot": "another"}, True),
        ({"pid": 2**22 + 1}, True),
        ({"host": "elsewhere"}, False),
        ({"host": "elsewhere", "expires": time.time() - 3600}, False),
        ({"host": "elsewhere", "expires": time.time() - 2 * 86_400}, True),
        # Another container of this machine: its pids are not ours.
        ({"host": f"{socket.gethostname()} pid:[1]", "pid": 2**22 + 1}, False),
    ],
)
def test_who_counts_as_dead(changed: dict[str, Any], orphan: bool, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.open("one", provider="local", expires=60)
    change(tmp_path / "one.json", **changed)
    assert bool(ledger.orphans()) is orphan


@pytest.mark.parametrize(
    "changed",
    [
        {"name": "../two"},
        {"name": "two"},
        {"name": 1},
        {"pid": "1"},
        {"pid": -1},
        {"pid": 1.5},
        {"provider": None},
        {"sandbox_id": 3},
        {"expires": float("nan")},
        {"expires": 10**400},
        {"more": 1},
    ],
)
def test_strange_records_are_left_alone(changed: dict[str, Any], tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.open("one", provider="local", expires=60)
    change(tmp_path / "one.json", **{"boot": "another", **changed})
    assert ledger.entries() == []
    assert (tmp_path / "one.json").exists()


@pytest.mark.parametrize(
    "content", [b"", b"\xff", b"null", b"[]", b"{}", b"[" * 16_000, b" " * 20_000 + b"{}"]
)
def test_garbage_is_left_alone(content: bytes, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.open("one", provider="local", expires=60)
    (tmp_path / "garbage.json").write_bytes(content)
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "dangling.json").symlink_to("nowhere")
    assert [entry.name for entry in ledger.entries()] == ["one"]
    assert ledger.orphans() == []


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".x", "a\nb", "a" * 129])
def test_names_that_are_none(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot name"):
        Ledger(tmp_path).open(name, provider="local", expires=1)
    assert list(tmp_path.iterdir()) == []


def test_an_entry_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError):
        Ledger(tmp_path / "file").open("one", provider="local", expires=1)
    assert Ledger(tmp_path / "file").entries() == []


def test_only_the_user_may_look(tmp_path: Path) -> None:
    Ledger(tmp_path / "ledger").open("one", provider="local", expires=1)
    assert os.stat(tmp_path / "ledger").st_mode & 0o077 == 0


MANY = """
import sys
from pathlib import Path
from pytest_sandbox import reaper
from pytest_sandbox.inside import Host
from pytest_sandbox.ledger import Ledger
from pytest_sandbox.store import PreparedStore
ledger = Ledger(Path(sys.argv[1]))
for number in range(100):
    entry = ledger.open(f"{sys.argv[2]}-{number}", provider="local", expires=60)
    entry.created("id")
    assert ledger.orphans() == [], "a living process's entry"
    assert {entry.name, "steady"} <= {other.name for other in ledger.entries()}
    entry.close()
"""


def test_many_processes_share_a_ledger(tmp_path: Path) -> None:
    """None takes another's entry for an orphan while it is written or removed."""
    steady = Ledger(tmp_path).open("steady", provider="local", expires=60)
    started = [
        subprocess.Popen([sys.executable, "-c", MANY, tmp_path, str(n)], stderr=subprocess.PIPE)
        for n in range(3)
    ]
    while any(process.poll() is None for process in started):
        steady.created("id")
    for process in started:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors.decode()
    steady.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("over", "status", "kept"), [(600.0, 1, True), (2 * 3600.0, 0, False)], ids=["recent", "old"]
)
def test_a_provider_that_is_no_more(over: float, status: int, kept: bool, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.open("one", provider="sold", expires=60)
    change(tmp_path / "one.json", boot="another", expires=time.time() - over)
    told: list[str] = []
    host = Host(ledger, PreparedStore(tmp_path / "store"))
    assert anyio.run(reaper.reap_orphans, host, {}, told.append) == status
    assert "one (sold) could not be ended: there is no provider 'sold'" in told[0]
    assert ("for the last time" in told[0]) is not kept
    assert [entry.name for entry in ledger.entries()] == ["one"] * kept
