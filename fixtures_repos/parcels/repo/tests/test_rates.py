import pytest

from parcels.rates import UnknownZone, Zone


class TestPrice:
    def test_one_step(self, home):
        assert home.price(500) == 340

    def test_two_steps(self, home):
        assert home.price(999) == 380

    def test_a_part_of_a_step(self, home):
        price = home.price(1200)
        assert price == 420
        assert price - home.price(500) == 80


def test_price_of_a_kilo(zones):
    assert zones["world"].per_kilo(600) == pytest.approx(2533.333, abs=0.001)


def test_price_of_a_whole_kilo(zones):
    assert zones["world"].per_kilo(1000) == pytest.approx(1520.0)


def test_names(zones):
    assert sorted(zones) == ["home", "island", "world"]


def test_an_unknown_zone(zones):
    with pytest.raises(UnknownZone, match="no zone 'moon'"):
        zones["moon"]


def test_zones_are_values():
    assert Zone("a", 1, 2) == Zone("a", 1, 2)
