"""Runs what is not trusted: as another user, within limits, no longer than who started it lives."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import resource
import socket
import struct
from typing import NoReturn

from . import namespaces
from .places import OOM_NOTICE
from .processes import (
    PR_SET_NO_NEW_PRIVS,
    Bell,
    adopt_orphans,
    end_descendants,
    exit_status,
    prctl,
    reap,
    silence,
)
from .whole import become

#: Marks variables that must not act on the programs on the way in (LD_PRELOAD and the like).
HELD = "PYTEST_SANDBOX_HELD_"
OPEN_FILES = 4096
CLONE_NEWNET = 0x40000000
SIOCSIFFLAGS, IFF_UP = 0x8914, 0x1
_COUNTERS = (
    "/sys/fs/cgroup/memory.events",
    "/sys/fs/cgroup/memory/memory.oom_control",
    "/proc/vmstat",
)


def demote(terms: tuple[int | None, ...], argv: list[str]) -> NoReturn:
    """Run ``argv`` on these terms; all below it ends when this process does.

    Args:
        terms: the user (None: as we are), the most processes and bytes in a file (None: as it
            is), and 1 to leave it no network but a loopback of its own, where that can be had.

    Three processes: this one, whose pid the supervisor knows; a keeper, which the tests cannot
    signal, above all that they start; and the first of theirs.
    """
    alive, watched = os.pipe()
    told, tell = os.pipe()
    keeper = os.fork()
    if keeper == 0:
        os.close(watched)
        os.close(told)
        try:
            _keep(alive, tell, terms, argv)
        finally:
            os._exit(0)
    os.close(alive)
    os.close(tell)
    silence()
    answer = os.read(told, 16)
    os.waitpid(keeper, 0)
    os._exit(int(answer) if answer else 137)


def _keep(alive: int, tell: int, terms: tuple[int | None, ...], argv: list[str]) -> None:
    os.setsid()
    adopt_orphans()
    before = _oom_kills()
    child = os.fork()
    if child == 0:
        _enter(terms, argv)
    silence()
    bell = Bell()
    status = None
    while status is None:
        status = reap().get(child)
        if status is None and bell.wait([alive], 5.0):
            break  # whoever started us is dead
    if _oom_kills() > before:
        with open(OOM_NOTICE, "w", encoding="ascii") as file:
            file.write("the kernel ended a process for want of memory\n")
    end_descendants()
    if status is not None:
        os.write(tell, str(exit_status(status)).encode("ascii"))


def _oom_kills() -> int:
    """Processes ended for want of memory in this sandbox so far; 0 where nobody counts."""
    for path in _COUNTERS:
        try:
            with open(path, encoding="ascii") as file:
                for line in file:
                    words = line.split()
                    if len(words) == 2 and words[0] == "oom_kill":
                        return int(words[1])
        except (OSError, ValueError):
            continue
    return 0


def _enter(terms: tuple[int | None, ...], argv: list[str]) -> NoReturn:
    """In the child: become the other user and the program."""
    owner, processes, file_size, alone = terms
    name = os.fsencode(argv[0])
    try:
        os.setsid()
        _lower(resource.RLIMIT_NPROC, processes)
        _lower(resource.RLIMIT_FSIZE, file_size)
        _lower(resource.RLIMIT_NOFILE, OPEN_FILES)
        _lower(resource.RLIMIT_CORE, 0)
        try:
            # If memory runs out, this is what should go first.
            with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
                file.write("1000")
        except OSError:
            pass
        if alone:
            own_loopback()
        if owner is not None:
            become(owner)
        if not prctl(PR_SET_NO_NEW_PRIVS) and owner is not None:
            raise OSError(errno.EPERM, "no_new_privs cannot be set")
        if owner is not None:
            namespaces.refuse()  # where that fails, sealing says so
        os.umask(0o022)
        environment = {
            key[len(HELD) :] if key.startswith(HELD) else key: value
            for key, value in os.environ.items()
        }
        os.closerange(3, 65536)
        os.execvpe(argv[0], argv, environment)  # noqa: S606
    except FileNotFoundError:
        os.write(2, b"cannot run %s: not found\n" % name)
        os._exit(127)
    except BaseException as error:  # noqa: BLE001 - nothing of ours may run on as their user
        os.write(2, b"cannot run %s: %s\n" % (name, str(error).encode(errors="replace")))
    finally:
        os._exit(126)


def own_loopback() -> bool:
    """Leave the sandbox's network, whose loopback a vendor's own daemon may listen on.

    Returns:
        Whether that worked. Where it does not, the vendor's policy still holds.
    """
    libc = ctypes.CDLL(None)
    if libc.unshare(CLONE_NEWNET) != 0:
        return False
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            request = struct.pack("16sH14x", b"lo", IFF_UP)
            fcntl.ioctl(any_socket.fileno(), SIOCSIFFLAGS, request)
    except OSError:
        pass  # tests that use the loopback will say so
    return True


def _lower(which: int, value: int | None) -> None:
    if value is None:
        return
    hard = resource.getrlimit(which)[1]
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(which, (value, value))
