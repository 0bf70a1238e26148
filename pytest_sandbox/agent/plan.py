"""The host's orders for a run, with what it may leave out."""

from __future__ import annotations

import json
import os
from typing import Any

DEFAULTS: dict[str, Any] = {
    "args": [], "demote": [], "held_prefix": None, "env": {}, "ini_keys": [], "block": [],
    "packages": [], "run_timeout": 3600.0, "collect_timeout": 300.0, "select_timeout": 86400.0,
    "test_timeout": None, "output_limit": 1 << 26, "frame_limit": 1 << 30,
    "text_limit": 200_000, "restarts": 10, "oom_notice": None, "live": False, "columns": 80,
    "heartbeat": 5.0, "hardened": False, "fresh": [], "sealed": [], "layers": None,
    "witness": {}, "witness_key": "",
}  # fmt: skip

#: What of the plan a worker gets to know.
FOR_WORKER = (
    "args", "cwd", "workspace", "ini_keys", "block", "packages", "text_limit", "columns",
    "cache", "hardened", "fresh", "pythonpath",
)  # fmt: skip


def load(control: str) -> dict[str, Any]:
    """CONTROL/plan.json, with the folder that is the workers' cache as ``cache``."""
    with open(os.path.join(control, "plan.json"), encoding="utf-8") as file:
        plan: dict[str, Any] = {**DEFAULTS, **json.load(file)}
    plan["text_limit"] = min(int(plan["text_limit"]), 1_000_000)
    # A hardened worker starts without, and puts it in its place.
    plan["pythonpath"] = plan["env"].pop("PYTHONPATH", None) if plan["hardened"] else None
    # One for all workers of the run, and of no use to anybody else.
    tmp = plan["env"].get("TMPDIR") or "/tmp"
    plan["cache"] = os.path.join(tmp, f"pytest-sandbox-cache-{os.urandom(8).hex()}")
    return plan


def environment(plan: dict[str, Any]) -> dict[str, str]:
    """The environment to start a worker with."""
    prefix = plan["held_prefix"]
    if not (plan["demote"] and prefix):
        return dict(plan["env"])
    # Else they would act on the programs that drop privileges as well.
    return {
        prefix + name if name.startswith("LD_") or name == "GLIBC_TUNABLES" else name: value
        for name, value in plan["env"].items()
    }
