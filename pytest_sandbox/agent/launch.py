"""The start of a supervisor that outlives whoever started it."""

from __future__ import annotations

import os
import subprocess
import sys
from time import sleep


def run(control: str, agent: str) -> int:
    """Start the supervisor of the same agent, detached, and return once its spool exists."""
    spool = os.path.join(control, "spool")
    with open(os.path.join(control, "supervisor.log"), "ab") as log:
        # It outlives this process and is then no child of anybody who waits for it.
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", os.path.abspath(agent), "supervise", control],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            start_new_session=True,
        )
    while not os.path.exists(spool):
        if process.poll() is not None:
            with open(os.path.join(control, "supervisor.log"), encoding="utf-8") as file:
                sys.stderr.write(file.read()[-4000:])
            return 1
        sleep(0.002)
    process.returncode = 0  # not waited for, on purpose
    return 0
