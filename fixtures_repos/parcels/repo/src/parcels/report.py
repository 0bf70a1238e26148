"""Quotes as text."""

from parcels.money import format_money
from parcels.quote import Quote


def table(quote: Quote) -> str:
    """One line a parcel, and the total."""
    if not quote.lines:
        return "nothing to send"
    rows = [f"{line.name}: {format_money(line.price)}" for line in quote.lines]
    rows.append(f"total: {format_money(quote.total)}")
    return "\n".join(rows)
