"""No user namespaces for what is not trusted: in one of its own it would mount over what is sealed.

Docker's own filter of system calls refuses them as well; Podman's, and a virtual machine, do not.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from .processes import PR_SET_NO_NEW_PRIVS, prctl
from .whole import become

PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
CLONE_NEWUSER, CLONE_NEWNS = 0x10000000, 0x00020000
#: Machine: its number in a filter, and those of clone and unshare.
_CALLS = {"x86_64": (0xC000003E, 56, 272), "aarch64": (0xC00000B7, 220, 97)}
#: On all machines. Its flags are in memory; without it the C library uses clone.
_CLONE3 = 435
#: From here on the same calls with numbers of another kind (x32).
_OTHER_NUMBERS = 0x40000000
_LOAD, _EQUAL, _NOT_BELOW, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW = 0x7FFF0000
_DENIED, _MISSING = 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def refuse() -> bool:
    """From now on, for this process and all below it; whether that worked.

    Needs no_new_privs. System calls of other machine types (32 bit) are refused as a whole.
    """
    if os.uname().machine not in _CALLS:
        return False
    machine, clone, unshare = _CALLS[os.uname().machine]
    code = [
        (_LOAD, 4, 0, 0),  # the machine
        (_EQUAL, machine, 1, 0),
        (_RETURN, _MISSING, 0, 0),
        (_LOAD, 0, 0, 0),  # the call
        (_NOT_BELOW, _OTHER_NUMBERS, 5, 0),
        (_EQUAL, _CLONE3, 4, 0),
        (_EQUAL, clone, 1, 0),
        (_EQUAL, unshare, 0, 3),
        (_LOAD, 16, 0, 0),  # its first argument: flags
        (_ANY_BIT, CLONE_NEWUSER, 2, 1),
        (_RETURN, _MISSING, 0, 0),
        (_RETURN, _ALLOW, 0, 0),
        (_RETURN, _DENIED, 0, 0),
    ]
    text = b"".join(struct.pack("=HBBI", call, yes, no, value) for call, value, yes, no in code)
    program = _Program(len(code), text)
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) == 0)


def refused(owner: int) -> bool:
    """Whether that user can make none, as it is when its programs start: it is tried."""
    child = os.fork()
    if child == 0:
        try:
            become(owner)
            prctl(PR_SET_NO_NEW_PRIVS)
            refuse()
            made = ctypes.CDLL(None).unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0
            os._exit(1 if made else 0)
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1] == 0
