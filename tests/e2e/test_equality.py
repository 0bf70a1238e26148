"""A mirrored run says what a direct run says, outcome for outcome, on every fixture repository."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import fixture_repos
from tests.direct import DirectRun, Phase, Report, run_direct
from tests.fixture_repos import FixtureRepo, git
from tests.interpreters import environment
from tests.mirrored import run_mirrored

#: Everything any of the fixtures needs, so that one environment serves them all.
REQUIRES = ("pytest-asyncio", "setuptools-scm", "setuptools")
#: The pairs that exist, as far as the fixtures' plugins go.
PAIRS = [("3.8", "pytest==6.2.5"), ("3.10", "pytest==7.4.4"), ("3.12", "pytest==8.4.2"),
         ("3.13", "pytest==9.0.2")]  # fmt: skip
NAMES = [name for name in fixture_repos.names() if name != "versioned"]


def patches(name: str) -> list[str]:
    expected = fixture_repos.load(name).expected["patches"]
    return [patch for patch, entry in expected.items() if "patch_error" not in entry]


def same(direct: DirectRun, mirrored: DirectRun) -> None:
    """Everything a session reports is the same, but for the folder it ran in."""
    assert settled(mirrored) == settled(direct), mirrored.stdout[-6000:] + mirrored.stderr[-2000:]
    assert mirrored.collected == direct.collected
    assert set(mirrored.collect_errors) == set(direct.collect_errors)
    assert mirrored.exit_status == direct.exit_status
    assert mirrored.summary == direct.summary
    for mine, theirs in zip(mirrored.reports, direct.reports, strict=True):
        assert mine.properties == theirs.properties
        assert sections(mine) == sections(theirs)


def settled(run: DirectRun) -> dict[str, tuple[Phase, ...]]:
    """Outcomes as pytest counts them: it fails a call for its subtests only when asked for its
    status, which is after the record of a direct run, and before that of a mirrored one."""
    found = {}
    for nodeid, phases in run.outcomes.items():
        broken = any(phase.subtest is not None and phase.outcome == "failed" for phase in phases)
        found[nodeid] = tuple(
            phase._replace(outcome="failed") if broken and phase.when == "call" else phase
            for phase in phases
        )
    return found


def sections(report: Report) -> list[str]:
    """Headings of captured output. In a direct run pytest captures its own progress letters,
    one for each subtest, as if the test had printed them."""
    return [name for name, text in report.sections if text.strip("u,-y")]


def compare(
    fixture: FixtureRepo, patch: str, python: str, pytest_version: str, tmp_path: Path
) -> None:
    interpreter = environment(python, (pytest_version, *REQUIRES))
    repo = fixture.make(tmp_path)
    where = [str(path) for path in fixture.expected["pythonpath"]]
    args = [str(arg) for arg in fixture.expected["args"]]
    mirrored_args = [f"--sandbox-venv={interpreter.parent.parent}"]
    mirrored_args += [f"--sandbox-env=PYTHONPATH={':'.join(where)}"] if where else []
    if patch != "none":
        mirrored_args.append(f"--sandbox-patch={fixture.patches[f'{patch}.patch']}")
    mirrored = run_mirrored(repo, [*mirrored_args, *args], tmp_path / "record")
    if patch != "none":
        git(repo, "apply", str(fixture.patches[patch + ".patch"]))
    direct = run_direct(repo, str(interpreter), args, pythonpath=where)
    same(direct, mirrored)


@pytest.mark.parametrize(("name", "patch"), [(n, p) for n in NAMES for p in ("none", "good")])
def test_fixture_repositories(name: str, patch: str, tmp_path: Path) -> None:
    fixture = fixture_repos.load(name)
    compare(fixture, patch, "3.12", "pytest==9.0.2", tmp_path)


@pytest.mark.parametrize(("python", "version"), PAIRS)
def test_one_project_on_every_pytest(python: str, version: str, tmp_path: Path) -> None:
    compare(fixture_repos.load("outcomes"), "none", python, version, tmp_path)


@pytest.mark.soak
@pytest.mark.parametrize("python", ["3.8", "3.9", "3.10", "3.11", "3.12", "3.13"])
@pytest.mark.parametrize("version", ["pytest==6.2.5", "pytest==7.4.4", "pytest<9", "pytest<10"])
@pytest.mark.parametrize("name", NAMES)
def test_all_pairs(name: str, python: str, version: str, tmp_path: Path) -> None:
    if not exists(python, version):
        pytest.xfail("this pair does not exist")
    for patch in patches(name):
        compare(fixture_repos.load(name), patch, python, version, tmp_path / patch)


def exists(python: str, version: str) -> bool:
    minor = int(python.split(".")[1])
    if version == "pytest==6.2.5":
        return minor <= 9  # its assertion rewriting fails on the syntax trees of later ones
    return not (version == "pytest<10" and minor < 10)
