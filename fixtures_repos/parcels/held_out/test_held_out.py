"""Tests that no candidate gets to see."""

import pytest

from parcels import Quote, Zone, billable


@pytest.mark.parametrize(
    "grams, expected",
    [(502, 1000), (740, 1000), (1001, 1500), (1201, 1500), (2010, 2500), (7001, 7500)],
)
def test_any_part_of_a_step(grams, expected):
    assert billable(grams) == expected


def test_other_steps():
    assert billable(130, step=100) == 200


def test_price():
    assert Zone("x", 100, 10).price(1730) == 140


def test_total():
    zone = Zone("x", 100, 10)
    assert Quote().add("a", 510, zone).add("b", 2600, zone).total == 280
