"""Grade mode as its users run it: tasks, predictions, one item for each pair."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from junitparser import JUnitXml, Properties, TestCase, TestSuite

from tests import fixture_repos
from tests.e2e.sessions import own_python
from tests.interpreters import environment

PATCHES = ("good", "wrong", "prose", "bad")


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    """A folder with a task, another one, a broken one, and predictions for the first."""
    loaded = fixture_repos.load("calc")
    loaded.make(tmp_path)
    without = loaded.patch_run("none", "9.0.2")["outcomes"]
    right = loaded.patch_run("good", "9.0.2")["outcomes"]
    lines = [
        "[task]", 'repo = "../calc"', 'base = "HEAD"',
        "[environment]", 'env = {PYTHONPATH = "src"}',
        "[tests]", 'restore = ["tests/*"]',
        f"fail_to_pass = {json.dumps([n for n, o in right.items() if without.get(n) != o])}",
        f"pass_to_pass = {json.dumps([n for n, o in right.items() if without.get(n) == o])}",
    ]  # fmt: skip
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "calc-1.toml").write_text("\n".join(lines))
    (tmp_path / "tasks" / "broken.toml").write_text("[task]\nrepo = 3\n")
    (tmp_path / "tasks" / "alone.toml").write_text("\n".join(lines))
    rows = [
        {"instance_id": "calc-1", "model_name_or_path": name,
         "model_patch": loaded.patches[f"{name}.patch"].read_text()}
        for name in PATCHES
    ]  # fmt: skip
    text = "\n".join(json.dumps(row) for row in rows)
    (tmp_path / "preds.jsonl").write_text(text + '\n{"instance_id": 3}\n')
    return tmp_path


def grade(
    stage: Path, *args: str, asked: str = "tasks/", **env: str
) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "GITHUB"))}
    kept |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **env}
    kept.setdefault("PYTEST_PLUGINS", "pytest_sandbox.plugin")
    command = [
        sys.executable, "-m", "pytest", asked, "--sandbox=local",
        f"--sandbox-venv={own_python()}", "--sandbox-predictions", "preds.jsonl", "-rA", *args,
    ]  # fmt: skip
    return subprocess.run(command, cwd=stage, env=kept, capture_output=True, text=True, timeout=200)


def results(stage: Path) -> dict[str, Any]:
    found = {}
    for path in sorted((stage / "sandbox-results").glob("results*.jsonl")):
        for line in path.read_text().splitlines():
            entry = json.loads(line)
            found[entry["candidate"]] = entry
    return found


def test_a_table_of_verdicts(stage: Path) -> None:
    done = grade(stage)
    assert done.returncode == 1, done.stdout + done.stderr
    out = done.stdout
    assert "PASSED tasks/calc-1.toml::calc-1[good]" in out
    assert "FAILED tasks/calc-1.toml::calc-1[wrong]" in out
    assert "FAILED tasks/calc-1.toml::calc-1[prose]" in out
    assert "tests/test_calc.py::test_div" in out  # which expected tests are not right
    assert "resolved 1 of 4" in out
    assert "1 without a prediction" in out
    # What cannot be read is said, by file and line, and the rest is graded.
    assert "preds.jsonl:5" in out
    assert "broken.toml" in out
    outcomes = {name: entry["outcome"] for name, entry in results(stage).items()}
    assert outcomes == {
        "good": "resolved",
        "wrong": "unresolved",
        "prose": "malformed",
        "bad": "regressed",
    }
    for name in ("ctrf-report.json", "summary.md"):
        assert (stage / "sandbox-results" / name).stat().st_size > 100
    assert done.stderr == ""


def test_again_costs_nothing_and_selection_is_pytest_s(stage: Path) -> None:
    assert grade(stage, "-k", "good", "--junitxml=out.xml").returncode in (0, 1)
    assert set(results(stage)) == {"good"}
    (suite,) = JUnitXml.fromfile(str(stage / "out.xml"))
    assert isinstance(suite, TestSuite)
    (case,) = (case for case in suite if case.name == "calc-1[good]")
    assert isinstance(case, TestCase)
    assert case.is_passed
    found = case.child(Properties)  # type: ignore[no-untyped-call]
    told = {one.name: one.value for one in found}
    assert told["outcome"] == "resolved"
    before = (stage / "sandbox-results" / "results.jsonl").read_text()
    again = grade(stage, "-k", "good", "--sandbox-budget=1s")
    assert "resolved 1 of 1" in again.stdout, again.stdout + again.stderr
    lines = (stage / "sandbox-results" / "results.jsonl").read_text().removeprefix(before)
    assert json.loads(lines)["record"]["cached"] is True


def more(stage: Path, task: str, candidate: str) -> None:
    """Another prediction, which does not apply."""
    row = {"instance_id": task, "model_name_or_path": candidate, "model_patch": "no patch"}
    with (stage / "preds.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")


def test_only_what_is_named_is_asked_for(stage: Path) -> None:
    more(stage, "calc-17", "good")
    done = grade(stage, "-k", "prose", asked="tasks/calc-1.toml")
    assert "resolved 0 of 1" in done.stdout, done.stdout + done.stderr
    # Others in its folder are not looked into.
    assert "without a prediction" not in done.stdout
    assert "broken.toml" not in done.stdout
    told = "sandbox: predictions for 1 tasks that are not among the arguments, such as calc-17"
    assert told in done.stdout


def test_predictions_for_other_tasks_are_told_where_nothing_is_graded(stage: Path) -> None:
    (stage / "preds.jsonl").write_text("")
    more(stage, "calc-17", "good")
    done = grade(stage)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "such as calc-17" in done.stdout
    assert grade(stage, asked="tasks/calc-1.toml").returncode == pytest.ExitCode.NO_TESTS_COLLECTED


def test_processes_report_this_session_s_candidates(stage: Path) -> None:
    more(stage, "calc-1", "prose-2")
    shared = {"PYTEST_PLUGINS": "pytest_sandbox.plugin,xdist.plugin"}
    both = grade(stage, "-k", "prose", "-n1", **shared)
    assert "resolved 0 of 2" in both.stdout, both.stdout + both.stderr
    one = grade(stage, "-k", "prose-2", "-n1", **shared)
    assert "resolved 0 of 1" in one.stdout, one.stdout + one.stderr
    assert "prose-2" in (stage / "sandbox-results" / "summary.md").read_text()


_READER = """
import json, sys
from swebench.harness.reporting import make_run_report
model, text = sys.argv[1:]
predictions = json.loads(text)
make_run_report(predictions, [{"instance_id": id} for id in ("alone", "calc-1")], "pytest-sandbox",
                report_dir="theirs")
"""


@pytest.mark.soak
def test_swebench_reads_the_same_from_the_instances_reports(stage: Path) -> None:
    """Its harness makes the run report out of ours of the instances; it equals our run report."""
    assert grade(stage).returncode == 1
    folder = stage / "sandbox-results"
    python = environment("3.11", ("swebench==5.0.2",))
    for line in (stage / "preds.jsonl").read_text().splitlines()[: len(PATCHES)]:
        row = json.loads(line)
        model = row["model_name_or_path"]
        subprocess.run(
            [python, "-c", _READER, model, json.dumps({row["instance_id"]: row})],
            cwd=folder, check=True, timeout=120,
        )  # fmt: skip
        name = f"{model}.pytest-sandbox.json"
        theirs = json.loads((folder / "theirs" / name).read_text())
        # What kind of failure it was, the harness looks for in logs of its own.
        for key in ("infra_failure", "ambiguous_failure"):
            del theirs[f"{key}_ids"], theirs[f"{key}_instances"]
        del theirs["failure_reasons"]
        ours = json.loads((folder / name).read_text())
        assert {key: ours[key] for key in theirs} == theirs


def test_with_xdist(stage: Path) -> None:
    done = grade(stage, "-n2", PYTEST_PLUGINS="pytest_sandbox.plugin,xdist.plugin")
    assert done.returncode == 1, done.stdout + done.stderr
    assert set(results(stage)) == set(PATCHES)
    assert results(stage)["good"]["outcome"] == "resolved"
    assert "resolved 1 of 4" in done.stdout
    assert "wrong" in (stage / "sandbox-results" / "summary.md").read_text()


def test_under_github_actions(stage: Path, tmp_path: Path) -> None:
    page = tmp_path / "summary"
    done = grade(stage, GITHUB_ACTIONS="true", GITHUB_STEP_SUMMARY=str(page))
    assert [line for line in done.stdout.splitlines() if line.startswith("::error")]
    assert "calc-1" in page.read_text()


def reports(folder: Path) -> dict[str, Any]:
    """What a session says of its candidates, without times and sandboxes."""
    ctrf = json.loads((folder / "ctrf-report.json").read_text())["results"]
    found: dict[str, Any] = {
        "ctrf": [(test["name"], test["status"], test.get("message")) for test in ctrf["tests"]],
        "counts": {name: ctrf["summary"][name] for name in ("tests", "passed", "failed", "other")},
    }
    for path in sorted(folder.rglob("*.json")):
        if path.name != "ctrf-report.json":
            found[str(path.relative_to(folder))] = json.loads(path.read_text())
    return found


def test_shares_put_together_are_one_session(stage: Path) -> None:
    whole = grade(stage, "--sandbox-results=whole", "--junitxml=whole.xml")
    for share in ("1/3", "2/3", "3/3"):
        grade(stage, f"--sandbox-shard={share}", f"--sandbox-results=all/{share[0]}")
    merged = grade(
        stage, "--sandbox-merge=all", "--sandbox-results=merged", "--junitxml=merged.xml",
        "--sandbox=host",
    )  # fmt: skip
    assert merged.returncode == whole.returncode == 1
    assert reports(stage / "merged") == reports(stage / "whole")
    outcomes = r"^(?:PASSED|FAILED) .*$|^resolved .*$"
    said = [re.findall(outcomes, done.stdout, re.MULTILINE) for done in (whole, merged)]
    assert said[0] == said[1]
    assert len(said[0]) > len(PATCHES)
    # Nothing was run for it, and a shard that is not there is no score.
    assert grade(stage, "--sandbox-merge=none").returncode == 4
    shutil.rmtree(stage / "all" / "2")
    less = grade(stage, "--sandbox-merge=all", "--sandbox-results=less")
    assert less.returncode == 31
    assert "no result for it in" in less.stdout


def test_tasks_that_are_alike_in_their_names_or_in_all_else(stage: Path) -> None:
    task = stage / "tasks" / "calc-1.toml"
    text = task.read_text()
    asked = text.replace('fail_to_pass = ["', 'fail_to_pass = ["tests/test_calc.py::test_nope", "')
    assert asked != text
    named = text.replace("[task]", '[task]\nid = "calc-2"')
    for name, content in (("more/calc-1", asked), ("calc-2", named)):
        path = stage / "tasks" / f"{name}.toml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(content.replace("../calc", "../../calc" if "/" in name else "../calc"))
    row = json.loads((stage / "preds.jsonl").read_text().splitlines()[0])
    rows = [row | {"instance_id": name} for name in ("calc-1", "calc-2")]
    (stage / "preds.jsonl").write_text("\n".join(map(json.dumps, rows)))
    done = grade(stage)
    assert "PASSED tasks/calc-1.toml::calc-1[good]" in done.stdout, done.stdout + done.stderr
    assert "PASSED tasks/calc-2.toml::calc-2[good]" in done.stdout
    assert "FAILED tasks/more/calc-1.toml::calc-1[good]" in done.stdout
    lines = (stage / "sandbox-results" / "results.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["task_id"] for line in lines) == ["calc-1", "calc-1", "calc-2"]


SHUFFLE = """
def pytest_collection_modifyitems(items):
    items.reverse()
"""


def test_shares_are_of_what_was_collected(stage: Path) -> None:
    (stage / "shuffle.py").write_text(SHUFFLE)
    seen: list[str] = []
    for share, plugins in (("1/2", []), ("2/2", ["-p", "shuffle"])):
        args = ["--collect-only", "-q", f"--sandbox-shard={share}", *plugins]
        out = grade(stage, *args, PYTHONPATH=str(stage)).stdout
        seen += re.findall(r"^tasks/\S+::\S+\[\w+\]$", out, re.MULTILINE)
    assert sorted(seen) == sorted(f"tasks/calc-1.toml::calc-1[{name}]" for name in PATCHES)


def test_results_of_another_patch_are_none(stage: Path) -> None:
    grade(stage, "-k", "good", "--sandbox-results=all/1")
    text = (stage / "preds.jsonl").read_text().splitlines()
    row = json.loads(text[0])
    row["model_patch"] += "\n"
    (stage / "preds.jsonl").write_text(json.dumps(row) + "\n")
    done = grade(stage, "-k", "good", "--sandbox-merge=all", "--sandbox-results=merged")
    assert done.returncode == 31
    assert "of another task or patch" in done.stdout


def test_what_is_under_way_ends_with_the_session(stage: Path) -> None:
    """After -x, or Ctrl-C."""
    hangs = (
        "diff --git a/src/calc/__init__.py b/src/calc/__init__.py\n"
        "--- a/src/calc/__init__.py\n+++ b/src/calc/__init__.py\n@@ -1,2 +1,3 @@\n"
        '+import time; time.sleep(600)\n """A small exact calculator."""\n \n'
    )
    loaded = fixture_repos.load("calc")
    texts = {"wrong": loaded.patches["wrong.patch"].read_text(), "hangs": hangs}
    rows = [
        {"instance_id": "calc-1", "model_name_or_path": name, "model_patch": text}
        for name, text in texts.items()
    ]
    (stage / "preds.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    (stage / "tasks" / "broken.toml").unlink()
    started = time.monotonic()
    done = grade(stage, "-x", "--sandbox-timeout=10m", XDG_STATE_HOME=str(stage / "state"))
    assert time.monotonic() - started < 120
    assert "stopping after 1 failures" in done.stdout, done.stdout + done.stderr
    assert set(results(stage)) == {"wrong"}
    # Nothing is left in the ledger of sandboxes.
    assert [path for path in (stage / "state").rglob("*") if path.suffix == ".json"] == []


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--sandbox-predictions=none.jsonl"], "none.jsonl"),
        (["--sandbox-budget=lots"], "an amount such as 20USD"),
        (["--sandbox-budget=5"], "'5' is not an amount such as 20USD, or a time such as 90s"),
        (["--sandbox=nowhere"], "there is no provider 'nowhere'"),
        (["--sandbox-pytest-args='"], "no closing quotation"),
        (["--sandbox-keep=failed"], "--sandbox-keep leaves the sandbox of one run"),
        (["--sandbox-artifact=*.xml"], "--sandbox-artifact brings files back from one run"),
        (["--sandbox-artifact-dir=new"], "in --sandbox-results"),
        (["--sandbox-split=2"], "at the same time by --sandbox-workers"),
        (["--sandbox-shard=9/8"], "a share such as 3/8"),
    ],
)
def test_what_cannot_be_is_refused_at_once(stage: Path, args: list[str], said: str) -> None:
    if args[0].startswith("--sandbox-predictions"):
        (stage / "preds.jsonl").write_text("")
    done = grade(stage, *args)
    assert done.returncode == 4
    assert said in done.stdout + done.stderr
    assert not (stage / "sandbox-results").exists()


@pytest.mark.parametrize("name", ["preds.jsonl", "/proc/none", "preds.jsonl/below"])
def test_results_that_cannot_be_kept_are_refused_at_once(stage: Path, name: str) -> None:
    done = grade(stage, f"--sandbox-results={name}", "--sandbox=e2b", E2B_API_KEY="")
    assert done.returncode == 4, done.stdout + done.stderr
    assert "--sandbox-results" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_a_look_at_what_there_is_makes_nothing(stage: Path) -> None:
    assert grade(stage, "--collect-only").returncode == 0
    assert not (stage / "sandbox-results").exists()


@pytest.mark.parametrize("processes", [(), ("-n2",)])
def test_who_cannot_grade_says_so_in_a_sentence(stage: Path, processes: tuple[str, ...]) -> None:
    plugins = "pytest_sandbox.plugin,xdist.plugin"
    done = grade(stage, "--sandbox=e2b", *processes, E2B_API_KEY="", PYTEST_PLUGINS=plugins)
    assert done.returncode == 30, done.stdout + done.stderr
    assert re.search("^!+ .*E2B_API_KEY.* !+$", done.stdout, re.MULTILINE)
    assert "INTERNALERROR" not in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert not results(stage)


def test_beyond_the_budget_is_no_score_and_runs_next_time(stage: Path) -> None:
    done = grade(stage, "--sandbox-budget=0.1s", "--sandbox-workers=1")
    assert done.returncode == 31, done.stdout + done.stderr
    outcomes = {name: entry["outcome"] for name, entry in results(stage).items()}
    beyond = [name for name, outcome in outcomes.items() if outcome == "over_budget"]
    assert len(outcomes) == len(PATCHES)
    assert outcomes["prose"] == "malformed"
    assert 2 <= len(beyond) <= 3
    assert f"of 4 ({len(beyond)} not scored)" in done.stdout
    assert "raise --sandbox-budget" in done.stdout.replace("Raise", "raise")
    # Sentences, and no line of this package's source.
    assert "session.py" not in done.stdout
    assert "def " not in done.stdout
    again = grade(stage)
    assert again.returncode == 1, again.stdout + again.stderr
    outcomes = {name: entry["outcome"] for name, entry in results(stage).items()}
    assert "over_budget" not in outcomes.values()
    assert outcomes["good"] == "resolved"


OWN = """
import pytest

@pytest.mark.parametrize("name", ["good", "wrong"])
def test_candidate(sandbox, name):
    verdict = sandbox.grade("tasks/calc-1.toml", f"{name}.patch")
    assert verdict.scored
    assert verdict.resolved
"""


def test_a_verdict_in_a_test_of_one_s_own(stage: Path) -> None:
    (stage / "test_own.py").write_text(OWN)
    for name in ("good", "wrong"):
        content = fixture_repos.load("calc").patches[f"{name}.patch"].read_bytes()
        (stage / f"{name}.patch").write_bytes(content)
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    kept |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": "pytest_sandbox.plugin"}
    command = [sys.executable, "-m", "pytest", "test_own.py", f"--sandbox-venv={own_python()}"]
    done = subprocess.run(command, cwd=stage, env=kept, capture_output=True, text=True, timeout=200)
    assert "1 failed, 1 passed" in done.stdout, done.stdout + done.stderr
    assert "FAIL_TO_PASS: " in done.stdout
    assert "failed  tests/test_calc.py::test_div" in done.stdout
