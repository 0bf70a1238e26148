"""Candidates graded in real sandboxes: every kind of patch gets its own verdict."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_sandbox.grading import Budget, Grader, OverBudget, words
from pytest_sandbox.grading.model import Candidate, Task, Verdict
from tests import fixture_repos
from tests.e2e.sessions import own_python

OUTCOMES = {
    "good": "resolved",
    "new_test": "resolved",
    # Tests are the task's: a patch to nothing else changes nothing.
    "weakens_test": "empty",
    "deletes_test": "empty",
    "wrong": "unresolved",
    "bad": "regressed",
    "exits_early": "tampered",
    "empty": "empty",
    "prose": "malformed",
    "truncated": "malformed",
    "conflict": "conflict",
    "escape": "refused",
    "dot_git": "refused",
}


def calc(tmp_path: Path, **more: Any) -> Task:
    """Calc's bug as a task: what the good patch turns from failed to passed."""
    loaded = fixture_repos.load("calc")
    without = loaded.patch_run("none", "9.0.2")["outcomes"]
    right = loaded.patch_run("good", "9.0.2")["outcomes"]
    fields: dict[str, Any] = {
        "id": "calc-1",
        "source": "here",
        "repo": str(loaded.make(tmp_path)),
        "base": "HEAD",
        "restore": ("tests/*",),
        "env": {"PYTHONPATH": "src"},
        "fail_to_pass": tuple(n for n, o in right.items() if without.get(n) != o),
        "pass_to_pass": tuple(n for n, o in right.items() if without.get(n) == o),
    }
    return Task(**{**fields, **more})


def patch(name: str) -> Candidate:
    content = fixture_repos.load("calc").patches[f"{name}.patch"].read_bytes()
    return Candidate(task_id="calc-1", name=name, patch=content, source=name)


def grade_all(
    task: Task, candidates: list[Candidate], **settings: Any
) -> tuple[list[Verdict], list[Verdict]]:
    told: list[Verdict] = []

    async def main() -> list[Verdict]:
        on_verdict: Callable[[Task, Verdict], None] = lambda task, verdict: told.append(verdict)  # noqa: E731
        async with Grader(venv=own_python(), on_verdict=on_verdict, **settings) as grader:
            return await asyncio.gather(*(grader.grade(task, one) for one in candidates))

    return asyncio.run(main()), told


def test_every_kind_of_patch_gets_its_own_verdict(tmp_path: Path) -> None:
    task = calc(tmp_path)
    verdicts, told = grade_all(task, [patch(name) for name in OUTCOMES], workers=2)
    assert {v.candidate: v.outcome for v in verdicts} == OUTCOMES
    assert len(told) == len(verdicts)
    for verdict in verdicts:
        assert (verdict.resolved, verdict.scored) == (verdict.outcome == "resolved", True)
    good = verdicts[0]
    assert all(test.passed for test in (*good.fail_to_pass, *good.pass_to_pass))
    assert good.record["pytest"] == "9.0.2"
    assert "pytest==9.0.2" in good.record["packages"]
    assert {"create", "upload", "collect", "run", "close"} <= set(good.record["phases"])
    assert sum(good.record["phases"].values()) <= good.record["seconds"] + 0.1
    by_name = {verdict.candidate: verdict for verdict in verdicts}
    # What a candidate adds is shown and not scored.
    assert set(by_name["new_test"].record["own_results"].values()) == {"passed"}
    assert by_name["good"].record["own_results"] == {}


def test_the_same_tree_runs_once_and_what_is_known_costs_nothing(tmp_path: Path) -> None:
    task = calc(tmp_path)
    twins = [replace(patch("good"), name=name) for name in ("a", "b", "c")]
    verdicts, _ = grade_all(task, twins)
    assert [v.outcome for v in verdicts] == ["resolved"] * 3
    assert len({v.record["sandboxes"][0] for v in verdicts}) == 1
    known = {v.record["key"]: v for v in verdicts}
    again, _ = grade_all(task, twins, known=known.get, budget=Budget(seconds=0.0))
    assert [(v.outcome, v.record["cached"]) for v in again] == [("resolved", True)] * 3
    # Another task with the same repository has other verdicts.
    other = replace(task, fail_to_pass=("tests/test_calc.py::test_missing",))
    [verdict], _ = grade_all(other, twins[:1], known=known.get)
    assert verdict.outcome == "regressed" or verdict.outcome == "unresolved"


CONFIGURED = b"""\
--- a/src/calc/arithmetic.py
+++ b/src/calc/arithmetic.py
@@ -19,10 +19,11 @@ def mul(a: Number, b: Number) -> Number:

 def div(a: Number, b: Number) -> Number:
     \"\"\"The quotient: an int where the division leaves no remainder, else a float.\"\"\"
-    result = a / b
-    if result == int(result):
-        return int(result)
-    return result
+    import os
+
+    if os.environ.get("CALC") == "exact" and a % b == 0:
+        return int(a // b)
+    return a / b


 def power(base: Number, exponent: Number) -> Number:
--- /dev/null
+++ b/conftest.py
@@ -0,0 +1,3 @@
+import os
+
+os.environ["CALC"] = "exact"
"""


def test_who_passes_only_with_their_own_configuration_is_told(tmp_path: Path) -> None:
    task = calc(tmp_path)
    candidate = Candidate(task_id="calc-1", name="configured", patch=CONFIGURED, source="here")
    without = CONFIGURED.replace(b'["CALC"] = "exact"', b'["CALC"] = "rough"')
    useless = replace(candidate, name="useless", patch=without)
    (verdict, other), _ = grade_all(task, [candidate, useless])
    assert (verdict.outcome, other.outcome) == ("unresolved", "unresolved")
    assert verdict.notes == ("passes only with its own configuration: conftest.py",)
    assert other.notes == ()
    for one, resolved in ((verdict, True), (other, False)):
        found = one.record["own_configuration"]
        assert (found["files"], found["resolved"]) == (["conftest.py"], resolved)
    assert "only with its own configuration" in words.told(verdict)
    # What is known costs nothing, and is told again.
    known = {verdict.record["key"]: verdict}
    again, _ = grade_all(task, [candidate], known=known.get, budget=Budget(seconds=0.0))
    assert again[0].notes == verdict.notes


def test_no_sandbox_beyond_the_budget(tmp_path: Path) -> None:
    with pytest.raises(OverBudget, match="--sandbox-budget"):
        grade_all(calc(tmp_path), [patch("good")], budget=Budget(seconds=0.0))


def test_tests_of_the_task_are_put_in_place(tmp_path: Path) -> None:
    """Over a file of the same name that the candidate brought."""
    loaded = fixture_repos.load("calc")
    test_patch = (
        "diff --git a/tests/test_hidden.py b/tests/test_hidden.py\nnew file mode 100644\n"
        "--- /dev/null\n+++ b/tests/test_hidden.py\n@@ -0,0 +1,5 @@\n"
        "+from calc import div\n+\n+\n+def test_exact():\n"
        "+    assert div(3 * 10**18 + 3, 3) == 10**18 + 1\n"
    )
    mine = test_patch.replace("    assert div(3 * 10**18 + 3, 3) == 10**18 + 1", "    pass")
    good = loaded.patches["good.patch"].read_text()
    task = calc(
        tmp_path,
        test_patch=test_patch.encode(),
        fail_to_pass=("tests/test_hidden.py::test_exact",),
        pass_to_pass=(),
    )
    candidates = [
        Candidate(task_id="calc-1", name=name, patch=text.encode(), source="")
        for name, text in (("both", good + mine), ("only", mine), ("good", good))
    ]
    verdicts, _ = grade_all(task, candidates)
    outcomes = {v.candidate: v.outcome for v in verdicts}
    assert outcomes == {"both": "resolved", "only": "empty", "good": "resolved"}


def test_a_mistake_of_the_task_is_not_held_against_a_candidate(tmp_path: Path) -> None:
    task = calc(tmp_path)
    for args, said in (
        (("tests/nope.py",), "tests/nope.py"),
        (("--nosuchoption",), "--nosuchoption"),
        (("-k", "nothing_has_this_name"), ""),
    ):
        [verdict], _ = grade_all(replace(task, args=args), [patch("good")])
        assert (verdict.outcome, verdict.scored) == ("base_broken", False), verdict
        assert "without a candidate either" in verdict.reason
        assert said in verdict.reason


NEEDS_NEW = """\
diff --git a/tests/test_new.py b/tests/test_new.py
new file mode 100644
--- /dev/null
+++ b/tests/test_new.py
@@ -0,0 +1,5 @@
+from calc import new
+
+
+def test_new():
+    assert new() == 1
"""


def test_a_base_that_needs_the_candidate_is_not_broken(tmp_path: Path) -> None:
    """Its tests import what only a right candidate brings; what ruins it is the candidate's."""
    task = calc(
        tmp_path, test_patch=NEEDS_NEW.encode(), args=("tests/test_new.py",),
        fail_to_pass=("tests/test_new.py::test_new",), pass_to_pass=("tests/test_new.py::test_b",),
    )  # fmt: skip
    wrong = patch("good")
    [verdict], _ = grade_all(task, [wrong])
    assert verdict.outcome == "collection_error"
    # With the gold patch nothing is collected either: nobody could.
    [verdict], _ = grade_all(replace(task, gold=wrong.patch), [patch("bad")])
    assert verdict.outcome == "base_broken"


def test_what_cannot_be_graded_is_no_score(tmp_path: Path) -> None:
    task = calc(tmp_path)
    for broken, outcome in (
        (replace(task, unsupported="no pytest"), "unsupported"),
        (replace(task, base="no-such-commit"), "base_broken"),
        (replace(task, repo=str(tmp_path / "none")), "base_broken"),
        (replace(task, test_patch=b"nonsense"), "base_broken"),
        (replace(task, build=("exit 3",)), "base_broken"),
    ):
        [verdict], _ = grade_all(broken, [patch("good")])
        assert (verdict.outcome, verdict.scored, verdict.resolved) == (outcome, False, False)
