"""What several test files need."""

from pathlib import Path

DATA = Path(__file__).parent / "data"


def lines(text):
    return [line.strip() for line in text.splitlines() if line.strip()]
