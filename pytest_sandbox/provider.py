"""What a provider is: the contract every engine and SDK adapter fulfils.

Knows nothing of git, pytest or any SDK. ``pytest_sandbox.testing.ProviderConformance``
checks every sentence of these docstrings against a real implementation.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

from pytest_sandbox.errors import ProviderUnavailable
from pytest_sandbox.gate import Gate

Stream = Literal["stdout", "stderr"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a provider can do; checked before anything starts."""

    #: One line for the header: what stands between the tests and the host.
    isolation: str
    #: False only for the ``host`` provider: a visible warning is printed.
    isolated: bool = True
    #: ``Sandbox.snapshot`` and ``SandboxSpec.snapshot`` work.
    snapshot: bool = False
    #: The network can be kept off. Without it, ``network=False`` is refused, never ignored.
    network_off: bool = False
    #: Limits of ``SandboxSpec`` that are enforced: memory, cpus, disk, processes, file_size.
    limits: frozenset[str] = frozenset()
    #: Host paths can be shown read-only inside (``SandboxSpec.expose``).
    host_paths: bool = False
    #: What keeps the tests away from the supervisor: another namespace, another uid where the
    #: sandbox lets us (then ``Sandbox.demote`` is not empty), nothing.
    supervisor: Literal["namespace", "uid", "none"] = "none"
    #: What ``SandboxSpec.image`` names, in the vendor's word ("template"); "" where there is none.
    image: str = ""
    #: ``SandboxSpec.region`` can be chosen.
    region: bool = False
    #: Longest lifetime of a sandbox in seconds, renewals included.
    max_ttl: float | None = None
    #: Seconds between calls of ``Sandbox.keep_alive``; None where lifetime is set once.
    heartbeat: float | None = None
    #: ``Sandbox.attach`` says how a person gets into a sandbox that is kept.
    keep: bool = False
    #: Sandboxes of one account at a time, and made per second; None where nobody counts.
    concurrency: int | None = None
    create_rate: float | None = None
    #: Where ``Sandbox.rate`` is from, and of when: "E2B's published prices of 2026-08".
    prices: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxSpec:
    """What a sandbox shall be. Sizes in bytes, times in seconds, None for the provider's own."""

    #: Names the sandbox in ledger, labels and messages; unique.
    name: str
    #: Lifetime after which the provider itself ends the sandbox, whatever became of us.
    ttl: float
    network: bool = False
    memory: int | None = None
    cpus: float | None = None
    #: Bytes that may be written below ``Sandbox.root`` and to /tmp, each.
    disk: int | None = None
    #: Processes and threads at one time.
    processes: int | None = None
    #: Largest single file.
    file_size: int | None = None
    #: What to start from, in the vendor's terms; None for its default.
    image: str | None = None
    #: Where to run, in the vendor's terms.
    region: str | None = None
    #: Start from what ``Sandbox.snapshot`` returned; ``image`` is that of the snapshot then.
    snapshot: str | None = None
    #: ``Sandbox.snapshot`` will be called: keep what is written where it can be kept.
    snapshotable: bool = False
    #: Host paths shown read-only at the same path. Only what the user named.
    expose: tuple[Path, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    #: US dollars an hour that the user pays, where that is not what ``Sandbox.rate`` says.
    price: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One program to run: no shell, no inherited environment."""

    argv: tuple[str, ...]
    #: Absolute; ``Sandbox.root`` when None.
    cwd: str | None = None
    #: The whole environment, but for PATH, HOME, TMPDIR and LANG, which get defaults.
    env: Mapping[str, str] = field(default_factory=dict)
    stdin: bytes = b""
    #: Seconds; None for no limit of its own.
    timeout: float | None = None


class Sink(Protocol):
    """Receives output as it comes, unaltered and in order per stream. Slow is allowed."""

    async def __call__(self, stream: Stream, data: bytes, /) -> None: ...


class Sandbox(ABC):
    """A running sandbox. Operations may run at the same time as each other."""

    #: The provider's own name for it.
    id: str
    #: A writable folder, empty at first; it is what a snapshot keeps.
    root: str
    #: A writable folder for the supervisor, which programs run through ``demote`` cannot see
    #: or change where ``Capabilities.supervisor`` is not "none".
    control: str
    #: Argument prefix with which the supervisor starts what it does not trust. stdin, stdout,
    #: stderr, cwd and environment pass through it; killing its pid ends all below it.
    demote: tuple[str, ...] = ()
    #: Prefix under which variables that act on any program (LD_*, GLIBC_TUNABLES) have to be
    #: given to ``demote``, which takes it off inside. None where it passes them on as they are.
    held: str | None = None
    #: A file that exists (inside) once something was killed for using too much memory.
    oom_notice: str | None = None
    #: The user behind ``demote``, to whom the workspace has to belong. None: no other than ours.
    owner: int | None = None
    #: Estimated US dollars per second of lifetime; None where it costs nothing.
    rate: float | None = None
    #: Shell command with which a person gets in while it is kept.
    attach: str | None = None

    @abstractmethod
    async def exec(self, command: Command, sink: Sink | None = None) -> int:
        """Run ``command`` to its end and return its exit status, 128 + N after signal N.

        Cancelling kills the command and all its descendants. Descendants that outlive the
        command stay until ``close``. All output reaches ``sink`` before this returns.

        Raises:
            CommandTimeout: ``command.timeout`` passed; the tree has been killed.
            SandboxLost: the sandbox ended meanwhile, also by ``close`` or its time limit.
            InfraError: the connection failed; the command may still be running.
        """

    @abstractmethod
    async def write_file(
        self, path: str, data: bytes | AsyncIterable[bytes], *, mode: int = 0o644
    ) -> None:
        """Create or replace the file at absolute ``path``; missing parent folders are made.

        Raises:
            OSError: it cannot be written (no space, a folder is there).
            SandboxLost, InfraError: as ``exec``.
        """

    @abstractmethod
    async def read_file(self, path: str, *, limit: int) -> bytes:
        """The content of the regular file at absolute ``path``.

        Raises:
            FileNotFoundError: there is none.
            OSError: not a regular file, or longer than ``limit`` bytes.
            SandboxLost, InfraError: as ``exec``.
        """

    async def seal(self, folder: str, paths: Sequence[str]) -> str:
        """Keep files from everything that is run through ``demote`` from now on.

        It can read them, but not change, replace, rename or remove them, nor the folders on the
        way; in these it may still make files of its own. Where a sealed file is Python's, its
        folder has a ``__pycache__`` that is empty and stays so. Called once, while nothing runs
        that is not trusted. Nobody may change them afterwards.

        Args:
            folder: absolute, below ``root``.
            paths: files below it, relative, with ``/``; what matters most first.

        Returns:
            "" where that is so now; else what could not be sealed and why, for the user.

        Raises:
            SandboxLost, InfraError: as ``exec``.
        """
        return "the tests run as the user whom the files belong to"

    async def snapshot(self, name: str = "") -> str:
        """Keep what is below ``root`` and return the identifier to start others from.

        Everything running in the sandbox may be ended by it: only ``close`` is sure to work
        afterwards. Present where ``Capabilities.snapshot``.

        Args:
            name: what to call it where snapshots have names, for ``Provider.find_snapshot``.
        """
        raise NotImplementedError

    async def keep_alive(self) -> None:
        """Renew the lifetime, never beyond ``SandboxSpec.ttl`` after creation.

        Raises:
            SandboxLost, InfraError: as ``exec``.
        """

    async def keep(self) -> None:
        """Let it live on until its time limit, whatever becomes of us."""

    @abstractmethod
    async def close(self) -> None:
        """End the sandbox and everything in it. May be called again, and at any time."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of ``--sandbox-doctor``."""

    what: str
    #: True: fine. False: has to be mended before the provider works. None: good to know.
    ok: bool | None
    #: Versions, limits, prices; never the value of a credential.
    text: str
    #: What to do about it.
    advice: str = ""


class Provider(ABC):
    """Makes sandboxes. One instance serves a session; open it with ``async with``."""

    #: The name users type.
    name: str
    #: What the user knows better of the account than the vendor's smallest plan says: fields of
    #: ``Capabilities``.
    account: Mapping[str, Any] = {}

    @property
    @abstractmethod
    def capabilities(self) -> Capabilities: ...

    @property
    def able(self) -> Capabilities:
        """``capabilities`` in this account."""
        return replace(self.capabilities, **self.account)

    @abstractmethod
    async def check(self) -> None:
        """Find out whether sandboxes can be made here, without making one that stays.

        Raises:
            ProviderUnavailable: with what is missing, and what to do about it.
        """

    @abstractmethod
    async def create(self, spec: SandboxSpec) -> Sandbox:
        """Start a sandbox.

        Raises:
            NothingDone: no sandbox was made; may be tried again.
            SandboxLost: one was made, and is gone already; may be tried again.
            ProviderUnavailable: none can be made.
            InfraError: unknown whether one was made (its labels and time limit apply).
        """

    async def delete_snapshot(self, snapshot: str) -> None:
        """Remove a snapshot; one that is not there is fine."""

    async def has_snapshot(self, snapshot: str) -> bool:
        """Whether ``create`` could start from it now."""
        return False

    async def find_snapshot(self, name: str) -> str | None:
        """The identifier of the snapshot made under ``name``, by whomever; None without one."""
        return None

    async def snapshots(self) -> tuple[str, ...]:
        """The identifiers of all snapshots of ours, by whomever made; of all pages."""
        return ()

    async def snapshot_size(self, snapshot: str) -> int | None:
        """Bytes a snapshot takes up, None where the provider does not say."""
        return None

    async def reap(self, name: str, sandbox_id: str | None) -> None:
        """End what is left of the sandbox ``name``, whose owner is dead. None left is fine."""

    async def sweep(self, *, older_than: float) -> tuple[str, ...]:
        """End every sandbox of ours in this account that is older than ``older_than`` seconds.

        All pages are read before the first is ended. Returns what was ended.
        """
        return ()

    @cached_property
    def gate(self) -> Gate:
        """What all who make sandboxes with this instance wait at."""
        return Gate(self.able.concurrency, self.able.create_rate)

    async def doctor(self) -> tuple[Finding, ...]:
        """What works and what does not, without making anything; at most some seconds."""
        try:
            await self.check()
        except ProviderUnavailable as error:
            return (Finding("works", False, str(error)),)
        able = self.capabilities
        limits = ", ".join(sorted(able.limits)) or "none"
        return (
            Finding("works", True, "yes"),
            Finding("isolation", None, able.isolation),
            Finding("limits", None, limits),
        )

    async def __aenter__(self) -> Provider:
        return self

    async def __aexit__(self, *exc: object) -> None:
        return None
