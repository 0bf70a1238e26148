import pytest

from calc import add, div, mul, power, sub


def test_add():
    assert add(2, 3) == 5


def test_sub():
    assert sub(2, 3) == -1


def test_mul():
    assert mul(1.5, 4) == 6


def test_div():
    assert div(9, 3) == 3
    assert div(3 * 10**18 + 3, 3) == 10**18 + 1


def test_div_leaves_a_fraction():
    assert div(7, 2) == 3.5


@pytest.mark.parametrize("a, b", [(6, 3), (-6, 3), (0, 5)])
def test_div_keeps_whole_numbers_whole(a, b):
    assert isinstance(div(a, b), int)


def test_div_by_zero():
    with pytest.raises(ZeroDivisionError):
        div(1, 0)


def test_power():
    assert power(2, 10) == 1024
    assert power(2, -2) == 0.25
