"""Run inside the inner world: tries what must not work and prints a line for each success.

Arguments: the canary, a path of the host that holds a secret, a TCP port, an abstract socket,
the pid of a process of the host. Silence is the good outcome.
"""

import contextlib
import ctypes
import os
import resource
import socket
import subprocess
import sys

canary, secret, port, abstract, host_pid = sys.argv[1:6]
libc = ctypes.CDLL(None, use_errno=True)


def bad(*what: object) -> None:
    print("BAD", *what)


# The host's environment and processes.
pids = [name for name in os.listdir("/proc") if name.isdigit()]
for pid in pids:
    for part in ("environ", "cmdline"):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/{part}", "rb") as file:
            if canary.encode() in file.read():
                bad("canary in", pid, part)
if len(pids) > 3:
    bad("processes seen:", pids)
if any(canary in value for value in os.environ.values()):
    bad("canary in the environment")
if int(host_pid) > 20 and os.path.exists(f"/proc/{host_pid}"):
    bad("a process of the host")

# Files.
for path in (secret, os.path.dirname(secret), "/etc/shadow", "/run/pytest-sandbox/filter",
             "/run/pytest-sandbox/control", "/sys/kernel", "/dev/mem", "/dev/kmsg", "/dev/kvm",
             "/var/run/docker.sock", "/run/docker.sock"):  # fmt: skip
    if os.path.lexists(path):
        bad("exists:", path)
for path in ("/new", "/etc/new", "/usr/new", "/home/new", "/dev/new", "/run/new", "/var/new",
             "/proc/sys/kernel/core_pattern", "/proc/sys/vm/swappiness", "/proc/sysrq-trigger",
             "/proc/sys/kernel/pid_max", "/proc/sys/user/max_user_namespaces",
             "/run/pytest-sandbox/new", os.path.realpath(sys.executable)):  # fmt: skip
    with contextlib.suppress(OSError):
        os.close(os.open(path, os.O_WRONLY | (0 if path.startswith("/proc") else os.O_CREAT)))
        bad("writable:", path)
for fd in range(3, 200):
    with contextlib.suppress(OSError):
        link = os.readlink(f"/proc/self/fd/{fd}")
        if not link.startswith("/proc"):
            bad("inherited:", fd, link)

# Network.
for family, address in (
    (socket.AF_INET, ("127.0.0.1", int(port))),
    (socket.AF_UNIX, "\0" + abstract),
):
    with socket.socket(family) as probe, contextlib.suppress(OSError):
        probe.connect(address)
        bad("connected:", address)
for number in (40, 38, 17, 29, 31, 21):  # vsock, alg, packet, can, bluetooth, rds
    with contextlib.suppress(OSError):
        socket.socket(number, socket.SOCK_STREAM if number == 40 else socket.SOCK_RAW).close()
        bad("socket family", number)
with socket.socket() as server, socket.socket() as client:
    server.bind(("127.0.0.1", 0))
    server.listen()
    client.connect(server.getsockname())  # One's own loopback is up.

# Privileges and system calls.
with open("/proc/self/status") as lines:
    status = {line.partition(":")[0]: line.partition(":")[2] for line in lines}
for name, wanted in (("CapEff", 0), ("CapPrm", 0), ("CapBnd", 0), ("CapAmb", 0)):
    if int(status[name], 16) != wanted:
        bad(name, status[name])
if status["NoNewPrivs"].strip() != "1" or status["Seccomp"].strip() != "2":
    bad("NoNewPrivs, Seccomp", status["NoNewPrivs"], status["Seccomp"])
if os.getuid() != 1000 or resource.getrlimit(resource.RLIMIT_CORE) != (0, 0):
    bad("uid", os.getuid())
machine = os.uname().machine
numbers = {
    "x86_64": {"ptrace": 101, "keyctl": 250, "unshare": 272, "mount": 165, "bpf": 321,
               "process_vm_readv": 310, "chroot": 161, "userfaultfd": 323},
    "aarch64": {"ptrace": 117, "keyctl": 219, "unshare": 97, "mount": 40, "bpf": 280,
                "process_vm_readv": 270, "chroot": 51, "userfaultfd": 282},
}[machine] | {"io_uring_setup": 425, "open_tree": 428, "fsopen": 430}  # fmt: skip
for name, number in numbers.items():
    ctypes.set_errno(0)
    argument = 0x10000000 if name == "unshare" else 0
    result = libc.syscall(ctypes.c_long(number), ctypes.c_long(argument), 0, 0, 0, 0)
    if result != -1 or ctypes.get_errno() != 1:
        bad("syscall", name, result, ctypes.get_errno())
for call in (lambda: os.setuid(0), lambda: os.setgroups([0]), lambda: os.nice(-5)):
    with contextlib.suppress(OSError):
        call()
        bad("a privileged call worked")
for program in ("su", "mount", "sudo", "newgrp", "passwd"):
    path = f"/usr/bin/{program}"
    if os.path.exists(path) and os.stat(path).st_mode & 0o4000:
        code = "import os; print(os.geteuid())"
        answer = subprocess.run(
            [path, "-c", code], capture_output=True, stdin=subprocess.DEVNULL, timeout=20
        )
        if answer.stdout.strip() == b"0":
            bad("setuid", program)
