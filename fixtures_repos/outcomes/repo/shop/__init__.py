"""A shop with one price list, and one mistake."""

import warnings

PRICES = {"apple": 30, "pear": 45, "plum": 10}


def total(basket):
    """The price of a basket, which names each fruit and how many of it."""
    return sum(PRICES[fruit] for fruit, count in basket.items())


def old_total(basket):
    warnings.warn("old_total is deprecated, use total", DeprecationWarning, stacklevel=2)
    return total(basket)
