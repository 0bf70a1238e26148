"""A direct run and a mirrored run of the same tests, compared; and the table in the docs.

``python -m tests.comparison`` runs every pair of Python and pytest that exists on every project
and fixture repository, and writes docs/compatibility.md.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests import fixture_repos, pypi
from tests.direct import DirectRun, Phase, Report, run_direct
from tests.fixture_repos import FixtureRepo, git
from tests.interpreters import environment
from tests.mirrored import run_mirrored

#: Everything any of the fixtures needs, so that one environment serves them all.
REQUIRES = ("pytest-asyncio", "setuptools-scm", "setuptools")
PYTESTS = ("pytest==6.2.5", "pytest==7.4.4", "pytest==8.4.2", "pytest==9.0.2")
#: The pairs that exist: what the Pythons from 3.8 to 3.13 and these pytests admit. The
#: assertion rewriting of pytest 6 fails on syntax trees of Python 3.10 and later.
PAIRS = (
    ("3.8", "pytest==6.2.5"), ("3.9", "pytest==6.2.5"),
    ("3.8", "pytest==7.4.4"), ("3.9", "pytest==7.4.4"), ("3.10", "pytest==7.4.4"),
    ("3.11", "pytest==7.4.4"), ("3.12", "pytest==7.4.4"),
    ("3.8", "pytest==8.3.5"), ("3.9", "pytest==8.4.2"), ("3.10", "pytest==8.4.2"),
    ("3.11", "pytest==8.4.2"), ("3.12", "pytest==8.4.2"), ("3.13", "pytest==8.4.2"),
    ("3.10", "pytest==9.0.2"), ("3.11", "pytest==9.0.2"), ("3.12", "pytest==9.0.2"),
    ("3.13", "pytest==9.0.2"),
)  # fmt: skip
#: ``versioned`` has to be installed to be tested; it has tests of its own.
FIXTURES = tuple(name for name in fixture_repos.names() if name != "versioned")
PAGE = Path(__file__).parent.parent / "docs" / "compatibility.md"


@dataclass(frozen=True, slots=True)
class Compared:
    """Both runs of one suite, without and with a patch."""

    direct: DirectRun
    mirrored: DirectRun


def same(direct: DirectRun, mirrored: DirectRun) -> None:
    """Everything a session reports is the same, but for the folder it ran in."""
    shown = mirrored.stdout[-6000:] + mirrored.stderr[-2000:]
    assert settled(mirrored) == settled(direct), shown
    assert mirrored.collected == direct.collected
    assert set(mirrored.collect_errors) == set(direct.collect_errors)
    assert mirrored.exit_status == direct.exit_status, shown
    assert counts(mirrored) == counts(direct)
    for mine, theirs in zip(mirrored.reports, direct.reports, strict=True):
        assert mine.properties == theirs.properties
        assert sections(mine) == sections(theirs)


def counts(run: DirectRun) -> str:
    """The last line; from 9.1 on, pytest counts passing subtests only when asked for more."""
    return re.sub(r", \d+ subtests passed", "", run.summary)


def settled(run: DirectRun) -> dict[str, tuple[Phase, ...]]:
    """Outcomes as pytest counts them: it fails a call for its subtests only when asked for its
    status, which is after the record of a direct run, and before that of a mirrored one."""
    found = {}
    for nodeid, phases in run.outcomes.items():
        broken = any(phase.subtest is not None and phase.outcome == "failed" for phase in phases)
        found[nodeid] = tuple(
            _named(phase._replace(outcome="failed") if broken and phase.when == "call" else phase)
            for phase in phases
        )
    return found


def _named(phase: Phase) -> Phase:
    """Parameters of subtests are shown by ``repr``, which may hold an address."""
    if phase.subtest is None:
        return phase
    return phase._replace(subtest=re.sub(r"0x[0-9a-f]+", "0x", phase.subtest))


def sections(report: Report) -> list[str]:
    """Headings of captured output. In a direct run pytest captures its own progress letters,
    one for each subtest, as if the test had printed them."""
    return [name for name, text in report.sections if text.strip("u,-y")]


def both(
    repo: Path,
    python: Path,
    scratch: Path,
    *,
    patch: bytes | None = None,
    pythonpath: Sequence[str] = (),
    args: Sequence[str] = (),
    more: Sequence[str] = (),
) -> Compared:
    """Run the suite mirrored and directly, the latter with the patch applied to the checkout.

    Args:
        more: options of the mirrored run.
    """
    options = [f"--sandbox-venv={python.parent.parent}", *more]
    options += [f"--sandbox-env=PYTHONPATH={':'.join(pythonpath)}"] if pythonpath else []
    if patch is not None:
        options.append("--sandbox-patch=-")
    mirrored = run_mirrored(repo, [*options, *args], scratch, stdin=patch or b"")
    if patch is not None:
        (scratch / "patch").write_bytes(patch)
        git(repo, "apply", str(scratch / "patch"))
    direct = run_direct(repo, str(python), args, pythonpath=pythonpath)
    if patch is not None:
        git(repo, "checkout", "-q", ".")
        git(repo, "clean", "-fdq")
    return Compared(direct, mirrored)


def fixture(
    name: str,
    patch: str | None,
    python: str,
    pytest_version: str,
    folder: Path,
    *more: str,
) -> Compared:
    """One fixture repository."""
    loaded: FixtureRepo = fixture_repos.load(name)
    return both(
        loaded.make(folder),
        environment(python, (pytest_version, *REQUIRES)),
        folder / "record",
        patch=None if patch is None else loaded.patches[f"{patch}.patch"].read_bytes(),
        pythonpath=[str(path) for path in loaded.expected["pythonpath"]],
        args=[str(arg) for arg in loaded.expected["args"]],
        more=more,
    )


def project(
    found: pypi.Project,
    damaged: bool,
    python: str,
    pytest_version: str,
    folder: Path,
    *more: str,
) -> Compared:
    """One project from PyPI."""
    (folder / "source").mkdir(parents=True)
    repo = found.make(folder / "source")
    return both(
        repo,
        environment(python, (pytest_version, *found.requires)),
        folder / "record",
        patch=found.patch(repo) if damaged else None,
        pythonpath=found.pythonpath,
        args=found.args,
        more=more,
    )


_HEAD = """# Pairs that were compared

Made by `python -m tests.comparison`; `.ci/soak` compares the same pairs. Each row is a suite that
was run directly and in a sandbox, without a patch and with one: the same tests, in the same order,
with the same outcomes of every phase, exit status, summary, properties and captured output. pytest
9 needs Python 3.10; pytest 6 does not work on Python 3.10 and later. A pair without a
row has not been compared.

| suite | Python | pytest | outcomes without and with a patch | |
|---|---|---|---|---|
"""


def pairs(suite: str | pypi.Project) -> list[tuple[str, str]]:
    """The pairs of Python and pytest that the suite works with."""
    return [pair for pair in PAIRS if isinstance(suite, str) or suite.admits(pair[1])]


def row(suite: str | pypi.Project, python: str, version: str) -> tuple[str, bool]:
    """One line of the table, and whether the runs were equal."""
    summaries, verdict = [], "equal"
    for changed in (False, True):
        with tempfile.TemporaryDirectory(prefix="comparison-") as name:
            folder = Path(name)
            folder.chmod(0o755)
            if isinstance(suite, str):
                runs = fixture(suite, "good" if changed else None, python, version, folder)
            else:
                runs = project(suite, changed, python, version, folder)
        try:
            same(runs.direct, runs.mirrored)
        except AssertionError as error:
            verdict = "**differs**"
            print(str(error)[-2000:], file=sys.stderr)
        summaries.append(counts(runs.direct))
    label = suite if isinstance(suite, str) else f"{suite.name} {suite.version}"
    number = version.removeprefix("pytest==")
    line = f"| {label} | {python} | {number} | {'; '.join(summaries)} | {verdict} |\n"
    return line, verdict == "equal"


def main() -> int:
    suites: list[str | pypi.Project] = [*FIXTURES, *pypi.PROJECTS]
    order = [(suite, *pair) for suite in suites for pair in pairs(suite)]
    # Pair by pair, so that a table cut short has every suite.
    tasks = sorted(order, key=lambda task: PAIRS.index((task[1], task[2])) * 7 % len(PAIRS))
    lines: dict[tuple[object, str, str], str] = {}
    unequal = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for task, (line, equal) in zip(
            tasks, pool.map(lambda task: row(*task), tasks), strict=True
        ):
            print(line, end="", flush=True)
            lines[task] = line
            unequal += not equal
            PAGE.write_text(_HEAD + "".join(lines[task] for task in order if task in lines))
    return 1 if unequal else 0


if __name__ == "__main__":
    sys.exit(main())
