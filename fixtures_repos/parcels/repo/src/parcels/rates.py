"""Prices by zone, in cents."""

import json
from dataclasses import dataclass
from pathlib import Path

from parcels.weights import STEP, billable


class UnknownZone(KeyError):
    """There is no such zone."""

    def __str__(self):
        return f"there is no zone {self.args[0]!r}"


@dataclass(frozen=True)
class Zone:
    """Where a parcel goes, and what that costs."""

    name: str
    base: int
    per_step: int

    def price(self, grams: int) -> int:
        return self.base + self.per_step * (billable(grams) // STEP)

    def per_kilo(self, grams: int) -> float:
        """The price of a kilo in a parcel of this weight."""
        return self.price(grams) * 1000 / grams


class Zones(dict):
    """Zones by name."""

    def __missing__(self, name):
        raise UnknownZone(name)


def load_zones(path) -> Zones:
    rows = json.loads(Path(path).read_text(encoding="utf-8"))
    return Zones((row["name"], Zone(**row)) for row in rows)
