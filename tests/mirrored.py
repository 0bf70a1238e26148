"""Runs the plugin itself, as a user does, and records what the local session reports.

The record has the form of a direct run's, so that the two can be compared.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests import direct
from tests.direct import DirectRun

_PLUGIN = Path(__file__).parent / "direct_plugin.py"


def run_mirrored(
    repo: Path,
    args: Sequence[str],
    scratch: Path,
    *,
    provider: str = "local",
    stdin: bytes = b"",
    timeout: float = 300,
) -> DirectRun:
    """``pytest --sandbox=PROVIDER ARGS`` in ``repo``, in a process of its own."""
    scratch.mkdir(parents=True, exist_ok=True)
    record = scratch / "record.jsonl"
    record.unlink(missing_ok=True)
    shutil.copyfile(_PLUGIN, scratch / "direct_record.py")
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTEST", "COV_", "PYTHONDONTWRITE"))
    }
    env |= {
        "PYTHONPATH": str(scratch),
        "PYTEST_PLUGINS": "pytest_sandbox.plugin,direct_record",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "DIRECT_RECORD": str(record),
    }
    done = subprocess.run(
        [sys.executable, "-m", "pytest", f"--sandbox={provider}", *args],
        cwd=repo,
        env=env,
        input=stdin,
        capture_output=True,
        timeout=timeout,
    )
    lines = record.read_text("ascii").splitlines() if record.exists() else []
    return direct.read_record(
        lines,
        done.returncode,
        False,
        done.stdout.decode("utf-8", "replace"),
        done.stderr.decode("utf-8", "replace"),
    )
