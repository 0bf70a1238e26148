"""Amounts of money, in cents."""

import os
import re

_PATTERN = re.compile(r"(-?)(\d+)\.(\d\d) ([A-Z]{3})")


def currency() -> str:
    return os.environ.get("PARCELS_CURRENCY", "EUR")


def format_money(cents: int) -> str:
    sign = "-" if cents < 0 else ""
    whole, part = divmod(abs(cents), 100)
    return f"{sign}{whole}.{part:02} {currency()}"


def parse_money(text: str) -> int:
    match = _PATTERN.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no amount such as 12.50 EUR")
    cents = int(match[2]) * 100 + int(match[3])
    return -cents if match[1] else cents
