"""What grading may cost, and what it has cost so far. Knows no run."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_sandbox.consumer import Usage
from pytest_sandbox.errors import BadInput


class OverBudget(BadInput):
    """What may be spent is spent: nothing more is started."""


@dataclass(slots=True)
class Budget:
    """What may be spent; None for no bound. Counts what has ended."""

    dollars: float | None = None
    seconds: float | None = None
    spent_dollars: float = 0.0
    spent_seconds: float = 0.0

    @property
    def spent(self) -> bool:
        """Whether nothing more may be started."""
        over_money = self.dollars is not None and self.spent_dollars >= self.dollars
        over_time = self.seconds is not None and self.spent_seconds >= self.seconds
        return over_money or over_time

    def check(self) -> None:
        """Raises OverBudget."""
        if self.spent:
            raise OverBudget(
                f"the budget is spent (about ${self.spent_dollars:.2f}, "
                f"{self.spent_seconds:.0f} sandbox-seconds); raise --sandbox-budget, and what is "
                "graded already is not graded again"
            )

    def add(self, usage: Usage) -> None:
        """A sandbox is over, whatever came of it."""
        self.spent_dollars += usage.cost or 0.0
        self.spent_seconds += usage.seconds

    @property
    def left(self) -> float | None:
        """Seconds that one sandbox may last; None for any number."""
        return None if self.seconds is None else max(0.0, self.seconds - self.spent_seconds)
