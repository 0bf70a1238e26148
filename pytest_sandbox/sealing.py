"""What keeps a candidate's code from the tests it runs with: put in force in one sandbox, and told.

Knows how runs and sandboxes are made, not how their results are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from pytest_sandbox import inside, plan
from pytest_sandbox.protection import Protection
from pytest_sandbox.provider import Capabilities, Sandbox
from pytest_sandbox.wire import printable


@dataclass(frozen=True, slots=True)
class Layers:
    """What the supervisor tells of before the first test: see ``wire.Layers``."""

    on: tuple[str, ...] = ()
    #: What this sandbox cannot give, and why.
    off: Mapping[str, str] = field(default_factory=dict)

    def orders(self) -> dict[str, object]:
        """As the supervisor's plan has it."""
        return {"on": list(self.on), "off": dict(self.off)}


async def before_build(run: plan.Run, sandbox: Sandbox) -> None:
    """Note what is there, so that what the build adds can be told apart."""
    if run.protection is not None and run.build:
        places = inside.Places.of(sandbox)
        await inside.agent(sandbox, run, "strays", places.workspace, places.control)


async def put_in_force(
    run: plan.Run, sandbox: Sandbox, capabilities: Capabilities
) -> Layers | None:
    """Seal what the tests must not change; call it last, when nothing untrusted runs.

    Returns:
        What is in force; None for a run that is trusted as it is.
    """
    protection = run.protection
    if protection is None:
        return None
    on, off = [], {}
    reason = _shared(sandbox, capabilities)
    if reason:
        off["apart"] = reason
    else:
        on.append("apart")
    places = inside.Places.of(sandbox)
    if run.build:
        # Which ran the candidate's code. New files, too: the old ones may have other names by now.
        sealed = partial(_sealed_archive, run, protection)
        await inside.upload(sandbox, run, sealed)
        await inside.agent(sandbox, run, "strays", places.workspace, places.control)
    reason = await sandbox.seal(places.workspace, _by_weight(protection.sealed))
    if reason:
        off["sealed"] = printable(reason, line=True)
    else:
        on.append("sealed")
    return Layers(tuple(on), off)


def _shared(sandbox: Sandbox, capabilities: Capabilities) -> str:
    """What the tests share with their supervisor; "" where that is nothing."""
    if capabilities.supervisor == "namespace":
        return ""
    if capabilities.supervisor == "none":
        return "the tests run as the user who watches them, with nothing between"
    if sandbox.owner is None:
        return "this sandbox has one user only, for the tests and for what watches them"
    return ""


def _sealed_archive(run: plan.Run, protection: Protection) -> Iterator[bytes]:
    """The sealed files alone, as they are trusted."""
    workspace, tree = run.workspace, protection.tree
    wanted = {path.encode("utf-8", "surrogateescape") for path in protection.sealed}
    entries = [entry for entry in workspace.files(tree) if entry.path in wanted]
    nothing = replace(tree, id=workspace.tree_of(()))
    return workspace.delta_archive(nothing, replace(tree, id=workspace.tree_of(entries)))


def _by_weight(paths: Sequence[str]) -> tuple[str, ...]:
    """What decides most comes first, for a provider that can keep only so many."""

    def weight(path: str) -> int:
        name = path.rpartition("/")[2]
        if name == "conftest.py" or "/" not in path:
            return 0
        return 1 if name.endswith(".py") else 2

    return tuple(sorted(paths, key=weight))
