"""What is to be run: the frozen description that the runner carries out.

The only place that turns options into decisions. Below it nothing asks which option, mode or
provider led to a run. Knows no pytest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pytest_sandbox.errors import BadInput, Unsupported

if TYPE_CHECKING:
    from pytest_sandbox.environment import Setup
    from pytest_sandbox.interpreters import HostVenv, Interpreter
    from pytest_sandbox.protection import Protection
    from pytest_sandbox.provider import Capabilities
    from pytest_sandbox.workspace import Tree, Workspace

History = Literal["none", "tag", "full"]
Keep = Literal["never", "failed", "always"]
Integrity = Literal["default", "full"]

KiB = 1024
MiB = 1024 * KiB
GiB = 1024 * MiB


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Times in seconds, sizes in bytes. None means no limit of ours, but perhaps the provider's."""

    run: float = 3600.0
    test: float | None = None
    collect: float = 600.0
    setup: float = 1800.0
    #: How long the host may take to choose tests after collection.
    select: float = 3600.0
    memory: int | None = None
    cpus: float | None = None
    processes: int | None = None
    disk: int | None = None
    output: int = 64 * MiB
    artifacts: int = 256 * MiB


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """How the target's Python environment comes about."""

    interpreter: Interpreter
    setup: Setup
    #: Reuse this one, read-only, instead of making one.
    venv: HostVenv | None = None
    #: Content address of the prepared environment; see ``environment.setup_key``.
    key: str = ""
    #: Only for set-up commands; values never reach a snapshot's key or a message.
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One tree's tests, once. Everything needed to carry it out but the provider."""

    #: What messages call it: "fix.diff on HEAD".
    name: str
    workspace: Workspace
    #: What is prepared and cached.
    base: Tree
    #: What is tested; the base itself when there is no candidate.
    candidate: Tree
    environment: Environment
    #: What became of the candidate's changes; None where the tree is trusted as it is.
    protection: Protection | None = None
    #: Which layers look at a run that passes.
    integrity: Integrity = "default"
    #: For pytest in the sandbox.
    args: tuple[str, ...] = ()
    #: Where pytest starts, relative to the top of the tree.
    cwd: str = ""
    #: Per candidate, after its files are in place, network off, as untrusted as the tests.
    build: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    network: bool = False
    history: History = "tag"
    limits: Limits = Limits()
    artifacts: tuple[str, ...] = ()
    #: What the sandbox is made from and where, in the provider's terms.
    image: str | None = None
    region: str | None = None
    #: US dollars an hour for one sandbox; None for what the provider publishes.
    price: float | None = None
    #: Where the image holds the repository already.
    workdir: str | None = None
    #: Sandboxes that share the tests.
    split: int = 1
    #: Sandboxes that may be lost before the run is given up.
    retries: int = 2
    #: When a sandbox is left running at the end.
    keep: Keep = "never"
    #: Forward output as it is written (-s).
    live: bool = False
    #: The compiled witness, by the Python it is for; empty where none shall look at the tests.
    witness: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    columns: int = 80


def check(run: Run, provider: str, capabilities: Capabilities) -> None:
    """Refuse what the provider cannot give, before anything starts.

    Raises:
        Unsupported: names the wish, the provider and the way out.
    """
    if not run.network and not capabilities.network_off and capabilities.isolated:
        raise Unsupported(
            f"{provider} cannot keep the network off while tests run; allow it with "
            "--sandbox-network=on, or choose another provider"
        )
    if not capabilities.host_paths and run.environment.venv is not None:
        raise Unsupported(
            f"{provider} cannot use an environment of this machine "
            f"(--sandbox-venv {run.environment.venv.path}); leave it out, or use --sandbox=local"
        )
    for option, wanted, can in (
        ("image", run.image, bool(capabilities.image)),
        ("region", run.region, capabilities.region),
        ("memory", run.limits.memory, "memory" in capabilities.limits),
        ("cpu", run.limits.cpus, "cpus" in capabilities.limits),
        ("disk", run.limits.disk, "disk" in capabilities.limits),
        ("processes", run.limits.processes, "processes" in capabilities.limits),
        ("keep", run.keep != "never" or None, capabilities.keep),
    ):
        if wanted is not None and not can:
            raise Unsupported(
                f"{provider} has no --sandbox-{option}; leave it out, or choose another provider"
            )
    if capabilities.max_ttl is not None and lifetime(run.limits) > capabilities.max_ttl:
        raise Unsupported(
            f"{provider} ends every sandbox after {capabilities.max_ttl:.0f} s, and this run may "
            f"take {lifetime(run.limits):.0f} s: lower --sandbox-timeout or "
            "--sandbox-collect-timeout"
        )


def lifetime(limits: Limits) -> float:
    """Seconds that the sandbox of a run has to live at most."""
    return limits.run + limits.collect + min(limits.select, 600.0) + 600.0


def inside(root: Path, path: Path, what: str) -> str:
    """``path`` relative to ``root`` in posix form, "" for the root itself.

    Raises:
        BadInput: it lies elsewhere.
    """
    try:
        relative = path.relative_to(root).as_posix()
    except ValueError:
        raise BadInput(f"{what} {str(path)!r} is not inside the repository {root}") from None
    return "" if relative == "." else relative
