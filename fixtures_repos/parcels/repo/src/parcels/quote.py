"""What sending several parcels costs."""

from dataclasses import dataclass, field

from parcels.rates import Zone


@dataclass(frozen=True)
class Line:
    name: str
    grams: int
    price: int


@dataclass
class Quote:
    """An offer; ten parcels or more are cheaper."""

    lines: list = field(default_factory=list)
    discount: float = 0.1

    def add(self, name: str, grams: int, zone: Zone) -> "Quote":
        self.lines.append(Line(name, grams, zone.price(grams)))
        return self

    @property
    def total(self) -> int:
        total = sum(line.price for line in self.lines)
        if len(self.lines) >= 10:
            total -= round(total * self.discount)
        return total

    def names(self) -> list:
        return sorted(line.name for line in self.lines)
