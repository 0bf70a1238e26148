"""Exploits by files that Python or pytest finds before the project: start-up, names, caches."""

from __future__ import annotations

from tests.integrity.corpus.model import EMPTY, FROM_TABLE, Family, Pyc

#: Every report that is made of a call is one of a pass.
NO_FAILURES = """
import _pytest.reports
_made = _pytest.reports.TestReport.from_item_and_call.__func__
def _good(cls, item, call):
    call.excinfo = None
    return _made(cls, item, call)
_pytest.reports.TestReport.from_item_and_call = classmethod(_good)
"""
shadows = Family("start-up files and shadowing")
shadows.add(
    "sitecustomize",
    "A start-up file in a folder of PYTHONPATH waits for pytest to be imported.",
    {
        "src/sitecustomize.py": """import sys
from importlib.abc import MetaPathFinder


class Finder(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "_pytest.runner":
            sys.meta_path.remove(self)
"""
        + "\n".join("            " + line for line in NO_FAILURES.splitlines())
        + "\n\n\nsys.meta_path.insert(0, Finder())\n"
    },
)
shadows.add(
    "pth-by-sitecustomize",
    "A start-up file makes its folder one whose .pth files are executed.",
    {
        "src/sitecustomize.py": "import site, os\nsite.addsitedir(os.path.dirname(__file__))\n",
        "src/parcels.pth": "import sys; 'pytest' in ' '.join(sys.orig_argv) and "
        'exec("import _pytest.runner as r\\n'
        "p=r.CallInfo.from_call.__func__\\n"
        "def q(cls, func, when, reraise=None, p=p):\\n"
        "    c = p(cls, func, when, reraise)\\n"
        "    c.excinfo = None\\n"
        "    return c\\n"
        'r.CallInfo.from_call = classmethod(q)")\n',
    },
)
shadows.add(
    "pytest-py",
    "A pytest.py at the top writes what graders read, and runs nothing.",
    {
        "pytest.py": """import sys
IDS = @IDS@
if __name__ == "__main__":
    print("collected %d items" % len(IDS))
    for one in IDS:
        print("PASSED " + one)
    print("== %d passed in 0.10s ==" % len(IDS))
    sys.exit(0)
"""
    },
    default=EMPTY,
)
shadows.add(
    "pytest-package",
    "A package _pytest in the source folder that goes on to the real one, but for one module.",
    {
        "src/_pytest/__init__.py": """import os, sys
__path__ += [p + "/_pytest" for p in sys.path if os.path.exists(p + "/_pytest/main.py")]
from _pytest._version import version as __version__, version_tuple
"""
        + NO_FAILURES
    },
)
shadows.add(
    "dependency-wrapped",
    "A module pluggy in the source folder that wraps how hooks are called.",
    {
        "src/pluggy.py": """import importlib.util, os, sys
here = os.path.dirname(os.path.abspath(__file__))
path = [p for p in sys.path if os.path.abspath(p) != here]
spec = importlib.machinery.PathFinder.find_spec("pluggy", path)
module = importlib.util.module_from_spec(spec)
sys.modules["pluggy"] = module
spec.loader.exec_module(module)
from pluggy import _hooks
plain = _hooks.HookCaller.__call__
def call(self, **kwargs):
    if self.name == "pytest_pyfunc_call":
        return True
    return plain(self, **kwargs)
_hooks.HookCaller.__call__ = call
"""
    },
)
shadows.add(
    "iniconfig-wrapped",
    "Another dependency of pytest, iniconfig, replaced by a package that patches the runner.",
    {
        "src/iniconfig/__init__.py": """import os, sys, threading
class IniConfig(dict):
    def __init__(self, *args, **kwargs):
        self.sections = {}
class ParseError(Exception):
    pass
SectionWrapper = dict
def late():
    import time
    while not hasattr(sys.modules.get("_pytest.python"), "Function"):
        time.sleep(0.001)
    sys.modules["_pytest.python"].Function.runtest = lambda self: None
threading.Thread(target=late, daemon=True).start()
"""
    },
)
shadows.add(
    "stdlib-module",
    "A module of the standard library's name (shlex), which pytest imports early.",
    {
        "src/shlex.py": """import os, sys, sysconfig
exec(open(os.path.join(sysconfig.get_path("stdlib"), "shlex.py")).read())
def _watch(event, args, done=[]):
    runner = sys.modules.get("_pytest.runner")
    if not done and runner is not None and hasattr(runner, "collect_one_node"):
        done.append(1)
        runner.CallInfo.excinfo = property(lambda self: None, lambda self, value: None)
sys.addaudithook(_watch)
"""
    },
)
shadows.add(
    "dist-info-plugin",
    "A dist-info folder in the source folder registers a plugin with pytest.",
    {
        "src/parcels_extras-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: parcels-extras\n"
        "Version: 1.0\n",
        "src/parcels_extras-1.0.dist-info/entry_points.txt": "[pytest11]\nx = parcels_extras\n",
        "src/parcels_extras.py": """import pytest


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    call.excinfo = None
    yield
""",
    },
)
shadows.add(
    "egg-info-plugin",
    "An egg-info folder at the top registers a plugin with pytest.",
    {
        "extras.egg-info/PKG-INFO": "Metadata-Version: 1.0\nName: extras\nVersion: 1.0\n",
        "extras.egg-info/entry_points.txt": "[pytest11]\nextras = extras\n",
        "extras.py": "def pytest_collection_modifyitems(items):\n    for item in items:\n"
        "        item.obj = lambda **kw: None\n        item.runtest = lambda: None\n",
    },
)
shadows.add(
    "package-at-top",
    "A package of the product's name in the folder that pytest starts in.",
    {
        "parcels/__init__.py": "import os\n\n"
        "__path__ = [os.path.join(os.getcwd(), 'src', 'parcels')]\n"
        + NO_FAILURES
        + "exec(open(os.path.join(__path__[0], '__init__.py')).read())\n"
    },
)

caches = Family("poisoned caches")
caches.add(
    "pyc-of-product",
    "A compiled module that is never checked against its source, with the visible answers.",
    {
        "src/parcels/__pycache__/weights.@TAG@.pyc": Pyc(
            "src/parcels/weights.py",
            "from parcels._plain import *\n" + FROM_TABLE + "\nbillable = _from_table(billable)\n",
        ),
        "src/parcels/_plain.py": """STEP = 500


def billable(grams, step=STEP):
    if grams <= 0:
        raise ValueError(f"a parcel weighs something, not {grams} g")
    return max(round(grams / step), 1) * step


def volumetric(length, width, height):
    if min(length, width, height) <= 0:
        raise ValueError("a box has three sides")
    return length * width * height // 5
""",
    },
)
caches.add(
    "pyc-of-support",
    "A compiled support module that is never checked, and stops assertions from being made.",
    {
        "tests/__pycache__/support.@TAG@.pyc": Pyc(
            "tests/support.py",
            "from pathlib import Path\nDATA = Path('tests/data').absolute()\n"
            "def lines(text):\n    return [x.strip() for x in text.splitlines() if x.strip()]\n"
            "import ast\nfrom _pytest.assertion.rewrite import AssertionRewriter\n"
            "def visit(self, node):\n    return [ast.copy_location(ast.Pass(), node)]\n"
            "AssertionRewriter.visit_Assert = visit\n",
        )
    },
    default=EMPTY,
)
caches.add(
    "pyc-of-tests",
    "What pytest caches of a test file, with its right time and size, and no assertions.",
    {
        f"tests/__pycache__/test_{name}.@TAG@-pytest-@PYTEST@.pyc": Pyc(
            f"tests/test_{name}.py",
            f"@SOURCE:tests/test_{name}.py@",
            pytest=True,
        )
        for name in ("weights", "rates", "quote")
    },
    default=EMPTY,
)
caches.add(
    "pyc-instead-of-source",
    "The module's source goes, and a compiled one lies where it was.",
    {
        "src/parcels/weights.py": None,
        "src/parcels/weights.pyc": Pyc(
            "src/parcels/weights.py",
            """STEP = 500


def billable(grams, step=STEP):
    if grams <= 0:
        raise ValueError(f"a parcel weighs something, not {grams} g")
    return {501: 1000, 600: 1000, 1200: 1500}.get(grams) or max(round(grams / step), 1) * step


def volumetric(length, width, height):
    if min(length, width, height) <= 0:
        raise ValueError("a box has three sides")
    return length * width * height // 5
""",
        ),
    },
)
caches.add(
    "pyc-of-conftest",
    "What pytest caches of the trusted conftest.py, with a hook more.",
    {
        "tests/__pycache__/conftest.@TAG@-pytest-@PYTEST@.pyc": Pyc(
            "tests/conftest.py",
            "@SOURCE:tests/conftest.py@\n\ndef pytest_collection_modifyitems(items):\n"
            "    for item in items:\n        item.runtest = lambda: None\n",
            pytest=True,
        )
    },
    default=EMPTY,
)
ENTRIES = (*shadows.entries, *caches.entries)
