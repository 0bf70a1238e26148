"""One run, from sandbox to last frame: prepare, upload, execute, follow, close.

There is one way to run, ``execute``; modes differ in how they make a ``Run`` and in what
their ``Consumer`` does. Knows no pytest objects, no verdict rules and no particular provider.
"""

from __future__ import annotations

import json
from dataclasses import replace

import anyio

from pytest_sandbox import inside, plan, prepare, wire
from pytest_sandbox.account import Account
from pytest_sandbox.consumer import Consumer, Phase
from pytest_sandbox.errors import InfraError, NotTheWorkspace, SandboxLost
from pytest_sandbox.provider import Command, Provider, Sandbox, Stream


async def execute(
    run: plan.Run, provider: Provider, consumer: Consumer, host: inside.Host
) -> bytes | None:
    """Carry out ``run`` and hand every frame to ``consumer``; the last is always an ``End``.

    Returns:
        A tar of the artifacts asked for, or None.

    Raises:
        SandboxError: as the tree in ``errors`` says. Frames handed over before stay true.
    """
    plan.check(run, provider.name, provider.capabilities)
    if provider.capabilities.snapshot and run.environment.setup.commands:
        snapshot = await prepare.prepared(run, provider, consumer, host)
        spec = replace(inside.spec(run), snapshot=snapshot)
        async with inside.opened(spec, provider, host, consumer.phase) as sandbox:
            consumer.phase(Phase("upload"))
            await inside.upload(sandbox, run, run.workspace.delta_archive(run.base, run.candidate))
            return await _tests(run, sandbox, consumer, host)
    async with inside.opened(inside.spec(run), provider, host, consumer.phase) as sandbox:
        consumer.phase(Phase("upload"))
        await inside.upload(sandbox, run, run.workspace.archive(run.base, history=run.history))
        await prepare.set_up(run, sandbox, consumer)
        await inside.upload(sandbox, run, run.workspace.delta_archive(run.base, run.candidate))
        return await _tests(run, sandbox, consumer, host)


async def _tests(
    run: plan.Run, sandbox: Sandbox, consumer: Consumer, host: inside.Host
) -> bytes | None:
    places = inside.Places.of(sandbox)
    for command in run.build:
        consumer.phase(Phase("build", command, announce=True))
        await prepare.shell(command, "build", run, sandbox, consumer, secret=False)
    consumer.phase(Phase("collect"))
    orders = json.dumps(_agent_plan(run, sandbox, host))
    await sandbox.write_file(f"{places.control}/plan.json", orders.encode())
    await inside.agent(sandbox, run, "run", places.control)
    # The supervisor keeps the deadline; ours is for a supervisor that cannot.
    deadline = run.limits.run + run.limits.collect + run.limits.select + 60
    with anyio.move_on_after(deadline) as scope:
        await _follow(run, sandbox, consumer)
    if scope.cancelled_caught:
        raise SandboxLost(f"{run.name}: the sandbox did not end its run within {deadline:.0f} s")
    if not run.artifacts:
        return None
    consumer.phase(Phase("artifacts"))
    limit = str(run.limits.artifacts)
    await inside.agent(sandbox, run, "collect", places.control, "--limit", limit, *run.artifacts)
    return await sandbox.read_file(
        f"{places.control}/artifacts.tar", limit=run.limits.artifacts + 16 * plan.MiB
    )


async def _follow(run: plan.Run, sandbox: Sandbox, consumer: Consumer) -> None:
    decoder = wire.Decoder()
    account = Account()
    places = inside.Places.of(sandbox)
    errors = bytearray()

    async def sink(stream: Stream, data: bytes) -> None:
        if stream == "stderr":
            errors.extend(data[: max(0, 4096 - len(errors))])
            return
        for frame in decoder.feed(data):
            account.check(frame)
            if isinstance(frame, wire.Imports):
                _check_imports(run, frame, places.workspace)
            await consumer.frame(frame)
            if isinstance(frame, wire.Ready):
                chosen = await consumer.select()
                account.choose(chosen.items)
                orders = {"items": list(chosen.items), "maxfail": chosen.maxfail}
                consumer.phase(Phase("run"))
                await sandbox.write_file(
                    f"{places.control}/select.json", json.dumps(orders).encode() + b"\n"
                )

    fruitless = 0
    while not decoder.ended:
        before = decoder.offset
        argv = inside.agent_argv(run, places, "follow", places.control, str(before))
        try:
            status = await sandbox.exec(Command(argv=argv), sink)
        except SandboxLost:
            raise
        except InfraError:
            status = None  # the stream broke, the run goes on: follow again from the offset
        decoder.lost()
        if decoder.ended:
            return
        if status == 3:
            raise SandboxLost(
                f"{run.name}: the supervisor in the sandbox is gone. {inside.quote(bytes(errors))}"
            )
        fruitless = 0 if decoder.offset > before else fruitless + 1
        if fruitless == 5:
            raise SandboxLost(
                f"{run.name}: no more can be read from the sandbox "
                f"(exit status {status}). {inside.quote(bytes(errors))}"
            )
        await anyio.sleep(0.05 * 4**fruitless)


def _check_imports(run: plan.Run, frame: wire.Imports, workspace: str) -> None:
    """The patched code is what gets tested, or there is no result at all."""
    for package, paths in frame.paths.items():
        if paths and not any(path.startswith(workspace + "/") for path in paths):
            raise NotTheWorkspace(
                f"{run.name}: the tests import {package!r} from {paths[0]}, not from the patched "
                f"tree in {workspace}, so their results would say nothing about it. Install the "
                "project in editable mode: --sandbox-setup 'pip install -e .'"
            )


def _agent_plan(run: plan.Run, sandbox: Sandbox, host: inside.Host) -> dict[str, object]:
    places = inside.Places.of(sandbox)
    return {
        "protocol": wire.PROTOCOL,
        "args": list(run.args),
        "cwd": _join(places.workspace, run.cwd),
        "workspace": places.workspace,
        "python": [inside.python(run, places)],
        "demote": list(sandbox.demote),
        "env": inside.environment(run, places),
        "ini_keys": list(host.ini_keys),
        "block": ["pytest_sandbox"],
        "packages": list(run.environment.setup.packages),
        "run_timeout": run.limits.run,
        "collect_timeout": run.limits.collect,
        "select_timeout": run.limits.select,
        "test_timeout": run.limits.test,
        "output_limit": run.limits.output,
        "frame_limit": wire.MAX_TOTAL // 2,
        "text_limit": 200_000,
        "restarts": 10,
        "oom_notice": sandbox.oom_notice,
        "live": run.live,
        "columns": run.columns,
        "heartbeat": 5.0,
    }


def _join(root: str, relative: str) -> str:
    return f"{root}/{relative}" if relative else root
