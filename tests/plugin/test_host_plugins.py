"""Other plugins in the host's environment: loaded as usual, and none acts on what runs elsewhere.

Their own options are refused with the way to say it to the sandbox's pytest.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from pytest_sandbox import wire
from pytest_sandbox.testing import FakeProvider
from tests.plugin.support import FINISHED, Stage, collected, failure, run_item

#: As they are named where they are installed: by their entry points' modules.
PLUGINS = {
    "cov": "pytest_cov.plugin",
    "rerunfailures": "pytest_rerunfailures",
    "timeout": "pytest_timeout",
    "randomly": "pytest_randomly",
    "asyncio": "pytest_asyncio.plugin",
    "xdist": "xdist.plugin",
}
MARKS = {
    "test_a": [wire.Mark(name="timeout"), wire.Mark(name="flaky", kwargs={"reruns": 3})],
    "test_b": [wire.Mark(name="asyncio"), wire.Mark(name="no_cover")],
    "test_c": [wire.Mark(name="xdist_group", kwargs={"name": "x"}), wire.Mark(name="skip")],
}


@pytest.fixture
def stage(pytester: pytest.Pytester) -> Stage:
    return Stage(pytester)


def act(chosen: Sequence[int]) -> list[wire.Frame]:
    frames: list[wire.Frame] = []
    for index in chosen:
        frames += run_item(index, failure(index) if index == 0 else None)
    return [*frames, FINISHED]


def provider() -> FakeProvider:
    return FakeProvider(collected("test_a", "test_b", "test_c", marks=MARKS), act)


@pytest.mark.parametrize("name", [*PLUGINS, "all"])
@pytest.mark.parametrize("args", [[], ["-m", "timeout or asyncio or skip"]])
def test_a_plugin_that_is_only_installed_changes_nothing(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, name: str, args: list[str]
) -> None:
    monkeypatch.setenv("PYTEST_TIMEOUT", "0.001")
    names = PLUGINS.values() if name == "all" else [PLUGINS[name]]
    stage.load("pytest_sandbox.plugin", *names)
    fake = provider()
    result = stage.run(fake, "-v", *args)
    result.assert_outcomes(passed=2, failed=1)
    orders = json.loads(fake.sandboxes[0].files["/control/select.json"])
    assert orders["items"] == [0, 1, 2], "in the sandbox's order"
    for word in (
        "rerun",
        "random seed",
        "Using --randomly",
        "asyncio: mode",
        "timeout:",
        "Warning",
    ):
        assert word not in result.stdout.str() + result.stderr.str()


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["--cov=pkg"], "--sandbox-artifact .coverage"),
        (["--reruns=2"], "--sandbox-pytest-args='--reruns 2'"),
        (["--timeout=3"], "--sandbox-test-timeout"),
        (["--randomly-seed=3"], "--sandbox-pytest-args='-p randomly --randomly-seed=1'"),
        (["-p", "no:doctest", "--randomly-seed=last"], "--sandbox-pytest-args='-p randomly"),
        (["-n2"], "--sandbox-pytest-args='-n 4'"),
        (["--tx=2*popen", "--dist=load"], "one sandbox"),
        (["-f"], "on this machine"),
    ],
)
def test_its_option_is_refused(stage: Stage, args: list[str], text: str) -> None:
    stage.load("pytest_sandbox.plugin", *PLUGINS.values(), "xdist.looponfail")
    fake = provider()
    result = stage.run(fake, *args)
    assert text in result.stderr.str()
    assert result.ret == 4
    assert fake.log == []


def test_without_the_flag_they_work_as_ever(stage: Stage) -> None:
    names = ("asyncio", "timeout", "randomly")
    stage.load("pytest_sandbox.plugin", *(PLUGINS[name] for name in names))
    stage.pytester.makepyfile(
        """
        import asyncio, time, pytest

        @pytest.mark.asyncio
        async def test_async():
            await asyncio.sleep(0)

        @pytest.mark.timeout(0.1)
        def test_slow():
            time.sleep(5)
        """
    )
    # pytest-asyncio warns where this is not said, and warnings are errors in this process.
    scope = "asyncio_default_fixture_loop_scope=function"
    result = stage.pytester.runpytest_inprocess("-p", "no:cacheprovider", "-o", scope)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["Using --randomly-seed=*", "asyncio: mode=*", "*Timeout*"])
