"""Mirror mode with a candidate, on scripted sandboxes: what the base has is expected."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pytest

from pytest_sandbox import wire
from pytest_sandbox.provider import SandboxSpec
from pytest_sandbox.testing import FakeProvider, FakeSandbox
from tests.plugin.support import (
    FINISHED,
    Stage,
    all_pass,
    collected,
    failure,
    report,
    run_item,
)

Act = Callable[[Sequence[int]], Iterable[wire.Frame]]
PATCH = """\
--- a/code.py
+++ b/code.py
@@ -1 +1 @@
-x = 1
+x = 2
"""


class Twice(FakeProvider):
    """The first sandbox is the base's; what comes after it is the candidate's."""

    def __init__(
        self,
        base: Sequence[wire.Frame],
        collection: Sequence[wire.Frame],
        act: Act = all_pass,
        at_base: Act = all_pass,
    ) -> None:
        super().__init__(base, at_base)
        self._then = (collection, act)

    async def create(self, spec: SandboxSpec) -> FakeSandbox:
        if self.sandboxes:
            self.collection, self.act = self._then
        return await super().create(spec)

    def chosen(self, sandbox: int) -> list[int]:
        orders = json.loads(self.sandboxes[sandbox].files["/control/select.json"])
        items: list[int] = orders["items"]
        return items


@pytest.fixture
def stage(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Stage:
    made = Stage(pytester)
    monkeypatch.setenv("XDG_CACHE_HOME", str(pytester.path / "cache"))
    pytester.path.joinpath(".git/info/exclude").write_text("cache\n.pytest_cache\n*.diff\n")
    pytester.path.joinpath("code.py").write_text("x = 1\n")
    pytester.path.joinpath("fix.diff").write_text(PATCH)
    pytester.run("git", "add", ".")
    pytester.run("git", "-c", "user.email=a@b.c", "-c", "user.name=a", "commit", "-qm", "base")
    return made


def run(stage: Stage, provider: FakeProvider, *args: str) -> pytest.RunResult:
    return stage.run(provider, "--sandbox-patch=fix.diff", *args)


def test_the_base_runs_once_and_is_known_then(stage: Stage) -> None:
    tests = collected("test_a", "test_b")
    first = Twice(tests, tests)
    result = run(stage, first)
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines([
        "sandbox: the base's own tests run first, once, *",
        "*collected 2 items*",
        "sandbox: 2 tests at the base, * s",
    ])  # fmt: skip
    assert result.ret == 0
    assert len(first.sandboxes) == 2
    assert "sandbox: evidence" not in result.stdout.str()
    again = FakeProvider(tests, all_pass)
    result = run(stage, again)
    result.stdout.fnmatch_lines(["sandbox: 2 tests at the base, known from an earlier run"])
    result.stdout.no_fnmatch_line("*the base's own tests run*")
    assert len(again.sandboxes) == 1


@pytest.mark.parametrize("args", [(), ("--sandbox-patch=fix.diff", "--collect-only")])
def test_no_base_is_asked_where_none_is_needed(stage: Stage, args: Sequence[str]) -> None:
    provider = FakeProvider(collected("test_a"), all_pass)
    stage.run(provider, *args)
    assert len(provider.sandboxes) == 1


def test_a_test_that_is_gone_fails_at_its_place(stage: Stage) -> None:
    before = collected("test_a", "test_b", "test_c")
    provider = Twice(before, collected("test_a", "test_c"))
    result = run(stage, provider, "-v")
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines([
        "*collected 3 items*",
        "test_a.py::test_a PASSED*",
        "test_a.py::test_b FAILED*",
        "test_a.py::test_c PASSED*",
        "*sandbox: evidence*",
        "unproven: L3 test_a.py::test_b (test_a.py:2): collected at the base, not with the patch",
        "FAILED test_a.py::test_b - collected at the base, not with the patch",
    ])  # fmt: skip
    assert result.ret == 25


@pytest.mark.parametrize(
    ("args", "failed", "base"),
    [
        (["-k", "test_b"], 1, [1]),
        (["-k", "not test_b"], 0, [0, 2]),
        (["-m", "slow"], 0, [2]),
        (["--deselect", "test_a.py::test_b"], 0, [0, 2]),
    ],
)
def test_pytest_selects_what_is_gone_as_well(
    stage: Stage, args: list[str], failed: int, base: list[int]
) -> None:
    marks = {"test_c": [wire.Mark(name="slow")]}
    before = collected("test_a", "test_b", "test_c", marks=marks)
    provider = Twice(before, collected("test_a", "test_c", marks=marks))
    result = run(stage, provider, *args)
    assert result.parseoutcomes().get("failed", 0) == failed
    assert provider.chosen(0) == base


def test_an_expression_that_is_none_is_told_as_ever(stage: Stage) -> None:
    tests = collected("test_a")
    result = run(stage, Twice(tests, tests), "-k", "test_a and (")
    result.stderr.fnmatch_lines(["ERROR: Wrong expression passed to '-k'*"])
    assert result.ret == 4


def test_last_failed_runs_what_is_gone(stage: Stage) -> None:
    before, after = collected("test_a", "test_b"), collected("test_a")
    run(stage, Twice(before, after))
    run(stage, FakeProvider(after, all_pass), "--lf").assert_outcomes(failed=1, deselected=1)


def skipped(item: int, xfail: bool = False) -> list[wire.Frame]:
    reason = wire.LongRepr(text="", path="test_a.py", lineno=3, message="not today")
    more: dict[str, Any] = {"wasxfail": "known"} if xfail else {}
    return run_item(item, report(item, "call", "skipped", longrepr=reason, **more))


@pytest.mark.parametrize(
    ("xfail", "sentence"),
    [
        (False, "skipped with the patch; at the base it ran (passed)"),
        (True, "an expected failure with the patch; at the base it ran (passed)"),
    ],
)
def test_a_test_that_does_not_run_any_more_fails(stage: Stage, xfail: bool, sentence: str) -> None:
    def act(items: Sequence[int]) -> list[wire.Frame]:
        return [*skipped(0, xfail), *run_item(1), FINISHED]

    tests = collected("test_a", "test_b")
    result = run(stage, Twice(tests, tests, act))
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines([
        f"unproven: L3 test_a.py::test_a (test_a.py:1): {sentence}",
        "FAILED test_a.py::test_a - *",
    ])  # fmt: skip
    assert result.ret == 25


def subtest(item: int, outcome: wire.Outcome, xfail: bool = False) -> wire.Frame:
    reason = wire.LongRepr(text="", path="test_a.py", lineno=3, message="not today")
    more: dict[str, Any] = {"wasxfail": "known"} if xfail else {}
    if outcome != "passed":
        more["longrepr"] = reason
    return report(item, "call", outcome, subtest=wire.Subtest(msg="n", kwargs={}), **more)


@pytest.mark.parametrize("xfail", [False, True])
@pytest.mark.parametrize(("base", "status"), [("passed", 25), ("skipped", 0)])
def test_subtests_that_do_not_run_any_more_fail_their_test(
    stage: Stage, base: wire.Outcome, status: int, xfail: bool
) -> None:
    def at(outcome: wire.Outcome) -> Act:
        start, setup, *rest = run_item(0)
        one = subtest(0, outcome, xfail and outcome == "skipped")
        return lambda items: [start, setup, one, *rest, FINISHED]

    tests = collected("test_a")
    provider = Twice(tests, tests, at("skipped"), at(base))
    result = run(stage, provider)
    assert result.ret == status
    if status:
        result.stdout.fnmatch_lines([
            "unproven: L3 test_a.py::test_a (test_a.py:1): 1 subtests were skipped or expected to *"
        ])  # fmt: skip


def test_what_the_base_skips_may_be_skipped(stage: Stage) -> None:
    def act(items: Sequence[int]) -> list[wire.Frame]:
        return [*skipped(0), *skipped(1, xfail=True), FINISHED]

    tests = collected("test_a", "test_b")
    provider = FakeProvider(tests, act)
    result = run(stage, provider)
    result.assert_outcomes(skipped=1, xfailed=1)
    assert result.ret == 0


def died(**fields: Any) -> wire.Died:
    given: Mapping[str, Any] = {
        "cause": "exit", "status": 0, "item": 0, "phase": "run", "message": "it ended itself",
    }  # fmt: skip
    return wire.Died(n=0, **{**given, **fields})


@pytest.mark.parametrize(
    ("death", "status"),
    [
        (died(), 24),
        (died(cause="protocol", status=None), 24),
        (died(status=3), 1),
        (died(cause="crash", status=None), 1),
        (died(cause="memory", status=0), 1),
    ],
)
def test_a_process_that_ends_where_no_session_ends(
    stage: Stage, death: wire.Died, status: int
) -> None:
    def act(items: Sequence[int]) -> list[wire.Frame]:
        first: list[wire.Frame] = [wire.Start(n=0, item=0), report(0, "setup"), death]
        bad = failure(0, cause=death.cause)
        return [*first, bad, wire.Finish(n=0, item=0), *run_item(1), FINISHED]

    tests = collected("test_a", "test_b")
    result = run(stage, Twice(tests, tests, act))
    result.assert_outcomes(passed=1, failed=1)
    assert result.ret == status
    line = "tampered: L3 test_a.py::test_a (test_a.py:1): it ended itself"
    assert (line in result.outlines) is (status == 24)


def test_frames_that_contradict_each_other(stage: Stage) -> None:
    def act(items: Sequence[int]) -> list[wire.Frame]:
        return [*run_item(0), *run_item(0)]

    tests = collected("test_a", "test_b")
    result = run(stage, Twice(tests, tests, act))
    result.stdout.fnmatch_lines(
        ["tampered: L3 the sandbox's frames contradict themselves: test 0 started, *"]
    )
    assert result.ret == 24
    # A tree that is trusted as it is: an error, and no accusation.
    result = stage.run(FakeProvider(tests, act))
    result.stdout.no_fnmatch_line("*tampered*")
    assert result.ret == 33


def test_a_session_that_leaves_tests_out_and_says_all_is_well(stage: Stage) -> None:
    def act(items: Sequence[int]) -> list[wire.Frame]:
        return [*run_item(0), FINISHED]

    tests = collected("test_a", "test_b")
    result = run(stage, Twice(tests, tests, act))
    result.stdout.fnmatch_lines([
        "tampered: L3 test_a.py::test_b: the session ended with exit status 0, and one has no *"
    ])  # fmt: skip
    assert result.ret == 24


def test_failures_and_nothing_else_are_as_ever(stage: Stage) -> None:
    def act(items: Sequence[int]) -> list[wire.Frame]:
        return [*run_item(0, failure(0)), FINISHED]

    tests = collected("test_a", "test_b")
    result = run(stage, Twice(tests, tests, act), "-x")
    result.assert_outcomes(failed=1)
    assert result.ret == 1


def test_a_base_that_cannot_be_collected_says_so(stage: Stage) -> None:
    broken = wire.CollectReport(
        n=0, nodeid="test_b.py", outcome="failed", longrepr=wire.LongRepr(text="E   boom")
    )
    hello, *others = collected("test_a")
    provider = Twice([hello, broken, *others], collected("test_a", "test_b"))
    result = run(stage, provider)
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines([
        "sandbox: 1 tests at the base, *; expected ids partly from the candidate's own "
        "collection: at the base, test_b.py cannot be collected"
    ])  # fmt: skip
    assert result.ret == 0


def test_what_this_sandbox_cannot_give_is_named(stage: Stage) -> None:
    layers = wire.Layers(n=0, on=["hardened"], off={"apart": "there is only one user"})
    provider = FakeProvider([layers, *collected("test_a")], all_pass)
    run(stage, provider).stdout.fnmatch_lines(["sandbox: not apart here: there is only one user"])
