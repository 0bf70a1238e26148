"""Grade SWE-bench predictions, and print a line for each.

python grade_predictions.py INSTANCES PREDICTIONS [--provider NAME] [--without-images]
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pytest_sandbox.grading import (
    Candidate,
    Grader,
    Task,
    Verdict,
    find_tasks,
    read_predictions,
)


def pairs(options: argparse.Namespace) -> Iterator[tuple[Task, Candidate]]:
    tasks: dict[str, Task] = {}
    for entry in find_tasks([options.instances]):
        if not isinstance(entry, Task):
            print(f"{entry.source}: {entry.message}", file=sys.stderr)
        elif options.without_images:
            tasks[entry.id] = replace(entry, image=None, workdir=None, python=None)
        else:
            tasks[entry.id] = entry
    for found in read_predictions(options.predictions):
        if not isinstance(found, Candidate):
            print(f"{found.source}: {found.message}", file=sys.stderr)
        elif found.task_id in tasks:
            yield tasks[found.task_id], found


async def main(options: argparse.Namespace) -> int:
    def tell(task: Task, verdict: Verdict) -> None:
        print(f"{verdict.outcome:<20} {task.id} [{verdict.candidate}] {verdict.reason}", flush=True)

    async with Grader(options.provider, workers=options.workers, on_verdict=tell) as grader:
        verdicts = await asyncio.gather(*(grader.grade(*pair) for pair in pairs(options)))
    counts = Counter(verdict.outcome for verdict in verdicts)
    print(f"resolved {counts['resolved']} of {len(verdicts)}")
    # The numbers are not complete while the infrastructure failed for some.
    return 31 if counts["infra_error"] else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("instances", type=Path)
    parser.add_argument("predictions", type=Path)
    parser.add_argument("--provider", default="local")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--without-images", action="store_true")
    sys.exit(asyncio.run(main(parser.parse_args())))
