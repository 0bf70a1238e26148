"""One suite in several sandboxes: the session is that of one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from pytest_sandbox import wire
from pytest_sandbox.errors import CreateFailed, SandboxLost
from pytest_sandbox.provider import SandboxSpec
from pytest_sandbox.testing import FakeProvider, FakeSandbox
from tests.plugin.support import FINISHED, Stage, all_pass, collected, failure, run_item

NAMES = [f"test_{letter}" for letter in "abcdef"]


@pytest.fixture
def stage(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Stage:
    monkeypatch.setattr("random.uniform", lambda low, high: 0.0)  # no waiting between tries
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Stage(pytester)


def shares(provider: FakeProvider) -> list[list[int]]:
    texts = [sandbox.files.get("/control/select.json") for sandbox in provider.sandboxes]
    return sorted(json.loads(text)["items"] for text in texts if text is not None)


def failing(*bad: int) -> FakeProvider:
    def act(chosen: Sequence[int]) -> Iterable[wire.Frame]:
        for item in chosen:
            yield from run_item(item, failure(item) if item in bad else None)
        yield FINISHED

    return FakeProvider(collected(*NAMES), act)


def test_every_test_is_heard_of_once_and_in_order(stage: Stage) -> None:
    provider = failing(1, 4)
    result = stage.run(provider, "-v", "--sandbox-split=3")
    result.assert_outcomes(passed=4, failed=2)
    assert shares(provider) == [[0, 1], [2, 3], [4, 5]]
    said = [line for line in result.outlines if "%]" in line]
    assert [line.split("::")[1].split()[0] for line in said] == NAMES
    assert all(sandbox.closed for sandbox in provider.sandboxes)
    assert str(result.stdout).count("collected 6 items") == 1


def test_the_selection_is_what_is_shared(stage: Stage) -> None:
    provider = failing()
    stage.run(provider, "-k", "not test_b and not test_c", "--sandbox-split=2").assert_outcomes(
        passed=4, deselected=2
    )
    assert shares(provider) == [[0, 3], [4, 5]]


@pytest.mark.parametrize(
    ("args", "counts"),
    [
        (["-x"], {"passed": 2, "failed": 1}),
        (["--maxfail=2"], {"passed": 2, "failed": 2}),
        (["--maxfail=3"], {"passed": 3, "failed": 3}),
    ],
)
def test_the_first_failures_are_those_of_one_sandbox(
    stage: Stage, args: list[str], counts: dict[str, int]
) -> None:
    alone = stage.run(failing(2, 3, 5), *args)
    split = stage.run(failing(2, 3, 5), "--sandbox-split=3", *args)
    for result in (alone, split):
        assert {**result.parseoutcomes(), "warnings": 0} == {**counts, "warnings": 0}
    assert alone.ret == split.ret


def test_nothing_to_run_takes_no_sandboxes(stage: Stage) -> None:
    provider = failing()
    result = stage.run(provider, "--collect-only", "-q", "--sandbox-split=5")
    assert str(result.stdout).count("::test_") == 6
    assert all(sandbox.closed for sandbox in provider.sandboxes)
    assert shares(provider) in ([], [[]])
    one = failing()
    stage.run(one, "-k", "test_d", "--sandbox-split=5").assert_outcomes(passed=1, deselected=5)
    assert shares(one) == [[3]]


class Odd(FakeProvider):
    """One of its sandboxes is not like the first."""

    def __init__(self, error: Exception | None, collection: list[wire.Frame] | None) -> None:
        super().__init__(collected(*NAMES), all_pass)
        self._error = error
        self._other = collection

    async def create(self, spec: SandboxSpec) -> FakeSandbox:
        if self.sandboxes and self._error is not None:
            raise self._error
        if self.sandboxes and self._other is not None:
            self.collection = self._other
        return await super().create(spec)


@pytest.mark.parametrize(
    ("names", "what"),
    [
        ([*NAMES[:5], "test_x"], "'test_a.py::test_f' in one is 'test_a.py::test_x' in another"),
        (NAMES[:5], "6 and 5 tests"),
    ],
)
def test_sandboxes_that_collect_other_tests(stage: Stage, names: list[str], what: str) -> None:
    result = stage.run(Odd(None, collected(*names)), "--sandbox-split=2")
    assert result.ret == 4
    assert f"which collect different ones: {what}" in str(result.stdout).replace("\n", " ")


def test_where_one_of_them_cannot_be_had(stage: Stage) -> None:
    result = stage.run(Odd(CreateFailed("the account is full"), None), "--sandbox-split=2")
    assert result.ret == 31
    assert "there is no sandbox for it: the account is full" in str(result.stdout)


class Losing(FakeProvider):
    """Loses the second sandbox after one test."""

    def __init__(self) -> None:
        super().__init__(collected(*NAMES), self._act)
        self.lost: FakeSandbox | None = None

    def _act(self, chosen: Sequence[int]) -> Iterable[wire.Frame]:
        if 3 in chosen and self.lost is None:
            return run_item(3)
        return all_pass(chosen)

    async def after_script(self, sandbox: FakeSandbox) -> int:
        chosen = json.loads(sandbox.files["/control/select.json"])["items"]
        if 3 in chosen and self.lost is None:
            self.lost = sandbox
            raise SandboxLost("the vendor ended it.")
        return 0


def test_a_lost_sandbox_is_replaced_for_its_share(stage: Stage) -> None:
    provider = Losing()
    result = stage.run(provider, "--sandbox-split=2")
    result.assert_outcomes(passed=6)
    assert shares(provider) == [[0, 1, 2], [3, 4, 5], [4, 5]]


def test_pytest_that_refuses_to_start(stage: Stage) -> None:
    end = wire.End(n=0, reason="usage", exitstatus=4, message="unrecognized arguments: --x")
    result = stage.run(FakeProvider([end]), "--sandbox-split=2")
    assert result.ret == 4
    assert "unrecognized arguments" in str(result.stderr)


def test_a_session_that_ends_itself(stage: Stage) -> None:
    """Tests before it have their results, as in a single sandbox; those after it have none."""

    def act(chosen: Sequence[int]) -> Iterable[wire.Frame]:
        for item in chosen:
            if item == 3:
                yield wire.End(n=0, reason="exit", exitstatus=2, message="enough")
                return
            yield from run_item(item)
        yield FINISHED

    for split in ("1", "3"):
        provider = FakeProvider(collected(*NAMES), act)
        result = stage.run(provider, f"--sandbox-split={split}")
        assert result.parseoutcomes()["passed"] == 3
        assert "enough" in str(result.stdout)


def test_shares_are_balanced_by_what_tests_took(stage: Stage) -> None:
    """test_a takes as long as all others: the second time it is alone."""

    def act(chosen: Sequence[int]) -> Iterable[wire.Frame]:
        for item in chosen:
            for frame in run_item(item):
                if isinstance(frame, wire.Report) and item == 0:
                    frame = wire.Report(n=0, item=0, when=frame.when, outcome="passed",
                                        duration=0.05, start=1.0, stop=2.0)  # fmt: skip
                yield frame
        yield FINISHED

    first, second = (FakeProvider(collected(*NAMES), act) for _ in range(2))
    for provider in (first, second):
        stage.run(provider, "--sandbox-split=2").assert_outcomes(passed=6)
    assert shares(first) == [[0, 1, 2], [3, 4, 5]]
    assert shares(second) == [[0], [1, 2, 3, 4, 5]]


def test_files_to_bring_back_are_of_one_sandbox(stage: Stage) -> None:
    result = stage.run(failing(), "--sandbox-split=2", "--sandbox-artifact=*.xml")
    assert result.ret == 4
    assert "do not go together" in str(result.stdout) + str(result.stderr)
