"""One run, from sandbox to last frame: prepare, upload, execute, follow, close.

There is one way to run, ``execute``; modes differ in how they make a ``Run`` and in what
their ``Consumer`` does. Knows no pytest objects, no verdict rules and no particular provider.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import anyio

from pytest_sandbox import inside, plan, prepare, sealing, wire
from pytest_sandbox.account import Account
from pytest_sandbox.consumer import Consumer, Phase
from pytest_sandbox.errors import (
    CreateFailed,
    InfraError,
    NotTheWorkspace,
    ProviderUnavailable,
    SandboxError,
    SandboxLost,
)
from pytest_sandbox.provider import Command, Provider, Sandbox, Sink, Stream
from pytest_sandbox.relay import Relay
from pytest_sandbox.witness import Chain

#: Times that a request is sent before its failure counts.
_TRIES = 5


async def execute(
    run: plan.Run, provider: Provider, consumer: Consumer, host: inside.Host
) -> bytes | None:
    """Carry out ``run`` and hand every frame to ``consumer``; the last is always an ``End``.

    Returns:
        A tar of the artifacts asked for, or None.

    Raises:
        SandboxError: as the tree in ``errors`` says. Frames handed over before stay true.
    """
    with boundary(run.name):
        return await _execute(run, provider, consumer, host)


@contextmanager
def boundary(run: str) -> Iterator[None]:
    """Whatever fails in the block is a ``SandboxError``: no other error is a provider's to raise.

    Raises:
        SandboxError: as it was, also out of a group; or an ``InfraError`` that names another one.
    """
    try:
        yield
    except SandboxError:
        raise
    except Exception as error:
        cause = _first(error)
        if isinstance(cause, SandboxError):
            raise cause from error
        raise InfraError(
            f"{run}: {_describe(cause)}. This says nothing about the tests; try again."
        ) from error


def _first(error: BaseException) -> BaseException:
    """The error that says most of a group of them, which task groups raise."""
    while isinstance(error, BaseExceptionGroup):
        inner = [_first(part) for part in error.exceptions]
        error = next((part for part in inner if isinstance(part, SandboxError)), inner[0])
    return error


def _describe(error: BaseException) -> str:
    text = wire.printable(f"{type(error).__name__}: {error}", line=True)
    place = error.__traceback__
    if isinstance(error, OSError) or place is None:
        return text
    # Anything else is a mistake in a provider, a hook or here: say where, for who mends it.
    while place.tb_next is not None:
        place = place.tb_next
    code = place.tb_frame.f_code
    return f"{text} ({code.co_filename}, line {place.tb_lineno}, in {code.co_name})"


async def _execute(
    run: plan.Run, provider: Provider, consumer: Consumer, host: inside.Host
) -> bytes | None:
    plan.check(run, provider.name, provider.able)
    relay = Relay(consumer)
    limits = run.limits
    end = anyio.current_time() + limits.run + limits.collect + limits.select
    for left in range(run.retries, -1, -1):
        try:
            return await _attempt(run, provider, relay, host)
        except (CreateFailed, ProviderUnavailable) as error:
            if left == run.retries:
                raise
            # Not one of those errors any more: the run has begun, and stays with its provider.
            text = f"{run.name}: no new sandbox for the tests that are left: {error}"
            raise InfraError(text) from error
        except SandboxLost as error:
            remaining = end - anyio.current_time()
            if left == 0 or remaining <= 0:
                raise
            tests = "the tests" if relay.left is None else f"{relay.left} tests without a result"
            text = f"{error} A new sandbox for {tests} ({left} more may be lost)."
            consumer.phase(Phase("create", text, announce=True))
            relay.again()
            run = replace(run, limits=replace(limits, run=min(limits.run, remaining)))
    raise AssertionError("unreachable")


async def _attempt(
    run: plan.Run, provider: Provider, relay: Relay, host: inside.Host
) -> bytes | None:
    """The run, or what is left of it, in one sandbox."""

    def keep(error: BaseException | None) -> bool:
        if isinstance(error, SandboxLost) or run.keep == "never":
            return False
        return run.keep == "always" or error is not None or relay.failed

    async with prepare.ready(run, provider, relay, host, keep) as sandbox:
        return await _tests(run, sandbox, provider, relay, host)


async def _tests(
    run: plan.Run, sandbox: Sandbox, provider: Provider, consumer: Consumer, host: inside.Host
) -> bytes | None:
    places = inside.Places.of(sandbox)
    await sealing.before_build(run, sandbox)
    for command in run.build:
        consumer.phase(Phase("build", command, announce=True))
        await prepare.shell(command, "build", run, sandbox, consumer, secret=False)
    layers = await sealing.put_in_force(run, sandbox, provider.capabilities)
    consumer.phase(Phase("collect"))
    chain = Chain.new(places.workspace)
    orders = json.dumps(_agent_plan(run, sandbox, host, layers) | chain.orders(run.witness))
    await inside.write(run, sandbox, f"{places.control}/plan.json", orders.encode())
    await inside.agent(sandbox, run, "run", places.control)
    # The supervisor keeps the deadline; ours is for a supervisor that cannot.
    deadline = run.limits.run + run.limits.collect + run.limits.select + 60
    with anyio.move_on_after(deadline) as scope:
        await _follow(run, sandbox, consumer, chain)
    if scope.cancelled_caught:
        raise SandboxLost(f"{run.name}: the sandbox did not end its run within {deadline:.0f} s")
    if not run.artifacts:
        return None
    consumer.phase(Phase("artifacts"))
    most = str(run.limits.artifacts)
    await inside.agent(sandbox, run, "collect", places.control, "--limit", most, *run.artifacts)
    # The archive's own headers come on top of what the files may be.
    limit = run.limits.artifacts + 16 * plan.MiB
    return await sandbox.read_file(f"{places.control}/artifacts.tar", limit=limit)


async def _follow(run: plan.Run, sandbox: Sandbox, consumer: Consumer, chain: Chain) -> None:
    """Read frames to the last one, and send the selection meanwhile."""
    account = Account()
    ready = anyio.Event()

    async def choose() -> None:
        await ready.wait()
        chosen = await consumer.select()
        account.choose(chosen.items)
        orders = {"items": list(chosen.items), "maxfail": chosen.maxfail}
        consumer.phase(Phase("run"))
        path = f"{inside.Places.of(sandbox).control}/select.json"
        await inside.write(run, sandbox, path, json.dumps(orders).encode() + b"\n")

    # Apart from the stream: where that breaks, the selection is still made, once.
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(choose)
            await _frames(run, sandbox, consumer, account, ready, chain)
            tasks.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        cause = _first(group)
        if isinstance(cause, Exception):
            raise cause from None
        raise


async def _frames(
    run: plan.Run,
    sandbox: Sandbox,
    consumer: Consumer,
    account: Account,
    ready: anyio.Event,
    chain: Chain,
) -> None:
    decoder = wire.Decoder()
    places = inside.Places.of(sandbox)
    errors = bytearray()
    failed: list[Exception] = []
    attempt = 0

    async def take(data: bytes) -> None:
        for frame in decoder.feed(data):
            account.check(frame)
            if isinstance(frame, wire.Imports):
                _check_imports(run, frame, places.workspace)
            await consumer.frame(chain.verified(frame))
            if isinstance(frame, wire.Ready):
                ready.set()

    def sink_of(number: int) -> Sink:
        async def sink(stream: Stream, data: bytes) -> None:
            if number != attempt or failed:
                return  # late, of a stream that was given up
            if stream == "stderr":
                errors.extend(data[: max(0, 4096 - len(errors))])
                return
            try:
                await take(data)
            except Exception as error:
                # Kept as well: no provider may make a broken connection of it.
                failed.append(error)
                raise

        return sink

    fruitless = 0
    while not decoder.ended:
        before = decoder.offset
        errors.clear()
        argv = inside.agent_argv(run, places, "follow", places.control, str(before))
        try:
            status = await sandbox.exec(Command(argv=argv), sink_of(attempt))
        except SandboxLost:
            if failed:
                raise failed[0] from None
            raise
        except InfraError as error:
            # The stream broke, the run goes on: follow again from the offset.
            status = None
            errors += str(error).encode(errors="replace")[:4096]
        if failed:
            raise failed[0]
        attempt += 1
        decoder.lost()
        if decoder.ended:
            return
        if status == 3:
            raise SandboxLost(
                f"{run.name}: the supervisor in the sandbox is gone. {inside.quote(bytes(errors))}"
            )
        fruitless = 0 if decoder.offset > before else fruitless + 1
        if fruitless == _TRIES:
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


def _agent_plan(
    run: plan.Run, sandbox: Sandbox, host: inside.Host, layers: sealing.Layers | None
) -> dict[str, object]:
    places = inside.Places.of(sandbox)
    return {
        "protocol": wire.PROTOCOL,
        "args": list(run.args),
        "cwd": _join(places.workspace, run.cwd),
        "workspace": places.workspace,
        "python": [inside.python(run, places)],
        "demote": list(sandbox.demote),
        "held_prefix": sandbox.held,
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
        "hardened": run.protection is not None,
        "fresh": [] if run.protection is None else list(run.protection.fresh),
        "layers": None if layers is None else layers.orders(),
    }


def _join(root: str, relative: str) -> str:
    return f"{root}/{relative}" if relative else root
