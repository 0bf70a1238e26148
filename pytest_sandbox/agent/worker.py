"""The worker: `python -m pytest` that tells its supervisor what happens, and takes its orders."""

from __future__ import annotations

import atexit
import gc
import io
import os
import signal
import sys
from typing import Any, Callable

from .channel import Channel, high, read_line

# Bound early: tests patch this module.
_getpid = os.getpid


def worker(load: Callable[..., Any], witness: Any) -> None:
    """Run pytest. Does not return.

    Args:
        load: makes the modules that need pytest.
        witness: what looks at the tests' code, or None.
    """
    plan = read_line(0)
    orders, frames = high(0), high(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    channel = Channel(frames, plan["text_limit"], plan["mark"])
    if hasattr(gc, "freeze"):
        # The first to be registered is the last to run, after what the tests have registered.
        atexit.register(_leave_quickly, channel.pid)
    dump = _register_dump()
    try:
        if plan["hardened"]:
            channel.put("launched", tree=load("hardening").harden(plan), pid=channel.pid)
            channel.flush()
        _become_main(plan)
        import pytest
    except ImportError as error:
        text = f"pytest cannot be imported by {sys.executable}: {error}"
        channel.put("session", exitstatus=4, exit=None, refused=channel.text(text))
        channel.flush()
        sys.exit(4)
    import shutil

    parts = load("values", "collection", "reports", "sentinels", "plugin")
    plugin = parts.Plugin(plan, channel, lambda: read_line(orders), dump, witness)
    args = [part for name in plan["block"] for part in ("-p", f"no:{name}")]
    sys.argv[1:] = plan["args"]
    refused = ""
    told: str | None = None
    try:
        status = int(pytest.main([*args, *plan["args"]], plugins=[plugin]))
    except pytest.exit.Exception as error:
        status, told = error.returncode or 2, channel.text(error)
    except KeyboardInterrupt:
        status, told = 2, "KeyboardInterrupt"
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
        refused = channel.text(f"pytest was ended by SystemExit: {error.code}")
    except BaseException:  # noqa: BLE001 - hooks may raise anything; Python itself would print it
        import traceback

        text = traceback.format_exc()
        sys.stderr.write(text)
        status, refused = 1, channel.text(text)
    shutil.rmtree(plan["cache"], ignore_errors=True)
    if told is None:
        told = plugin.told
    status = max(-255, min(status, 2**31))
    channel.put("session", exitstatus=status, exit=told, refused=refused)
    channel.flush()
    sys.exit(status)


def _leave_quickly(pid: int) -> None:
    """Spare Python from taking all objects apart at its end, which takes a good tenth of a second.

    What open files still hold is written. Python itself promises no other destructor then.
    """
    if _getpid() != pid:
        return  # a test forked, and its child ends like any other
    for found in gc.get_objects():
        # Not isinstance(), which asks objects of the tests what they are.
        if issubclass(type(found), (io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom)):
            try:
                found.flush()
            except (OSError, ValueError):
                pass  # closed, or a pipe nobody reads: Python would ignore it, too
    gc.freeze()


def _register_dump() -> int | None:
    """A real-time signal on which the stacks of all threads go to the original stderr."""
    number = getattr(signal, "SIGRTMIN", None)
    if number is None:
        return None
    import faulthandler

    number = int(number) + 12
    faulthandler.register(number, file=high(2), all_threads=True, chain=False)
    return number


def _become_main(plan: dict[str, Any]) -> None:
    """Look like `python -m pytest`, for what tests and multiprocessing see of it."""
    from importlib.util import find_spec

    if not getattr(sys.flags, "safe_path", False):
        sys.path[0] = plan["cwd"]
    main = sys.modules["__main__"]
    main.__dict__.pop("_boot", None)
    spec = find_spec("pytest.__main__")
    assert spec is not None
    assert spec.origin is not None
    main.__spec__, main.__file__, main.__package__ = spec, spec.origin, "pytest"
    sys.argv[:] = [spec.origin]
    if hasattr(sys, "orig_argv"):
        sys.orig_argv[:] = [sys.executable, "-m", "pytest", *plan["args"]]
