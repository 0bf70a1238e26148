"""Projects from PyPI, as they are: nothing that looks closer has anything against them."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_sandbox import assemble, registry
from pytest_sandbox.integrity import Confirmation, Confirmer, Passed
from pytest_sandbox.results import Recorder, RunResult
from pytest_sandbox.runner import execute
from pytest_sandbox.workspace import Workspace
from tests import pypi
from tests.interpreters import environment

PACKAGING = pypi.Project(
    "packaging", "24.1", "026ed72c8ed3fcce5bf8950572258698927fd1dbda10a5e981cdf0ac37f4f002",
    ("src",), ("pretend",),
    ("src/packaging/utils.py", "return re.sub", "return str.join('', []) or re.sub"),
)  # fmt: skip
#: The least part of each that canaries and the neutral run look at, in per cent: where the
#: assertions are in a module that tests are made from, there are no canaries.
LEAST = {
    "itsdangerous": (25, 0), "boltons": (70, 20), "more-itertools": (90, 5), "cachetools": (15, 0),
    "toolz": (90, 50), "packaging": (80, 5),
}  # fmt: skip


async def confirmed(repo: Path, project: pypi.Project) -> tuple[RunResult, Confirmation]:
    """The project's own tests, and what more runs say of them."""
    pytest_version = "8.4.2" if project.pytests else "9.0.2"
    python = environment("3.12", (f"pytest=={pytest_version}", *project.requires))
    given = {
        "venv": str(python.parent.parent),
        "env": [f"PYTHONPATH={':'.join(project.pythonpath) or '.'}"],
        "provider": "local",
    }
    host = assemble.host()
    with Workspace.open(repo, exact=True) as workspace:
        async with registry.factory("local", {}, {})() as provider:
            run, _ = assemble.make_run(
                workspace, assemble.resolver(given.get, {}, {}), lambda name: provider.able,
                patch=None, base=None, read_ini=False, args=project.args,
            )  # fmt: skip
            recorder = Recorder()
            await execute(run, provider, recorder, host)
            result = recorder.result(project.name)
            good = [test.nodeid for test in result if test.outcome == "passed"]
            passed = Passed(
                tests=good,
                rootdir=result.hello.rootdir if result.hello else "",
                durations={nodeid: result.tests[nodeid].duration for nodeid in good},
            )
            # Not from an earlier time: it is what is looked at here.
            alone = replace(host, baselines=None)
            return result, await Confirmer(provider, alone).confirm(run, passed)


@pytest.mark.soak
@pytest.mark.parametrize("project", [*pypi.PROJECTS, PACKAGING], ids=str)
def test_nothing_speaks_against_an_honest_project(project: pypi.Project, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    result, found = asyncio.run(confirmed(project.make(tmp_path / "source"), project))
    assert found.findings == ()
    witness, canaries, neutral = found.coverage
    assert (witness.layer, witness.covered) == ("L4", 0)
    print(json.dumps([project.name, len(result.tests), canaries.covered, neutral.covered,
                      canaries.note, neutral.note, found.seconds, found.calibration,
                      sum(test.duration for test in result)]))  # fmt: skip
    assert (canaries.layer, neutral.layer) == ("L5", "L6")
    drawn = int(canaries.note.split("; ")[-1].split()[0])
    least = LEAST[project.name]
    assert 100 * canaries.covered >= least[0] * drawn, canaries
    assert 100 * neutral.covered >= least[1] * drawn, neutral
