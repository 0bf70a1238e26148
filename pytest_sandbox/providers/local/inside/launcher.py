"""The launcher: one single-threaded process per provider that forks sandboxes on request.

Started by path with ``-I -S -B`` and an empty environment, so that no sandbox descends from a
process that knows the user's environment, and none waits for an interpreter to start.
"""

from __future__ import annotations

import os
import sys
import types


def _name_packages() -> None:
    """Makes the package's own folders importable without running their ``__init__``."""
    here = os.path.dirname(os.path.abspath(__file__))
    for name in (
        "pytest_sandbox.providers.local.inside",
        "pytest_sandbox.providers.local",
        "pytest_sandbox.providers",
        "pytest_sandbox",
    ):
        package = types.ModuleType(name)
        package.__path__ = [here]
        sys.modules[name] = package
        here = os.path.dirname(here)


def main() -> None:
    import select
    import signal
    import socket

    from pytest_sandbox.providers.local.inside import world
    from pytest_sandbox.providers.local.inside.linux import (
        PR_SET_CHILD_SUBREAPER,
        prctl,
        receive_message,
    )

    control = socket.socket(fileno=int(sys.argv[1]))
    owner = os.pidfd_open(os.getppid())
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_read, False)
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    # Ctrl-C is for the owner, who then tells us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    builders: dict[int, tuple[int, int]] = {}  # pid: (pipe that names the first process, gone)
    firsts: dict[int, int] = {}  # pid of a sandbox's first process: gone
    unknown: set[int] = set()

    def reap() -> None:
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            if pid in builders:
                named, gone = builders.pop(pid)
                text = os.read(named, 32)
                os.close(named)
                if not text:
                    os.close(gone)
                    continue
                first = int(text)
                if first in unknown:
                    unknown.discard(first)
                    os.close(gone)
                else:
                    firsts[first] = gone
            elif pid in firsts:
                os.close(firsts.pop(pid))
            else:
                unknown.add(pid)

    poller = select.poll()
    for fd in (control.fileno(), owner, wake_read):
        poller.register(fd, select.POLLIN)
    while True:
        ready = {fd for fd, _ in poller.poll()}
        if owner in ready:
            break
        if wake_read in ready:
            os.read(wake_read, 4096)
            reap()
        if control.fileno() in ready:
            request, fds = receive_message(control)
            if request is None:
                break
            channel, gone = fds
            named, name_write = os.pipe()
            try:
                pid = os.fork()
            except OSError as error:
                with socket.socket(fileno=channel) as reply:
                    world.refuse(reply, "fork", error)
                for fd in (gone, named, name_write):
                    os.close(fd)
                continue
            if pid == 0:
                control.close()
                signal.set_wakeup_fd(-1)
                for fd in (owner, wake_read, wake_write, named, gone):
                    os.close(fd)
                for _, other in builders.values():
                    os.close(other)
                for other in firsts.values():
                    os.close(other)
                world.build(request, socket.socket(fileno=channel), name_write)
            os.close(channel)
            os.close(name_write)
            builders[pid] = (named, gone)
    # Every first process also ends by itself when its channel closes; this is the second way.
    for pid in [*builders, *firsts]:
        os.kill(pid, signal.SIGKILL)
    os._exit(0)


if __name__ == "__main__":
    _name_packages()
    main()
