"""What was seen of a run, in verdicts and in every report on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytest_sandbox import wire
from pytest_sandbox.baseline import Baseline
from pytest_sandbox.errors import ProtocolError
from pytest_sandbox.evidence import contradiction
from pytest_sandbox.findings import Coverage, Finding
from pytest_sandbox.grading.model import Observed, Outcome, Task, Verdict
from pytest_sandbox.grading.outputs import ctrf, github, markdown, results, swebench_report
from pytest_sandbox.grading.verdict import grade, judged, observed
from pytest_sandbox.grading.words import told
from pytest_sandbox.results import Recorder

TASK = Task(
    id="shop-1", source="shop.toml", repo="/nowhere", base="HEAD",
    fail_to_pass=("t.py::x",), pass_to_pass=("t.py::y",),
)  # fmt: skip


def finding(verdict: Any = "tampered", nodeid: str = "", event: str = "it ended itself") -> Finding:
    return Finding(layer="L3", verdict=verdict, event=event, nodeid=nodeid, where="t.py:3")


@pytest.mark.parametrize(
    ("x", "findings", "outcome"),
    [
        ("passed", [], "resolved"),
        ("failed", [], "unresolved"),
        ("passed", [finding()], "resolved"),  # nothing is missing that decides
        ("missing", [finding()], "tampered"),
        ("error", [finding(nodeid="t.py::x")], "tampered"),
        ("passed", [finding(nodeid="t.py::other")], "resolved"),
        ("failed", [finding(nodeid="t.py::other")], "unresolved"),
        ("passed", [finding("unproven", "t.py::x")], "unproven"),
        ("failed", [finding("unproven", "t.py::x")], "unresolved"),
        ("passed", [finding("unproven", "t.py::x"), finding(nodeid="t.py::y")], "tampered"),
    ],
)
def test_what_findings_make_of_an_outcome(x: Any, findings: list[Finding], outcome: str) -> None:
    seen = Observed(tests={"t.py::x": x, "t.py::y": "passed"}, findings=tuple(findings))
    verdict = grade(TASK, "model", seen)
    assert verdict.outcome == outcome
    if outcome in ("tampered", "unproven"):
        assert verdict.reason.startswith("it ended itself")
        assert verdict.findings
    assert all(f.nodeid != "t.py::other" for f in verdict.findings)


@pytest.mark.parametrize(
    "outcome", ["infra_error", "over_budget", "base_broken", "gold_broken", "unsupported"]
)
def test_what_says_nothing_about_a_candidate_accuses_nobody(outcome: Outcome) -> None:
    verdict = Verdict(task_id="a", candidate="b", outcome=outcome)
    assert judged(verdict, [finding()]).outcome == outcome


def test_further_layers_may_look_later() -> None:
    verdict = Verdict(task_id="a", candidate="b", outcome="resolved")
    coverage = (Coverage(layer="L5", covered=3, of=4, note="one has no literal"),)
    assert judged(verdict, [], coverage).outcome == "resolved"
    seen = judged(verdict, [finding("unproven")], coverage)
    assert (seen.outcome, seen.coverage) == ("unproven", coverage)
    assert judged(seen, [finding()]).outcome == "tampered"


def recorded(*frames: wire.Frame) -> Any:
    item = wire.Item(
        parent=-1, type="Function", name="x", nodeid="t.py::x", path="t.py", lineno=2, domain="x"
    )
    recorder = Recorder()
    for frame in (wire.Collected(n=0, nodes=[], items=[item]), *frames):
        recorder.take(frame)
    recorder.choose([0])
    recorder.take(wire.End(n=0, reason="finished", exitstatus=1))
    return recorder.result("model for shop-1")


DIED = wire.Died(n=0, cause="exit", status=0, item=0, phase="run", message="it ended itself")


def test_the_base_is_asked() -> None:
    run = recorded(wire.Layers(n=0, on=["hardened"], off={"apart": "one user"}), DIED)
    seen = observed(run)
    assert seen.findings == (finding(nodeid="t.py::x"),)
    assert seen.layers == {"hardened": "", "apart": "one user"}
    same = Baseline(deaths=(("exit", "t.py::x"),))
    assert observed(run, same).findings == ()


def test_every_report_says_what_was_seen(tmp_path: Path) -> None:
    many = [finding(nodeid=f"t.py::n{number}") for number in range(30)]
    verdict = Verdict(
        task_id="shop-1", candidate="model", outcome="unresolved",
        layers={"hardened": "", "apart": "one `user`\n"},
    )  # fmt: skip
    verdict = judged(verdict, many)
    path = tmp_path / "results.jsonl"
    with results.Writer(path) as writer:
        writer.add(verdict)
    [entry], skipped = results.read(path)
    assert not skipped
    assert entry.verdict == verdict
    [test] = ctrf.document([verdict], start=0, stop=1)["results"]["tests"]
    assert test["status"] == "failed"
    assert len(test["extra"]["findings"]) == 30
    assert test["extra"]["findings"][0]["test"] == "t.py::n0"
    assert test["extra"]["layers"] == {"hardened": "", "apart": "one `user`\\n"}
    page = markdown.summary([verdict])
    assert "- tampered, L3: `it ended itself`, `t.py::n0`, `t.py:3`" in page
    assert "- 10 more" in page
    [line] = github.annotated([verdict])
    assert line.startswith("::error title=tampered")
    text = told(verdict)
    assert "tampered: L3 t.py::n0 (t.py:3): it ended itself" in text
    assert "tampered: 10 more" in text
    assert "not apart: one `user`" in text
    assert "hardened" not in text
    report = swebench_report.run_report([verdict], ["shop-1"])
    assert report["unresolved_ids"] == ["shop-1"]


def test_what_is_no_sequence_of_frames() -> None:
    verdict = Verdict(task_id="a", candidate="b", outcome="tampered")
    seen = judged(verdict, [contradiction(ProtocolError("frame 3 is\x1b[1m not valid"))])
    assert seen.outcome == "tampered"
    assert seen.reason == r"frame 3 is\x1b[1m not valid"
