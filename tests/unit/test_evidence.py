"""What a candidate's run owes to the base's: by table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pytest_sandbox import wire
from pytest_sandbox.baseline import Baseline
from pytest_sandbox.evidence import absent, ended, settled, unran
from pytest_sandbox.kept import Kept
from pytest_sandbox.protection import Protection
from pytest_sandbox.results import Recorder, apart
from pytest_sandbox.workspace import Tree

TREE = Tree("0" * 40, None, "somewhere")
PROTECTION = Protection(tree=TREE, scored=TREE)
#: The user has let its file through.
LET_THROUGH = Protection(tree=TREE, scored=TREE, kept=("a.py",))


def item(nodeid: str) -> wire.Item:
    path, _, name = nodeid.partition("::")
    return wire.Item(
        parent=-1, type="Function", name=name, nodeid=nodeid, path=path, lineno=4, domain=name
    )


def base(*nodeids: str, **more: Any) -> Baseline:
    frame = wire.Collected(n=0, nodes=[], items=[item(nodeid) for nodeid in nodeids])
    return Baseline(tree=(frame,), outcomes=dict.fromkeys(apart(nodeids), "passed"), **more)


def below(*above: tuple[str, str], rootdir: str = "") -> Baseline:
    """What was collected below these types and names, each one below another."""
    nodes = [
        wire.Node(parent=number - 1, type=kind, name=nodeid, nodeid=nodeid)
        for number, (kind, nodeid) in enumerate(above)
    ]
    one = msgspec.structs.replace(item(f"{above[-1][1]}::x"), parent=len(nodes) - 1)
    # Numbered through over frames.
    frames = (
        wire.Collected(n=0, nodes=nodes, items=[]),
        wire.Collected(n=1, nodes=[], items=[one]),
    )
    return Baseline(tree=frames, rootdir=rootdir)


@pytest.mark.parametrize(
    ("made", "files"),
    [
        (below(("Dir", "qa"), ("Module", "qa/a.py")), {"qa/a.py"}),
        (below(("Module", "qa/a.py"), ("Class", "qa/a.py::Test")), {"qa/a.py"}),
        (below(("Spec", "a.spec"), rootdir="sub/.."), {"a.spec"}),
        (below(("DoctestTextfile", "a.rst"), rootdir="docs"), {"docs/a.rst"}),
        # What is tested, as docstrings and linters have it.
        (below(("Package", "pkg"), ("DoctestModule", "pkg/a.py")), set()),
        (below(("DoctestModule", "pkg/a.pyx.in")), set()),
        (below(("RuffFile", "pkg/a.py")), set()),
        (base("pkg/a.py::mypy"), set()),
    ],
)
def test_the_files_that_tests_are_in(made: Baseline, files: set[str]) -> None:
    assert made.files() == files


@pytest.mark.parametrize(
    ("before", "now", "gone", "renamed"),
    [
        (["a.py::x"], ["a.py::x"], [], []),
        (["a.py::x", "a.py::y"], ["a.py::x"], ["a.py::y"], []),
        (["a.py::x"], ["a.py::x", "a.py::new"], [], []),
        (["a.py::x", "a.py::x"], ["a.py::x"], ["a.py::x (2)"], []),
        (["a.py::x[1]", "a.py::x[2]"], ["a.py::x[1]"], ["a.py::x[2]"], []),
        (["a.py::x[1]", "a.py::x[2]"], ["a.py::x[3]", "a.py::x[4]"], [],
         ["a.py::x[1]", "a.py::x[2]"]),
        # Fewer of them is not the same under other names.
        (["a.py::x[1]", "a.py::x[2]"], ["a.py::x[NOTSET0]"], ["a.py::x[1]", "a.py::x[2]"], []),
        (["a.py::x"], ["a.py::x[1]"], ["a.py::x"], []),
    ],
)  # fmt: skip
def test_what_is_missing(
    before: Sequence[str], now: Sequence[str], gone: Sequence[str], renamed: Sequence[str]
) -> None:
    found = absent(base(*before), PROTECTION, apart(now))
    assert (list(found.nodeids), list(found.renamed)) == (gone, renamed)
    assert absent(base(*before), LET_THROUGH, apart(now)).nodeids == ()


@pytest.mark.timeout(60)
def test_one_id_a_hundred_thousand_times() -> None:
    assert apart(["a", "a (3)", "a", "a"]) == ["a", "a (3)", "a (2)", "a (4)"]
    assert len(set(apart(["a"] * 100_000))) == 100_000


@pytest.mark.parametrize(
    ("failed", "gone"),
    [
        (["a.py"], ["ab.py::y"]),
        (["a.py::x"], ["ab.py::y"]),
        (["."], []),
        ([""], []),
    ],
)
def test_what_could_not_be_collected_is_told_once(failed: list[str], gone: list[str]) -> None:
    assert list(absent(base("a.py::x", "ab.py::y"), PROTECTION, [], failed).nodeids) == gone


@pytest.mark.parametrize(
    ("before", "now", "wrong"),
    [
        ("passed", "skipped", True),
        ("failed", "skipped", True),
        ("error", "skipped", True),
        ("passed", "xfailed", True),
        ("failed", "xfailed", True),
        ("passed", "passed", False),
        ("passed", "failed", False),
        ("skipped", "skipped", False),
        ("xfailed", "xfailed", False),
        ("xfailed", "skipped", False),
        ("xpassed", "xfailed", False),
        (None, "skipped", False),
    ],
)
def test_what_ran_is_to_run(before: Any, now: str, wrong: bool) -> None:
    outcomes = {} if before is None else {"a.py::x": before}
    made = Baseline(outcomes=outcomes)
    assert bool(unran(made, PROTECTION, "a.py::x", now)) is wrong
    assert not unran(made, LET_THROUGH, "a.py::x", now)


def died(
    cause: wire.Cause = "exit", status: int | None = 0, item: int | None = 0, **more: Any
) -> Any:
    phase = more.pop("phase", "run")
    return wire.Died(n=0, cause=cause, status=status, item=item, phase=phase, message="it ended")


FINISHED = wire.End(n=0, reason="finished", exitstatus=1)
ITEMS = [("a.py::x", "a.py:5"), ("a.py::y", "a.py:9")]


@pytest.mark.parametrize(
    ("name", "deaths", "end", "left", "found"),
    [
        ("status 0 in a test", [died()], FINISHED, [], ["a.py::x"]),
        ("nonsense", [died("protocol", None, 1)], FINISHED, [], ["a.py::y"]),
        ("during collection", [died(item=None, phase="collect")],
         wire.End(n=0, reason="died", exitstatus=None), [], [""]),
        ("after the last test", [died(item=None, phase="stop")], FINISHED, [], []),
        ("out of memory between two tests", [died("memory", None, None)], FINISHED, [], []),
        ("another status", [died(status=3)], FINISHED, [], []),
        ("a signal", [died("crash", None)], FINISHED, [], []),
        ("out of memory", [died("memory", 0)], FINISHED, [], []),
        ("too long", [died("timeout", None)], FINISHED, [], []),
        ("pytest.exit", [], wire.End(n=0, reason="exit", exitstatus=2), ["a.py::x"], []),
        ("pytest.exit with 0", [], wire.End(n=0, reason="exit", exitstatus=0), ["a.py::x"],
         ["a.py::x"]),
        ("finished with 0", [], wire.End(n=0, reason="finished", exitstatus=0),
         ["a.py::x", "a.py::y"], [""]),
        ("-x", [], FINISHED, ["a.py::x"], []),
        ("no end at all", [], None, ["a.py::x"], []),
    ],
)  # fmt: skip
def test_ends(name: str, deaths: Any, end: Any, left: list[str], found: list[str]) -> None:
    here = base("a.py::x", "a.py::y")
    findings = ended(deaths, end, ITEMS, left, here)
    assert [finding.nodeid for finding in findings] == found
    assert all(finding.verdict == "tampered" and finding.layer == "L3" for finding in findings)


def test_ends_between_two_tests() -> None:
    for here, left, verdicts in (
        (base("a.py::x"), ["a.py::x"], ["unproven", "tampered"]),
        (base("a.py::x"), [], ["unproven"]),
        (base("a.py::x", deaths=(("crash", "run"),)), [], []),
    ):
        findings = ended([died(item=None)], FINISHED, ITEMS, left, here)
        assert [finding.verdict for finding in findings] == verdicts
    [found] = ended([died("crash", None, None)], FINISHED, ITEMS, [], base("a.py::x"))
    assert (found.verdict, found.event) == ("unproven", found.event)
    assert "another one took its place" in found.event


def test_what_the_base_does_as_well_is_no_finding() -> None:
    here = base("a.py::x", deaths=(("exit", "a.py::x"), ("end", "")))
    assert not ended([died()], FINISHED, ITEMS, [], here)
    assert not ended([], wire.End(n=0, reason="exit", exitstatus=0), ITEMS, ["a.py::x"], here)
    assert ended([died("protocol", None, 0)], FINISHED, ITEMS, [], here)


def test_a_test_without_a_result_at_the_base_either() -> None:
    end = wire.End(n=0, reason="finished", exitstatus=0)
    assert not ended([], end, ITEMS, ["a.py::z"], base("a.py::x"))


def result(*frames: wire.Frame, end: wire.End = FINISHED) -> Any:
    recorder = Recorder()
    for frame in frames:
        recorder.take(frame)
    recorder.choose(range(sum(len(f.items) for f in frames if isinstance(f, wire.Collected))))
    recorder.take(end)
    return recorder.result("fix.diff on HEAD")


def passed(number: int, outcome: wire.Outcome = "passed") -> list[wire.Frame]:
    reports = [
        wire.Report(
            n=0, item=number, when=when, outcome=outcome if when == "call" else "passed",
            duration=0, start=0, stop=0,
        )
        for when in ("setup", "call", "teardown")
    ]  # fmt: skip
    return [wire.Start(n=0, item=number), *reports, wire.Finish(n=0, item=number)]


def test_a_result_is_settled() -> None:
    frame = wire.Collected(n=0, nodes=[], items=[item("a.py::x"), item("a.py::y")])
    ran = result(frame, *passed(0), *passed(1, "skipped"))
    assert ran.passed
    same = settled(ran, PROTECTION, base("a.py::x"))
    assert same.passed
    assert same.findings == ()
    assert "1 tests at the base" in same.baseline
    other = settled(ran, PROTECTION, base("a.py::x", "a.py::y", "a.py::z"))
    assert not other.passed
    assert [test.nodeid for test in other.failed] == ["a.py::y", "a.py::z"]
    assert other["a.py::z"].longrepr == "collected at the base, not with the patch"
    assert "skipped with the patch; at the base it ran (passed)" in other.report()
    assert {finding.verdict for finding in other.findings} == {"unproven"}
    assert {finding.where for finding in other.findings} == {"a.py:5", ""}


def test_a_base_whose_ids_mean_something_else_says_nothing() -> None:
    frame = wire.Collected(n=0, nodes=[], items=[item("a.py::x")])
    elsewhere = base("b.py::x", rootdir="packages/one")
    assert settled(result(frame, *passed(0)), PROTECTION, elsewhere).passed


# ------------------------------------------------ the cache


def test_what_is_kept_comes_back(tmp_path: Path) -> None:
    store = Kept(tmp_path / "baselines", Baseline)
    made = base("a.py::x", "a.py::x", trouble="something", deaths=(("exit", "collect"),))
    assert store.get("k") is None
    store.put("k", made)
    assert store.get("k") == made


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}x", b'{"tree": 3}', b"[" * 100_000])
def test_what_is_torn_is_as_if_never_made(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "k.json").write_bytes(content)
    assert Kept(tmp_path, Baseline).get("k") is None


def test_only_so_many_are_kept(tmp_path: Path) -> None:
    store = Kept(tmp_path, Baseline, most=3)
    for number in range(6):
        store.put(str(number), Baseline())
    assert len(list(tmp_path.iterdir())) == 3


def test_without_a_folder_nothing_is_kept() -> None:
    Kept(None, Baseline).put("k", Baseline())
    assert Kept(None, Baseline).get("k") is None


def test_a_baseline_is_plain_data() -> None:
    text = msgspec.json.encode(base("a.py::x"))
    assert msgspec.json.decode(text, type=Baseline) == base("a.py::x")
