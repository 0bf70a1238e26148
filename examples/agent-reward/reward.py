"""Rewards for patches that a policy proposes: python reward.py TASK.toml PATCH..."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from pytest_sandbox.grading import Grader, Task, Verdict, read_task

WORKERS = 2


async def policy(patches: Sequence[Path]) -> AsyncIterator[tuple[str, str]]:
    """Stands for a model: the name and the patch of each attempt, as fast as it can."""
    for path in patches:
        yield path.name, path.read_text()


def reward(verdict: Verdict) -> float | None:
    """What the policy learns from; None where there is nothing to learn about it."""
    if not verdict.scored:
        return None
    if verdict.resolved:
        return 1.0
    right = sum(test.passed for test in verdict.fail_to_pass)
    kept = all(test.passed for test in verdict.pass_to_pass)
    return 0.5 * right / len(verdict.fail_to_pass) if right and kept else 0.0


async def main(task: Task, patches: Sequence[Path]) -> None:
    waiting: asyncio.Queue[tuple[str, str]] = asyncio.Queue(maxsize=2 * WORKERS)

    async def judge(grader: Grader) -> None:
        while True:
            name, patch = await waiting.get()
            verdict = await grader.grade(task, patch, name=name)
            print(f"{name}: {verdict.outcome}, reward {reward(verdict)}", flush=True)
            waiting.task_done()

    async with Grader("local", workers=WORKERS) as grader, asyncio.TaskGroup() as group:
        judges = [group.create_task(judge(grader)) for _ in range(2 * WORKERS)]
        async for attempt in policy(patches):
            await waiting.put(attempt)  # waits while as many are under way as there may be
        await waiting.join()
        for one in judges:
            one.cancel()


if __name__ == "__main__":
    asyncio.run(main(read_task(Path(sys.argv[1])), [Path(name) for name in sys.argv[2:]]))
