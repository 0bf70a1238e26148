"""What grading costs: many distinct candidates on one task, against a serial bare loop.

    python -m benchmarks.grading loop|grader ORDERS

does one side of a round, in a process of its own. Both have the same environment, prepared before.
The loop is what somebody would write in five lines: copy the prepared tree, apply the patch, run
pytest, the next. Rounds alternate. CPU is of everything: the processes themselves, their children
and sandboxes.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pytest_sandbox import wire
from pytest_sandbox.grading import Grader, Task
from pytest_sandbox.testing import FakeProvider
from tests import tiny
from tests.direct import run_direct
from tests.fixture_repos import git
from tests.interpreters import environment
from tests.plugin.support import FINISHED, collected, run_item
from tests.pypi import BOLTONS, MORE_ITERTOOLS, PROJECTS, Project

CANDIDATES = 100
ROUNDS = 4
ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class _Task:
    project: Project
    args: tuple[str, ...]
    pytest: str

    def __str__(self) -> str:
        return " ".join((self.project.name, self.project.version, *self.args))


_TASKS = (
    # Of 0.7 s, most of which pytest itself takes.
    _Task(MORE_ITERTOOLS, ("tests/test_recipes.py",), "pytest==9.0.2"),
    # A whole suite, of 3 s.
    _Task(BOLTONS, (), "pytest==8.4.2"),
)


class Cost(Protocol):
    """Seconds."""

    @property
    def wall(self) -> float: ...
    @property
    def cpu(self) -> float: ...


#: Command, folder, environment.
Run = Callable[[Sequence[str], Path, dict[str, str]], Cost]


def grading(folder: Path, env: Mapping[str, str], run: Run) -> None:
    """Print the figures."""
    folder.mkdir()
    for number, task in enumerate(_TASKS):
        _measure(folder / str(number), env, run, task)
    print(f"\nWith `FakeProvider`, a grade costs the host {_fake(folder) * 1000:.1f} ms of CPU.")


def _measure(folder: Path, env: Mapping[str, str], run: Run, task: _Task) -> None:
    folder.mkdir()
    orders = _orders(folder / "source", task)
    costs: dict[str, list[Cost]] = {"loop": [], "grader": []}
    size = CANDIDATES // ROUNDS
    for number in range(ROUNDS + 1):
        # The first, of two, is not counted: it fills caches, as the first of any day does.
        numbers = [1000, 1001] if not number else range((number - 1) * size, number * size)
        path = folder / f"{number}.json"
        path.write_text(json.dumps({**orders, "numbers": list(numbers)}))
        for side in ("loop", "grader") if number % 2 else ("grader", "loop"):
            command = [sys.executable, "-m", "benchmarks.grading", side, str(path)]
            cost = run(command, ROOT, dict(env))
            if number:
                costs[side].append(cost)
    walls = {side: sum(one.wall for one in found) for side, found in costs.items()}
    cpus = {side: sum(one.cpu for one in found) for side, found in costs.items()}
    pairs = list(zip(costs["loop"], costs["grader"], strict=True))
    print(f"\n| {CANDIDATES} candidates, {task} | serial bare loop | graded |")
    print("|---|---:|---:|")
    print(f"| seconds | {walls['loop']:.1f} | {walls['grader']:.1f} |")
    print(f"| CPU seconds | {cpus['loop']:.1f} | {cpus['grader']:.1f} |")
    print(
        f"\nThroughput: {walls['loop'] / walls['grader']:.2f} x the loop's (median of rounds "
        f"{statistics.median(a.wall / b.wall for a, b in pairs):.2f}); CPU "
        f"{cpus['grader'] / cpus['loop']:.2f} x (median "
        f"{statistics.median(b.cpu / a.cpu for a, b in pairs):.2f}).",
        flush=True,
    )


def broken_base(project: Project, folder: Path) -> Path:
    """The project in ``folder``, damaged and committed, so that there is something to mend."""
    repo = project.make(folder)
    name, right, wrong = project.damage
    text = (repo / name).read_text()
    assert right in text
    (repo / name).write_text(text.replace(right, wrong, 1))
    git(repo, "commit", "-q", "-a", "-m", "Base")
    return repo


def mending(project: Project, repo: Path, number: int) -> bytes:
    """A patch that mends ``broken_base``; each number does it in words of its own."""
    name, right, wrong = project.damage
    lines = (repo / name).read_text().splitlines()
    at = next(n for n, line in enumerate(lines) if wrong in line)
    return (
        f"--- a/{name}\n+++ b/{name}\n@@ -{at},3 +{at},3 @@\n {lines[at - 1]}\n-{lines[at]}\n"
        f"+{lines[at].replace(wrong, right)}  # way {number}\n {lines[at + 1]}\n"
    ).encode()


def _orders(folder: Path, task: _Task) -> dict[str, Any]:
    folder.mkdir()
    (folder / "source").mkdir()
    repo = broken_base(task.project, folder / "source")
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    python = environment(version, (task.pytest, *task.project.requires))
    broken = _passing(repo, python, task)
    (folder / "patch").write_bytes(mending(task.project, repo, 0))
    git(repo, "apply", str(folder / "patch"))
    solved = _passing(repo, python, task)
    git(repo, "checkout", "-q", ".")
    git(repo, "clean", "-fdxq")
    return {
        "repo": str(repo), "python": str(python), "project": task.project.name,
        "args": list(task.args), "fail": sorted(solved - broken), "pass": sorted(solved & broken),
    }  # fmt: skip


def _passing(repo: Path, python: Path, task: _Task) -> set[str]:
    run = run_direct(repo, str(python), task.args, pythonpath=task.project.pythonpath)
    return {nodeid for nodeid, found in run.labels.items() if found == ["passed"]}


def _patch(orders: Mapping[str, Any], number: int) -> bytes:
    (project,) = (one for one in PROJECTS if one.name == orders["project"])
    return mending(project, Path(orders["repo"]), number)


def loop(orders: Mapping[str, Any]) -> None:
    """One after the other, and nothing but what has to be done."""
    prepared = Path(orders["repo"])
    for number in orders["numbers"]:
        copy = prepared.parent.parent / "copy"
        shutil.copytree(prepared, copy, ignore=shutil.ignore_patterns(".git"))
        subprocess.run(["git", "apply", "-"], input=_patch(orders, number), cwd=copy, check=True)
        done = subprocess.run(
            [orders["python"], "-m", "pytest", "-q", *orders["args"]], cwd=copy, capture_output=True
        )
        shutil.rmtree(copy)
        if done.returncode:
            raise SystemExit(done.stdout.decode())


def grader(orders: Mapping[str, Any]) -> None:
    task = Task(
        id="t", source="", repo=orders["repo"], base="HEAD", args=tuple(orders["args"]),
        fail_to_pass=tuple(orders["fail"]), pass_to_pass=tuple(orders["pass"]),
    )  # fmt: skip

    async def main() -> None:
        venv = str(Path(orders["python"]).parent.parent)
        async with Grader("local", workers=os.cpu_count() or 1, venv=venv) as made:
            calls = (made.grade(task, _patch(orders, n), name=str(n)) for n in orders["numbers"])
            for verdict in await asyncio.gather(*calls):
                if not verdict.resolved:
                    raise SystemExit(f"{verdict.outcome}: {verdict.reason}")

    asyncio.run(main())


def _fake(folder: Path) -> float:
    """CPU seconds a grade in this process and what it starts, which is git."""
    task = tiny.make(folder / "tiny", packages=False)
    names = [*task.fail_to_pass, *task.pass_to_pass]

    def act(chosen: Sequence[int]) -> Iterable[wire.Frame | bytes]:
        for item in chosen:
            yield from run_item(item)
        yield FINISHED

    async def main(numbers: range) -> float:
        frames = collected(*(n.partition("::")[2] for n in names), file="test_lib.py")
        async with Grader(FakeProvider(frames, act), workers=8, venv=sys.prefix) as made:
            first = await made.grade(task, tiny.candidate(9999))
            if not first.resolved:
                raise SystemExit(f"{first.outcome}: {first.reason}")
            before = _cpu()
            await asyncio.gather(*(made.grade(task, tiny.candidate(n)) for n in numbers))
            return (_cpu() - before) / len(numbers)

    return asyncio.run(main(range(CANDIDATES)))


def _cpu() -> float:
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


if __name__ == "__main__":
    {"loop": loop, "grader": grader}[sys.argv[1]](json.loads(Path(sys.argv[2]).read_text()))
