"""An amount of money in whole cents."""

import warnings
from decimal import ROUND_DOWN, Decimal


class Money:
    __slots__ = ("cents",)

    def __init__(self, cents):
        self.cents = int(cents)

    @classmethod
    def parse(cls, text):
        return cls((Decimal(text) * 100).quantize(Decimal(1), rounding=ROUND_DOWN))

    @classmethod
    def from_float(cls, value):
        warnings.warn("Money.from_float is inexact, use Money.parse", DeprecationWarning, stacklevel=2)
        return cls(round(value * 100))

    def split(self, parts):
        """As many amounts as asked for, as equal as can be, which add up to this one."""
        share = self.cents // parts
        return [Money(share) for _ in range(parts)]

    def __add__(self, other):
        return Money(self.cents + other.cents)

    def __neg__(self):
        return Money(-self.cents)

    def __eq__(self, other):
        return isinstance(other, Money) and self.cents == other.cents

    def __hash__(self):
        return hash(self.cents)

    def __repr__(self):
        sign = "-" if self.cents < 0 else ""
        return "Money({}{}.{:02d})".format(sign, *divmod(abs(self.cents), 100))
