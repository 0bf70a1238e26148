"""The system-call filter for everything untrusted, assembled for x86_64 and aarch64.

Pure: bytes out, nothing installed. Knows no processes.
"""

from __future__ import annotations

import errno
import struct

ALLOW = 0x7FFF0000
KILL = 0x80000000
ERRNO = 0x00050000

_LOAD = 0x20
_JUMP_EQUAL = 0x15
_JUMP_NOT_BELOW = 0x35
_JUMP_ANY_BIT = 0x45
_RETURN = 0x06

_OFFSET_NUMBER = 0
_OFFSET_ARCH = 4
_OFFSET_ARGUMENT = (16, 24)  # low halves; both machines are little-endian

_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32_BIT = 0x40000000

# Same number everywhere (asm-generic from 5.1 on).
_REFUSED_COMMON = {
    "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "open_tree": 428,
    "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433,
    "pidfd_getfd": 438, "mount_setattr": 442, "quotactl_fd": 443, "memfd_secret": 447,
    "set_mempolicy_home_node": 450, "statmount": 457, "listmount": 458, "open_tree_attr": 467,
}  # fmt: skip

_REFUSED = {
    "x86_64": {
        "ptrace": 101, "syslog": 103, "uselib": 134, "vhangup": 153, "modify_ldt": 154,
        "pivot_root": 155, "_sysctl": 156, "adjtimex": 159, "chroot": 161, "acct": 163,
        "settimeofday": 164, "mount": 165, "umount2": 166, "swapon": 167, "swapoff": 168,
        "reboot": 169, "sethostname": 170, "setdomainname": 171, "iopl": 172, "ioperm": 173,
        "create_module": 174, "init_module": 175, "delete_module": 176, "quotactl": 179,
        "nfsservctl": 180, "lookup_dcookie": 212, "clock_settime": 227, "mbind": 237,
        "set_mempolicy": 238, "get_mempolicy": 239, "kexec_load": 246, "add_key": 248,
        "request_key": 249, "keyctl": 250, "migrate_pages": 256, "unshare": 272,
        "vmsplice": 278, "move_pages": 279, "perf_event_open": 298, "fanotify_init": 300,
        "name_to_handle_at": 303, "open_by_handle_at": 304, "clock_adjtime": 305,
        "setns": 308, "process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312,
        "finit_module": 313, "kexec_file_load": 320, "bpf": 321, "userfaultfd": 323,
    },
    "aarch64": {
        "lookup_dcookie": 18, "umount2": 39, "mount": 40, "pivot_root": 41, "nfsservctl": 42,
        "chroot": 51, "vhangup": 58, "quotactl": 60, "vmsplice": 75, "acct": 89,
        "unshare": 97, "kexec_load": 104, "init_module": 105, "delete_module": 106,
        "clock_settime": 112, "syslog": 116, "ptrace": 117, "reboot": 142,
        "sethostname": 161, "setdomainname": 162, "settimeofday": 170, "adjtimex": 171,
        "add_key": 217, "request_key": 218, "keyctl": 219, "swapon": 224, "swapoff": 225,
        "mbind": 235, "get_mempolicy": 236, "set_mempolicy": 237, "migrate_pages": 238,
        "move_pages": 239, "perf_event_open": 241, "fanotify_init": 262,
        "name_to_handle_at": 264, "open_by_handle_at": 265, "clock_adjtime": 266,
        "setns": 268, "process_vm_readv": 270, "process_vm_writev": 271, "kcmp": 272,
        "finit_module": 273, "bpf": 280, "userfaultfd": 282, "kexec_file_load": 294,
    },
}  # fmt: skip

_SPECIAL = {
    "x86_64": {"socket": 41, "ioctl": 16, "clone": 56, "sched_setaffinity": 203},
    "aarch64": {"socket": 198, "ioctl": 29, "clone": 220, "sched_setaffinity": 122},
}
_CLONE3 = 435

_FAMILIES = (1, 2, 10, 16)  # unix, inet, inet6, netlink; not vsock, alg, packet, ...
_NEW_NAMESPACES = 0x7E020000
_TTY_INPUT = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX


def refused(machine: str) -> dict[str, int]:
    """Names and numbers of the calls that fail with EPERM on ``machine``."""
    return _REFUSED_COMMON | _REFUSED[machine]


def special(machine: str) -> dict[str, int]:
    """Names and numbers of the calls whose arguments decide on ``machine``."""
    return _SPECIAL[machine] | {"clone3": _CLONE3}


def program(machine: str, *, pin_cpus: bool = False) -> bytes:
    """The filter as an array of ``struct sock_filter``.

    ``pin_cpus`` also refuses sched_setaffinity, which otherwise undoes a limit on CPUs.

    Raises:
        OSError: there is no table for ``machine``.
    """
    if machine not in _ARCH:
        raise OSError(errno.ENOSYS, f"no system-call table for the machine type {machine}")
    code: list[bytes] = []

    def add(operation: int, value: int, if_true: int = 0, if_false: int = 0) -> None:
        code.append(struct.pack("=HBBI", operation, if_true, if_false, value))

    def answer(number: int, result: int) -> None:
        add(_JUMP_EQUAL, number, 0, 1)
        add(_RETURN, result)

    denied = ERRNO | errno.EPERM
    missing = ERRNO | errno.ENOSYS
    add(_LOAD, _OFFSET_ARCH)
    add(_JUMP_EQUAL, _ARCH[machine], 1, 0)
    add(_RETURN, KILL)
    add(_LOAD, _OFFSET_NUMBER)
    if machine == "x86_64":
        add(_JUMP_NOT_BELOW, _X32_BIT, 0, 1)
        add(_RETURN, missing)
    # clone3 hides its flags in memory; without it the C library uses clone.
    answer(_CLONE3, missing)
    for number in sorted(refused(machine).values()):
        answer(number, denied)
    calls = _SPECIAL[machine]
    if pin_cpus:
        answer(calls["sched_setaffinity"], denied)
    add(_JUMP_EQUAL, calls["clone"], 0, 4)
    add(_LOAD, _OFFSET_ARGUMENT[0])
    add(_JUMP_ANY_BIT, _NEW_NAMESPACES, 0, 1)
    add(_RETURN, denied)
    add(_RETURN, ALLOW)
    add(_JUMP_EQUAL, calls["ioctl"], 0, 2 + 2 * len(_TTY_INPUT))
    add(_LOAD, _OFFSET_ARGUMENT[1])
    for request in _TTY_INPUT:
        answer(request, denied)
    add(_RETURN, ALLOW)
    add(_JUMP_EQUAL, calls["socket"], 0, 2 + 2 * len(_FAMILIES))
    add(_LOAD, _OFFSET_ARGUMENT[0])
    for family in _FAMILIES:
        answer(family, ALLOW)
    add(_RETURN, ERRNO | errno.EAFNOSUPPORT)
    add(_RETURN, ALLOW)
    return b"".join(code)
