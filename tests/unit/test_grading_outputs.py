"""What grading leaves behind, read back by the formats' own readers where there are any."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from html import unescape
from multiprocessing import get_context
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from pytest_sandbox.errors import BadInput
from pytest_sandbox.grading.model import Outcome, TestVerdict, Verdict
from pytest_sandbox.grading.outputs import Results, ctrf, github, markdown, swebench_report
from pytest_sandbox.grading.outputs.results import NAME, Entry, Writer, by_key, latest, read, record
from tests.interpreters import CACHE

OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
#: What a patch's author would like some reader to obey.
HOSTILE = "\n::error::pwned\r\x1b[2J`<img src=x onerror=alert(1)>`|[a](http://evil) @all $x$ \u202e"


def one_test(name: str, *, passed: bool = True, rule: str = "") -> TestVerdict:
    status: Any = "passed" if passed else "failed"
    return TestVerdict(expected=name, nodeids=(name,), status=status, passed=passed, rule=rule)


def verdict(
    outcome: Outcome = "resolved",
    task: str = "shop__shop-1",
    candidate: str = "model/a",
    **more: Any,
) -> Verdict:
    reason = "" if outcome == "resolved" else f"it is {outcome}"
    given: dict[str, Any] = {
        "reason": reason,
        "record": {"key": f"{task} {outcome}", "seconds": 1.5},
    }
    if swebench_report.completed(Verdict(task_id="", candidate="", outcome=outcome)):
        given["fail_to_pass"] = (one_test("t.py::test_a", passed=outcome == "resolved"),)
        given["pass_to_pass"] = (one_test("t.py::test_b[x", rule="cut at a space"),)
    return Verdict(task_id=task, candidate=candidate, outcome=outcome, **{**given, **more})


ONE_OF_EACH = [verdict(outcome, f"shop__shop-{n}") for n, outcome in enumerate(OUTCOMES)]


# ---------------------------------------------------------------- results.jsonl


def test_verdicts_come_back_as_they_were(tmp_path: Path) -> None:
    hostile = verdict(
        "unresolved", candidate=HOSTILE, reason=HOSTILE + "\u2028\ud800", other={HOSTILE: "passed"},
        applied="fuzz", evidence="log", record={"cost": 0.25, "sandboxes": ["a"], "n": {"x": None}},
    )  # fmt: skip
    with Writer(tmp_path / "sub" / NAME) as writer:
        for one in (*ONE_OF_EACH, hostile):
            writer.add(one)
    data = (tmp_path / "sub" / NAME).read_bytes()
    assert data.isascii()
    assert len(data.splitlines()) == len(ONE_OF_EACH) + 1
    entries, skipped = read(tmp_path / "sub" / NAME)
    assert [entry.verdict for entry in entries] == [*ONE_OF_EACH, hostile]
    assert skipped == []
    assert all(entry.time.endswith("+00:00") for entry in entries)


def test_what_json_cannot_hold_is_kept_as_text(tmp_path: Path) -> None:
    odd = verdict(record={"path": Path("/a"), "cost": float("nan"), "files": ("a", {"b"})})
    with Writer(tmp_path / NAME) as writer:
        writer.add(odd)
    (entry,) = read(tmp_path / NAME)[0]
    assert entry.verdict.record == {"path": "/a", "cost": None, "files": ["a", ["b"]]}


def test_a_torn_line_costs_only_itself(tmp_path: Path) -> None:
    """At whatever byte the writer was killed, a reader and the next writer go on."""
    path = tmp_path / NAME
    line = record(verdict("unresolved"), "then")
    for length in range(1, len(line)):
        path.write_bytes(line + line[:length])
        entries, skipped = read(path)
        # All but the newline is all of it.
        whole = length == len(line) - 1
        assert len(entries) == (2 if whole else 1)
        assert [bad.line for bad in skipped] == ([] if whole else [2])
        if length % 50 == 0 or whole:
            with Writer(path) as writer:
                writer.add(verdict())
            assert [entry.verdict for entry in read(path)[0]][-1] == verdict()
            assert len(read(path)[0]) == len(entries) + 1


@pytest.mark.parametrize(
    "line",
    [
        b"[]", b"1", b"nonsense", b"\xff\xfe", b"{}", b'{"schema": 2, "task_id": "a"}',
        b'{"schema": 1, "task_id": "a", "candidate": "b", "outcome": "won"}',
        b'{"schema": 1, "task_id": 1, "candidate": "b", "outcome": "resolved"}',
        b"[" * 100_000,
    ],
)  # fmt: skip
def test_lines_that_are_no_verdict_are_named_and_skipped(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / NAME
    path.write_bytes(line + b"\n\n" + record(verdict(), "then"))
    entries, (skipped,) = read(path)
    assert [entry.verdict for entry in entries] == [verdict()]
    assert (skipped.path, skipped.line) == (path, 1)
    assert skipped.why


def test_files_that_are_not_there_or_no_files(tmp_path: Path) -> None:
    assert read(tmp_path / NAME) == ([], [])
    with pytest.raises(BadInput, match="cannot be read"):
        read(tmp_path)


def _add(path: Path, name: str) -> None:
    with Writer(path) as writer:
        for number in range(50):
            writer.add(verdict(task=f"t-{number}", candidate=name, reason="r" * 3000))


def test_processes_that_share_a_file_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / NAME
    context = get_context("spawn")
    processes = [context.Process(target=_add, args=(path, name)) for name in ("a", "b")]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    entries, skipped = read(path)
    assert skipped == []
    found = {(entry.verdict.task_id, entry.verdict.candidate) for entry in entries}
    assert len(entries) == len(found) == 100


def test_which_of_several_verdicts_counts() -> None:
    later = verdict("unresolved", record={"key": "k"})
    entries = [
        Entry(verdict(candidate="b"), "1"), Entry(verdict(), "2"), Entry(later, "3"),
        Entry(verdict("infra_error", "lost", record={"key": "k"}), "4"),
        Entry(verdict("empty", "no key", record={}), "5"),
    ]  # fmt: skip
    assert [(v.task_id, v.candidate, v.outcome) for v in latest(entries)] == [
        ("lost", "model/a", "infra_error"),
        ("no key", "model/a", "empty"),
        ("shop__shop-1", "b", "resolved"),
        ("shop__shop-1", "model/a", "unresolved"),
    ]
    # Trouble of the infrastructure is no verdict to use again.
    assert by_key(entries)["k"] == later
    assert set(by_key(entries)) == {"k", "shop__shop-1 resolved"}


# ---------------------------------------------------------------- SWE-bench

_SWEBENCH = "5.0.2"
#: Its packages import much on the way (datasets, ghapi, ...) that reading reports does not need.
_READER = """
import json, sys, types
for name in ("swebench", "swebench.harness", "swebench.image_builder"):
    module = sys.modules[name] = types.ModuleType(name)
    module.__path__ = [f"{sys.path[0]}/{name.replace('.', '/')}"]
from swebench.harness.grading import get_resolution_status
from swebench.harness.reporting import make_run_report
predictions, ids, run_id, reports = json.load(sys.stdin)
path = make_run_report(predictions, [{"instance_id": id} for id in ids], run_id)
found = {"run": json.loads(path.read_text()), "path": str(path), "status": {}}
for report in reports:
    for id, content in json.load(open(report)).items():
        found["status"][id] = get_resolution_status(content["tests_status"])
print("\\n" + json.dumps(found))
"""


@functools.cache
def swebench_package() -> Path:
    """The harness itself and the one thing it imports for this, without what else it requires."""
    home = CACHE / f"swebench-{_SWEBENCH}"
    if not home.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.mkdtemp(dir=CACHE, prefix=".new-")
        try:
            command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target"]
            packages = [f"swebench=={_SWEBENCH}", "unidiff==1.0.0"]
            subprocess.run([*command, f"{scratch}/it", *packages], check=True, timeout=300)
            Path(scratch, "it").rename(home)
        except OSError:
            if not home.exists():  # else somebody else was faster
                raise
        finally:
            shutil.rmtree(scratch)
    return home


def test_swebench_reads_the_reports(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.finish(ONE_OF_EACH, ["shop__shop-99"], environ={}, run_id="night-1")
    ours = json.loads((tmp_path / "model__a.night-1.json").read_text())
    (tmp_path / "model__a.night-1.json").unlink()
    predictions = {
        v.task_id: {
            "instance_id": v.task_id,
            "model_name_or_path": v.candidate,
            "model_patch": "" if v.outcome == "empty" else "diff",
        }
        for v in ONE_OF_EACH
    }
    reports = sorted(map(str, tmp_path.glob("logs/run_evaluation/night-1/model__a/*/report.json")))
    ids = [*predictions, "shop__shop-99"]
    told = subprocess.run(
        [sys.executable, "-c", _READER],
        input=json.dumps([predictions, ids, "night-1", reports]),
        env={**os.environ, "PYTHONPATH": str(swebench_package()), "PYTHONSAFEPATH": "1"},
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    theirs = json.loads(told.stdout.splitlines()[-1])
    assert theirs["path"] == "model__a.night-1.json"
    assert set(ours) == set(theirs["run"])
    # The harness finds out why something failed from logs that only it writes.
    by_logs = re.compile("infra_failure|ambiguous_failure|failure_reasons")
    for field, value in theirs["run"].items():
        if not by_logs.match(field):
            assert ours[field] == value, field
    assert ours["resolved_ids"] == ["shop__shop-0"]
    assert set(ours["infra_failure_ids"]) <= set(ours["error_ids"])
    assert set(ours["failure_reasons"].values()) == {
        "infra_error", "over_budget", "timeout", "crashed", "no_tests", "flaky",
    }  # fmt: skip
    full = {id for id, status in theirs["status"].items() if status == "RESOLVED_FULL"}
    assert full == set(ours["resolved_ids"])


def test_every_instance_is_somewhere() -> None:
    report = swebench_report.run_report(ONE_OF_EACH, ["shop__shop-99"])
    groups = ("completed", "empty_patch", "error", "incomplete")
    everywhere = [id for group in groups for id in report[f"{group}_ids"]]
    assert len(everywhere) == len(set(everywhere)) == report["total_instances"]
    assert report["total_instances"] == len(ONE_OF_EACH) + 1
    for name, number in report.items():
        if name.endswith("_instances") and name not in ("total_instances", "submitted_instances"):
            assert number == len(report[name.replace("_instances", "_ids")])
    assert sorted(report["resolved_ids"] + report["unresolved_ids"]) == report["completed_ids"]


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_an_instance_report(outcome: Outcome) -> None:
    one = verdict(outcome)
    (report,) = swebench_report.instance_report(one).values()
    assert report["resolved"] == (outcome == "resolved")
    assert report["infra_failure"] == (outcome in ("infra_error", "over_budget"))
    assert report["patch_is_None"] == (not report["patch_exists"]) == (outcome == "empty")
    assert report["patch_successfully_applied"] == ("tests_status" in report)
    if "tests_status" in report:
        status = report["tests_status"]
        assert set(status) == {"FAIL_TO_PASS", "PASS_TO_PASS", "FAIL_TO_FAIL", "PASS_TO_FAIL"}
        assert status["PASS_TO_PASS"] == {"success": ["t.py::test_b[x"], "failure": []}


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../../etc", "/a", "C:\\x", HOSTILE, "é" * 400, "\0"]
)
def test_names_stay_in_the_folder(tmp_path: Path, name: str) -> None:
    Results(tmp_path).finish([verdict(task=name, candidate=name)], environ={}, run_id=name)
    assert not (tmp_path / ".." / "etc").exists()
    reports = list(tmp_path.glob("logs/run_evaluation/*/*/*/report.json"))
    assert len(reports) == 1
    assert len(list(tmp_path.glob("*.json"))) == 2


def test_long_names_stay_apart() -> None:
    assert swebench_report.part("a" * 300 + "b") != swebench_report.part("a" * 300 + "c")


# ---------------------------------------------------------------- CTRF

#: What the published specification (ctrf.io) demands of the parts that we write.
_INTEGER = {"type": "integer"}
_TEXT = {"type": "string"}
_NAME = {"type": "string", "minLength": 1}
CTRF = {
    "type": "object",
    "additionalProperties": False,
    "required": ["results", "reportFormat", "specVersion"],
    "properties": {
        "reportFormat": {"const": "CTRF"},
        "specVersion": {"type": "string", "pattern": r"^\d+\.\d+\.\d+$"},
        "reportId": {"type": "string", "pattern": "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"},
        "generatedBy": _TEXT,
        "results": {
            "type": "object",
            "additionalProperties": False,
            "required": ["tool", "summary", "tests"],
            "properties": {
                "tool": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["name"],
                    "properties": {"name": _NAME, "version": _TEXT},
                },
                "summary": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": [
                        "tests", "passed", "failed", "skipped", "pending", "other", "start", "stop",
                    ],
                    "properties": dict.fromkeys(
                        ("tests", "passed", "failed", "skipped", "pending", "other", "flaky",
                         "suites", "start", "stop", "duration"),
                        _INTEGER,
                    ),
                },
                "tests": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["name", "status", "duration"],
                        "properties": {
                            "name": _NAME,
                            "status": {"enum": ["passed", "failed", "skipped", "pending", "other"]},
                            "rawStatus": _TEXT,
                            "duration": _INTEGER,
                            "suite": {"type": "array", "minItems": 1, "items": _TEXT},
                            "message": _TEXT,
                            "extra": {"type": "object"},
                        },
                    },
                },
            },
        },
    },
}  # fmt: skip


def test_ctrf() -> None:
    hostile = verdict("regressed", HOSTILE, HOSTILE, reason=HOSTILE, record={"seconds": "soon"})
    document = ctrf.document([*ONE_OF_EACH, hostile], start=1.7e9, stop=1.7e9 + 2.5)
    jsonschema.validate(document, CTRF)
    summary = document["results"]["summary"]
    unscored = sum(not one.scored for one in ONE_OF_EACH)
    assert summary == {
        "tests": len(ONE_OF_EACH) + 1, "passed": 1, "failed": len(ONE_OF_EACH) - unscored,
        "skipped": 0, "pending": 0, "other": unscored, "suites": len(ONE_OF_EACH) + 1,
        "start": 1_700_000_000_000, "stop": 1_700_000_002_500, "duration": 2500,
    }  # fmt: skip
    tests = {test["rawStatus"]: test for test in document["results"]["tests"][:-1]}
    assert tests["resolved"]["status"] == "passed"
    assert tests["resolved"]["duration"] == 1500
    assert tests["infra_error"]["status"] == "other"
    assert tests["unresolved"]["extra"]["FAIL_TO_PASS"]["failing"] == [
        {"id": "t.py::test_a", "status": "failed"}
    ]
    assert "\x1b" not in json.dumps(document, ensure_ascii=False)


def test_ctrf_of_nothing() -> None:
    jsonschema.validate(ctrf.document([], start=1.0, stop=0.5), CTRF)


# ---------------------------------------------------------------- Markdown

RENDER = MarkdownIt("gfm-like", {"html": True, "linkify": False}).render


def spans(page: str) -> list[str]:
    return [unescape(text) for text in re.findall(r"<code>(.*?)</code>", RENDER(page), re.DOTALL)]


def plain(page: str) -> str:
    """The tags a page is made of, without what is in code spans."""
    return re.sub(r"<code>.*?</code>", "", RENDER(page), flags=re.DOTALL)


TRICKY = st.one_of(
    st.text("`|\\ ab<>&[]()!*_#$@:-\n\t~\"'", max_size=30),
    st.text(max_size=20),
    st.sampled_from([HOSTILE, "", " ", "`", "``", "\\|", "a`b``c", "```\nx\n```", "</code>"]),
)


@given(TRICKY, TRICKY, TRICKY)
def test_nothing_gets_out_of_a_code_span(task: str, candidate: str, reason: str) -> None:
    tests = (one_test(task, passed=False),)
    hostile = verdict("unresolved", task, candidate, reason=reason, fail_to_pass=tests)
    page = markdown.summary([hostile], missing=[task])
    ordinary = markdown.summary(
        [replace(hostile, task_id="t", candidate="c", reason=reason and "r")], missing=["t"]
    )
    # The same table, the same headings: only what is in code spans differs.
    assert plain(page) == plain(ordinary)


@given(TRICKY)
def test_a_code_span_shows_the_text(text: str) -> None:
    shown = markdown.code(text, 10_000)
    assert "\n" not in shown
    (found,) = spans(f"- see {shown} there\n")
    (cell,) = spans(f"| a | b |\n| - | - |\n| x | {markdown.code(text, 10_000, cell=True)} |\n")
    assert found == cell
    if text.isascii() and text.isprintable() and not text.lstrip().startswith(("::", "##[")):
        # Of blanks at the ends, and nothing but blanks, more or less are shown.
        assert found.strip() == text.strip()


def test_a_summary_says_what_matters() -> None:
    page = markdown.summary(ONE_OF_EACH, missing=["shop__shop-99"])
    unscored = sum(not one.scored for one in ONE_OF_EACH)
    assert f"**1 of {len(ONE_OF_EACH)} resolved**, {unscored} not scored, 1 tasks without" in page
    assert "| infra_error | 1 |" in page
    assert "| `shop__shop-0` | `model/a` | **resolved** | 1/1 | 1/1 |  |" in page
    assert "- failed `t.py::test_a`" in page
    assert "- `shop__shop-99`" in page
    assert markdown.summary(ONE_OF_EACH[::-1], missing=["shop__shop-99"]) == page


def test_what_a_log_said_is_marked() -> None:
    page = markdown.summary([verdict(evidence="log"), verdict("unresolved", "b", evidence="log")])
    assert "resolved (from a log)" in page
    assert "unresolved (from a log)" in page


@pytest.mark.parametrize("limit", [2048, 10_000, 300_000, markdown.LIMIT])
def test_a_summary_has_a_size(limit: int) -> None:
    tests = tuple(one_test(f"t.py::{'é' * 300}{number}", passed=False) for number in range(30))
    many = [
        verdict("unresolved", f"t-{n:05}", "é" * 90, reason="\u202e" * 500, fail_to_pass=tests)
        for n in range(3000)
    ]
    page = markdown.summary(many, missing=[f"m-{n}" for n in range(3000)], limit=limit)
    assert len(page.encode()) <= limit
    assert re.search(r"(\d+) more ", page)
    rows = page.count("| `t-")
    left_out = re.search(r"^\| (\d+) more ", page, re.MULTILINE)
    assert rows + (int(left_out[1]) if left_out else 0) == 3000


# ---------------------------------------------------------------- GitHub


def unescaped(line: str) -> tuple[str, dict[str, str], str]:
    """As the runner reads a command."""
    found = re.fullmatch(r"::(\w+)(?: ([^:]*))?::(.*)", line)
    assert found, line

    def text(value: str) -> str:
        for code, char in (("%3A", ":"), ("%2C", ","), ("%0D", "\r"), ("%0A", "\n"), ("%25", "%")):
            value = value.replace(code, char)
        return value

    pairs = (pair.split("=", 1) for pair in (found[2] or "").split(",") if pair)
    return found[1], {name: text(value) for name, value in pairs}, text(found[3])


def test_annotations() -> None:
    sources = {"shop__shop-2": "tasks/a,b:c.toml", "shop__shop-3": "preds/100%.jsonl:12"}
    lines = github.annotated(ONE_OF_EACH, sources=sources, shown=50)
    read_back = [unescaped(line) for line in lines]
    errors = [found for found in read_back if found[0] == "error"]
    assert len(errors) == sum(one.scored for one in ONE_OF_EACH) - 1
    assert len(read_back) - len(errors) == sum(not one.scored for one in ONE_OF_EACH)
    by_title = {found[1]["title"]: found for found in read_back}
    found = by_title["unresolved: shop__shop-2 [model/a]"]
    assert found[1]["file"] == "tasks/a,b:c.toml"
    assert found[2] == "it is unresolved"
    found = by_title["regressed: shop__shop-3 [model/a]"]
    assert (found[1]["file"], found[1]["line"]) == ("preds/100%.jsonl", "12")


@pytest.mark.parametrize("number", [0, 1, 10, 11, 500])
def test_github_shows_all_or_a_sum(number: int) -> None:
    failing = [verdict("unresolved", f"t-{n:04}") for n in range(number)]
    lost = [verdict("infra_error", f"u-{n:04}") for n in range(number)]
    lines = github.annotated([verdict(), *failing, *lost])
    for level in ("error", "warning"):
        mine = [line for line in lines if line.startswith(f"::{level}")]
        assert len(mine) == min(number, 10)
    if number > 10:
        assert f"title={number - 9} more candidates::{number - 9} unresolved: t-0009" in lines[9]


@given(TRICKY, TRICKY, st.text(max_size=20))
def test_an_annotation_is_one_command(task: str, reason: str, source: str) -> None:
    hostile = verdict("unresolved", task, reason=reason)
    (line,) = github.annotated([hostile], sources={task: source})
    assert len(line.splitlines()) == 1
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", line)
    level, properties, _ = unescaped(line)
    assert level == "error"
    assert set(properties) <= {"file", "line", "title"}


def test_the_summary_of_a_step(tmp_path: Path) -> None:
    assert not github.append_summary({}, ONE_OF_EACH)
    path = tmp_path / "summary"
    environ = {"GITHUB_STEP_SUMMARY": str(path)}
    assert github.append_summary(environ, ONE_OF_EACH)
    path.write_text("what another wrote\n")
    assert github.append_summary(environ, ONE_OF_EACH)
    assert path.read_text().startswith("what another wrote\n\n## Sandbox grades\n")
    # The limit is that of the file, not of what we add.
    path.write_bytes(b"x" * (markdown.LIMIT - 5000))
    many = [verdict("unresolved", f"t-{n}") for n in range(1000)]
    assert github.append_summary(environ, many)
    assert markdown.LIMIT - 5000 < path.stat().st_size <= markdown.LIMIT
    path.write_bytes(b"x" * (markdown.LIMIT - 100))
    assert not github.append_summary(environ, many)


# ---------------------------------------------------------------- the folder


def test_a_folder_of_results(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    results = Results(folder)
    assert not folder.exists()
    assert results.known() == {}
    for one in ONE_OF_EACH:
        results.add(one)
    results.finish(ONE_OF_EACH[::-1], ["shop__shop-99"], environ={})
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert {"results.jsonl", "ctrf-report.json", "summary.md"} < names
    assert "model__a.pytest-sandbox.json" in names
    assert not [name for name in names if name.endswith(".new")]
    jsonschema.validate(json.loads((folder / "ctrf-report.json").read_text()), CTRF)
    # The next session knows what has a score.
    known = Results(folder).known()
    assert set(known) == {one.record["key"] for one in ONE_OF_EACH if one.scored}


def test_files_of_several_machines_are_one(tmp_path: Path) -> None:
    first, second = Results(tmp_path, "results-1.jsonl"), Results(tmp_path, "results-2.jsonl")
    first.add(verdict("unresolved", "a"))
    second.add(verdict("resolved", "b"))
    second.add(verdict("resolved", "a"))
    first.add(verdict("regressed", "b"))
    first.close()
    second.close()
    assert [(v.task_id, v.outcome) for v in Results(tmp_path).merged()] == [
        ("a", "resolved"),
        ("b", "regressed"),
    ]
    assert len(Results(tmp_path).known()) == 4


def test_a_report_of_an_earlier_patch_does_not_stay(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.finish([verdict("resolved")], environ={})
    (report,) = tmp_path.glob("logs/**/report.json")
    results.finish([verdict("malformed")], environ={})
    assert not report.exists()
    run = json.loads((tmp_path / "model__a.pytest-sandbox.json").read_text())
    assert run["resolved_ids"] == []
    assert run["error_ids"] == ["shop__shop-1"]
