"""A project whose right results are known, run at an emulated vendor, judged, and cleaned up after.

Knows no vendor and no fault.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from pytest_sandbox import assemble, registry
from pytest_sandbox.api import RunResult, async_run_tests
from pytest_sandbox.consumer import Phase
from pytest_sandbox.errors import InfraError, ProviderUnavailable, SandboxError
from pytest_sandbox.patience import checked
from pytest_sandbox.provider import Provider
from tests.emulators.running import Running
from tests.fixture_repos import git

#: Longest time that any run may take, in seconds.
BOUND = 90.0
#: What the sandbox's pytest is made of: no index is asked for packages.
_PACKAGES = ("pytest", "pluggy", "iniconfig", "packaging", "pygments")
SETUP = (
    "python -I -c \"import sysconfig, zipfile; zipfile.ZipFile('packages.zip')"
    ".extractall(sysconfig.get_path('purelib'))\" && python -m pytest -q --collect-only"
)
_LIB = "def double(number):\n    return 2 * number\n"
_TESTS = """\
import os
import time

import pytest
from lib import double


@pytest.mark.parametrize("number", range(4))
def test_double(number):
    time.sleep(0.1)
    assert double(number) == 2 * number


def test_output():
    os.write(1, b"\\xff\\xfe\\x80 no text \\xc3\\x28\\n")


def test_same():
    assert double(0) == 0


@pytest.mark.skip(reason="not today")
def test_skipped():
    pass


@pytest.mark.xfail(strict=True)
def test_expected():
    assert double(1) == 3
"""
_NAMES = [*(f"test_double[{number}]" for number in range(4)), "test_output", "test_same"]
_RIGHT: dict[str, str] = {
    **{f"test_lib.py::{name}": "passed" for name in _NAMES},
    "test_lib.py::test_skipped": "skipped",
    "test_lib.py::test_expected": "xfailed",
}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A patch, and what is right to say of it."""

    name: str
    patch: str
    outcomes: Mapping[str, str]


def _patch(new: str) -> str:
    old = "    return 2 * number"
    return (
        "--- a/lib.py\n+++ b/lib.py\n@@ -1,2 +1,2 @@\n def double(number):\n"
        f"-{old}\n+    return {new}\n"
    )


GOOD = Candidate("good", _patch("number + number"), _RIGHT)
#: Wrong for 1 and 3 only.
BAD = Candidate(
    "bad",
    _patch("number + number - number % 2"),
    {**_RIGHT, **{f"test_lib.py::test_double[{number}]": "failed" for number in (1, 3)}},
)


def make_project(folder: Path) -> Path:
    """The project, as a git repository in a folder that does not exist yet."""
    folder.mkdir(parents=True)
    (folder / "lib.py").write_text(_LIB)
    (folder / "test_lib.py").write_text(_TESTS)
    (folder / "conftest.py").write_text("")
    with zipfile.ZipFile(folder / "packages.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in _PACKAGES:
            for path in metadata.files(name) or ():
                if path.suffix != ".pyc" and ".." not in path.parts:
                    archive.write(path.locate(), str(path))
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "Start")
    return folder


@dataclass(slots=True)
class Told:
    """What became of one run."""

    #: "right", "killed", "infra error", "unavailable", or what is wrong.
    verdict: str
    seconds: float
    #: The error, or what was wrong.
    text: str = ""
    #: Sandboxes that were lost on the way.
    lost: int = 0
    #: What was ended afterwards only.
    reaped: int = 0
    phases: list[str] = field(default_factory=list)

    @property
    def allowed(self) -> bool:
        return self.verdict in ("right", "infra error", "unavailable")


class Site:
    """An emulated vendor, a project, and a place of its own for ledger and store.

    The environment has to lead to the vendor and to that place: see ``site``.
    """

    def __init__(self, vendor: str, running: Running, project: Path) -> None:
        self.vendor = vendor
        self.running = running
        self.project = project
        #: Sandboxes that a run may lose.
        self.retries = 1

    def provider(self) -> Provider:
        """One whose plan allows to make sandboxes fast."""
        return registry.factory(self.vendor, {}, {"create_rate": 50.0})()

    async def run(
        self,
        candidate: Candidate,
        *,
        provider: Provider | None = None,
        on_phase: Callable[[Phase], None] = lambda phase: None,
        bound: float = BOUND,
    ) -> Told:
        """One run of the candidate, with a new provider unless one is given."""
        phases: list[str] = []
        lost = 0

        def phase(phase: Phase) -> None:
            nonlocal lost
            lost += "A new sandbox for" in phase.detail
            phases.append(f"{phase.name} {phase.detail}".strip())
            on_phase(phase)

        async def go() -> RunResult:
            if provider is not None:
                return await self._run(candidate, provider, phase)
            async with self.provider() as made:
                await checked(made)
                return await self._run(candidate, made, phase)

        start = time.monotonic()
        text = ""
        try:
            async with asyncio.timeout(bound):
                result = await go()
        except ProviderUnavailable as error:
            verdict, text = "unavailable", str(error)
        except InfraError as error:
            verdict, text = "infra error", str(error)
        except TimeoutError:
            verdict = f"no end within {bound:.0f} s"
        except SandboxError as error:
            verdict, text = type(error).__name__, str(error)
        else:
            verdict, text = judged(candidate, result)
        return Told(verdict, time.monotonic() - start, text, lost, phases=phases)

    async def _run(
        self, candidate: Candidate, provider: Provider, on_phase: Callable[[Phase], None]
    ) -> RunResult:
        return await async_run_tests(
            self.project,
            patch=candidate.patch,
            provider=provider,
            on_phase=on_phase,
            setup=[SETUP],
            setup_inputs=["packages.zip"],
            timeout=60,
            collect_timeout=60,
            retries=self.retries,
        )

    async def forget_snapshots(self) -> None:
        """The next run has to set up its environment again."""
        host = assemble.host()
        async with self.provider() as provider:
            for entry in host.store.entries():
                await provider.delete_snapshot(entry.snapshot)
                host.store.remove(entry.key)
            for snapshot in await provider.snapshots():
                await provider.delete_snapshot(snapshot)

    async def clean(self) -> int:
        """End what is left, as the reaper does: of what the ledger has. How many there were.

        Raises:
            AssertionError: something is left that the ledger does not have, or cannot be ended.
        """
        entries = assemble.host().ledger.entries()
        left = self.running.live()
        async with self.provider() as provider:
            for entry in entries:
                assert entry.provider == self.vendor
                await provider.reap(entry.name, entry.sandbox_id)
                entry.close()
        still = self.running.live()
        assert not still, f"left at {self.vendor} after reaping: {json.dumps(still)}"
        return len(left)


def judged(candidate: Candidate, result: RunResult) -> tuple[str, str]:
    """What to call it, and more about it.

    "right"; "killed", where the test process was, it is said so, and all else is right; "wrong".
    """
    told = {test.nodeid: test.outcome for test in result}
    passed = set(candidate.outcomes.values()) <= {"passed", "skipped", "xfailed"}
    sound = result.end.reason == "finished" and not result.collection_errors
    if told == candidate.outcomes and result.passed == passed and sound:
        return "right", ""
    known = all(
        told.get(test) in (outcome, "error", "failed")
        for test, outcome in candidate.outcomes.items()
    )
    if result.end.reason == "died" and known and not result.passed:
        return "killed", result.end.message
    return "wrong", f"{result!r}\n{told}\n{result.report()}\n{result.output[-3000:]}"


@contextmanager
def site(vendor: str, folder: Path) -> Iterator[Site]:
    """A started emulator and all else, with the environment as it has to be, for the block."""
    with Running(vendor) as running:
        variables = {f"XDG_{kind}_HOME": str(folder / kind) for kind in ("STATE", "CACHE")}
        variables |= running.env
        before = {name: os.environ.get(name) for name in variables}
        os.environ.update(variables)
        try:
            yield Site(vendor, running, make_project(folder / "project"))
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


def summed(told: Any) -> str:
    """For a failed assertion."""
    return f"{told.verdict} after {told.seconds:.1f} s: {told.text}\n" + "\n".join(told.phases)
