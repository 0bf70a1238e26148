"""Instances that no pytest of ours can judge: their official command, and its log read officially.

The command runs in the image that SWE-bench publishes, on the tree that is graded like any other;
what it prints is read by SWE-bench's own parser, from the package ``swebench``. A log is only
text, and whatever runs below the tests can print it: such a verdict is never protected.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pytest_sandbox import inside, plan, prepare
from pytest_sandbox.consumer import Consumer, Phase
from pytest_sandbox.errors import CommandTimeout, InfraError, Unsupported
from pytest_sandbox.grading.model import Log, Observed, Status, Task
from pytest_sandbox.provider import Command, Provider, Stream
from pytest_sandbox.wire import printable

_STATUSES: Final[Mapping[str, Status]] = {
    "PASSED": "passed", "FAILED": "failed", "SKIPPED": "skipped", "ERROR": "error",
    "XFAIL": "xfailed",
}  # fmt: skip
#: Seconds that reading a log may take.
_PATIENCE: Final = 300.0
#: Names of tests that are kept of a log.
_MOST: Final = 200_000
_START, _END = ">>>>> Start Test Output", ">>>>> End Test Output"
#: What official scripts begin with; each may fail where there is nothing of the kind.
_PRELUDE: Final = (
    "source /opt/miniconda3/bin/activate",
    "conda activate testbed",
)


def installed() -> Path | None:
    """Where the package ``swebench`` is; None where it is not."""
    found = importlib.util.find_spec("swebench")
    if found is None or not found.submodule_search_locations:
        return None
    return Path(next(iter(found.submodule_search_locations)))


def unsupported(task: Task) -> str | None:
    """Why ``task`` cannot be graded here; None where it can, one way or the other."""
    if task.unsupported is None or (task.log is not None and installed() is not None):
        return None
    if task.log is None:
        return task.unsupported
    return (
        f"{task.unsupported}; with pytest-sandbox[swebench] installed, its official command runs, "
        "and its official log parser reads what that prints"
    )


async def script(log: Log) -> str:
    """The shell commands that run the tests of an instance.

    Raises:
        Unsupported: the package is not there, or does not know it.
    """
    if log.script is not None:
        return _of_script(log.script)
    answer = await _asked(log)
    command = " ".join([str(answer["command"]), *(shlex.quote(file) for file in log.files)])
    return "\n".join([*_PRELUDE, *map(str, answer["before"]), command])


def _of_script(text: str) -> str:
    """The test command of an official script, and the variables before it.

    The rest of it puts files in place and installs, which has been done.
    """
    before, found, rest = text.partition(_START)
    if not found:
        raise Unsupported("its eval_script does not say where its test command begins")
    command = rest.partition(_END)[0]
    # The markers are within a command that does nothing: `: '>>>>> Start'`, or an echo.
    lines = command.splitlines()[1:-1]
    kept = re.compile(r"\s*(export |source |conda activate |\. )")
    return "\n".join([*(line for line in before.splitlines() if kept.match(line)), *lines])


async def run(
    planned: plan.Run, log: Log, provider: Provider, consumer: Consumer, host: inside.Host
) -> Observed:
    """Carry out the official command, and read what it printed.

    Raises:
        Unsupported: as ``script``.
        SandboxError: as ``runner.execute``.
    """
    commands = await script(log)
    plan.check(planned, provider.name, provider.able)
    output = bytearray()
    limit = planned.limits.output
    end = "finished"

    async def sink(_: Stream, data: bytes) -> None:
        output.extend(data[: max(0, limit + 1 - len(output))])

    async with prepare.ready(planned, provider, consumer, host) as sandbox:
        for build in planned.build:
            consumer.phase(Phase("build", build, announce=True))
            await prepare.shell(build, "build", planned, sandbox, consumer, secret=False)
        consumer.phase(Phase("run"))
        places = inside.Places.of(sandbox)
        command = Command(
            argv=(*sandbox.demote, "/bin/bash", "-c", f"exec 2>&1\n{commands}"),
            cwd=places.workspace,
            env=inside.environment(planned, places),
            timeout=planned.limits.run,
        )
        try:
            await sandbox.exec(command, sink)
        except CommandTimeout:
            end = "timeout"
    if len(output) > limit:
        end = "output"
    text = output[:limit].decode(errors="replace")
    try:
        return Observed(tests=await _read(log, text), end=end)
    except InfraError:
        # Whoever wrote it made it so; what the parser does with it is no accident of ours.
        return Observed(tests={}, end="output")


async def _read(log: Log, text: str) -> dict[str, Status]:
    answer = await _asked(log, text)
    tests = answer["tests"]
    return {
        # Printable as everything that comes from a sandbox.
        printable(str(name), line=True): _STATUSES.get(str(status), "error")
        for name, status in list(tests.items())[:_MOST]
    }


async def _asked(log: Log, text: str | None = None) -> dict[str, Any]:
    """What the reader answers.

    Raises:
        Unsupported: there is no package, or it does not know.
        InfraError: the reader failed.
    """
    package = installed()
    if package is None:
        raise Unsupported("the package swebench is not installed: pip install 'swebench<5'")
    orders = {
        "package": str(package), "repo": log.repo, "version": log.version,
        "parser": log.parser, **({} if text is None else {"log": text}),
    }  # fmt: skip
    reader = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-S", str(Path(__file__).with_name("logreader.py")),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(_PATIENCE):
            out, errors = await reader.communicate(json.dumps(orders).encode())
    except TimeoutError:
        raise InfraError(f"the log parser of {log.repo} took more than {_PATIENCE:.0f} s") from None
    finally:
        if reader.returncode is None:
            reader.kill()
            await reader.wait()
    if reader.returncode != 0:
        said = printable(errors.decode(errors="replace")[-500:], line=True)
        raise InfraError(f"the log parser of {log.repo} failed: {said}")
    answer: dict[str, Any] = json.loads(out)
    if "problem" in answer:
        raise Unsupported(f"the package swebench {answer['problem']}")
    return answer
