"""Records of prepared environments: kept, believed only when sound, and let go in order."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_sandbox.store import Prepared, PreparedStore

KEY = "0123456789abcdef"
HOUR = 3600.0


def prepared(key: str = KEY, **changed: Any) -> Prepared:
    made = Prepared.new(
        key=key, provider="local", snapshot="s1", size=10, tree="t", reason="r", repository="a"
    )
    return replace(made, **changed)


def key(number: int) -> str:
    return f"{number:016x}"


def test_what_is_put_is_found(tmp_path: Path) -> None:
    store = PreparedStore(tmp_path / "new" / "folder")
    assert (store.get(KEY), store.entries(), store.victims()) == (None, [], [])
    names = ("a b", "ü\n", "not utf-8 \udcff", "dir/file")
    store.put(prepared(), names)
    assert PreparedStore(tmp_path / "new" / "folder").get(KEY) == store.get(KEY)
    found = store.get(KEY)
    assert found is not None
    assert store.paths(found) == names
    store.remove(KEY)
    store.remove(KEY)
    assert list((tmp_path / "new" / "folder").iterdir()) == []


def test_names_belong_to_one_snapshot(tmp_path: Path) -> None:
    store = PreparedStore(tmp_path)
    store.put(prepared(snapshot="one"), ["a"])
    store.put(prepared(snapshot="two"), ["b"])
    found = store.get(KEY)
    assert found is not None
    assert (found.snapshot, store.paths(found)) == ("two", ("b",))


def test_a_record_without_its_names_is_none(tmp_path: Path) -> None:
    store = PreparedStore(tmp_path)
    store.put(prepared(), ["a"])
    for path in tmp_path.glob("*.paths"):
        path.unlink()
    assert store.get(KEY) is None
    assert [entry.key for entry in store.entries()] == [KEY]  # can still be removed


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "KEY", "0" * 15, "0" * 129, "a/b"])
def test_keys_that_are_none(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no key"):
        PreparedStore(tmp_path).get(name)


SOUND = {
    "key": KEY, "provider": "local", "snapshot": "s1", "size": 1, "tree": "t", "reason": "r",
    "repository": "a", "created": 1.0, "used": 1.0,
}  # fmt: skip


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"null",
        b"[]",
        b"{}",
        b"[" * 60_000,
        b" " * 100_000 + json.dumps(SOUND).encode(),
        *(
            json.dumps(SOUND | change).encode()
            for change in (
                {"key": key(1)},
                {"key": "../../x"},
                {"key": None},
                {"size": "1"},
                {"size": -1},
                {"used": 10**400},
                {"used": float("nan")},
                {"created": float("inf")},
                {"snapshot": ["x"]},
                {"repository": 3},
                {"more": 1},
            )
        ),
    ],
)
def test_garbage_counts_as_nothing(content: bytes, tmp_path: Path) -> None:
    store = PreparedStore(tmp_path)
    store.put(prepared(), ["a"])
    (tmp_path / f"{KEY}.json").write_bytes(content)
    (tmp_path / "other.json").mkdir()
    assert store.get(KEY) is None
    assert store.entries() == store.victims() == []
    store.touch(KEY)
    store.put(prepared(), ["a"])
    assert store.get(KEY) is not None


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    now = time.time()
    store = PreparedStore(tmp_path, max_bytes=25)
    for number in range(4):
        used = now - number * 3 * HOUR
        store.put(prepared(key(number), snapshot=str(number), used=used))
    assert [entry.snapshot for entry in store.entries()] == ["0", "1", "2", "3"]
    assert [entry.snapshot for entry in store.victims()] == ["2", "3"]
    store.touch(key(3))
    assert [entry.snapshot for entry in store.victims()] == ["1", "2"]


def test_what_may_be_in_use_stays(tmp_path: Path) -> None:
    store = PreparedStore(tmp_path, max_bytes=1)
    store.put(prepared())
    assert store.victims() == []
    assert PreparedStore(tmp_path, max_bytes=1, in_use=0).victims() != []


def test_what_nobody_used_for_long_goes(tmp_path: Path) -> None:
    store = PreparedStore(tmp_path)
    store.put(prepared(key(1), used=time.time() - 29 * 24 * HOUR))
    store.put(prepared(key(2), used=time.time() - 31 * 24 * HOUR))
    assert [entry.key for entry in store.victims()] == [key(2)]


#: Nothing can be written: as on a full disk, whoever the user is.
FULL = """
import resource, sys
from pathlib import Path
from pytest_sandbox.store import PreparedStore
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
store = PreparedStore(Path(sys.argv[1]))
known = store.get(sys.argv[2])
store.touch(known.key)
assert store.get(known.key) == known
try:
    store.put(known, ["a"])
except OSError:
    sys.exit(7)
"""


def test_a_full_disk_keeps_nobody_from_using_what_is_there(tmp_path: Path) -> None:
    store = PreparedStore(tmp_path)
    store.put(prepared(), ["a"])
    done = subprocess.run([sys.executable, "-c", FULL, tmp_path, KEY], capture_output=True)
    assert done.returncode == 7, done.stderr
    assert len(list(tmp_path.iterdir())) == 2  # no half-written files


MANY = """
import sys
from pathlib import Path
from tests.unit.test_store import KEY, key, prepared
from pytest_sandbox.store import PreparedStore
store = PreparedStore(Path(sys.argv[1]))
for number in range(150):
    store.put(prepared(snapshot=f"{sys.argv[2]} {number}"), ["x" * 5000])
    for found in (store.get(KEY), *store.entries()):
        assert found is None or (found.size, found.tree) == (10, "t")
    store.touch(KEY)
    store.victims()
    # This one is written again and again, but never removed.
    store.put(prepared(key(1)), ["x" * 5000])
    store.touch(key(1))
    assert store.get(key(1)) is not None
    if number % 3 == 0:
        store.remove(KEY)
"""


def test_many_processes_share_a_store(tmp_path: Path) -> None:
    """None sees half a record, and none fails for what another does."""
    started = [
        subprocess.Popen([sys.executable, "-c", MANY, tmp_path, str(n)], stderr=subprocess.PIPE)
        for n in range(3)
    ]
    for process in started:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors.decode()
    assert not list(tmp_path.glob(".new-*"))
