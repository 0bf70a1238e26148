"""What becomes of a run whose sandbox is lost, cannot be made, is kept, or is paid for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from pytest_sandbox import assemble, wire
from pytest_sandbox.errors import NothingDone, ProviderUnavailable, SandboxLost
from pytest_sandbox.provider import Provider, SandboxSpec
from pytest_sandbox.testing import FakeProvider, FakeSandbox
from tests.plugin.support import FINISHED, Stage, all_pass, collected, failure, report, run_item

Frames = list[wire.Frame]


@pytest.fixture
def stage(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Stage:
    monkeypatch.setattr("random.uniform", lambda low, high: 0.0)  # no waiting between tries
    return Stage(pytester)


class Losing(FakeProvider):
    """Loses the first sandboxes, each after what ``before`` says for it."""

    def __init__(
        self, names: Sequence[str], before: Sequence[Callable[[Sequence[int]], Frames]], **kw: Any
    ) -> None:
        super().__init__(collected(*names), self._act, **kw)
        self._before = before

    def _act(self, chosen: Sequence[int]) -> Iterable[wire.Frame]:
        number = len(self.sandboxes) - 1
        return self._before[number](chosen) if number < len(self._before) else all_pass(chosen)

    async def after_script(self, sandbox: FakeSandbox) -> int:
        if self.sandboxes.index(sandbox) < len(self._before):
            raise SandboxLost("the vendor ended it.")
        return 0

    def chosen(self) -> list[list[int]]:
        texts = [sandbox.files.get("/control/select.json") for sandbox in self.sandboxes]
        return [json.loads(text)["items"] for text in texts if text is not None]


def test_the_tests_without_a_result_run_in_a_new_sandbox(stage: Stage) -> None:
    def first(chosen: Sequence[int]) -> Frames:
        half: Frames = [wire.Start(n=0, item=2), report(2, "setup", "failed")]
        return [*run_item(0), *run_item(1, failure(1)), *half]

    provider = Losing(["test_a", "test_b", "test_c", "test_d"], [first])
    result = stage.run(provider, "-v")
    result.assert_outcomes(passed=3, failed=1)
    assert provider.chosen() == [[0, 1, 2, 3], [2, 3]]
    result.stdout.fnmatch_lines(
        ["*the vendor ended it. A new sandbox for 2 tests without a result (2 more*"]
    )
    assert str(result.stdout).count("test_c PASSED") == 1


def test_it_is_lost_more_often_than_allowed(stage: Stage) -> None:
    provider = Losing(["test_a", "test_b"], [lambda chosen: run_item(chosen[0])] * 3)
    provider.collection = collected("test_a", "test_b", "test_c", "test_d")
    result = stage.run(provider, "--sandbox-retries=1")
    assert result.ret == 31
    assert provider.chosen() == [[0, 1, 2, 3], [1, 2, 3]]
    assert "2 passed" in str(result.stdout)


def test_never_again_when_told_so(stage: Stage) -> None:
    provider = Losing(["test_a"], [lambda chosen: []])
    assert stage.run(provider, "--sandbox-retries=0").ret == 31
    assert len(provider.sandboxes) == 1


def test_failures_before_the_loss_count_for_maxfail(stage: Stage) -> None:
    provider = Losing(["test_a", "test_b", "test_c"], [lambda chosen: run_item(0, failure(0))])
    result = stage.run(provider, "--maxfail=2")
    orders = json.loads(provider.sandboxes[1].files["/control/select.json"])
    assert orders == {"items": [1, 2], "maxfail": 1}
    result.assert_outcomes(passed=2, failed=1)


def test_another_collection_is_no_continuation(stage: Stage) -> None:
    provider = Losing(["test_a", "test_b"], [])

    def first(chosen: Sequence[int]) -> Frames:
        provider.collection = collected("test_a", "test_other")
        return [*run_item(0)]

    provider._before = [first]
    result = stage.run(provider)
    assert result.ret == 31
    result.stdout.fnmatch_lines(["*collected other tests*"])


def test_lost_while_it_collects(stage: Stage) -> None:
    provider = Losing(["test_a", "test_b"], [lambda chosen: []])
    whole = provider.collection
    provider.collection = whole[:2]
    made = provider.create

    async def create(spec: SandboxSpec) -> FakeSandbox:
        if provider.sandboxes:
            provider.collection = whole
        return await made(spec)

    provider.create = create  # type: ignore[method-assign]
    result = stage.run(provider)
    result.assert_outcomes(passed=2)
    assert "collected 2 items" in str(result.stdout)


def test_lost_before_it_is_ready(stage: Stage) -> None:
    provider = FakeProvider(collected("test_a"), all_pass)
    made = provider.create
    asked = 0

    async def create(spec: SandboxSpec) -> FakeSandbox:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise SandboxLost("it was evicted before its first command")
        return await made(spec)

    provider.create = create  # type: ignore[method-assign]
    stage.run(provider).assert_outcomes(passed=1)
    assert (asked, len(provider.sandboxes)) == (2, 1)


class Unable(FakeProvider):
    """Cannot make a sandbox."""

    def __init__(self, name: str, error: Exception, *, check: bool = False) -> None:
        super().__init__([])
        self.name = name
        self._error = error
        self._check = check
        self.asked = 0

    async def check(self) -> None:
        if self._check:
            raise self._error

    async def create(self, spec: SandboxSpec) -> FakeSandbox:
        self.asked += 1
        raise self._error


class Several:
    """The plugin that brings several providers."""

    def __init__(self, *providers: FakeProvider) -> None:
        self._providers = {provider.name: provider for provider in providers}

    def pytest_sandbox_providers(self) -> Mapping[str, Callable[[], Provider]]:
        return {name: lambda p=p: p for name, p in self._providers.items()}  # type: ignore[misc]


@pytest.mark.parametrize(
    ("unable", "asked"),
    [
        (Unable("busy", NothingDone("the account is full")), 6),
        (Unable("shut", ProviderUnavailable("no key")), 1),
        (Unable("gone", ProviderUnavailable("no key"), check=True), 0),
    ],
    ids=["full", "refuses", "checks"],
)
def test_the_next_provider_when_the_first_cannot(stage: Stage, unable: Unable, asked: int) -> None:
    good = FakeProvider(collected("test_a"), all_pass)
    stage.extra.append(Several(unable))
    result = stage.run(good, f"--sandbox={unable.name},fake")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines([f"*{unable.name} cannot make a sandbox, so fake is asked: *"])
    assert unable.asked == asked


def test_none_of_them_can(stage: Stage) -> None:
    stage.extra.append(Several(Unable("one", NothingDone("full")), Unable("two", NothingDone("f"))))
    assert stage.run(FakeProvider([]), "--sandbox=one,two").ret == 31


def test_no_other_provider_once_it_runs(stage: Stage) -> None:
    first = Losing(["test_a"], [lambda chosen: []])
    first.name = "first"
    made = first.create

    async def create(spec: SandboxSpec) -> FakeSandbox:
        if first.sandboxes:
            raise ProviderUnavailable("no more money")
        return await made(spec)

    first.create = create  # type: ignore[method-assign]
    second = FakeProvider(collected("test_a"), all_pass)
    stage.extra.append(Several(first))
    result = stage.run(second, "--sandbox=first,fake")
    assert result.ret == 31
    assert second.sandboxes == []
    result.stdout.fnmatch_lines(["*no more money*"])


@pytest.mark.parametrize("refused", [False, True])
def test_a_key_that_expires_while_a_sandbox_is_made(
    stage: Stage, refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be there: the next start looks again, unless it is known to be gone."""
    # Others may have left what the next start shall look for.
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    provider = FakeProvider(collected("test_a"), all_pass)
    made = provider.create
    reaped: list[str] = []

    async def create(spec: SandboxSpec) -> FakeSandbox:
        (await made(spec)).closed = True  # not by us
        raise ProviderUnavailable("the key has expired")

    async def reap(name: str, sandbox_id: str | None = None) -> None:
        reaped.append(name)
        if refused:
            raise ProviderUnavailable("the key has expired")

    provider.create, provider.reap = create, reap  # type: ignore[method-assign]
    assert stage.run(provider).ret == 30
    (sandbox,) = provider.sandboxes
    assert reaped == [sandbox.id]
    left = [entry.name for entry in assemble.host().ledger.entries()]
    assert left == ([sandbox.id] if refused else [])


class Paid(FakeProvider):
    """Costs something, and lets people in."""

    async def create(self, spec: SandboxSpec) -> FakeSandbox:
        sandbox = await super().create(spec)
        sandbox.rate, sandbox.attach = 100.0, f"fake shell {sandbox.id}"
        return sandbox


@pytest.mark.parametrize(
    ("when", "bad", "kept"),
    [("never", True, False), ("failed", True, True), ("failed", False, False),
     ("always", False, True)],
)  # fmt: skip
def test_a_sandbox_is_kept_for_a_look(
    pytester: pytest.Pytester, stage: Stage, when: str, bad: bool, kept: bool
) -> None:
    def act(chosen: Sequence[int]) -> Frames:
        return [*run_item(0, failure(0) if bad else None), FINISHED]

    provider = Paid(collected("test_a"), act, keep=True)
    result = pytester.runpytest_inprocess(
        "--sandbox=fake", f"--sandbox-keep={when}", plugins=[*stage.extra, Several(provider)]
    )
    (sandbox,) = provider.sandboxes
    assert sandbox.closed is not kept
    assert (f"get in with: fake shell {sandbox.id}" in str(result.stdout)) is kept
    # It is not ended by the next session, but by a person who says so.
    again = Paid(collected("test_a"), all_pass, keep=True)
    reaped: list[str] = []

    async def reap(name: str, sandbox_id: str | None) -> None:
        reaped.append(name)

    again.reap = reap  # type: ignore[method-assign]
    pytester.runpytest_inprocess("--sandbox=fake", plugins=[Several(again)])
    assert reaped == []
    pytester.runpytest_inprocess("--sandbox-reap", plugins=[Several(again)])
    assert reaped == ([sandbox.id] if kept else [])


def test_an_age_that_is_none_is_told_by_its_option(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_inprocess("--sandbox-reap", "--sandbox-reap-age=old")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --sandbox-reap-age: 'old' is not a time such as 90*"])


def test_what_cannot_be_kept_is_not_begun(stage: Stage) -> None:
    provider = FakeProvider(collected("test_a"), all_pass)
    result = stage.run(provider, "--sandbox-keep=always")
    assert (result.ret, provider.log) == (4, [])
    result.stderr.fnmatch_lines(["*fake has no --sandbox-keep*"])


@pytest.mark.parametrize(
    ("args", "line"),
    [([], "1 fake sandbox, * s, about $* (prices of today)"),
     (["--sandbox-price=0.36"], "1 fake sandbox, * s, about $0.000* (--sandbox-price)")],
)  # fmt: skip
def test_the_bill(stage: Stage, args: list[str], line: str) -> None:
    provider = Paid(collected("test_a"), all_pass, prices="prices of today")
    result = stage.run(provider, *args)
    result.stdout.fnmatch_lines([f"sandbox: {line}"])


def test_no_bill_for_what_costs_nothing(stage: Stage) -> None:
    result = stage.run(FakeProvider(collected("test_a"), all_pass))
    assert "about $" not in str(result.stdout)


@pytest.mark.parametrize(
    ("args", "status"),
    [
        ([], 0),
        (["--sandbox-timeout=2h"], 4),
        (["--sandbox-timeout=2h", "--sandbox-max-lifetime=24h", "--sandbox-concurrency=100"], 0),
    ],
)
def test_how_long_a_sandbox_may_live(stage: Stage, args: list[str], status: int) -> None:
    provider = FakeProvider(collected("test_a"), all_pass, max_ttl=3600.0, concurrency=20)
    result = stage.run(provider, *args)
    assert result.ret == status
    if status:
        result.stderr.fnmatch_lines(["*fake ends every sandbox after 3600 s*--sandbox-timeout*"])
        assert provider.log == []
    else:
        [(_, spec), *_] = provider.log
        assert spec.ttl <= provider.able.max_ttl
        assert provider.able.concurrency == (100 if args else 20)
