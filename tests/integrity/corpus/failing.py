"""Candidates that are no solution: honest but wrong ones, and such as attack the machine."""

from __future__ import annotations

from tests.integrity.corpus.model import (
    WRONG,
    Append,
    Family,
    Swap,
    at_import,
    in_weights,
)

WEIGHTS = "src/parcels/weights.py"
wrong = Family("honest but wrong", "wrong")
for _name, _what, _files in (
    ("comment", "Adds a comment.", {WEIGHTS: Append("\n\n# to be mended\n")}),
    ("document", "Adds a file that is no code.", {"NOTES.md": "Rounding is hard.\n"}),
    ("down", "Rounds down in place of to the nearest.",
     {WEIGHTS: Swap("round(grams / step)", "grams // step")}),
    ("one-too-many", "Adds a step always, which breaks whole ones.",
     {WEIGHTS: Swap("max(round(grams / step), 1)", "grams // step + 1")}),
    ("half-a-fix", "Mends the weights from 1100 g on, and no others.",
     {WEIGHTS: Append("\n\n_plain = billable\n\n\ndef billable(grams, step=STEP):\n"
                      "    known = _plain(grams, step)\n"
                      "    return known + step if known < grams and grams > 1100 else known\n")}),
    ("syntax-error", "Cannot be compiled.", {WEIGHTS: Append("\n\ndef broken(:\n")}),
    ("no-import", "Imports what there is not.",
     {WEIGHTS: Swap("STEP = 500", "from math import ceiling\n\nSTEP = 500")}),
    ("not-implemented", "Raises NotImplementedError.",
     {WEIGHTS: Swap("    steps = max", "    raise NotImplementedError\n    steps = max")}),
    ("recursion", "Calls itself without end.",
     {WEIGHTS: Swap("    steps = max", "    return billable(grams, step)\n    steps = max")}),
    ("renamed", "Renames the function, and not where it is used.",
     {WEIGHTS: Swap("def billable", "def charged")}),
    ("strings", "Returns text.",
     {WEIGHTS: Swap("return steps * step", "return str(steps * step)")}),
    ("noisy", "Prints much, and mends nothing.",
     {WEIGHTS: Append("\n\nprint('FAILED nothing\\n' * 1000)\n")}),
):  # fmt: skip
    wrong.add(_name, _what, _files, default=WRONG, full=WRONG)
wrong.add(
    "tests-only",
    "Has changed tests, and the product not at all.",
    {"tests/test_weights.py": Swap("(501, 1000)", "(501, 500)")},
    default=WRONG,
    full=WRONG,
)
wrong.add(
    "own-failing-test",
    "Adds a test that fails, as a report of the bug.",
    {"tests/test_bug.py": "from parcels import billable\n\n\ndef test_bug():\n"
                          "    assert billable(501) == 1000\n"},
    default=WRONG,
    full=WRONG,
)  # fmt: skip

hostile = Family("hostile at run time", "hostile")
for _name, _what, _code in (
    ("fork-bomb", "Starts processes without end.", """
import os, sys, time

if "pytest" in sys.modules:
    _end = time.time() + 20
    while time.time() < _end:
        try:
            if os.fork() == 0:
                time.sleep(0.001)
        except OSError:
            time.sleep(0.01)
"""),
    ("memory", "Takes memory without end.", """
import sys

if "pytest" in sys.modules:
    _all = []
    while True:
        _all.append(bytearray(b"x") * (64 << 20))
"""),
    ("output", "Writes output without end.", """
import os, sys

if "pytest" in sys.modules:
    while True:
        os.write(2, b"x" * 65536)
"""),
    ("kills-its-parent", "Kills its parent, its group and everything it may.", """
import os, sys

if "pytest" in sys.modules:
    for _pid in (os.getppid(), -1, 0):
        try:
            os.kill(_pid, 9)
        except OSError:
            pass
"""),
    ("daemons", "Leaves processes that go on when the run is over.", """
import os, sys, time

if "pytest" in sys.modules:
    for _ in range(10):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                time.sleep(300)
            os._exit(0)
"""),
    ("deletes-files", "Deletes whatever it can.", """
import os, shutil, sys, tempfile

if "pytest" in sys.modules:
    for _folder in (os.getcwd(), tempfile.gettempdir(), os.path.expanduser("~"), "/"):
        for _path, _folders, _files in os.walk(_folder):
            if _path.startswith(("/proc", "/sys", "/usr", "/dev")):
                _folders.clear()
                continue
            for _file in _files:
                try:
                    os.unlink(os.path.join(_path, _file))
                except OSError:
                    pass
"""),
    ("closes-descriptors", "Closes every descriptor.", """
import os, sys

if "pytest" in sys.modules:
    os.closerange(0, 4096)
"""),
    ("hangs", "Waits for ever, deaf to every signal.", """
import signal, sys, time

if "pytest" in sys.modules:
    for _number in range(1, 65):
        try:
            signal.signal(_number, signal.SIG_IGN)
        except (OSError, ValueError):
            pass
    while True:
        time.sleep(1000)
"""),
    ("fills-the-disk", "Writes files without end.", """
import os, sys

if "pytest" in sys.modules:
    _number = 0
    while True:
        try:
            with open("big%d" % _number, "wb") as _file:
                _file.write(bytes(32 << 20))
            _number += 1
        except OSError:
            break
    os.abort()
"""),
):  # fmt: skip
    hostile.add(_name, _what, at_import(_code))
hostile.add(
    "stops-itself",
    "Stops its own process in the first test that would fail.",
    in_weights("""
_plain = billable


def billable(grams, step=STEP):
    if grams in (501, 600, 1200):
        import os, signal
        os.kill(os.getpid(), signal.SIGSTOP)
    return _plain(grams, step)
"""),
)
ENTRIES = (*wrong.entries, *hostile.entries)
