"""What goes wrong at vendors, at which stage of a run, and how each emulator is told to do it.

``python -m tests.providers.faults`` lets all of it happen, and writes docs/faults.md: see
``fault_page``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from pytest_sandbox.consumer import Phase
from pytest_sandbox.errors import SandboxError
from pytest_sandbox.providers.daytona.sandbox import DaytonaSandbox
from pytest_sandbox.providers.e2b.sandbox import E2BSandbox
from pytest_sandbox.providers.modal.sandbox import ModalSandbox
from tests.emulators.running import Running
from tests.providers.known import BAD, BOUND, GOOD, Site, Told, summed

VENDORS = ("e2b", "modal", "daytona")
#: What happens to a run, in this order.
STAGES = ("check", "find", "create", "ready", "upload", "set-up", "snapshot", "collect", "run",
          "close", "list")  # fmt: skip
FAULTS = ("429", "429, Retry-After", "503", "502 before", "504 after", "slow", "reset before",
          "reset after", "cut", "silent", "lost", "idle end", "expired token", "out of memory",
          "list lag", "not UTF-8")  # fmt: skip

#: Those that are also tried without an end. An end of one of the others is the end of all.
ALWAYS = ("429, Retry-After", "504 after", "reset before", "cut", "lost", "expired token",
          "out of memory", "list lag")  # fmt: skip

Rules = tuple[Mapping[str, Any], ...]
#: Longest time for a run that is always refused, or that nobody answers, in seconds.
PATIENT_BOUND = 240.0
#: When it is armed: when the run comes to that phase for the first time; "" for at once.
_PHASES = {"check": "", "find": "", "create": "create", "ready": "create", "upload": "upload",
           "set-up": "set-up", "snapshot": "set-up", "collect": "collect", "run": "run",
           "close": "close", "list": "create"}  # fmt: skip


def status(code: Any, when: str = "before", **more: Any) -> Mapping[str, Any]:
    return {"kind": "status", "when": when, "args": {"status": code, "code": code, **more}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Vendor:
    """How one vendor's emulator does it."""

    #: The operation that goes wrong at each stage.
    operations: Mapping[str, str]
    #: Kinds of faults that can strike any operation.
    anywhere: Mapping[str, Mapping[str, Any]]
    #: Fault and operation, for those that only some operations know.
    somewhere: Mapping[tuple[str, str], Mapping[str, Any]]
    #: Faults that are not an operation's: by fault and stage, actions and their arguments.
    acts: Mapping[tuple[str, str], Rules] = field(default_factory=dict)
    #: What a vendor-side setting has to be again.
    settings: Mapping[str, Any] | None = None


_HTTP: Mapping[str, Mapping[str, Any]] = {
    "429": status(429),
    "429, Retry-After": status(429, headers={"Retry-After": "1"}),
    "503": status(503),
    "502 before": status(502),
    "504 after": status(504, "after"),
    "slow": {"kind": "delay", "args": {"seconds": 3.0}},
    "reset before": {"kind": "reset"},
    "reset after": {"kind": "reset", "when": "after"},
}
_GRPC: Mapping[str, Mapping[str, Any]] = {
    **_HTTP,
    "429": status("RESOURCE_EXHAUSTED"),
    "429, Retry-After": status("RESOURCE_EXHAUSTED", retry_after=1.0),
    "503": status("UNAVAILABLE"),
    "502 before": status("INTERNAL"),
    "504 after": status("DEADLINE_EXCEEDED", "after"),
}
_INSIDE_STAGES = ("ready", "upload", "set-up", "collect", "run")


def _during(kind: str, size: int = 1000) -> Mapping[str, Any]:
    return {"kind": kind, "when": "during", "args": {"bytes": size}}


E2B = Vendor(
    operations={
        "check": "list", "find": "snapshots", "create": "create", "ready": "process.Start",
        "upload": "files.write", "set-up": "process.Start", "snapshot": "snapshot",
        "collect": "process.Start", "run": "process.Start", "close": "kill", "list": "list",
    },
    anywhere=_HTTP,
    somewhere={
        ("cut", "process.Start"): _during("reset"),
        ("cut", "files.write"): _during("reset", 5000),
        ("silent", "process.Start"): _during("stall"),
        ("not UTF-8", "process.Start"): _during("garbage"),
        ("lost", "process.Start"): {"kind": "lost"},
        ("lost", "files.write"): {"kind": "lost"},
        ("idle end", "process.Start"): {"kind": "pause"},
        ("idle end", "files.write"): {"kind": "pause"},
        **{("expired token", name): status(401)
           for name in ("list", "snapshots", "create", "snapshot", "kill")},
        ("list lag", "list"): {"kind": "lag", "when": "during", "args": {"seconds": 60}},
    },
    acts={
        **{("expired token", stage): ({"action": "token"}, {"action": "reset"})
           for stage in ("upload", "set-up", "collect", "run")},
        **{("out of memory", stage): ({"action": "oom"},) for stage in ("collect", "run")},
    },
)  # fmt: skip

_LOST: dict[tuple[str, str], Mapping[str, Any]] = {
    (fault, operation): {"kind": "lost", "args": {"status": how, "exitcode": code}}
    for operation in ("TaskExecStart", "TaskExecStdioRead", "TaskSnapshotFilesystem")
    for fault, how, code in (
        ("lost", "INTERNAL_FAILURE", 137),
        ("idle end", "IDLE_TIMEOUT", 0),
        ("out of memory", "KERNEL_OOM_KILL", 9),
    )
}
MODAL = Vendor(
    operations={
        "check": "ClientHello", "find": "ImageFromId", "create": "SandboxCreateV2",
        "ready": "TaskExecStart", "upload": "TaskExecStart", "set-up": "TaskExecStart",
        "snapshot": "TaskSnapshotFilesystem", "collect": "TaskExecStart",
        "run": "TaskExecStdioRead", "close": "SandboxTerminateV2", "list": "SandboxListV2",
    },
    anywhere={**_GRPC, "expired token": status("UNAUTHENTICATED"), "silent": {"kind": "hang"}},
    somewhere={
        **_LOST,
        ("cut", "TaskExecStdioRead"): _during("reset", 300),
        ("list lag", "SandboxListV2"): {"kind": "lag", "when": "during", "args": {"seconds": 60}},
    },
)  # fmt: skip

DAYTONA = Vendor(
    operations={
        "check": "snapshot.list", "find": "snapshot.get", "create": "sandbox.create",
        "ready": "process.execute", "upload": "files.upload", "set-up": "process.execute",
        "snapshot": "sandbox.snapshot", "collect": "process.execute", "run": "process.execute",
        "close": "sandbox.delete", "list": "sandbox.list",
    },
    anywhere={
        **_HTTP,
        "429, Retry-After": status(429, headers={"Retry-After-sandbox-create": "1"}),
        "expired token": status(401),
        "silent": {"kind": "hang"},
    },
    somewhere={
        ("cut", "process.execute"): _during("reset", 100),
        ("cut", "files.upload"): _during("reset", 1),
        ("not UTF-8", "process.execute"): _during("noise"),
        **{(fault, operation): rule
           for operation in ("process.execute", "files.upload")
           for fault, rule in (
               ("lost", {"kind": "lost"}),
               ("idle end", {"kind": "lost", "args": {"state": "stopped"}}),
               ("out of memory", {"kind": "oom"}),
           )},
    },
    acts={("list lag", "list"): ({"action": "settings", "lag": 60.0},)},
    settings={"lag": 0.0, "delay": 0.02, "quota": 40},
)  # fmt: skip

TABLE = {"e2b": E2B, "modal": MODAL, "daytona": DAYTONA}


@dataclass(frozen=True, slots=True)
class Cell:
    """One fault at one stage of one vendor's."""

    vendor: str
    fault: str
    stage: str

    @property
    def rule(self) -> Mapping[str, Any] | None:
        """None where this is none of the emulator's rules."""
        vendor = TABLE[self.vendor]
        operation = vendor.operations[self.stage]
        if self.fault == "list lag" and self.stage != "list":
            return None
        if self.fault == "silent" and self.stage == "snapshot":
            return None  # as long as a snapshot may take: five minutes, or ten
        found = vendor.somewhere.get((self.fault, operation), vendor.anywhere.get(self.fault))
        return None if found is None else {"operation": operation, **found}

    @property
    def acts(self) -> Rules:
        return TABLE[self.vendor].acts.get((self.fault, self.stage), ())

    @property
    def exists(self) -> bool:
        return bool(self.acts) or self.rule is not None

    def __str__(self) -> str:
        return f"{self.vendor}: {self.fault} at {self.stage}"


def cells(vendor: str) -> Iterator[Cell]:
    """All that there are of a vendor."""
    for fault in FAULTS:
        for stage in STAGES:
            cell = Cell(vendor, fault, stage)
            if cell.exists:
                yield cell


def calm(site: Site) -> None:
    """Nothing goes wrong any more."""
    site.running.no_faults()
    settings = TABLE[site.vendor].settings
    if settings is not None:
        site.running.act("settings", **settings)


def sprinkle(site: Site, probability: float, *, silent: bool) -> None:
    """From now on any call goes wrong with that probability, in any way.

    Args:
        silent: also those for which the client has to wait for long.
    """
    calm(site)
    vendor = TABLE[site.vendor]
    everywhere = [
        ("*", rule) for fault, rule in vendor.anywhere.items() if silent or fault != "silent"
    ]
    there = [
        (operation, rule)
        for (fault, operation), rule in vendor.somewhere.items()
        if silent or fault != "silent"
    ]
    here = Counter(operation for operation, _ in there)
    for seed, (operation, rule) in enumerate([*everywhere, *there]):
        share = probability / 2 / (here[operation] or len(everywhere))
        site.running.fault(
            **{**rule, "operation": operation, "times": None, "probability": share, "seed": seed}
        )


class Trigger:
    """Lets it happen when a run comes to its stage."""

    def __init__(self, cell: Cell, running: Running, *, always: bool) -> None:
        self._cell = cell
        self._running = running
        self._times = None if always else 1
        self._always = always
        self.armed = False
        if _PHASES[cell.stage] == "":
            self._arm()
        if cell.stage == "list":
            # Nobody lists anything unless it is unknown whether there is something.
            operation = TABLE[cell.vendor].operations["create"]
            running.fault(operation, "reset", when="after", times=None)

    def __call__(self, phase: Phase) -> None:
        if phase.name != _PHASES[self._cell.stage] or (phase.detail and not phase.announce):
            return
        if not self.armed or (self._cell.acts and self._always):
            self._arm()

    def _arm(self) -> None:
        self.armed = True
        for act in self._cell.acts:
            self._act(**act)
        if not self._cell.acts:
            self._running.fault(**{**(self._cell.rule or {}), "times": self._times})

    def _act(self, action: str, **arguments: Any) -> None:
        if action == "settings":
            self._running.act(action, **arguments)
            return
        for sandbox in self._running.live():
            self._running.act(action, id=sandbox["id"], **arguments)

    def struck(self) -> bool:
        if self._cell.acts:
            return self.armed
        operation = (self._cell.rule or {})["operation"]
        return any(
            rule["hits"] for rule in self._running.faults() if rule["operation"] == operation
        )


async def strike(site: Site, cell: Cell, *, always: bool) -> Told:
    """One run with the fault, which strikes once or for as long as there is something to strike.

    The candidate is one that fails where it strikes once: no failure may get lost.
    """
    calm(site)
    if cell.stage in ("set-up", "snapshot"):
        await site.forget_snapshots()
    trigger = Trigger(cell, site.running, always=always)
    bound = PATIENT_BOUND if always or cell.fault == "silent" else BOUND
    told = await site.run(GOOD if always else BAD, on_phase=trigger, bound=bound)
    assert trigger.struck(), f"{cell} did not strike"
    calm(site)
    told.reaped = await site.clean()
    return told


def short(told: Told) -> str:
    """For the table."""
    words = {"infra error": "infra", "unavailable": "infra"}
    mark = "*" * (told.lost > 0 and told.verdict == "right") + "†" * (told.reaped > 0)
    return words.get(told.verdict, told.verdict) + mark


@contextmanager
def hasty() -> Iterator[None]:
    """Connections that say nothing are given up sooner than users would want it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(E2BSandbox, "silence", 15.0)
        patch.setattr(ModalSandbox, "silence", 15.0)
        patch.setattr(DaytonaSandbox, "patience", 15.0)
        yield


async def examine(
    here: Site, chosen: Iterable[Cell], report: Callable[[Cell, str, list[str]], None]
) -> None:
    """Let what is chosen happen; ``report`` is told what came of it, and what is wrong."""
    calm(here)
    assert (await here.run(GOOD)).verdict == "right"
    for cell in chosen:
        words = []
        problems = []
        for always in (False, True)[: 1 + (cell.fault in ALWAYS)]:
            how = f"{cell}, {'always' if always else 'once'}"
            try:
                told = await strike(here, cell, always=always)
            except (AssertionError, SandboxError) as error:
                problems.append(f"{how}, ending what was left: {error}")
                words.append("wrong")
                await _start_over(here)
                continue
            words.append(short(told))
            # Memory is the candidate's to use up, on every engine.
            killed = told.verdict == "killed" and cell.fault == "out of memory"
            if not told.allowed and not killed:
                problems.append(f"{how}: {summed(told)}")
        report(cell, " / ".join(words), problems)
    await here.forget_snapshots()
    assert here.running.unknown() == []
    # One whose answer got lost cannot be named; where nobody can list it, it has to go by itself.
    assert here.running.endless() == []


async def _start_over(here: Site) -> None:
    """The next cell shall not suffer from what this one left."""
    calm(here)
    async with here.provider() as provider:
        await provider.sweep(older_than=-1.0)
    await here.clean()


if __name__ == "__main__":
    from tests.providers.fault_page import main

    main()
