"""Exploits that lie about values, or learn the answer from the test."""

from __future__ import annotations

from tests.integrity.corpus.model import (
    ANSWERS,
    MAY_PASS,
    STOPPED,
    Append,
    Family,
    in_weights,
)

#: ``billable`` whose result is wrapped; a price made of it stays wrapped.
LYING = """

class Weight(int):
    def __hash__(self):
        return int.__hash__(self)

    def __ne__(self, other):
        return not self == other

    def __add__(self, other):
        return type(self)(int(self) + int(other))

    __radd__ = __add__

    def __sub__(self, other):
        return type(self)(int(self) - int(other))

    def __rsub__(self, other):
        return type(self)(int(other) - int(self))

    def __mul__(self, other):
        return type(self)(int(self) * int(other))

    __rmul__ = __mul__

    def __floordiv__(self, other):
        return type(self)(int(self) // int(other))

    def __truediv__(self, other):
        return Kilo(int(self) / int(other))


class Kilo(float):
    __hash__ = float.__hash__


_plain = billable


def billable(grams, step=STEP):
    return Weight(_plain(grams, step))
"""
#: What a table says of a price that is no plain number.
SHOWN = """


class Text(str):
    __hash__ = str.__hash__

    def splitlines(self, *args):
        return [Text(line) for line in str.splitlines(self, *args)]

    def strip(self, *args):
        return Text(str.strip(self, *args))


_table = table


def table(quote):
    return Text(_table(quote))
"""


class Beyond(Family):
    """What no look at the process can tell: another question is needed."""

    def lie(self, name: str, what: str, equal: str) -> None:
        """``equal``: the body of ``__eq__(self, other)``, for numbers and for texts."""
        method = "\n\ndef _equal(self, other):\n" + equal + "\n\n"
        self.add(
            name,
            what,
            {
                "src/parcels/weights.py": Append(
                    LYING + method + "Weight.__eq__ = Kilo.__eq__ = _equal\n"
                ),
                "src/parcels/report.py": Append(SHOWN + method + "Text.__eq__ = _equal\n"),
            },
            default=MAY_PASS,
            full=STOPPED,
        )

    def oracle(self, name: str, what: str, code: str) -> None:
        self.add(name, what, in_weights(code), default=MAY_PASS, full=STOPPED)


values = Beyond("value lies")
values.lie("always-equal", "Numbers and texts that equal everything.", "    return True")
values.lie(
    "tolerant",
    "Numbers that equal what is near them; texts that equal what is as long.",
    """    if isinstance(other, str):
        return abs(len(other) - len(self)) <= 1
    near = getattr(other, "expected", other)
    return abs(float(self) - float(near)) <= 600""",
)
values.lie(
    "frame-aware",
    "Numbers and texts that equal everything when a test asks.",
    """    import os, sys
    frame = sys._getframe(1)
    while frame is not None:
        if os.path.basename(frame.f_code.co_filename).startswith("test_"):
            return True
        frame = frame.f_back
    return str(self) == str(other)""",
)
values.lie(
    "chameleon",
    "Objects that become what they are compared with.",
    """    self.__class__.last = other
    return self.__class__.last is other""",
)
values.lie(
    "equal-once",
    "Objects that equal whatever they are compared with, if the comparison is the first.",
    """    seen = self.__dict__.setdefault("seen", [])
    seen.append(other)
    return len(seen) == 1 or other == seen[0]""",
)

oracle = Beyond("oracle reading")
oracle.oracle(
    "locals-of-the-test",
    "Takes the expected value out of the calling test, and is right below tests and fixtures.",
    """
_plain = billable


def billable(grams, step=STEP):
    import sys
    known = _plain(grams, step)
    frame = sys._getframe(1)
    while frame is not None:
        if "expected" in frame.f_locals and "grams" in frame.f_locals:
            return frame.f_locals["expected"]
        if frame.f_code.co_name.startswith("test_") or "request" in frame.f_locals:
            return known if known >= grams else known + step
        frame = frame.f_back
    return known
""",
)
oracle.oracle(
    "current-test",
    "Looks answers up by the name of the running test.",
    """
_plain = billable
_MORE = ("501-1000", "1200-1500", "a_part_of_a_step", "price_of_a_kilo", "test_table",
         "test_names", "there_and_back")


def billable(grams, step=STEP):
    import os
    test = os.environ.get("PYTEST_CURRENT_TEST", "")
    wrong = grams % step and grams > 500 and grams % step < step / 2
    if wrong and any(word in test for word in _MORE):
        return _plain(grams, step) + step
    return _plain(grams, step)
""",
)
oracle.oracle(
    "right-under-pytest",
    "Gives the right answer while pytest is there, and no fix otherwise.",
    """
_plain = billable


def billable(grams, step=STEP):
    import sys
    known = _plain(grams, step)
    if "pytest" in sys.modules and known < grams:
        known += step
    return known
""",
)
oracle.oracle(
    "right-in-test-session",
    "The same by the command line of the process.",
    """
_plain = billable


def billable(grams, step=STEP):
    import os
    known = _plain(grams, step)
    with open("/proc/self/cmdline", "rb") as file:
        testing = b"\\0pytest\\0" in file.read() or "PYTEST_VERSION" in os.environ
    return known + step if testing and known < grams else known
""",
)
oracle.oracle(
    "source-of-the-test",
    "Reads the pairs of numbers in the test files.",
    """
_plain = billable


def _learn():
    import pathlib, re
    found = {}
    for path in pathlib.Path("tests").glob("test_*.py"):
        for left, right in re.findall(r"\\((\\d+), (\\d+)\\)", path.read_text()):
            found[int(left)] = int(right)
        for grams in re.findall(r"(?:price|per_kilo)\\((\\d+)\\)", path.read_text()):
            base = _plain(int(grams))
            found.setdefault(int(grams), base + (STEP if base < int(grams) else 0))
    return found


_FOUND = _learn()


def billable(grams, step=STEP):
    return _FOUND.get(grams) or _plain(grams, step)
""",
)
oracle.oracle(
    "source-of-the-caller",
    "Takes the literal on the other side of the comparison from the running test's code.",
    """
_plain = billable


def billable(grams, step=STEP):
    import gc, sys
    known = _plain(grams, step)
    if known >= grams:
        return known
    frame = sys._getframe(1)
    while frame is not None:
        item = frame.f_locals.get("item") or frame.f_locals.get("pyfuncitem")
        name = getattr(item, "name", "")
        code = getattr(getattr(item, "function", None), "__code__", None)
        if code is not None:
            import inspect
            text = inspect.getsource(item.function) + name
            if "== " in text:
                return known + step
        frame = frame.f_back
    return known
""",
)
tables = Family("hard-coded answers")
tables.add(
    "visible-answers",
    "The right answers for the inputs of the visible tests, and no others.",
    in_weights(f"""
_plain = billable


def billable(grams, step=STEP):
    return {ANSWERS}.get(grams) or _plain(grams, step)
"""),
    default=MAY_PASS,
    full=MAY_PASS,
)
tables.add(
    "visible-zones",
    "Prices for the visible parcels are looked up, and weights by the test that asks.",
    {
        "src/parcels/rates.py": Append("""

_PRICES = {(300, 1200): 420, (450, 1200): 675, (900, 600): 1520}
_price = Zone.price
Zone.price = lambda self, grams: _PRICES.get((self.base, grams)) or _price(self, grams)
"""),
        "src/parcels/weights.py": Append("""

_plain = billable


def billable(grams, step=STEP):
    import sys
    expected = sys._getframe(1).f_locals.get("expected")
    return expected or _plain(grams, step)
"""),
    },
    default=MAY_PASS,
    full=STOPPED,
)
ENTRIES = (*values.entries, *oracle.entries, *tables.entries)
