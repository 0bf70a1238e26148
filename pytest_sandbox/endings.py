"""How a session ends that cannot come to its end: words and exit status, and signals heeded.

Knows no provider and no git.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pytest_sandbox import wire


class Terminated(KeyboardInterrupt):
    """The session was asked to end, by a signal that is not Ctrl-C."""


def _terminate(number: int, frame: object) -> None:
    raise Terminated(signal.Signals(number).name)


@contextmanager
def heeded() -> Iterator[None]:
    """CI ends jobs by SIGTERM, which shall be as orderly as Ctrl-C for the block."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def ending(end: wire.End) -> tuple[str, int]:
    """What to say, and the exit status, where the run ended and tests were still expected."""
    message = end.message.strip()
    texts = {
        "finished": ("the sandbox's session ended before all chosen tests had run", 1),
        "usage": ("pytest in the sandbox broke down when its tests were over", 1),
        "exit": (message or "pytest.exit() in the sandbox", end.exitstatus or 2),
        "internalerror": ("internal error of pytest in the sandbox", 3),
        "died": ("the test process died too often, or outside of any test", 1),
        "timeout": ("a time limit passed: --sandbox-timeout, --sandbox-collect-timeout", 1),
        "output": ("the tests wrote more output than a run may", 1),
        "stopped": ("stopped", 2),
        "supervisor": ("the supervisor in the sandbox failed", 31),
    }
    text, status = texts[end.reason]
    return text if message in ("", text) else f"{text}\n{message}", status
