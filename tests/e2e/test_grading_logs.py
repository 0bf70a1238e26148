"""An instance with a runner of its own: its command runs in a sandbox, its log is read."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from pytest_sandbox.grading import Grader, Task, Verdict
from pytest_sandbox.grading.model import Log
from tests.e2e.sessions import own_python
from tests.unit.gitrepo import Repo
from tests.unit.test_grading_logs import package

RUNNER = b"""\
#!/usr/bin/env python
import importlib, sys
print("Testing against Django installed in 'django'", sys.argv[1:])
for module in sys.argv[1:]:
    if not module.endswith(".tests"):
        continue
    found = importlib.import_module(module)
    for name in sorted(vars(found)):
        if name.startswith("test_"):
            try:
                vars(found)[name]()
                print(f"{name} ({module}.Tests) ... ok", file=sys.stderr)
            except AssertionError:
                print(f"{name} ({module}.Tests) ... FAIL", file=sys.stderr)
"""
TEST_PATCH = """\
diff --git a/tests/sums/tests.py b/tests/sums/tests.py
--- a/tests/sums/tests.py
+++ b/tests/sums/tests.py
@@ -3,3 +3,5 @@
 from total import total
 def test_empty():
     assert total([]) == 0
+def test_two():
+    assert total([1, 2]) == 3
"""


def patch(body: str) -> str:
    return (
        "diff --git a/total.py b/total.py\n--- a/total.py\n+++ b/total.py\n"
        f"@@ -1,2 +1,2 @@\n def total(numbers):\n-    return 0\n+    {body}\n"
    )


CANDIDATES = {
    "right": (patch("return sum(numbers)"), "resolved"),
    "wrong": (patch("return len(numbers)"), "unresolved"),
    "breaks": (patch("return sum(numbers) or 3"), "regressed"),
    "hangs": (patch("while True: pass"), "timeout"),
    "dies": (patch("import os; os._exit(0)"), "no_tests"),
    "prose": ("Just return the sum.", "malformed"),
}


def test_a_log_is_the_evidence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(package("4.1.0")))
    repo = Repo.make(
        tmp_path / "repo",
        {
            "total.py": b"def total(numbers):\n    return 0\n",
            "tests/runtests.py": RUNNER,
            "tests/sums/tests.py": b"import sys\nsys.path.insert(0, '.')\n"
            b"from total import total\ndef test_empty():\n    assert total([]) == 0\n",
        },
    )
    (repo.path / "tests/runtests.py").chmod(0o755)
    repo.commit("executable")
    task = Task(
        id="django__django-1",
        source="rows.jsonl:1",
        repo=str(repo.path),
        base="HEAD",
        test_patch=TEST_PATCH.encode(),
        fail_to_pass=("test_two (sums.tests.Tests)",),
        pass_to_pass=("test_empty (sums.tests.Tests)",),
        ids="swebench",
        profile="swebench",
        timeout=6.0,
        unsupported="the tests of django/django are run by tests/runtests.py, not by pytest",
        log=Log(repo="django/django", version="3.0", files=("sums.tests",)),
    )

    async def main() -> list[Verdict]:
        async with Grader(venv=own_python(), workers=3) as grader:
            return await asyncio.gather(
                *(grader.grade(task, text, name=name) for name, (text, _) in CANDIDATES.items())
            )

    verdicts = {verdict.candidate: verdict for verdict in asyncio.run(main())}
    reasons = {name: verdict.reason for name, verdict in verdicts.items()}
    outcomes = {name: verdict.outcome for name, verdict in verdicts.items()}
    assert outcomes == {name: outcome for name, (_, outcome) in CANDIDATES.items()}, reasons
    assert {v.evidence for name, v in verdicts.items() if name != "prose"} == {"log"}
    assert all(test.passed for test in verdicts["right"].fail_to_pass)
