"""Enters the inner world: limits, then bubblewrap, then what is not trusted.

Run by path inside the sandbox as ``python -I -S -B enter LIMITS BWRAP ARG...``; LIMITS are
processes, file size and open files. Imports nothing of the package.
"""

import os
import resource
import sys

PRIVATE = "/run/pytest-sandbox"
#: Marks variables that must not act on the programs on the way in (LD_PRELOAD and the like).
HELD = "PYTEST_SANDBOX_HELD_"


def main() -> None:
    processes, file_size, open_files = (int(text) for text in sys.argv[1].split(","))
    bwrap, argv = sys.argv[2], sys.argv[3:]
    # Some places for the supervisor, its shepherd and bubblewrap itself.
    lower(resource.RLIMIT_NPROC, processes + 8)
    lower(resource.RLIMIT_FSIZE, file_size)
    lower(resource.RLIMIT_NOFILE, open_files)
    lower(resource.RLIMIT_CORE, 0)
    try:
        # If the host itself runs out of memory, this is what should go first.
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
    except OSError:
        pass
    filter_file = os.open(PRIVATE + "/filter", os.O_RDONLY)
    os.set_inheritable(filter_file, True)
    environment = {}
    held = []
    for name, value in os.environ.items():
        if name.startswith(HELD):
            held += ["--setenv", name[len(HELD) :], value]
        elif name.startswith("LD_") or name == "GLIBC_TUNABLES":
            # Too late to keep it from this program, but not from bubblewrap.
            held += ["--setenv", name, value]
        else:
            environment[name] = value
    options = [
        # Not IPC: the watchdog must see shared memory segments, and nothing else is there.
        "--unshare-user", "--unshare-pid", "--unshare-uts",
        "--unshare-cgroup-try", "--disable-userns", "--uid", "1000", "--gid", "1000",
        "--cap-drop", "ALL", "--die-with-parent", "--new-session", "--hostname", "sandbox",
        "--ro-bind", "/", "/",
        "--bind", "/sandbox", "/sandbox", "--bind", "/tmp", "/tmp",
        "--size", "65536", "--perms", "0555", "--tmpfs", PRIVATE, "--remount-ro", PRIVATE,
        "--proc", "/proc", "--remount-ro", "/proc",
        "--dev", "/dev", "--size", "67108864", "--perms", "1777", "--tmpfs", "/dev/shm",
        "--remount-ro", "/dev",
        "--seccomp", str(filter_file), *held,
        "--chdir", os.getcwd(), "--",
    ]  # fmt: skip
    os.execve(bwrap, ["bwrap", *options, *argv], environment)  # noqa: S606


def lower(which: int, value: int) -> None:
    hard = resource.getrlimit(which)[1]
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(which, (value, value))


main()
