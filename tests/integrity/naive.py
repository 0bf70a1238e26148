"""Graders as they are in use, over one run in a sandbox of the local engine.

Each takes what such graders take: an exit status, a report file, or lines of output. None of our
own agent, protocol or protection is in it.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from pytest_sandbox.errors import CommandTimeout, SandboxError
from pytest_sandbox.grading import Task
from pytest_sandbox.interpreters import read_venv
from pytest_sandbox.provider import Command, Provider, Sandbox, SandboxSpec, Stream
from pytest_sandbox.workspace import Workspace
from tests.integrity.corpus.patches import Made

MIB = 1 << 20
#: What the plugins that write reports are.
REQUIREMENTS = ("pytest==9.0.2", "pytest-reportlog==0.4.0", "pytest-json-report==1.5.0")
REPORTS = ("junit.xml", "log.jsonl", "report.json")
_WORDS = ("PASSED", "FAILED", "SKIPPED", "ERROR", "XFAIL")


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """What a run left for its graders; a status of None stands for one that was killed."""

    status: int | None
    output: str
    files: Mapping[str, bytes]


Expected = tuple[str, ...]


def exit_status(left: Left, expected: Expected) -> bool:
    return left.status == 0


def junit_counts(left: Left, expected: Expected) -> bool:
    suites = _cases(left, "testsuite")
    total = sum(int(suite.get("tests", 0)) for suite in suites)
    wrong = sum(int(suite.get(key, 0)) for suite in suites for key in ("errors", "failures"))
    return total > 0 and wrong == 0


def junit_ids(left: Left, expected: Expected) -> bool:
    found: dict[tuple[str, str], bool] = {}
    for case in _cases(left, "testcase"):
        key = case.get("classname", ""), case.get("name", "")
        bad = any(child.tag in ("failure", "error", "skipped") for child in case)
        found[key] = found.get(key, True) and not bad
    return all(found.get(_junit_name(nodeid), False) for nodeid in expected)


def _cases(left: Left, tag: str) -> list[ElementTree.Element]:
    try:
        return list(ElementTree.fromstring(left.files.get("junit.xml", b"")).iter(tag))
    except ElementTree.ParseError:
        return []


def _junit_name(nodeid: str) -> tuple[str, str]:
    path, _, rest = nodeid.partition("::")
    name, bracket, parameters = rest.partition("[")
    *classes, last = name.split("::")
    module = path.removesuffix(".py").replace("/", ".")
    return ".".join([module, *classes]), last + bracket + parameters


def stdout_lines(left: Left, expected: Expected) -> bool:
    """SWE-bench's parser: the second word of a line that begins with a status."""
    found = {}
    for line in left.output.split("\n"):
        if line.startswith(_WORDS):
            words = line.replace(" - ", " ").split()
            if len(words) > 1:
                found[words[1]] = words[0]
    return all(found.get(nodeid.split()[0]) in ("PASSED", "XFAIL") for nodeid in expected)


def stdout_and_status(left: Left, expected: Expected) -> bool:
    return left.status == 0 and stdout_lines(left, expected)


def report_log(left: Left, expected: Expected) -> bool:
    found: dict[str, dict[str, str]] = {}
    for line in left.files.get("log.jsonl", b"").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if entry.get("$report_type") == "TestReport":
            outcome = entry.get("outcome", "")
            found.setdefault(entry["nodeid"], {})[entry["when"]] = outcome
    return all(
        "call" in found.get(nodeid, {}) and set(found[nodeid].values()) == {"passed"}
        for nodeid in expected
    )


def json_report(left: Left, expected: Expected) -> bool:
    try:
        tests = json.loads(left.files.get("report.json", b"")).get("tests", [])
    except ValueError:
        return False
    found = {test["nodeid"]: test.get("outcome") for test in tests}
    return all(found.get(nodeid) == "passed" for nodeid in expected)


#: By name: the grader, and whether it puts the tests back that the task is about.
GRADERS: Mapping[str, tuple[Callable[[Left, Expected], bool], bool]] = {
    "exit status": (exit_status, False),
    "JUnit counts": (junit_counts, False),
    "JUnit per id": (junit_ids, False),
    "SWE-bench stdout parse": (stdout_lines, False),
    "SWE-bench, restored tests, exit status": (stdout_and_status, True),
    "reportlog per id": (report_log, False),
    "json-report per id": (json_report, False),
}


async def accepted(
    provider: Provider, workspace: Workspace, task: Task, made: Made, venv: Path
) -> dict[str, bool]:
    """Which of the graders take the candidate for a solution."""
    expected = (*task.fail_to_pass, *task.pass_to_pass)
    runs = {}
    for restored in (False, True):
        runs[restored] = await run(provider, workspace, task, made, venv, restored=restored)
    return {name: grader(runs[how], expected) for name, (grader, how) in GRADERS.items()}


#: Asked without pytest, and of weights that no visible test has.
_QUESTION = """
from parcels import billable
print([(n, int(billable(n))) for n in (1, 500, 502, 1001, 1710, 7001)],
      int(billable(130, step=100)))
"""
_ANSWER = "[(1, 500), (500, 500), (502, 1000), (1001, 1500), (1710, 2000), (7001, 7500)] 200"


async def right(
    provider: Provider, workspace: Workspace, task: Task, made: Made, venv: Path
) -> bool:
    """Whether the candidate's product gives right answers by itself."""
    said = bytearray()

    async def sink(stream: Stream, data: bytes) -> None:
        said.extend(data if stream == "stdout" else b"")

    async with _opened(provider, venv) as sandbox:
        await _fill(sandbox, workspace, task, made, restored=False)
        argv = (*sandbox.demote, str(venv / "bin/python"), "-c", _QUESTION)
        command = Command(argv=argv, cwd=f"{sandbox.root}/repo", env=dict(task.env), timeout=30.0)
        try:
            await sandbox.exec(command, sink)
        except (CommandTimeout, SandboxError):
            return False
    return said.decode(errors="replace").strip() == _ANSWER


async def run(
    provider: Provider,
    workspace: Workspace,
    task: Task,
    made: Made,
    venv: Path,
    *,
    restored: bool,
    seconds: float = 30.0,
) -> Left:
    """The candidate's tests by pytest alone, with every kind of report.

    Args:
        restored: the test files that FAIL_TO_PASS is in are put back as in the base.
    """
    async with _opened(provider, venv) as sandbox:
        await _fill(sandbox, workspace, task, made, restored=restored)
        return await _left(sandbox, task, venv, seconds)


@asynccontextmanager
async def _opened(provider: Provider, venv: Path) -> AsyncIterator[Sandbox]:
    host = read_venv(venv)
    assert host.interpreter.prefix is not None
    spec = SandboxSpec(
        name=f"naive-{secrets.token_hex(6)}", ttl=300, memory=600 * MIB, disk=200 * MIB,
        processes=128, file_size=64 * MIB, expose=(host.interpreter.prefix, venv),
    )  # fmt: skip
    sandbox = await provider.create(spec)
    try:
        yield sandbox
    finally:
        await sandbox.close()


async def _fill(
    sandbox: Sandbox, workspace: Workspace, task: Task, made: Made, *, restored: bool
) -> None:
    tree = workspace.commit(made.revision)
    archive = b"".join(workspace.archive(tree, history="none"))
    await sandbox.write_file(f"{sandbox.root}/tree.tar.gz", archive)
    files = {nodeid.partition("::")[0] for nodeid in task.fail_to_pass} if restored else set()
    script = "umask 0; mkdir -p repo out && cd repo && tar --no-same-owner -xzf ../tree.tar.gz"
    await _shell(sandbox, script)
    base = workspace.commit("HEAD")
    for path in sorted(files):
        data = workspace.read(base, path)
        assert data is not None
        await _shell(sandbox, f"rm -f repo/{path}")
        await sandbox.write_file(f"{sandbox.root}/repo/{path}", data, mode=0o666)
    await _shell(sandbox, "chmod -R a+rwX repo out")


async def _shell(sandbox: Sandbox, script: str) -> None:
    status = await sandbox.exec(Command(argv=("/bin/sh", "-c", script), timeout=60))
    assert status == 0, script


async def _left(sandbox: Sandbox, task: Task, venv: Path, seconds: float) -> Left:
    said = bytearray()

    async def sink(_: Stream, data: bytes) -> None:
        said.extend(data[: MIB - len(said)])

    out = f"{sandbox.root}/out"
    commands = [command.replace("python", str(venv / "bin/python"), 1) for command in task.build]
    commands.append(
        f"exec {venv}/bin/python -m pytest -rA --junitxml={out}/junit.xml "
        f"--report-log={out}/log.jsonl --json-report --json-report-file={out}/report.json"
    )
    script = " && ".join(commands)
    command = Command(
        argv=(*sandbox.demote, "/bin/sh", "-c", script),
        cwd=f"{sandbox.root}/repo", env=dict(task.env), timeout=seconds,
    )  # fmt: skip
    status: int | None
    try:
        status = await sandbox.exec(command, sink)
    except CommandTimeout:
        status = None
    except SandboxError:
        return Left(status=None, output=said.decode(errors="replace"), files={})
    files = {}
    for name in REPORTS:
        try:
            files[name] = await sandbox.read_file(f"{out}/{name}", limit=8 * MIB)
        except (OSError, SandboxError):
            continue
    return Left(status=status, output=said.decode(errors="replace"), files=files)
