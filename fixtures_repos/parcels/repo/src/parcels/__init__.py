"""What it costs to send parcels."""

from parcels.money import format_money, parse_money
from parcels.quote import Quote
from parcels.rates import Zone, load_zones
from parcels.weights import billable, volumetric

__all__ = [
    "Quote", "Zone", "billable", "format_money", "load_zones", "parse_money", "volumetric",
]
