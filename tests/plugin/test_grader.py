"""``Grader`` in its caller's loop: how many at a time, what cancelling ends, many processes."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from pytest_sandbox import wire
from pytest_sandbox.errors import BadInput, InfraError, SandboxLost
from pytest_sandbox.grading import Budget, Grader, OverBudget, Task
from pytest_sandbox.grading.model import Verdict
from pytest_sandbox.grading.repositories import Repositories
from pytest_sandbox.provider import SandboxSpec
from pytest_sandbox.testing import FakeProvider, FakeSandbox
from pytest_sandbox.workspace import Workspace
from tests.plugin.support import FINISHED, Stage, all_pass, collected, failure, run_item
from tests.unit.gitrepo import Repo


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("CACHE", "STATE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name))
    Repo.make(tmp_path / "repo", {"a.py": b"A = 0\n"})
    return tmp_path / "repo"


def task(repo: Path | str, **more: Any) -> Task:
    fields: dict[str, Any] = {"fail_to_pass": ("test_a.py::test_a",), "base": "HEAD", **more}
    return Task(id="t", source="t.toml", repo=str(repo), **fields)


def patch(number: int) -> str:
    return f"--- a/a.py\n+++ b/a.py\n@@ -1 +1 @@\n-A = 0\n+A = {number}\n"


class Counted(FakeProvider):
    """Counts the sandboxes that are there at a time; each lasts a moment, or for ever."""

    def __init__(self, *, hang: bool = False, fail: bool = False) -> None:
        super().__init__(collected("test_a"), self._act, hang=hang)
        self._fail = fail
        self.most = 0

    def _act(self, chosen: Sequence[int]) -> Iterable[wire.Frame]:
        frames = list(all_pass(chosen))
        if self._fail:
            frames = [*(one for n in chosen for one in run_item(n, failure(n))), FINISHED]
        return frames[:-1] if self._hang else frames

    async def create(self, spec: SandboxSpec) -> FakeSandbox:
        made = await super().create(spec)
        self.most = max(self.most, len(self.open))
        return made

    async def after_script(self, sandbox: FakeSandbox) -> int:
        await asyncio.sleep(0.02)
        return await super().after_script(sandbox)

    @property
    def open(self) -> list[FakeSandbox]:
        return [sandbox for sandbox in self.sandboxes if not sandbox.closed]


async def until(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


def test_no_more_than_there_are_places(repo: Path) -> None:
    async def main() -> None:
        provider = Counted()
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.005)
                ticks += 1

        ticking = asyncio.ensure_future(tick())
        async with Grader(provider, workers=3) as grader:
            graded = (grader.grade(task(repo), patch(n + 1), name=str(n)) for n in range(12))
            verdicts = await asyncio.gather(*graded)
        ticking.cancel()
        assert [verdict.outcome for verdict in verdicts] == ["resolved"] * 12
        assert [verdict.candidate for verdict in verdicts] == [str(n) for n in range(12)]
        assert (provider.most, len(provider.sandboxes)) == (3, 12)
        # The caller's loop went on meanwhile.
        assert ticks > 5

    asyncio.run(main())


def test_cancelling_ends_what_it_began_and_gives_the_place_back(repo: Path) -> None:
    async def main() -> None:
        provider = Counted(hang=True)
        async with Grader(provider, workers=1) as grader:
            first = asyncio.ensure_future(grader.grade(task(repo), patch(1)))
            await until(lambda: len(provider.open) == 1)
            # Not before: whoever comes first is who runs it, and planning is done in threads.
            twin = asyncio.ensure_future(grader.grade(task(repo), patch(1)))
            waiting = asyncio.ensure_future(grader.grade(task(repo), patch(2)))
            first.cancel()
            await asyncio.wait([first])
            assert first.cancelled()
            # Whoever wanted the same runs it now.
            await until(lambda: len(provider.sandboxes) == 2)
            assert provider.sandboxes[0].closed
            provider._hang = False
            twin.cancel()
            assert (await waiting).resolved
        assert provider.open == []

    asyncio.run(main())


def test_leaving_ends_everything(repo: Path) -> None:
    async def main() -> Counted:
        provider = Counted(hang=True)

        async def loop() -> None:
            async with Grader(provider, workers=2) as grader, asyncio.TaskGroup() as group:
                for n in range(5):
                    group.create_task(grader.grade(task(repo), patch(n + 1)))

        looping = asyncio.ensure_future(loop())
        await until(lambda: len(provider.open) == 2)
        looping.cancel()
        await asyncio.wait([looping])
        return provider

    provider = asyncio.run(main())
    assert len(provider.sandboxes) == 2
    assert provider.open == []


class Lossy(FakeProvider):
    """Loses every sandbox."""

    def __init__(self) -> None:
        super().__init__(collected("test_a"))

    async def after_script(self, sandbox: FakeSandbox) -> int:
        raise SandboxLost("gone")


def test_what_came_to_nothing_is_paid_for_and_is_no_score(repo: Path) -> None:
    async def main() -> None:
        budget = Budget(seconds=1000.0)
        async with Grader(Lossy(), budget=budget, retries=0) as grader:
            verdict = await grader.grade(task(repo), patch(1))
        assert (verdict.outcome, verdict.scored) == ("infra_error", False)
        assert budget.spent_seconds > 0

    asyncio.run(main())


def test_retries_of_the_command_line_are_a_number(repo: Path, pytester: pytest.Pytester) -> None:
    stage = Stage(pytester)
    text = (
        f'[task]\nrepo = "{repo}"\nbase = "HEAD"\n[tests]\nfail_to_pass = ["test_a.py::test_a"]\n'
    )
    pytester.path.joinpath("t.toml").write_text(text)
    pytester.path.joinpath("t.patch").write_text(patch(1))
    provider = Lossy()
    result = stage.run(
        provider, "t.toml", "--sandbox-predictions=t.patch", "--sandbox-retries=0",
        "--sandbox-budget=20s",
    )  # fmt: skip
    assert result.ret == 31
    result.stdout.fnmatch_lines(["infra_error*1", "resolved 0 of 1 (1 not scored)"])
    assert len(provider.sandboxes) == 1


def test_a_repository_out_of_reach_is_asked_again_and_is_no_score(
    repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    real = Repositories.workspace

    def flaky(self: Repositories, repo: str, base: str) -> Workspace:
        asked.append(repo)
        if len(asked) in fails:
            raise InfraError("no answer")
        return real(self, repo, base)

    async def main() -> tuple[str, str, str]:
        async with Grader(Counted(), retries=1) as grader:
            verdict = await grader.grade(task(repo), patch(1))
            derived = await grader.derive(task(repo, gold=patch(1).encode()))
        return verdict.outcome, verdict.reason, derived.outcome

    monkeypatch.setattr(Repositories, "workspace", flaky)
    fails = range(1, 5)
    assert asyncio.run(main()) == ("infra_error", "no answer", "infra_error")
    assert len(asked) == 4
    asked.clear()
    fails = range(1, 2)
    assert asyncio.run(main())[0] == "resolved"


def test_a_spent_budget_is_said(repo: Path) -> None:
    async def main() -> None:
        async with Grader(Counted(), budget=Budget(dollars=1.0, spent_dollars=1.5)) as grader:
            with pytest.raises(OverBudget, match=r"\$1.50"):
                await grader.grade(task(repo), patch(1))

    asyncio.run(main())


def test_what_is_known_holds_for_the_same_limits_and_as_many_runs(repo: Path) -> None:
    known: dict[str, Verdict] = {}

    async def graded(provider: FakeProvider, **options: Any) -> tuple[str, int]:
        async with Grader(provider, known=known.get, **options) as grader:
            verdict = await grader.grade(task(repo), patch(1))
        known[verdict.record["key"]] = verdict
        return verdict.outcome, len(provider.sandboxes)

    async def main() -> None:
        assert await graded(Counted()) == ("resolved", 1)
        assert await graded(Counted()) == ("resolved", 0)
        for options in ({"test_timeout": 5.0}, {"history": "none"}):
            assert await graded(Counted(), **options) == ("resolved", 1)
            assert await graded(Counted(), **options) == ("resolved", 0)
        # Only what is not resolved is run again.
        assert await graded(Counted(), reruns=2) == ("resolved", 0)
        known.clear()
        assert await graded(Counted(fail=True)) == ("unresolved", 1)
        assert await graded(Counted(fail=True)) == ("unresolved", 0)
        assert await graded(Counted(fail=True), reruns=2) == ("unresolved", 3)
        assert await graded(Counted(fail=True), reruns=1) == ("unresolved", 0)
        known.clear()
        assert await graded(Counted(fail=True)) == ("unresolved", 1)
        assert await graded(Counted(), reruns=2) == ("resolved", 1)

    asyncio.run(main())


def test_one_candidate_has_one_sandbox(repo: Path) -> None:
    async def main() -> None:
        async with Grader(Counted(), split=3):
            pass

    with pytest.raises(BadInput, match="at the same time by workers"):
        asyncio.run(main())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"timeot": 3}, "Grader has no option 'timeot'"),
        ({"artifact": ["*.xml"]}, "Grader has no option 'artifact'"),
        ({"memory": "lots"}, "memory"),
        ({"workers": 0}, "workers is a whole number of 1 or more, not 0"),
        ({"workers": "4"}, "workers is a whole number"),
        ({"retries": -1}, "retries is a whole number of 0 or more"),
        ({"reruns": 0.5}, "reruns is a whole number"),
    ],
)
def test_what_cannot_be_is_refused_when_it_is_made(options: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        Grader(Counted(), **options)


PROCESS = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.plugin.test_grader import Counted, patch, task
from pytest_sandbox.grading import Grader

async def main():
    async with Grader(Counted(), workers=2, cache=Path(sys.argv[3])) as grader:
        asked = [grader.grade(task(sys.argv[2], base=sys.argv[4]), patch(n + 1)) for n in range(4)]
        for verdict in await asyncio.gather(*asked):
            print(verdict.outcome, verdict.reason)

asyncio.run(main())
"""


def test_many_processes_with_one_cache(repo: Path, tmp_path: Path) -> None:
    """The repository is fetched into the cache by all of them at the same time."""
    root = str(Path(__file__).parent.parent.parent)
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=repo, capture_output=True, text=True, check=True
    ).stdout.strip()
    command = [
        sys.executable, "-c", PROCESS, root, f"file://{repo}", str(tmp_path / "shared"), head
    ]  # fmt: skip
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    for process in running:
        out, errors = process.communicate(timeout=120)
        assert out.split() == ["resolved"] * 4, out + errors
        assert process.returncode == 0, errors
