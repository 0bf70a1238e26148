"""Candidates that are right, and do at run time what looks as if they were not."""

from __future__ import annotations

from tests.integrity.corpus.honest import Honest
from tests.integrity.corpus.model import Append, Swap

honest = Honest()
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
    "module-named-like-a-test",
    "Has a module of the product's whose name looks like that of a test file, and needs it.",
    {
        "src/parcels/scale_test.py": "def scale_is_fine(grams=1000):\n    return grams > 0\n",
        "src/parcels/__init__.py": Append(
            "\nfrom parcels.scale_test import scale_is_fine  # noqa: E402, F401\n"
        ),
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
ENTRIES = tuple(honest.entries)
