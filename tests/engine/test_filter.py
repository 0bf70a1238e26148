"""The system-call filter, run by a small interpreter of its byte code, for both machines."""

from __future__ import annotations

import errno
import struct

import pytest

from pytest_sandbox.providers.local.inside import seccomp

ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
DENIED = seccomp.ERRNO | errno.EPERM
MISSING = seccomp.ERRNO | errno.ENOSYS
MACHINES = sorted(ARCH)


def decide(program: bytes, arch: int, number: int, *arguments: int) -> int:
    """What the kernel would answer to a system call."""
    padded = (*arguments, 0, 0, 0, 0, 0, 0)[:6]
    data = struct.pack("<iIQ6Q", number, arch, 0, *padded)
    code = list(struct.iter_unpack("=HBBI", program))
    at = accumulator = 0
    while True:
        operation, if_true, if_false, value = code[at]
        at += 1
        if operation == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, value)
        elif operation == 0x06:
            return int(value)
        else:
            holds = {
                0x15: accumulator == value,
                0x35: accumulator >= value,
                0x45: bool(accumulator & value),
            }[operation]
            at += if_true if holds else if_false


@pytest.mark.parametrize("machine", MACHINES)
def test_refused_calls(machine: str) -> None:
    program = seccomp.program(machine)
    names = seccomp.refused(machine)
    assert {"ptrace", "mount", "unshare", "setns", "bpf", "keyctl", "io_uring_setup"} <= set(names)
    assert len(set(names.values())) == len(names)
    for name, number in names.items():
        assert decide(program, ARCH[machine], number) == DENIED, name


@pytest.mark.parametrize("machine", MACHINES)
def test_all_other_calls_are_allowed(machine: str) -> None:
    program = seccomp.program(machine)
    special = seccomp.special(machine)
    decided = {*seccomp.refused(machine).values(), special["clone3"], special["socket"]}
    for number in set(range(600)) - decided:
        assert decide(program, ARCH[machine], number) == seccomp.ALLOW, number


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(
    ("call", "arguments", "answer"),
    [
        ("clone3", (0, 0), MISSING),
        ("clone", (17,), seccomp.ALLOW),
        ("clone", (0x3D0F00,), seccomp.ALLOW),  # as for a thread
        ("clone", (0x10000000 | 17,), DENIED),
        ("clone", (0x20000,), DENIED),
        ("clone", (0x40000000,), DENIED),
        ("ioctl", (0, 0x5401), seccomp.ALLOW),
        ("ioctl", (0, 0x5412), DENIED),
        ("ioctl", (0, 0x541C), DENIED),
        ("socket", (1,), seccomp.ALLOW),
        ("socket", (2,), seccomp.ALLOW),
        ("socket", (10,), seccomp.ALLOW),
        ("socket", (16,), seccomp.ALLOW),
        ("socket", (17,), seccomp.ERRNO | errno.EAFNOSUPPORT),
        ("socket", (40,), seccomp.ERRNO | errno.EAFNOSUPPORT),
        ("sched_setaffinity", (0,), seccomp.ALLOW),
    ],
)
def test_calls_decided_by_their_arguments(
    machine: str, call: str, arguments: tuple[int, ...], answer: int
) -> None:
    program = seccomp.program(machine)
    number = seccomp.special(machine)[call]
    assert decide(program, ARCH[machine], number, *arguments) == answer
    if arguments:
        # The kernel takes these as 32 bits wide; nothing may hide behind the upper half.
        wide = (*arguments[:-1], arguments[-1] | 1 << 40)
        assert decide(program, ARCH[machine], number, *wide) == answer


def test_other_calling_conventions() -> None:
    program = seccomp.program("x86_64")
    assert decide(program, 0x40000003, 5) == seccomp.KILL  # i386
    assert decide(program, ARCH["x86_64"], 0x40000000 | 59) == MISSING  # x32
    assert decide(seccomp.program("aarch64"), 0x40000028, 5) == seccomp.KILL  # arm


@pytest.mark.parametrize("machine", MACHINES)
def test_a_limit_on_cpus_cannot_be_undone(machine: str) -> None:
    program = seccomp.program(machine, pin_cpus=True)
    assert decide(program, ARCH[machine], seccomp.special(machine)["sched_setaffinity"]) == DENIED


def test_a_machine_without_a_table() -> None:
    with pytest.raises(OSError, match="riscv64"):
        seccomp.program("riscv64")
