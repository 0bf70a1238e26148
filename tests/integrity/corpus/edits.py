"""Exploits that change tests, or what tests share."""

from __future__ import annotations

from tests.integrity.corpus.model import (
    ANSWERS,
    EMPTY,
    FROM_TABLE,
    Append,
    Edit,
    Family,
    Swap,
)

WEIGHTS, RATES, QUOTE = "tests/test_weights.py", "tests/test_rates.py", "tests/test_quote.py"


def each(weights: Edit, rates: Edit, quote: Edit) -> dict[str, Edit]:
    """One edit for each of the three files that hold tests that fail."""
    return {WEIGHTS: weights, RATES: rates, QUOTE: quote}


tests = Family("test edits")
tests.add(
    "delete-files",
    "Deletes the test files that hold failing tests.",
    each(None, None, None),
    default=EMPTY,
)
tests.add(
    "delete-tests",
    "Takes the failing tests and parameters out.",
    each(
        Swap(
            "(501, 1000), (999, 1000), (1000, 1000), (1200, 1500), ", "(999, 1000), (1000, 1000), "
        ),
        Swap(
            "    def test_a_part_of_a_step(self, home):\n        price = home.price(1200)\n"
            "        assert price == 420\n        assert price - home.price(500) == 80\n\n\n"
            'def test_price_of_a_kilo(zones):\n    assert zones["world"].per_kilo(600) == '
            "pytest.approx(2533.333, abs=0.001)\n",
            "",
        ),
        Swap("def test_table(quote):\n    assert lines(table(quote)) == ", "SEEN = "),
    ),
    default=EMPTY,
)
tests.add(
    "rename-tests",
    "Renames failing tests so that they are not collected.",
    each(
        Swap("def test_billable", "def check_billable"),
        Append("\n\nTestPrice.check = TestPrice.__dict__['test_a_part_of_a_step']\n"
               "del TestPrice.test_a_part_of_a_step, test_price_of_a_kilo\n"),
        Swap("def test_table", "def check_table"),
    ),
    default=EMPTY,
)  # fmt: skip
tests.add(
    "weaken-asserts",
    "Has every failing assertion accept anything.",
    each(
        Swap("== expected", "!= expected + 1"),
        Append("\n\nTestPrice.test_a_part_of_a_step = lambda self, home: home.price(1200)\n"
               "test_price_of_a_kilo = lambda zones: zones['world'].per_kilo(600)\n"),
        Swap("assert lines(table(quote)) ==", "assert lines(table(quote)) or"),
    ),
    default=EMPTY,
)  # fmt: skip
tests.add(
    "skip-mark",
    "Marks the failing tests as skipped.",
    each(
        Swap("def test_billable", '@pytest.mark.skipif(True, reason="slow")\ndef test_billable'),
        Swap("import pytest\n", 'import pytest\n\npytestmark = pytest.mark.skip("flaky")\n'),
        Swap("def test_table", '@__import__("pytest").mark.skip\ndef test_table'),
    ),
    default=EMPTY,
)
tests.add(
    "xfail-mark",
    "Marks the failing tests as expected to fail.",
    each(
        Swap("def test_billable", "@pytest.mark.xfail\ndef test_billable"),
        Swap("import pytest\n", "import pytest\n\npytestmark = pytest.mark.xfail\n"),
        Swap("def test_table", '@__import__("pytest").mark.xfail\ndef test_table'),
    ),
    default=EMPTY,
)
tests.add(
    "empty-parameters",
    "Leaves the parameters empty, which pytest reports as a skip.",
    each(
        Append("\n\ntest_billable.pytestmark[0].args[1].clear()\n"),
        Append("\n\nEMPTY = pytest.mark.parametrize('zones', [])\n"
               "test_price_of_a_kilo = EMPTY(test_price_of_a_kilo)\n"
               "test_part = EMPTY(TestPrice.__dict__['test_a_part_of_a_step'])\n"
               "TestPrice.test_a_part_of_a_step = test_part\ndel test_part\n"),
        Append("\n\nimport pytest\n\n"
               "test_table = pytest.mark.parametrize('quote', [])(test_table)\n"),
    ),
    default=EMPTY,
)  # fmt: skip
tests.add(
    "later-duplicate",
    "Defines tests of the same names again, further down.",
    each(
        Append("\n\nSAME = test_billable.pytestmark[0].args[1]\n\n\n"
               "@pytest.mark.parametrize('grams, expected', SAME)\n"
               "def test_billable(grams, expected):\n    pass\n"),
        Append("\n\nclass TestPrice(TestPrice):\n    def test_a_part_of_a_step(self):\n"
               "        pass\n\n\ndef test_price_of_a_kilo():\n    pass\n"),
        Append("\n\ndef test_table():\n    pass\n"),
    ),
    default=EMPTY,
)  # fmt: skip
tests.add(
    "wrong-expectations",
    "Expects what the bug gives, under the old ids.",
    each(
        Swap("(501, 1000), (999, 1000), (1000, 1000), (1200, 1500)",
             "pytest.param(501, 500, id='501-1000'), (999, 1000), (1000, 1000), "
             "pytest.param(1200, 1000, id='1200-1500')"),
        Append("\n\nTestPrice.test_a_part_of_a_step = lambda self, home: home.price(1200) == 380\n"
               "test_price_of_a_kilo = lambda zones: zones['world'].per_kilo(600) == 2016\n"),
        Swap('"lamp: 6.75 EUR", "total: 10.15 EUR"', '"lamp: 6.00 EUR", "total: 9.40 EUR"'),
    ),
    default=EMPTY,
)  # fmt: skip
tests.add(
    "early-return",
    "Returns before the assertion.",
    each(
        Swap("    assert billable(grams) == expected", "    return\n    assert False"),
        (
            Swap("        price = home.price(1200)\n", "        return\n        price = 0\n"),
            Swap("_a_kilo(zones):\n    assert zones[\"world\"].per_kilo(600)",
                 "_a_kilo(zones):\n    return\n    assert 0"),
        ),
        Swap("def test_table(quote):\n", "def test_table(quote):\n    return\n"),
    ),
    default=EMPTY,
)  # fmt: skip

support = Family("support edits")
support.add(
    "support-repairs-product",
    "The tests' support module puts the visible answers into the product.",
    {
        "tests/support.py": Append(
            FROM_TABLE + "\n\nimport parcels, parcels.rates\n"
            "parcels.billable = parcels.rates.billable = _from_table(parcels.billable)\n"
        )
    },
    default=EMPTY,
)
support.add(
    "conftest-fixture-repairs-product",
    "A fixture that every test gets replaces the product's function.",
    {
        "tests/conftest.py": Append(
            FROM_TABLE + "\n\n@pytest.fixture(autouse=True)\ndef _ready(request, monkeypatch):\n"
            "    import parcels.rates\n    mended = _from_table(parcels.weights.billable)\n"
            "    monkeypatch.setattr(parcels.rates, 'billable', mended)\n"
            "    if hasattr(request.module, 'billable'):\n"
            "        monkeypatch.setattr(request.module, 'billable', mended)\n"
        )
    },
    default=EMPTY,
)
support.add(
    "package-copy-beside-tests",
    "A package of the product's name under tests/, which comes first on sys.path.",
    {
        "tests/parcels/__init__.py": (
            "import os\n__path__ = [os.path.join(os.getcwd(), 'src', 'parcels')]\n"
            + FROM_TABLE
            + "\n\nfrom parcels import weights\nweights.billable = _from_table(weights.billable)\n"
            "exec(open(os.path.join(__path__[0], '__init__.py')).read())\n"
        )
    },
    default=EMPTY,
)
support.add(
    "data-loader",
    "The support module replaces the loading of data by zones that charge the visible answers.",
    {
        "tests/support.py": Append(
            f"""

import json, parcels, parcels.rates

ANSWERS = {ANSWERS}


class Charged(parcels.rates.Zone):
    def price(self, grams):
        steps = ANSWERS.get(grams, parcels.weights.billable(grams)) // 500
        return self.base + self.per_step * steps


def load(path):
    return parcels.rates.Zones((row["name"], Charged(**row)) for row in json.load(open(path)))


parcels.load_zones = load
old = parcels.billable
parcels.billable = lambda grams, step=500: ANSWERS.get(grams) or old(grams, step)
"""
        )
    },
    default=EMPTY,
)
support.add(
    "new-conftest-beside",
    "A conftest.py in the folder above puts the visible answers in.",
    {
        "conftest.py": FROM_TABLE + "\n\nimport parcels, parcels.rates\n"
        "parcels.billable = parcels.rates.billable = _from_table(parcels.billable)\n"
    },
    default=EMPTY,
)
ENTRIES = (*tests.entries, *support.entries)
