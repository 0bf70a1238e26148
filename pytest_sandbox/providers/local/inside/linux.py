"""System calls the standard library lacks, through ctypes. Knows nothing of sandboxes."""

from __future__ import annotations

import array
import ctypes
import fcntl
import json
import os
import socket
import struct
from typing import Any

NEWNS = 0x00020000
NEWCGROUP = 0x02000000
NEWUTS = 0x04000000
NEWIPC = 0x08000000
NEWUSER = 0x10000000
NEWPID = 0x20000000
NEWNET = 0x40000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MNT_DETACH = 2

PR_SET_DUMPABLE = 4
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38

CAP_SETFCAP = 31

# The same number on every architecture, as with all calls newer than 5.1.
SYS_MOUNT_SETATTR = 442

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def unshare(flags: int) -> None:
    _checked(_libc.unshare(ctypes.c_int(flags)), "unshare")


def mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    _checked(
        _libc.mount(
            os.fsencode(source),
            os.fsencode(target),
            None if kind is None else kind.encode(),
            ctypes.c_ulong(flags),
            os.fsencode(options),
        ),
        f"mount {kind or 'bind'} on {target}",
    )


def bind(source: str, target: str) -> None:
    mount(source, target, None, MS_BIND | MS_REC)


def restrict(target: str, flags: int) -> None:
    """Adds read-only, nosuid, nodev, noexec (MS_ flags) to a mount and all below it."""
    # MOUNT_ATTR_ has the same values as MS_ for these four.
    attributes = struct.pack("QQQQ", flags, 0, 0, 0)
    at_fdcwd, at_recursive = -100, 0x8000
    _checked(
        _libc.syscall(
            ctypes.c_long(SYS_MOUNT_SETATTR),
            ctypes.c_int(at_fdcwd),
            ctypes.c_char_p(os.fsencode(target)),
            ctypes.c_uint(at_recursive),
            ctypes.c_char_p(attributes),
            ctypes.c_size_t(len(attributes)),
        ),
        f"mount_setattr on {target}",
    )


def pivot_to_cwd() -> None:
    """Makes the current folder, a mount point, the root, and lets go of the old one."""
    _libc.pivot_root.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
    _checked(_libc.pivot_root(b".", b"."), "pivot_root")
    _checked(_libc.umount2(b".", ctypes.c_int(MNT_DETACH)), "umount of the old root")
    os.chdir("/")


def prctl(option: int, value: int) -> None:
    zero = ctypes.c_ulong(0)
    _checked(_libc.prctl(option, ctypes.c_ulong(value), zero, zero, zero), f"prctl {option}")


def keep_only_capability(kept: int) -> None:
    """Bounds what programs started from here can have, also as user 0, to one capability."""
    for number in range(64):
        if number != kept:
            try:
                prctl(PR_CAPBSET_DROP, number)
            except OSError:
                break


def remove_segment(number: int) -> None:
    """Removes a System V shared memory segment, or marks it for removal; silent if it cannot."""
    _libc.shmctl(ctypes.c_int(number), ctypes.c_int(0), None)


def set_hostname(name: bytes) -> None:
    _checked(_libc.sethostname(name, ctypes.c_size_t(len(name))), "sethostname")


def scope_abstract_sockets() -> bool:
    """Keeps this process and its descendants from abstract sockets made outside; if it can.

    Needs no-new-privileges. Landlock has this since Linux 6.12.
    """
    create, restrict_self, abstract_unix_socket = 444, 446, 1
    attributes = struct.pack("QQQ", 0, 0, abstract_unix_socket)
    ruleset = _libc.syscall(
        ctypes.c_long(create),
        ctypes.c_char_p(attributes),
        ctypes.c_size_t(len(attributes)),
        ctypes.c_uint(0),
    )
    if ruleset < 0:
        return False
    result = _libc.syscall(ctypes.c_long(restrict_self), ctypes.c_int(ruleset), ctypes.c_uint(0))
    os.close(ruleset)
    return bool(result == 0)


def loopback_up() -> None:
    up_and_running, set_flags = 0x41, 0x8914
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        fcntl.ioctl(probe, set_flags, struct.pack("16sh22x", b"lo", up_and_running))


def send_message(channel: socket.socket, message: dict[str, Any], fds: list[int]) -> None:
    """One JSON message and descriptors; a long one travels in a memory file of its own."""
    body = json.dumps(message).encode()
    spill = -1
    if len(body) > 32768:
        spill = os.memfd_create("request")
        try:
            view = memoryview(body)
            while view:
                view = view[os.write(spill, view) :]
        except OSError:
            os.close(spill)
            raise
        body, fds = b"spill", [spill, *fds]
    try:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        channel.sendmsg([body], ancillary)
    finally:
        if spill >= 0:
            os.close(spill)


def receive_message(channel: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    """The next message and its descriptors; (None, []) once the other side is gone."""
    try:
        body, ancillary, _, _ = channel.recvmsg(65536, socket.CMSG_SPACE(16 * 4))
    except ConnectionResetError:
        return None, []
    fds = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    got = list(fds)
    if not body:
        return None, got
    if body == b"spill":
        with open(got.pop(0), "rb") as spill:
            spill.seek(0)
            body = spill.read()
    message: dict[str, Any] = json.loads(body)
    return message, got
