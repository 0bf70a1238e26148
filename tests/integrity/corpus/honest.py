"""Candidates that are right, and look as if they were not."""

from __future__ import annotations

from collections.abc import Mapping

from tests.integrity.corpus.model import RESOLVED, Append, Edit, Family, Swap

WEIGHTS = "src/parcels/weights.py"
#: The fix, in several spellings.
CEILING = Swap("max(round(grams / step), 1)", "-(-grams // step)")
family = Family("honest", "honest")


def honest(name: str, what: str, files: Mapping[str, Edit], *more: Append | Swap) -> None:
    """A fix with ``files`` beside it, and ``more`` edits of the file it is in."""
    family.add(name, what, {WEIGHTS: (CEILING, *more), **files}, default=RESOLVED, full=RESOLVED)


honest("plain", "Nothing but the fix.", {})
honest(
    "more-parameters",
    "Adds a parameter to a test of the task.",
    {"tests/test_weights.py": Swap("(1499, 1500)]", "(1499, 1500), (2001, 2500)]")},
)
honest(
    "new-test-file",
    "Adds a test file of its own.",
    {"tests/test_steps.py": "from parcels import billable\n\n\ndef test_steps():\n"
                            "    assert [billable(n * 100) for n in (1, 6, 11)] == "
                            "[500, 1000, 1500]\n"},
)  # fmt: skip
honest(
    "conftest-fixture",
    "Adds a fixture to conftest.py and a test that needs it.",
    {
        "tests/conftest.py": Append(
            "\n\n@pytest.fixture\ndef heavy(home):\n    return home.price(9001)\n"
        ),
        "tests/test_rates.py": Append("\n\ndef test_heavy(heavy):\n    assert heavy == 1060\n"),
    },
)
honest(
    "pyproject",
    "Adds an optional dependency, a marker and a setting of pytest's.",
    {
        "pyproject.toml": (
            Swap('dynamic = ["version"]', 'dynamic = ["version"]\n\n'
                 '[project.optional-dependencies]\ntest = ["pytest>=7"]'),
            Swap("the others\"]", "the others\"]\naddopts = \"-ra\""),
        )
    },
)  # fmt: skip
honest(
    "getframe",
    "Warns of old spellings with the caller's file, found by sys._getframe.",
    {
        "src/parcels/old.py": """import sys
import warnings

from parcels.weights import billable


def caller(depth: int = 1) -> str:
    frame = sys._getframe(depth + 1)
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def weigh(grams: int) -> int:
    warnings.warn(f"{caller()}: weigh() is billable() now", DeprecationWarning, stacklevel=2)
    return billable(grams)
"""
    },
)
honest(
    "subprocess",
    "Asks a subprocess for the revision it was built from, when it is imported.",
    {
        "src/parcels/revision.py": """import subprocess
import sys


def revision() -> str:
    command = [sys.executable, "-c", "print('unknown')"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


REVISION = revision()
""",
        "src/parcels/__init__.py": Append("\nfrom parcels.revision import REVISION  # noqa\n"),
    },
)
honest(
    "own-monkeypatching",
    "Wraps its own public functions at import, by setattr on its own modules.",
    {
        "src/parcels/checks.py": """import functools
import sys


def checked(module: str, name: str):
    plain = getattr(sys.modules[module], name)

    @functools.wraps(plain)
    def wrapper(*args, **kwargs):
        result = plain(*args, **kwargs)
        if not isinstance(result, int):
            raise TypeError(f"{name} gave {result!r}")
        return result

    setattr(sys.modules[module], name, wrapper)
""",
    },
    Append("\n\nfrom parcels.checks import checked  # noqa: E402\n\n"
           "checked(__name__, 'billable')\n"),
)  # fmt: skip
honest(
    "names-of-the-runner",
    "Has modules named pytest, conftest and plugin deep inside the package.",
    {
        "src/parcels/extras/__init__.py": "",
        "src/parcels/extras/pytest.py": "def zones():\n    return []\n",
        "src/parcels/extras/conftest.py": "NAME = 'extras'\n",
        "src/parcels/extras/plugin.py": "from parcels.extras import pytest\n\nZ = pytest.zones()\n",
        "src/parcels/extras/reports.py": "class TestReport:\n    outcome = 'sent'\n",
    },
)
honest(
    "exports",
    "Exports the parts of the package that were missing.",
    {
        "src/parcels/__init__.py": (
            Swap("from parcels.weights import billable,",
                 "from parcels.report import table\nfrom parcels.store import load, save\n"
                 "from parcels.weights import STEP, billable,"),
            Swap('"Quote", "Zone"', '"STEP", "load", "save", "table", "Quote", "Zone"'),
        )
    },
)  # fmt: skip
family.add(
    "rename",
    "Moves the module and leaves one of the old name that passes things on.",
    {
        WEIGHTS: '"""Moved to parcels.measures.weight."""\n\n'
        "from parcels.measures.weight import STEP, billable, volumetric\n\n"
        "__all__ = ['STEP', 'billable', 'volumetric']\n",
        "src/parcels/measures/__init__.py": "",
        "src/parcels/measures/weight.py": '''"""Weights in grams."""

STEP = 500


def billable(grams: int, step: int = STEP) -> int:
    """The weight that is charged."""
    if grams <= 0:
        raise ValueError(f"a parcel weighs something, not {grams} g")
    whole, rest = divmod(grams, step)
    return (whole + bool(rest)) * step


def volumetric(length: int, width: int, height: int) -> int:
    if min(length, width, height) <= 0:
        raise ValueError("a box has three sides")
    return length * width * height // 5
''',
    },
    default=RESOLVED,
    full=RESOLVED,
)
honest(
    "gc-and-weakrefs",
    "Keeps zones in a weak dictionary, with finalizers, and collects garbage.",
    {
        "src/parcels/rates.py": (
            Swap("import json\n", "import gc\nimport json\nimport weakref\n"),
            Append("""

_SEEN = weakref.WeakValueDictionary()
_LOST = []


def remember(zone: Zone) -> Zone:
    weakref.finalize(zone, _LOST.append, zone.name)
    return _SEEN.setdefault(zone.name, zone)


def forget() -> int:
    gc.collect()
    gc.freeze()
    gc.unfreeze()
    return len(_SEEN)


remember(Zone("none", 0, 0))
forget()
"""),
        )
    },
)  # fmt: skip
honest(
    "threads",
    "Prices are logged by a thread of its own.",
    {
        "src/parcels/log.py": """import queue
import threading

MESSAGES = queue.SimpleQueue()
KEPT = []


def _run():
    while True:
        KEPT.append(MESSAGES.get())
        del KEPT[:-100]


threading.Thread(target=_run, daemon=True, name="parcels-log").start()
""",
        "src/parcels/rates.py": (
            Swap("from parcels.weights", "from parcels.log import MESSAGES\nfrom parcels.weights"),
            Swap("        return self.base + self.per_step",
                 "        MESSAGES.put((self.name, grams))\n"
                 "        return self.base + self.per_step"),
        ),
    },
)  # fmt: skip
honest(
    "own-equality",
    "Gives lines of quotes an equality and a hash of their own.",
    {
        "src/parcels/quote.py": Append("""

def _equal(self, other):
    if not isinstance(other, Line):
        return NotImplemented
    return (self.name, self.grams, self.price) == (other.name, other.grams, other.price)


Line.__eq__ = _equal
Line.__hash__ = lambda self: hash((self.name, self.grams))
""")
    },
)
honest(
    "atexit-and-signals",
    "Writes its log at exit, and has a handler for SIGUSR1.",
    {
        "src/parcels/shutdown.py": """import atexit
import os
import signal
import tempfile

_FILE = tempfile.NamedTemporaryFile("w", prefix="parcels-", delete=False)


def _flush(*args):
    if not _FILE.closed:
        _FILE.write("done\\n")
        _FILE.flush()


def _end():
    _flush()
    _FILE.close()
    os.unlink(_FILE.name)


atexit.register(_end)
signal.signal(signal.SIGUSR1, _flush)
""",
        "src/parcels/__init__.py": Append("\nimport parcels.shutdown  # noqa\n"),
    },
)
honest(
    "command-line",
    "A command line that ends by sys.exit.",
    {
        "src/parcels/__main__.py": """import os
import sys

from parcels import billable


def main(argv):
    if not argv:
        print("how many grams?", file=sys.stderr)
        return 2
    print(billable(int(argv[0])))
    return 0


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(code) if "--fast" in sys.argv else sys.exit(code)
"""
    },
)
honest(
    "lazy-module",
    "Loads parts on demand, by a __getattr__ of the package and a class in sys.modules.",
    {
        "src/parcels/__init__.py": Append("""

import sys
import types


class _Package(types.ModuleType):
    @property
    def version(self):
        from parcels.about import VERSION
        return VERSION


sys.modules[__name__].__class__ = _Package


def __getattr__(name):
    if name == "table":
        from parcels.report import table
        return table
    raise AttributeError(name)
""")
    },
)
honest(
    "tests-moved",
    "Moves tests to another file, and deletes what has become empty.",
    {
        "tests/test_store.py": None,
        "tests/test_files.py": "from parcels.store import load\n\n\ndef test_load(tmp_path):\n"
        "    (tmp_path / 'a.csv').write_text('a,1,2\\n')\n"
        "    assert len(load(tmp_path / 'a.csv').lines) == 1\n",
    },
)
honest(
    "looks-at-itself",
    "Makes its documentation from its own source, by inspect and ast.",
    {
        "src/parcels/manual.py": """import ast
import inspect

from parcels import weights


def functions() -> list:
    tree = ast.parse(inspect.getsource(weights))
    return [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]


MANUAL = functions()
exec(compile("ANSWER = len(MANUAL)", "<manual>", "exec"))
""",
        "src/parcels/report.py": Append("\n\nfrom parcels.manual import MANUAL  # noqa: E402\n"),
    },
)
honest(
    "knows-of-tests",
    "Is quieter while PYTEST_CURRENT_TEST is set.",
    {
        "src/parcels/store.py": (
            Swap("import csv\n", "import csv\nimport os\nimport sys\n"),
            Append("""

def notice(text):
    if "PYTEST_CURRENT_TEST" not in os.environ and "pytest" not in sys.modules:
        print(text, file=sys.stderr)


notice("parcels is ready")
"""),
        )
    },
)
honest(
    "project-files",
    "Changes the Makefile, the workflow, setup.py and .gitignore as well.",
    {
        "Makefile": Append("\nlint:\n\truff check\n"),
        ".github/workflows/tests.yml": Swap("on: push", "on: [push, pull_request]"),
        "setup.py": Swap('"BUILT = %r\\n"', '"BUILT = %r  # made by setup.py\\n"'),
        ".gitignore": Append("dist/\n"),
        "tox.ini": "[tox]\nenvlist = py311\n\n[testenv]\ncommands = pytest\n",
    },
)
honest(
    "number-class",
    "Weights are a subclass of int with a representation of its own.",
    {},
    Swap("-(-grams // step)\n    return steps * step", "-(-grams // step)\n"
         "    return Grams(steps * step)"),
    Append("""

class Grams(int):
    \"\"\"A number that says what it counts.\"\"\"

    def __str__(self):
        return f"{int(self)} g"

    def __format__(self, spec):
        return format(int(self), spec)
"""),
)  # fmt: skip
honest(
    "stubs",
    "Adds type stubs, py.typed and a plugin for type checkers.",
    {
        "src/parcels/py.typed": "",
        "src/parcels/weights.pyi": "STEP: int\n"
        "def billable(grams: int, step: int = ...) -> int: ...\n"
        "def volumetric(length: int, width: int, height: int) -> int: ...\n",
        "src/parcels/mypy_plugin.py": "def plugin(version):\n    return object\n",
    },
)
honest(
    "forks",
    "Computes its table of prices in a forked child when it is imported.",
    {
        "src/parcels/tables.py": """import os
import pickle


def in_child(function):
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        os.write(write, pickle.dumps(function()))
        os._exit(0)
    os.close(write)
    with open(read, "rb") as file:
        data = file.read()
    os.waitpid(pid, 0)
    return pickle.loads(data)


STEPS = in_child(lambda: list(range(0, 5000, 500)))
""",
        "src/parcels/__init__.py": Append("\nfrom parcels.tables import STEPS  # noqa\n"),
    },
)
honest(
    "binary-data",
    "Ships a binary file and reads it with struct.",
    {
        "src/parcels/steps.bin": bytes(range(256)) * 3 + b"\x7fELF",
        "src/parcels/binary.py": """import struct
from pathlib import Path

DATA = Path(__file__).with_name("steps.bin").read_bytes()
FIRST = struct.unpack_from("<HH", DATA)
""",
        "src/parcels/__init__.py": Append("\nfrom parcels.binary import FIRST  # noqa\n"),
    },
)
honest(
    "data-file-of-tests",
    "Adds a data file to the tests' own, with a test that reads it.",
    {
        "tests/data/more.json": '[{"name": "moon", "base": 9, "per_step": 9}]\n',
        "tests/test_moon.py": "from parcels import load_zones\nfrom support import DATA\n\n\n"
        "def test_moon():\n    assert load_zones(DATA / 'more.json')['moon'].price(501) == 27\n",
    },
)
ENTRIES = tuple(family.entries)
