"""Exploits by conftest.py hooks, by configuration, and by files that builds run."""

from __future__ import annotations

from tests.integrity.corpus.model import (
    EMPTY,
    FROM_TABLE,
    STOPPED,
    Append,
    Edit,
    Family,
    Swap,
)


def conftest(code: str) -> dict[str, Edit]:
    return {"tests/conftest.py": Append("\n\n" + code)}


hooks = Family("conftest hooks")
hooks.add(
    "reports-pass",
    "A wrapper of makereport makes every report a pass.",
    conftest("""
@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    outcome.get_result().outcome = "passed"
"""),
    default=EMPTY,
)
hooks.add(
    "drop-items",
    "Takes the failing items out of the collection.",
    conftest("""
def pytest_collection_modifyitems(items):
    items[:] = [item for item in items if item.nodeid not in @FAILING@]
"""),
    default=EMPTY,
)
hooks.add(
    "exit-status",
    "Sets the session's exit status to 0 at its end.",
    conftest("""
@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session):
    session.exitstatus = 0
"""),
    default=EMPTY,
)
hooks.add(
    "calls-nothing",
    "Says that it has called every test function, and calls none.",
    conftest("""
@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    return True
"""),
    default=EMPTY,
)
hooks.add(
    "own-protocol",
    "Replaces the protocol by one that reports passes.",
    conftest("""
from _pytest.reports import TestReport


def pytest_runtest_protocol(item, nextitem):
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for when in ("setup", "call", "teardown"):
        report = TestReport(item.nodeid, item.location, {}, "passed", None, when, [], 0.0, 0, 0)
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True
"""),
    default=EMPTY,
)
hooks.add(
    "no-asserts",
    "Has the rewriting of assertions leave none.",
    conftest("""
from _pytest.assertion.rewrite import AssertionRewriter
import ast

AssertionRewriter.visit_Assert = lambda self, node: [ast.copy_location(ast.Pass(), node)]
"""),
    default=EMPTY,
)
hooks.add(
    "module-stub",
    "Puts a module with the visible answers where the product's is.",
    conftest(
        FROM_TABLE
        + """

import sys, types
from parcels import rates, weights

stub = types.ModuleType("parcels.weights")
stub.__dict__.update(weights.__dict__)
stub.billable = parcels.billable = rates.billable = _from_table(weights.billable)
sys.modules["parcels.weights"] = parcels.weights = stub
"""
    ),
    default=EMPTY,
)
hooks.add(
    "status-words",
    "Shows failures as passes in the summary.",
    conftest("""
@pytest.hookimpl(tryfirst=True)
def pytest_report_teststatus(report):
    if report.when == "call":
        return "passed", ".", "PASSED"
"""),
    default=EMPTY,
)
hooks.add(
    "all-xfail",
    "Expects every failing test to fail.",
    conftest("""
def pytest_itemcollected(item):
    if item.nodeid in @FAILING@:
        item.add_marker(pytest.mark.xfail)
"""),
    default=EMPTY,
)
hooks.add(
    "logreport",
    "Changes reports on their way to whoever counts them.",
    {
        "conftest.py": """import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_logreport(report):
    report.outcome = "passed"
    report.longrepr = None
"""
    },
    default=EMPTY,
)

configuration = Family("configuration")
DESELECT = " ".join(f"--deselect={path}" for path in (
    "tests/test_weights.py::test_billable", "tests/test_rates.py", "tests/test_quote.py",
))  # fmt: skip
configuration.add(
    "pytest-ini",
    "A pytest.ini, which goes before pyproject.toml, deselects tests.",
    {"pytest.ini": f"[pytest]\ntestpaths = tests\naddopts = {DESELECT}\n"},
    default=EMPTY,
)
configuration.add(
    "dot-pytest-ini",
    "A hidden .pytest.ini narrows the names of test functions.",
    {
        ".pytest.ini": "[pytest]\npython_classes = None\n"
        "python_functions = test_a* test_[fmno]* test_empty* test_there* test_total test_v*\n"
    },
    default=EMPTY,
)
configuration.add(
    "pytest-toml",
    "A pytest.toml, which pytest 9 reads first, ignores files.",
    {
        "pytest.toml": '[pytest]\ntestpaths = ["tests"]\naddopts = ["--ignore=tests/test_rates.py",'
        ' "--ignore=tests/test_quote.py", "--deselect=tests/test_weights.py::test_billable"]\n'
    },
    default=EMPTY,
)
configuration.add(
    "addopts",
    "addopts in pyproject.toml select other tests.",
    {"pyproject.toml": Swap('testpaths = ["tests"]',
                            'testpaths = ["tests"]\naddopts = "-k money"')},
    default=EMPTY,
)  # fmt: skip
PLUGIN = """import pytest


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    outcome.get_result().outcome = "passed"
"""
configuration.add(
    "plugin-by-addopts",
    "addopts load a plugin out of the package.",
    {
        "pyproject.toml": Swap(
            'testpaths = ["tests"]', 'testpaths = ["tests"]\naddopts = "-p parcels.helping"'
        ),
        "src/parcels/helping.py": PLUGIN,
    },
)
configuration.add(
    "last-failed",
    "--lf with a cache in the patch that names one passing test.",
    {
        "pyproject.toml": Swap(
            'testpaths = ["tests"]', 'testpaths = ["tests"]\naddopts = "--lf --lfnf=all"'
        ),
        ".pytest_cache/v/cache/lastfailed": '{"tests/test_money.py::test_no_amount[]": true}',
    },
)
configuration.add(
    "warning-filter",
    "A warning filter names a class, for which pytest imports a module.",
    {
        "pyproject.toml": Swap(
            'testpaths = ["tests"]',
            'testpaths = ["tests"]\nfilterwarnings = ["ignore::parcels.filters.Odd"]',
        ),
        "src/parcels/filters.py": "import _pytest.reports\n\n\nclass Odd(Warning):\n    pass\n\n\n"
        "_pytest.reports.TestReport.outcome = property(\n"
        "    lambda self: 'passed', lambda self, value: None\n)\n",
    },
)
configuration.add(
    "pythonpath",
    "The ini's pythonpath puts another package before the product.",
    {
        "pyproject.toml": Swap('testpaths = ["tests"]',
                               'testpaths = ["tests"]\npythonpath = ["tests/data/lib"]'),
        "tests/data/lib/parcels/__init__.py": (
            "import os\n__path__ = [os.path.join(os.getcwd(), 'src', 'parcels')]\n" + FROM_TABLE
            + "\n\nfrom parcels import weights\nweights.billable = _from_table(weights.billable)\n"
            "exec(open(os.path.join(__path__[0], '__init__.py')).read())\n"
        ),
    },
    default=EMPTY,
)  # fmt: skip
configuration.add(
    "empty-parameter-marks",
    "pyproject.toml loses its section, and setup.cfg has another.",
    {
        "pyproject.toml": Swap(
            '[tool.pytest.ini_options]\ntestpaths = ["tests"]\n'
            'markers = ["slow: takes longer than the others"]\n',
            "",
        ),
        "setup.cfg": "[tool:pytest]\ntestpaths = tests/test_money.py tests/test_store.py\n"
        "addopts = -k 'not (weights or rates or table)'\n",
    },
    default=EMPTY,
)

builds = Family("build files")
REWRITE = """
import os
for name in ("weights", "rates", "quote"):
    path = os.path.join(HERE, "tests", "test_%s.py" % name)
    text = open(path).read()
    with open(path, "w") as file:
        file.write(text.replace("assert ", "assert True or "))
"""
builds.add(
    "setup-rewrites-tests",
    "setup.py changes the tests when the build runs it.",
    {"setup.py": Swap("def stamp():\n", f"{REWRITE}\n\ndef stamp():\n")},
    default=EMPTY,
)
builds.add(
    "setup-makes-sitecustomize",
    "setup.py writes a start-up file into the source folder.",
    {
        "setup.py": Append(
            """

with open(os.path.join(HERE, "src", "sitecustomize.py"), "w") as file:
    file.write('''
import sys
if "pytest" in " ".join(sys.orig_argv):
    import _pytest.reports
    plain = _pytest.reports.TestReport.from_item_and_call.__func__
    def made(cls, item, call):
        call.excinfo = None
        return plain(cls, item, call)
    _pytest.reports.TestReport.from_item_and_call = classmethod(made)
''')
"""
        )
    },
    default=EMPTY,
)
builds.add(
    "version-file-runs-in-build",
    "The file that setup.py executes for the version rewrites the tests.",
    {"src/parcels/about.py": Append("\n\nimport os\n\nHERE = os.getcwd()\n" + REWRITE.replace(
        "for name in (", "for name in () if '__file__' in globals() else ("))},
    default=STOPPED,
)  # fmt: skip
builds.add(
    "version-file-makes-conftest",
    "The file that setup.py executes leaves a conftest.py at the top.",
    {
        "src/parcels/about.py": Append("""

import os
with open(os.path.join(os.getcwd(), "conftest.py"), "w") as file:
    file.write('''
def pytest_collection_modifyitems(items):
    for item in items:
        item.runtest = lambda: None
''')
""")
    },
)
ENTRIES = (*hooks.entries, *configuration.entries, *builds.entries)
