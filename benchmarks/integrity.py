"""What graders take for a solution: those in use, and this one, over the corpus of tests/integrity.

Every candidate runs in sandboxes of the local engine. For the graders in use that is pytest alone,
twice: as the candidate left everything, and with the task's test files restored for the one that
does so. An interval is Wilson's, of 95 %. Whoever wrote the defences wrote the corpus as well: the
figures are for comparison and against regressions, and no promise.
"""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pytest_sandbox.grading import Verdict
from pytest_sandbox.providers.local import LocalProvider
from pytest_sandbox.workspace import Workspace
from tests.e2e.sessions import own_python
from tests.integrity import candidates, corpus, naive
from tests.integrity.candidates import Corpus, key
from tests.integrity.corpus.patches import Made
from tests.interpreters import environment

#: Sandboxes at a time.
_WORKERS = 2


@dataclass(frozen=True, slots=True)
class Row:
    """One grader: what it takes for a solution, and whom it accuses."""

    name: str
    accepted: frozenset[str]
    accused: frozenset[str] = frozenset()


def wilson(part: int, whole: int) -> tuple[float, float]:
    """The 95 % interval of a proportion."""
    z = 1.959964
    share = part / whole
    middle = share + z * z / (2 * whole)
    spread = z * math.sqrt(share * (1 - share) / whole + z * z / (4 * whole * whole))
    scale = 1 + z * z / whole
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


def integrity(folder: Path) -> None:
    """Print the table, and what our own layers take for a solution."""
    folder.mkdir(exist_ok=True)
    built = candidates.build(folder, corpus.of("exploit", "adaptive", "honest", "wrong"))
    names = {kind: _names(built, kind) for kind in ("exploit", "adaptive", "honest", "wrong")}
    families = len({made.entry.family for made in built.made if made.entry.kind == "exploit"})
    print(
        f"{len(names['exploit'])} exploits of {families} families, {len(names['adaptive'])} more "
        f"written against this grader, {len(names['honest'])} right candidates that look "
        f"suspicious, {len(names['wrong'])} wrong ones:\n"
    )
    print("| grader | exploits accepted | accepted of those against this grader "
          "| right ones lost | wrong ones accused | seconds |")  # fmt: skip
    print("|---|---|---|---|---|---|")
    start = time.perf_counter()
    for row in asyncio.run(_naive(built, folder)):
        _tell(row, names, None)
    print(f"(the graders above together: {time.perf_counter() - start:.0f} s)", file=sys.stderr)
    left = {}
    for name in ("default", "full"):
        start = time.perf_counter()
        verdicts = candidates.grade(built, own_python(), integrity=name)
        row = _ours(name, verdicts)
        _tell(row, names, time.perf_counter() - start)
        left[name] = sorted(row.accepted - names["honest"])
    for name, passed in left.items():
        print(f"\nAccepted with `{name}`: {', '.join(passed) or 'none'}.")


def _names(built: Corpus, kind: str) -> frozenset[str]:
    return frozenset(key(made.entry) for made in built.made if made.entry.kind == kind)


def _ours(name: str, verdicts: Mapping[str, Verdict]) -> Row:
    accused = (k for k, v in verdicts.items() if v.outcome in ("tampered", "unproven"))
    resolved = (k for k, v in verdicts.items() if v.resolved)
    return Row(f"pytest-sandbox, `{name}`", frozenset(resolved), frozenset(accused))


async def _naive(built: Corpus, folder: Path) -> list[Row]:
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    venv = environment(version, naive.REQUIREMENTS).parent.parent
    accepted: dict[str, set[str]] = {name: set() for name in naive.GRADERS}
    places = asyncio.Semaphore(_WORKERS)
    async with LocalProvider(cache_dir=folder / "naive") as provider:
        with Workspace.open(built.repo) as workspace:

            async def one(made: Made) -> None:
                async with places:
                    found = await naive.accepted(provider, workspace, built.task, made, venv)
                for name, taken in found.items():
                    if taken:
                        accepted[name].add(key(made.entry))

            await asyncio.gather(*map(one, built.made))
    return [Row(name, frozenset(found)) for name, found in accepted.items()]


def _tell(row: Row, names: Mapping[str, frozenset[str]], seconds: float | None) -> None:
    cells = [
        _share(len(row.accepted & names["exploit"]), len(names["exploit"])),
        _share(len(row.accepted & names["adaptive"]), len(names["adaptive"])),
        _share(len(names["honest"] - row.accepted), len(names["honest"])),
        _share(len(row.accused & names["wrong"]), len(names["wrong"])),
        "" if seconds is None else f"{seconds:.0f}",
    ]
    print(f"| {row.name} | {' | '.join(cells)} |", flush=True)


def _share(part: int, whole: int) -> str:
    low, high = wilson(part, whole)
    return f"{part} of {whole} ({low:.0%} to {high:.0%})"
