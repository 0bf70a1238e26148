"""A batch that is killed at any moment goes on where it was: nothing is lost or run twice."""

from __future__ import annotations

import json
import random
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests import tiny
from tests.e2e.sessions import Session, own_python, until
from tests.e2e.test_grade_mode import reports

NUMBER = 12


def stage(folder: Path) -> Path:
    """A task, and predictions for it."""
    task = tiny.make(folder / "repo")
    (folder / "tasks").mkdir()
    (folder / "tasks" / f"{task.id}.toml").write_text(
        f'[task]\nrepo = "../repo"\nbase = "HEAD"\n[tests]\n'
        f"fail_to_pass = {json.dumps(task.fail_to_pass)}\n"
        f"pass_to_pass = {json.dumps(task.pass_to_pass)}\n"
    )
    rows = [
        {"instance_id": one.task_id, "model_name_or_path": one.name,
         "model_patch": (one.patch or b"").decode()}
        for one in map(tiny.candidate, range(NUMBER))
    ]  # fmt: skip
    (folder / "preds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def session(folder: Path, results: str, *args: str) -> Session:
    return Session(
        folder, "tasks/", "--sandbox=local", f"--sandbox-venv={own_python()}",
        "--sandbox-predictions=preds.jsonl", f"--sandbox-results={results}", "--sandbox-workers=2",
        *args, plugins=("xdist.plugin",),
    )  # fmt: skip


def entries(folder: Path) -> list[dict[str, Any]]:
    """Whole lines; a session that is killed may leave half of one."""
    paths = sorted(folder.glob("results*.jsonl"))
    lines = [line for path in paths for line in path.read_bytes().split(b"\n")[:-1]]
    return [json.loads(line) for line in lines if line]


def again(folder: Path, results: str, batch: Session, whole: dict[str, Any]) -> None:
    """Go on after a kill, to the end and the report of a session that was left alone."""
    before = entries(folder / results)
    batch.start()
    assert batch.finish(240) == 1, batch.output
    assert reports(folder / results) == whole, batch.output
    found = entries(folder / results)
    assert found[: len(before)] == before
    runs = Counter(one["candidate"] for one in found if not one["record"].get("cached"))
    assert runs == {f"c{number:04}": 1 for number in range(NUMBER)}
    boxes = [box for one in found if not one["record"].get("cached")
             for box in one["record"]["sandboxes"]]  # fmt: skip
    assert len(boxes) == len(set(boxes))
    # Temporary files are another matter: nobody was left to remove them.
    until(lambda: not [name for name in batch.left() if not name.startswith("tmp/")], 10)
    assert [name for name in batch.left() if not name.startswith("tmp/")] == [], batch.output


def uninterrupted(folder: Path) -> tuple[dict[str, Any], float]:
    started = time.monotonic()
    with session(folder, "whole") as batch:
        assert batch.finish(240) == 1, batch.output
    return reports(folder / "whole"), time.monotonic() - started


def test_killed_in_the_middle(tmp_path: Path) -> None:
    folder = stage(tmp_path)
    whole, _ = uninterrupted(folder)
    with session(folder, "killed") as batch:
        assert until(lambda: len(entries(folder / "killed")) >= NUMBER // 3, 200), batch.output
        batch.popen.kill()
        batch.popen.wait()
        assert len(entries(folder / "killed")) < NUMBER, "it was over before it could be killed"
        again(folder, "killed", batch, whole)


HANGS = """\
--- a/lib.py
+++ b/lib.py
@@ -1,2 +1,3 @@
 def double(number):
+    import time; time.sleep(600)
     return number
"""


@pytest.mark.parametrize("group", [True, False], ids=["group", "process"])
@pytest.mark.parametrize("processes", [(), ("-n2",)], ids=["alone", "xdist"])
def test_termination_is_orderly(tmp_path: Path, processes: tuple[str, ...], group: bool) -> None:
    """As CI ends a job: results so far are kept, sandboxes are not."""
    folder = stage(tmp_path)
    rows = [json.loads(line) for line in (folder / "preds.jsonl").read_text().splitlines()[:1]]
    rows.append({**rows[0], "model_name_or_path": "hangs", "model_patch": HANGS})
    (folder / "preds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with session(folder, "ended", *processes) as batch:
        assert until(lambda: len(entries(folder / "ended")) == 1, 100), batch.output
        ledger = batch.home / "state" / "pytest-sandbox" / "ledger"
        assert until(lambda: len(list(ledger.glob("*.json"))) == 1, 30), batch.output
        time.sleep(1)
        batch.reach("")
        batch.interrupt(signal.SIGTERM, group=group)
        assert batch.finish(30) == 2, batch.output
        assert "SIGTERM" in batch.output
        assert "INTERNALERROR" not in batch.output
        # pytest-xdist's own folder for temporary files is pytest's to keep.
        until(lambda: not [name for name in batch.left() if "pytest-of-" not in name], 5)
        assert [name for name in batch.left() if "pytest-of-" not in name] == [], batch.output
    assert [one["candidate"] for one in entries(folder / "ended")] == ["c0000"]
    assert "c0000" in (folder / "ended" / "summary.md").read_text()


@pytest.mark.soak
def test_killed_at_any_moment(tmp_path: Path) -> None:
    folder = stage(tmp_path)
    whole, seconds = uninterrupted(folder)
    chosen = random.Random(4)
    for number in range(10):
        with session(folder, f"killed-{number}") as batch:
            moment = chosen.uniform(0, seconds)
            until(lambda batch=batch: batch.popen.poll() is not None, moment)  # type: ignore[misc]
            batch.popen.kill()
            batch.popen.wait()
            again(folder, f"killed-{number}", batch, whole)
