"""How a worker, and a run, can end, and in which words it is told."""

from __future__ import annotations

import os
import signal
from typing import Any

from .tail import Tail


class Nonsense(Exception):
    """The worker sent what no worker sends."""

    def __init__(self, what: str, cause: str = "protocol") -> None:
        super().__init__(what)
        self.cause = cause


class Over(Exception):
    """The run is over: the arguments of its end frame."""

    def __init__(self, reason: str, exitstatus: int | None, message: str = "") -> None:
        super().__init__(reason)
        self.reason, self.exitstatus, self.message = reason, exitstatus, message


class Again(Exception):
    """The worker was killed; the tests left go to another one."""


def of_process(status: int, *, demoted: bool) -> tuple[str, int | None]:
    """What ``status``, of os.waitpid(), says of a worker that did not finish its session.

    Returns:
        It in words, and the exit status where the process ended by itself.
    """
    number = 0
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
    elif demoted and 129 <= os.WEXITSTATUS(status) <= 192:
        number = os.WEXITSTATUS(status) - 128
    if not number:
        code = os.WEXITSTATUS(status)
        return f"the test process ended with exit status {code} before the session finished", code
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = "a signal"
    return f"the test process was killed by {name} (signal {number})", None


def of_session(
    session: dict[str, Any], *, ready: bool, failed: bool, internal: bool, tail: Tail
) -> Over:
    """The end that follows from the worker's last frame.

    Args:
        ready: it collected its tests.
        failed: something failed in this or an earlier worker.
        internal: it told an internal error.
        tail: the end of its output.
    """
    status = session["exitstatus"]
    if failed and status in (0, 5):
        status = 1
    if session["refused"]:
        return Over("usage", status, session["refused"])
    if internal or status == 3:
        return Over("internalerror", status, tail.text())
    if session["exit"] is not None:
        return Over("exit", status, session["exit"])
    if status == 4 or not ready:
        message = tail.complaint()
        if not message:
            message = f"pytest ended with exit status {status} without collecting tests"
        return Over("usage", status, message)
    return Over("finished", status)
