"""Measures what the plugin costs, as ratios of runs that alternate in one session.

    python -m benchmarks [--rounds N] [startup] [suite] [project] [fork] [providers]
                         [layers] [grading] [integrity]

Prints the Markdown tables of the README. Absolute times depend on the machine; each mirrored run
is compared with the direct runs beside it. For ``providers``, ``layers``, ``grading`` and
``integrity``, which have tables of their own, see those modules; ``integrity`` runs only when it
is named.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio

from benchmarks.grading import grading
from benchmarks.integrity import integrity
from benchmarks.layers import layers
from benchmarks.providers import providers
from pytest_sandbox import shipment
from pytest_sandbox.interpreters import find_interpreter
from pytest_sandbox.provider import Command, SandboxSpec
from pytest_sandbox.providers.local import LocalProvider
from pytest_sandbox.workspace import Workspace
from tests.pypi import MORE_ITERTOOLS

CPUACCT = Path("/sys/fs/cgroup/cpuacct")
ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Cost:
    """Seconds of one command."""

    wall: float
    cpu: float


@contextmanager
def cpu_meter() -> Iterator[Callable[[], float]]:
    """CPU seconds of everything started within, also of processes nobody waited for.

    With cgroup v1 writable (root) that is exact; otherwise children that were waited for.
    """
    group = CPUACCT / f"pytest-sandbox-bench-{os.getpid()}"
    try:
        group.mkdir()
        (group / "cgroup.procs").write_text(str(os.getpid()))
    except OSError:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        before = usage.ru_utime + usage.ru_stime

        def read() -> float:
            now = resource.getrusage(resource.RUSAGE_CHILDREN)
            return now.ru_utime + now.ru_stime - before

        yield read
        return
    start = int((group / "cpuacct.usage").read_text())
    try:
        yield lambda: (int((group / "cpuacct.usage").read_text()) - start) / 1e9
    finally:
        (CPUACCT / "cgroup.procs").write_text(str(os.getpid()))
        for _ in range(50):
            try:
                group.rmdir()
                break
            except OSError:
                time.sleep(0.1)


def run(command: Sequence[str], cwd: Path, env: dict[str, str], ok: Sequence[int] = (0,)) -> Cost:
    with cpu_meter() as meter:
        start = time.perf_counter()
        done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
        wall = time.perf_counter() - start
        cpu = meter()
    if done.returncode not in ok:
        raise SystemExit(f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return Cost(wall, cpu)


def paired(rounds: int, a: Callable[[], Cost], b: Callable[[], Cost]) -> list[tuple[Cost, Cost]]:
    """A and B in turn, after one of each that is not counted."""
    a(), b()
    return [(a(), b()) for _ in range(rounds)]


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def environment(folder: Path) -> dict[str, str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "XDG"))}
    # Users have compiled files; without them every start compiles every plugin anew.
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    # What else is installed here would be loaded too, and drown what is measured.
    env["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    return {**env, "XDG_CACHE_HOME": str(folder / "cache"), "XDG_STATE_HOME": str(folder / "state")}


def startup(folder: Path, rounds: int) -> None:
    """CPU of an empty session with the plugin loaded and unused, and without it."""
    empty = folder / "empty"
    empty.mkdir()
    pytest = [sys.executable, "-m", "pytest", "-q"]
    env = environment(folder)
    pairs = paired(
        rounds * 4,
        lambda: run(pytest, empty, env, ok=(5,)),
        lambda: run([*pytest, "-p", "pytest_sandbox.plugin"], empty, env, ok=(5,)),
    )
    extra = median([b.cpu - a.cpu for a, b in pairs]) * 1000
    base = median([a.cpu for a, _ in pairs]) * 1000
    print(f"| start-up when unused | {extra:+.1f} ms of CPU on {base:.0f} ms |")


def compare(label: str, repo: Path, folder: Path, rounds: int, tests: int) -> None:
    env = environment(folder)
    pytest = [sys.executable, "-m", "pytest", "-q"]
    mirrored = [
        *pytest,
        *("-p", "pytest_sandbox.plugin", "--sandbox=local"),
        *(f"--sandbox-venv={sys.prefix}", "--sandbox-env=PYTEST_DISABLE_PLUGIN_AUTOLOAD"),
    ]
    pairs = paired(rounds, lambda: run(pytest, repo, env), lambda: run(mirrored, repo, env))
    wall = median([b.wall / a.wall for a, b in pairs])
    extra = median([b.wall - a.wall for a, b in pairs])
    cpu = median([(b.cpu - a.cpu) / tests * 1000 for a, b in pairs])
    cpu_net = median([(b.cpu - a.cpu - 1.0) / tests * 1000 for a, b in pairs])
    direct = median([a.wall for a, _ in pairs])
    aim = median([b.wall - 1.10 * a.wall for a, b in pairs])
    print(
        f"| {label}: wall | {wall:.2f} x direct ({direct:.1f} s), {extra:+.2f} s; "
        f"{aim:+.2f} s against 1.10 x direct |"
    )
    print(f"| {label}: CPU | {cpu:+.2f} ms a test over direct; {cpu_net:+.2f} ms net of 1 s |")


def git(repo: Path, *args: str) -> None:
    env = {"PATH": os.environ["PATH"], "HOME": str(repo), "GIT_CONFIG_NOSYSTEM": "1"}
    command = ["git", "-c", "user.name=b", "-c", "user.email=b@example.org", *args]
    subprocess.run(command, cwd=repo, env=env, check=True, capture_output=True)


def suite(folder: Path, rounds: int) -> None:
    """3,000 tests in 30 files, of about a millisecond each."""
    repo = folder / "suite"
    repo.mkdir()
    for number in range(30):
        body = "import time\nimport pytest\n\n@pytest.mark.parametrize('n', range(100))\n"
        body += "def test_case(n):\n    time.sleep(0.001)\n    assert n * 2 == n + n\n"
        (repo / f"test_{number:02}.py").write_text(body)
    git(repo, "init", "-q")
    git(repo, "add", ".")
    git(repo, "commit", "-qm", "suite")
    compare("3,000 tests", repo, folder, rounds, 3000)


def project(folder: Path, rounds: int) -> None:
    """A real project: the source distribution of more-itertools; and what is sent for it."""
    found = MORE_ITERTOOLS
    source = folder / "project"
    source.mkdir()
    repo = found.make(source)
    label = f"{found.name} {found.version}"
    compare(f"{label} (664 tests)", repo, folder, rounds, 664)
    with Workspace.open(repo, exact=True) as workspace:
        base = workspace.commit("HEAD")
        candidate = workspace.apply(base, found.patch(repo), name="patch").tree
        whole = sum(map(len, workspace.archive(base)))
        delta = sum(map(len, workspace.delta_archive(base, candidate)))
    agent = len(shipment.agent())
    print(
        f"| {label}: bytes sent | {whole:,} once for the base and its environment; "
        f"{delta:,} for a patch, and {agent:,} for the agent |"
    )


def fork(folder: Path, rounds: int) -> None:
    """From a prepared environment to a sandbox that has run a command, and the create alone."""

    async def measure() -> tuple[list[float], list[float]]:
        interpreter = find_interpreter(None)
        async with LocalProvider(cache_dir=folder / "cache" / "local") as provider:

            def spec(name: str, **kwargs: object) -> SandboxSpec:
                return SandboxSpec(name=name, ttl=600, expose=(interpreter.prefix,), **kwargs)  # type: ignore[arg-type]

            first = await provider.create(spec("bench-prepare", snapshotable=True))
            make = Command(
                argv=(*first.demote, str(interpreter.path), "-m", "venv", f"{first.root}/env")
            )
            assert await first.exec(make) == 0
            snapshot = await first.snapshot()
            await first.close()
            creates, firsts = [], []
            for number in range(rounds * 6 + 1):
                start = time.perf_counter()
                sandbox = await provider.create(spec(f"bench-{number}", snapshot=snapshot))
                created = time.perf_counter()
                assert await sandbox.exec(Command(argv=("/bin/true",))) == 0
                done = time.perf_counter()
                await sandbox.close()
                if number:
                    creates.append(created - start)
                    firsts.append(done - start)
            await provider.delete_snapshot(snapshot)
            return creates, firsts

    creates, firsts = anyio.run(measure)
    print(
        f"| fork of a prepared environment | {median(creates) * 1000:.1f} ms to a sandbox, "
        f"{median(firsts) * 1000:.1f} ms to a finished command in it |"
    )


def main() -> None:
    rows = {"startup": startup, "suite": suite, "project": project, "fork": fork}
    tables = ("providers", "layers", "grading")
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument(
        "what",
        nargs="*",
        help=f"{', '.join([*rows, *tables])} (default: all of these), integrity",
    )
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    wanted = options.what or [*rows, *tables]
    if unknown := set(wanted) - {*rows, *tables, "integrity"}:
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory(prefix="pytest-sandbox-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        heading = f"Python {platform.python_version()}, {os.cpu_count()} cores"
        first = [what for what in wanted if what in rows]
        if first:
            print(f"| {heading}, {options.rounds} rounds | |")
            print("|---|---|")
        for what in first:
            rows[what](folder, options.rounds)
        for what in wanted:
            if what in rows:
                continue
            print(f"\n{heading}:\n", flush=True)
            own = folder / what
            if what == "providers":
                providers(own, environment(folder / "provided"))
            elif what == "layers":
                layers(own, environment(folder / "layered"), run, options.rounds, MORE_ITERTOOLS)
            elif what == "grading":
                grading(own, environment(folder / "graded"), run)
            else:
                integrity(own)


if __name__ == "__main__":
    main()
