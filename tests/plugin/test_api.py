"""The engine as Python: typed, in the caller's own event loop, and nothing left when cancelled."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, assert_type

import anyio
import pytest

from pytest_sandbox import wire
from pytest_sandbox.api import RunResult, async_run_tests, run_tests
from pytest_sandbox.consumer import Phase
from pytest_sandbox.errors import BadInput, PatchError, ProtocolError, SandboxError
from pytest_sandbox.results import TestResult
from pytest_sandbox.testing import FakeProvider
from tests import fixture_repos
from tests.plugin.support import FINISHED, all_pass, collected, failure, run_item

CALC = fixture_repos.load("calc")


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    return CALC.make(tmp_path)


@pytest.fixture(autouse=True)
def nothing_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No temporary folder outlives a run."""
    folder = tmp_path_factory.mktemp("scratch")
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before
    assert list(folder.iterdir()) == []


def fake(*names: str, **kw: Any) -> FakeProvider:
    return FakeProvider(collected(*(names or ("test_a", "test_b"))), all_pass, **kw)


def test_a_result_is_typed(repo: Path) -> None:
    phases: list[str] = []

    def note(phase: Phase) -> None:
        phases.append(phase.name)

    result = run_tests(repo, provider=fake(), on_phase=note, timeout="7m", venv=None)
    assert_type(result, RunResult)
    assert_type(result["test_a.py::test_a"], TestResult)
    assert result.passed
    assert [test.outcome for test in result] == ["passed", "passed"]
    assert phases[0] == "create"
    assert {"upload", "collect", "run"} <= set(phases)


def test_failures_say_what_failed(repo: Path) -> None:
    def act(items: object) -> list[wire.Frame]:
        return [*run_item(0, failure(0)), *run_item(1), FINISHED]

    result = run_tests(repo, provider=FakeProvider(collected("test_a", "test_b"), act))
    assert not result.passed
    assert [test.nodeid for test in result.failed] == ["test_a.py::test_a"]
    assert "assert 1 == 2" in result.report()
    assert "test_a.py::test_a" in repr(result)
    with pytest.raises(KeyError, match=r"did you mean 'test_a\.py::test_b'"):
        result["test_b"]


def test_a_patch_by_path_text_or_bytes(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = CALC.patches["good.patch"]
    monkeypatch.chdir(path.parent)
    for patch in (path, str(path), "good.patch", path.read_text(), path.read_bytes()):
        result = run_tests(repo, patch=patch, provider=fake())
        assert result.passed
        assert result.name in ("good.patch on HEAD", "patch on HEAD")


BAD: dict[str, tuple[dict[str, Any], type[SandboxError], str]] = {
    "unknown": ({"timout": 3}, BadInput, "no option 'timout'"),
    "reserved": ({"artifact_dir": "x"}, BadInput, "artifact_dir"),
    "value": ({"memory": "lots"}, BadInput, "memory"),
    "quotes": ({"pytest_args": "'"}, BadInput, "no closing quotation"),
    "provider": ({"provider": "cloud9"}, BadInput, "no provider 'cloud9'"),
    "patch": ({"patch": "nowhere.diff"}, BadInput, "there is no patch 'nowhere.diff'"),
    "empty": ({"patch": ""}, PatchError, "empty"),
    "prose": ({"patch": "I think\nthat is it\n"}, PatchError, "patch"),
    "base": ({"base": "nothing"}, BadInput, "nothing"),
    "unset": ({"env": ["NOT_SET_HERE"]}, BadInput, "NOT_SET_HERE"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_before_anything_is_made(repo: Path, name: str) -> None:
    options, error, text = BAD[name]
    provider = fake()
    with pytest.raises(error, match=text):
        run_tests(repo, **{"provider": provider, **options})
    assert provider.log == []


def test_arguments_are_a_list(repo: Path) -> None:
    provider = fake()
    with pytest.raises(TypeError, match="a list of arguments, not one string"):
        run_tests(repo, args="tests/test_calc.py", provider=provider)
    assert provider.log == []


def test_bad_options_are_refused_before_a_provider_is_even_opened(repo: Path) -> None:
    """By name, so that the provider would be opened here, which may take long or cost."""
    with pytest.raises(BadInput, match="no option 'timout'"):
        run_tests(repo, provider="local", timout=3)
    with pytest.raises(BadInput, match="memory"):
        run_tests(repo, provider="local", memory="lots")


def test_in_a_loop_that_runs(repo: Path) -> None:
    async def main() -> RunResult:
        result = await async_run_tests(repo, provider=fake())
        assert_type(result, RunResult)
        with pytest.raises(RuntimeError, match="async_run_tests"):
            run_tests(repo, provider=fake())
        return result

    assert asyncio.run(main()).passed
    assert anyio.run(main).passed


def test_several_at_once(repo: Path) -> None:
    # What the base says is known then, and needs no sandbox of its own below.
    run_tests(repo, patch=CALC.patches["good.patch"], provider=fake())
    provider = fake()

    async def main() -> list[RunResult]:
        patches = [None, CALC.patches["good.patch"], CALC.patches["bad.patch"], None]
        runs = (async_run_tests(repo, patch=patch, provider=provider) for patch in patches)
        return await asyncio.gather(*runs)

    results = asyncio.run(main())
    assert [result.passed for result in results] == [True] * 4
    assert len(provider.sandboxes) == 4
    assert all(sandbox.closed for sandbox in provider.sandboxes)


@pytest.mark.parametrize("seconds", [0, 0.01, 0.05, 0.3, 1])
@pytest.mark.parametrize("native", [True, False])
def test_cancelling_leaves_nothing(repo: Path, seconds: float, native: bool) -> None:
    """At whatever point it hits: opening, composing the tree, collecting, running."""
    provider = FakeProvider(collected("test_a"), lambda items: (), hang=True)

    async def by_task() -> None:
        task = asyncio.create_task(async_run_tests(repo, provider=provider))
        await asyncio.sleep(seconds)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def by_scope() -> None:
        with anyio.move_on_after(seconds) as scope:
            await async_run_tests(repo, provider=provider)
        assert scope.cancelled_caught

    asyncio.run(by_task() if native else by_scope())
    assert all(sandbox.closed for sandbox in provider.sandboxes)


@pytest.mark.parametrize("make", [run_tests, lambda *a, **k: asyncio.run(async_run_tests(*a, **k))])
def test_a_sandbox_that_talks_nonsense(repo: Path, make: Callable[..., RunResult]) -> None:
    provider = FakeProvider([b"{}\n"])
    with pytest.raises(ProtocolError):
        make(repo, provider=provider)
    assert all(sandbox.closed for sandbox in provider.sandboxes)
