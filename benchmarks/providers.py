"""What E2B, Modal and Daytona cost the orchestrator, over emulators of their protocols.

Each emulator is a process of its own with real sandboxes of the local engine, behind a relay
(``benchmarks.relay``) that counts. A third process (``benchmarks.orchestrator``) grades ten
different patches of one base, one after the other, each at the provider and with the local engine,
and measures itself. All is said of a run with one sandbox and a prepared environment, in medians.

CPU: of the orchestrator's own process with its threads, and of the git it starts. Neither emulator
nor relay nor sandboxes are in it. Importing the SDK, and opening the provider with its first
request, are told apart: they are paid once for a process.

Time lost against the emulator's own latency has no single right definition, so there are two
figures, and neither is a strict bound. The wall time of a run in which no request was open on the
wire: the vendor had nothing of ours to do, except that Daytona's starts and removes sandboxes after
it has answered. Work of ours while a request is open is not in it. And the wall time beyond that
of the same run on the local engine, of which the emulator's sandboxes are made: all that the
emulator takes for itself is in that, and the SDK's own requests; what both runs do here, such as
git's work, is not.

Bytes: of TCP payload from the orchestrator to the vendor, headers and all.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.orchestrator import SDKS, Costs, Orders, median
from pytest_sandbox import shipment
from pytest_sandbox.workspace import Workspace
from tests.emulators.running import Running
from tests.fixture_repos import git

ROOT = Path(__file__).parent.parent
PATCHES = 10
TESTS = 20
#: The sandbox's pytest comes with the base: no index is asked, and the base has some weight.
_PACKAGES = ("pytest", "pluggy", "iniconfig", "packaging", "pygments")
_SETUP = (
    "python -I -c \"import sysconfig, zipfile; zipfile.ZipFile('packages.zip')"
    ".extractall(sysconfig.get_path('purelib'))\" && python -m pytest -q --collect-only"
)
_LIB = "def double(number):\n    return 2 * number\n"
_TESTS = f"""\
import pytest
from lib import double


@pytest.mark.parametrize("number", range({TESTS}))
def test_double(number):
    assert double(number) == 2 * number
"""


def _patch(number: int) -> str:
    return (
        "--- a/lib.py\n+++ b/lib.py\n@@ -1,2 +1,2 @@\n def double(number):\n"
        f"-    return 2 * number\n+    return number + number  # the {number}th way to say it\n"
    )


def _project(repo: Path) -> Path:
    repo.mkdir()
    (repo / "lib.py").write_text(_LIB)
    (repo / "test_lib.py").write_text(_TESTS)
    (repo / "conftest.py").write_text("")
    with zipfile.ZipFile(repo / "packages.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in _PACKAGES:
            for path in metadata.files(name) or ():
                if path.suffix != ".pyc" and ".." not in path.parts:
                    archive.write(str(path.locate()), str(path))
    git(repo, "init", "-q", "-b", "main")
    git(repo, "add", "-A")
    git(repo, "commit", "-q", "-m", "Start")
    return repo


@contextmanager
def _relayed(name: str, emulator: Running) -> Iterator[tuple[dict[str, str], int]]:
    """Variables that lead a client to the emulator through a relay, and the port of its meter."""
    (address,) = {
        f"{url.scheme}://{url.netloc}"
        for url in map(urlsplit, emulator.env.values())
        if url.scheme == "http"
    }
    command = [sys.executable, "-m", "benchmarks.relay", str(urlsplit(address).port)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            said = json.loads(process.stdout.readline())
            url = f"http://127.0.0.1:{said['port']}"
            if name != "e2b":
                # These tell their clients themselves where to go on.
                emulator.act("address", url=url)
            yield {k: v.replace(address, url) for k, v in emulator.env.items()}, said["meter"]
        finally:
            process.stdin.close()


def _costs(name: str, repo: Path, folder: Path, env: Mapping[str, str]) -> Costs:
    with Running(name) as emulator, _relayed(name, emulator) as (variables, meter):
        if name == "daytona":
            # It pretends that a sandbox takes its time.
            emulator.act("settings", delay=0.0)
        patches = [_patch(number) for number in range(1, PATCHES + 1)]
        orders = Orders(name, str(repo), patches, _SETUP, ["packages.zip"], TESTS, meter)
        path = folder / f"{name}.json"
        path.write_text(json.dumps(asdict(orders)))
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.orchestrator", str(path)],
            cwd=ROOT,
            env={**env, **variables},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise SystemExit(f"{name}: {done.stdout}{done.stderr}")
        unknown, live = emulator.unknown(), emulator.live()
        if unknown or live:
            raise SystemExit(f"{name}: unknown requests {unknown}, sandboxes left {live}")
        return Costs.from_json(done.stdout)


def _sizes(repo: Path) -> tuple[int, int]:
    """Bytes of the base as it is sent, and of one patch as a delta."""
    with Workspace.open(repo, exact=True) as workspace:
        base = workspace.commit("HEAD")
        candidate = workspace.apply(base, _patch(1).encode(), name="patch").tree
        whole = sum(map(len, workspace.archive(base)))
        return whole, sum(map(len, workspace.delta_archive(base, candidate)))


def _row(label: str, *cells: str) -> None:
    print(f"| {label} | {' | '.join(cells)} |")


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:,.0f} ms"


def _share(parts: list[float], wholes: list[float]) -> str:
    """The median part, and the median of what it is of its whole."""
    ratio = statistics.median(part / whole for part, whole in zip(parts, wholes, strict=True))
    return f"{_milliseconds(statistics.median(parts))} ({ratio:.0%})"


def _print(costs: Mapping[str, Costs], whole: int, delta: int) -> None:
    every = list(costs.values())
    local = [cost for one in every for cost in one.local]
    _row(f"emulated; {PATCHES} patches, {TESTS} tests each", *costs, "local")
    _row("---", *["---:"] * (len(every) + 1))
    _row("CPU once: import of the SDK", *(_milliseconds(one.imported) for one in every), "-")
    _row("CPU once: open, first request", *(_milliseconds(one.opened) for one in every), "-")
    _row("CPU a sandbox", *(_milliseconds(median(one.runs, "cpu")) for one in every),
         _milliseconds(median(local, "cpu")))  # fmt: skip
    # Locally the sandboxes are children too, so that of git alone cannot be told.
    _row("and of git", *(_milliseconds(median(one.runs, "children")) for one in every), "-")
    _row("wall time of a run", *(_milliseconds(median(one.runs, "wall")) for one in every),
         _milliseconds(median(local, "wall")))  # fmt: skip
    walls = [[cost.wall for cost in one.runs] for one in every]
    idle = [[cost.wall - cost.wire.open for cost in one.runs] for one in every]
    beyond = [
        [cost.wall - beside.wall for cost, beside in zip(one.runs, one.local, strict=True)]
        for one in every
    ]
    _row("lost: no request open", *map(_share, idle, walls), "-")
    _row("lost: beyond the same run locally", *map(_share, beyond, walls), "-")
    requests = [statistics.median(cost.wire.requests for cost in one.runs) for one in every]
    _row("requests a run", *(f"{number:.0f}" for number in requests), "-")
    # The run that prepared the environment then went on as every other does.
    ups = [[cost.wire.up for cost in one.runs] for one in every]
    once = [one.first.wire.up - up[0] for one, up in zip(every, ups, strict=True)]
    _row("bytes up: base and environment, once", *(f"{number:,}" for number in once), "-")
    _row("bytes up: 1 patch", *(f"{up[0]:,}" for up in ups), "-")
    _row(f"bytes up: {PATCHES} patches", *(f"{sum(up):,}" for up in ups), "-")
    shim = shipment.zipped("pytest_sandbox.providers.remote.shim", "pytest_sandbox_shim")
    fixed = len(shim) + len(shipment.agent())
    print(
        f"\nThe base is {whole:,} bytes as it is sent, a patch {delta:,} as a delta; agent and "
        f"shim are {fixed:,} in every sandbox."
    )


def providers(folder: Path, env: Mapping[str, str]) -> None:
    """Prints the table: see the docstring of the module."""
    folder.mkdir()
    repo = _project(folder / "repo")
    costs = {name: _costs(name, repo, folder, env) for name in SDKS}
    _print(costs, *_sizes(repo))
