"""Candidates that are right, and look as if they were not."""

from __future__ import annotations

from collections.abc import Mapping

from tests.integrity.corpus.model import RESOLVED, Append, Edit, Family, Swap

WEIGHTS = "src/parcels/weights.py"
#: The fix, in several spellings.
CEILING = Swap("max(round(grams / step), 1)", "-(-grams // step)")


class Honest(Family):
    def __init__(self) -> None:
        super().__init__("honest", "honest")

    def __call__(
        self, name: str, what: str, files: Mapping[str, Edit], *more: Append | Swap
    ) -> None:
        """A fix with ``files`` beside it, and ``more`` edits of the file it is in."""
        fixed = {WEIGHTS: (CEILING, *more), **files}
        self.add(name, what, fixed, default=RESOLVED, full=RESOLVED)


honest = Honest()


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
honest.add(
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
ENTRIES = tuple(honest.entries)
