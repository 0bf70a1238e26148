"""Mirror mode on a scripted sandbox: pytest's own behaviour, with somebody else's results."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Sequence

import msgspec
import pytest

from pytest_sandbox import wire
from pytest_sandbox.testing import FakeProvider
from tests.plugin.support import (
    FINISHED,
    HELLO,
    Stage,
    all_pass,
    collected,
    failure,
    report,
    run_item,
)


@pytest.fixture
def stage(pytester: pytest.Pytester) -> Stage:
    return Stage(pytester)


def chosen(provider: FakeProvider) -> list[int]:
    (sandbox,) = provider.sandboxes
    orders = json.loads(sandbox.files["/control/select.json"])
    items: list[int] = orders["items"]
    return items


def test_results_appear_under_their_own_ids(stage: Stage) -> None:
    result = stage.run(FakeProvider(collected("test_a", "test_b"), all_pass), "-v")
    result.stdout.fnmatch_lines(
        ["*collected 2 items*", "test_a.py::test_a PASSED*", "test_a.py::test_b PASSED*"]
    )
    result.assert_outcomes(passed=2)
    assert result.ret == 0


def test_a_failure_has_its_traceback_output_and_summary(stage: Stage) -> None:
    def act(items: Sequence[int]) -> list[wire.Frame]:
        bad = failure(0, sections=[("Captured stdout call", "printed\n")])
        return [*run_item(0, bad), *run_item(1), FINISHED]

    result = stage.run(FakeProvider(collected("test_a", "test_b"), act))
    result.stdout.fnmatch_lines([
        "*= FAILURES =*",
        "*_ test_a _*",
        "E   assert 1 == 2",
        "*Captured stdout call*",
        "printed",
        "FAILED test_a.py::test_a - assert 1 == 2",
        "*1 failed, 1 passed*",
    ])  # fmt: skip
    assert result.ret == 1


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["-k", "test_b"], [1]),
        (["-k", "not test_b"], [0, 2]),
        (["-m", "slow"], [2]),
        (["-m", "not slow"], [0, 1]),
        (["-m", "slow(level=3)"], [2]),
        (["-m", "slow(level=4)"], []),
        (["--deselect", "test_a.py::test_a"], [1, 2]),
        (["--collect-only"], []),
    ],
)
def test_pytest_selects(stage: Stage, args: list[str], expected: list[int]) -> None:
    marks = {"test_c": [wire.Mark(name="slow", kwargs={"level": 3})]}
    provider = FakeProvider(collected("test_a", "test_b", "test_c", marks=marks), all_pass)
    stage.run(provider, *args)
    assert chosen(provider) == expected


def test_last_failed_and_failed_first(stage: Stage) -> None:
    def act(items: Sequence[int]) -> list[wire.Frame]:
        frames: list[wire.Frame] = []
        for index in items:
            frames += run_item(index, failure(index) if index == 1 else None)
        return [*frames, FINISHED]

    tests = collected("test_a", "test_b", "test_c")
    stage.run(FakeProvider(tests, act))
    last_failed, failed_first = FakeProvider(tests, act), FakeProvider(tests, act)
    stage.run(last_failed, "--lf").assert_outcomes(failed=1, deselected=2)
    stage.run(failed_first, "--ff")
    assert chosen(last_failed) == [1]
    assert chosen(failed_first) == [1, 0, 2]


def test_exitfirst_stops_here_and_is_told_there(stage: Stage) -> None:
    def act(items: Sequence[int]) -> list[wire.Frame]:
        return [*run_item(0, failure(0)), *run_item(1), FINISHED]

    provider = FakeProvider(collected("test_a", "test_b"), act)
    result = stage.run(provider, "-x")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*stopping after 1 failures*"])
    (sandbox,) = provider.sandboxes
    assert json.loads(sandbox.files["/control/select.json"])["maxfail"] == 1


def test_outcomes_of_every_kind(stage: Stage) -> None:
    skip = wire.LongRepr(text="", path="test_a.py", lineno=3, message="not today")
    names = ["today", "xfail", "xpass", "setup_error", "teardown_error"]

    def act(items: Sequence[int]) -> list[wire.Frame]:
        broken = wire.LongRepr(text="E   boom")
        return [
            wire.Start(n=0, item=0),
            report(0, "setup", "skipped", longrepr=skip),
            report(0, "teardown"),
            wire.Finish(n=0, item=0),
            *run_item(1, report(1, "call", "skipped", wasxfail="known", longrepr=broken)),
            *run_item(2, report(2, "call", "passed", wasxfail="")),
            wire.Start(n=0, item=3),
            report(3, "setup", "failed", longrepr=broken),
            report(3, "teardown"),
            wire.Finish(n=0, item=3),
            wire.Start(n=0, item=4),
            report(4, "setup"),
            report(4, "call"),
            report(4, "teardown", "failed", longrepr=broken),
            wire.Finish(n=0, item=4),
            FINISHED,
        ]

    result = stage.run(FakeProvider(collected(*names), act), "-rA")
    result.assert_outcomes(skipped=1, xfailed=1, xpassed=1, errors=2, passed=1)
    result.stdout.fnmatch_lines([
        "*ERROR at setup of setup_error*",
        "*ERROR at teardown of teardown_error*",
        "SKIPPED [[]1[]] test_a.py:3: not today",
        "XFAIL test_a.py::xfail - known",
    ])  # fmt: skip


def test_subtests(stage: Stage) -> None:
    def act(items: Sequence[int]) -> list[wire.Frame]:
        sub = wire.Subtest(msg="even", kwargs={"i": "3"})
        bad = msgspec.structs.replace(failure(0), subtest=sub)
        good = msgspec.structs.replace(report(0, "call"), subtest=wire.Subtest(kwargs={"i": "2"}))
        frames = run_item(0, failure(0, "contains 1 failed subtest"))
        return [*frames[:2], good, bad, *frames[2:], FINISHED]

    result = stage.run(FakeProvider(collected("test_a"), act), "-v")
    result.stdout.fnmatch_lines(
        ["*SUBPASSED(i=2)*", "*SUBFAILED[[]even[]] (i=3)*", "*test_a [[]even[]] (i=3)*"]
    )
    assert result.ret == 1


def test_collection_errors_interrupt_as_in_a_direct_run(stage: Stage) -> None:
    broken = wire.CollectReport(
        n=0, nodeid="test_b.py", outcome="failed", longrepr=wire.LongRepr(text="E  SyntaxError")
    )
    tests = collected("test_a")
    frames = [tests[0], broken, *tests[1:]]
    provider = FakeProvider(frames, all_pass)
    result = stage.run(provider)
    result.stdout.fnmatch_lines(
        [
            "*ERROR collecting test_b.py*",
            "E  SyntaxError",
            "*Interrupted: 1 error during collection*",
        ]
    )
    assert result.ret == 2
    assert chosen(provider) == []
    going_on = stage.run(FakeProvider(frames, all_pass), "--continue-on-collection-errors")
    going_on.assert_outcomes(passed=1, errors=1)
    assert going_on.ret == 1


def test_warnings_show_no_line_of_this_machine(stage: Stage) -> None:
    def act(items: Sequence[int]) -> list[wire.Frame]:
        warned = wire.Warned(
            n=0, message="beware", category="UserWarning", path="/etc/passwd", lineno=1,
            when="runtest", nodeid="test_a.py::test_a",
        )  # fmt: skip
        return [*run_item(0), warned, FINISHED]

    result = stage.run(FakeProvider(collected("test_a"), act))
    result.stdout.fnmatch_lines(["*warnings summary*", "*/etc/passwd:1: UserWarning: beware"])
    result.stdout.no_fnmatch_line("*root:*")


def test_junitxml(stage: Stage) -> None:
    def act(items: Sequence[int]) -> list[wire.Frame]:
        bad = failure(0, properties=[("seed", 7)])
        return [*run_item(0, bad), *run_item(1), FINISHED]

    stage.run(FakeProvider(collected("test_a", "test_b"), act), "--junitxml=out.xml")
    tree = ET.parse(stage.pytester.path / "out.xml")
    cases = {case.get("name"): case for case in tree.iter("testcase")}
    assert set(cases) == {"test_a", "test_b"}
    bad = cases["test_a"].find("failure")
    assert bad is not None
    assert bad.get("message") == "assert 1 == 2"


def test_internal_errors_are_the_sandboxs_own(stage: Stage) -> None:
    frames: list[wire.Frame] = [HELLO, wire.InternalError(n=0, text="Traceback\nboom")]
    result = stage.run(FakeProvider(frames, hang=True))
    result.stdout.fnmatch_lines(["INTERNALERROR> boom"])
    result.stdout.no_fnmatch_line("*mirror.py*")
    assert result.ret == 3


def test_usage_errors_of_the_sandboxs_pytest(stage: Stage) -> None:
    end = wire.End(n=0, reason="usage", exitstatus=4, message="ERROR: file not found: x.py")
    result = stage.run(FakeProvider([HELLO, end]))
    result.stderr.fnmatch_lines(["*pytest in the sandbox refused to start*", "*not found: x.py*"])
    assert result.ret == 4


@pytest.mark.parametrize(
    ("end", "status", "text"),
    [
        (wire.End(n=0, reason="exit", exitstatus=7, message="enough"), 7, "enough"),
        (wire.End(n=0, reason="exit", exitstatus=0, message="all good"), 2, "all good"),
        (wire.End(n=0, reason="timeout", exitstatus=None), 1, "limit passed"),
        (wire.End(n=0, reason="died", exitstatus=None), 1, "died"),
        (wire.End(n=0, reason="output", exitstatus=None), 1, "output"),
        (wire.End(n=0, reason="supervisor", exitstatus=None), 31, "supervisor"),
        (wire.End(n=0, reason="finished", exitstatus=0), 1, "before all chosen tests"),
    ],
)
def test_an_early_end_is_never_a_pass(stage: Stage, end: wire.End, status: int, text: str) -> None:
    provider = FakeProvider(collected("test_a", "test_b"), lambda items: [*run_item(0), end])
    result = stage.run(provider)
    result.stdout.fnmatch_lines([f"*{text}*"])
    assert result.ret == status
    assert result.parseoutcomes()["passed"] == 1


def test_a_test_without_reports_is_an_error(stage: Stage) -> None:
    def act(items: Sequence[int]) -> list[wire.Frame]:
        return [wire.Start(n=0, item=0), wire.Finish(n=0, item=0), FINISHED]

    result = stage.run(FakeProvider(collected("test_a"), act))
    result.stdout.fnmatch_lines(["*no complete result for test_a.py::test_a*"])
    assert result.ret == 1


@pytest.mark.parametrize("missing", ["setup", "call", "teardown"])
def test_a_test_that_skips_a_phase_is_an_error(stage: Stage, missing: str) -> None:
    def act(items: Sequence[int]) -> list[wire.Frame]:
        frames = [f for f in run_item(0) if getattr(f, "when", None) != missing]
        return [*frames, FINISHED]

    result = stage.run(FakeProvider(collected("test_a"), act))
    result.stdout.fnmatch_lines(["*no complete result for test_a.py::test_a*"])
    assert result.ret == 1


def test_junk_ends_the_session_and_is_no_result(stage: Stage) -> None:
    def act(items: Sequence[int]) -> list[wire.Frame | bytes]:
        return [*run_item(0), b'{"kind":"report","outcome":"passed"}\n']

    result = stage.run(FakeProvider(collected("test_a", "test_b"), act))
    assert result.ret == 33
    assert result.parseoutcomes()["passed"] == 1


def test_output_is_printed_live_and_escaped(stage: Stage) -> None:
    def act(items: Sequence[int]) -> list[wire.Frame]:
        return [wire.Output(n=0, text="hi \x1b[31m there\n"), *run_item(0), FINISHED]

    result = stage.run(FakeProvider(collected("test_a"), act), "-s")
    result.stdout.fnmatch_lines(["*hi \\x1b*31m there"])


def test_durations_and_quiet(stage: Stage) -> None:
    result = stage.run(FakeProvider(collected("test_a"), all_pass), "-q", "--durations=1", "-vv")
    result.stdout.fnmatch_lines(["*slowest 1 durations*", "0.01s * test_a.py::test_a"])
    quiet = stage.run(FakeProvider(collected("test_a"), all_pass), "-q")
    quiet.stdout.no_fnmatch_line("*sandbox*")


def test_a_frame_hook_and_a_verdict_hook(stage: Stage) -> None:
    kinds = []

    class Observer:
        def pytest_sandbox_frame(self, frame: wire.Frame) -> None:
            kinds.append(type(frame).__name__)

        def pytest_sandbox_verdict(self, result: object) -> bool:
            return False

    provider = FakeProvider(collected("test_a"), all_pass)
    stage.extra = [Observer()]
    result = stage.run(provider)
    assert kinds[0] == "Hello"
    assert kinds[-1] == "End"
    result.assert_outcomes(passed=1)
    assert result.ret == 1


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["--pdb"], "debugger"),
        (["--trace"], "debugger"),
        (["-n", "2"], "--sandbox-pytest-args='-n 4'"),
        (["--cov"], "--sandbox-artifact .coverage"),
        (["--reruns", "2"], "--sandbox-pytest-args"),
        (["--timeout", "3"], "--sandbox-test-timeout"),
        (["--fixtures"], "on this machine"),
        (["--setup-show"], "run without --sandbox"),
        (["--log-file=x"], "--sandbox-artifact"),
        (["--run-slow"], "--sandbox-pytest-args"),
        (["../elsewhere.py"], "not inside the repository"),
        (["--sandbox-memory=lots"], "--sandbox-memory"),
        (["--sandbox-pytest-args='"], "no closing quotation"),
    ],
)
def test_what_cannot_work_is_refused_with_a_way_out(
    stage: Stage, args: list[str], text: str
) -> None:
    stage.load(
        "pytest_sandbox.plugin", "xdist.plugin", "pytest_cov.plugin", "pytest_rerunfailures",
        "pytest_timeout",
    )  # fmt: skip
    provider = FakeProvider(collected("test_a"), all_pass)
    result = stage.run(provider, *args)
    result.stderr.fnmatch_lines([f"*{text}*"])
    assert result.ret == 4
    assert provider.log == []


def test_unknown_providers(stage: Stage) -> None:
    result = stage.pytester.runpytest_inprocess("--sandbox=cloud9")
    result.stderr.fnmatch_lines(["*no provider 'cloud9'; known:*"])
    assert result.ret == 4


def test_the_sandbox_gets_its_side_of_the_options(stage: Stage) -> None:
    provider = FakeProvider(collected("test_a"), all_pass)
    stage.run(
        provider, "-l", "-W", "error", "-o", "xfail_strict=true", "--tb=short", "-k", "a", "-vv",
        "--doctest-modules", "--import-mode=importlib", "--sandbox-pytest-args=--run-slow -n 2",
        "sub/test_x.py::test_y[a b]",
    )  # fmt: skip
    args = json.loads(provider.sandboxes[0].files["/control/plan.json"])["args"]
    assert args == [
        "--verbosity=2", "--tb=short", "--showlocals", "-W", "error", "-o", "xfail_strict=true",
        "--import-mode=importlib", "--doctest-modules", "sub/test_x.py::test_y[a b]",
        "--run-slow", "-n", "2",
    ]  # fmt: skip


def test_ids_are_shown_from_the_rootdir_found_in_the_sandbox(stage: Stage) -> None:
    hello = msgspec.structs.replace(HELLO, rootdir="inner")
    frames = [hello, *collected("test_a", file="deep/test_a.py")[1:]]
    result = stage.run(FakeProvider(frames, all_pass))
    result.stdout.fnmatch_lines(["inner/deep/test_a.py .*"])


@pytest.mark.parametrize("rootdir", ["..", "a/../../b", "/etc"])
def test_a_rootdir_outside_is_not_adopted(stage: Stage, rootdir: str) -> None:
    hello = msgspec.structs.replace(HELLO, rootdir=rootdir)
    result = stage.run(FakeProvider([hello, *collected("test_a")[1:]], all_pass))
    result.stdout.fnmatch_lines(["test_a.py .*"])
