import pytest

from shop import total


def test_passes():
    assert total({"apple": 1, "pear": 1}) == 75


def test_empty_basket():
    assert total({}) == 0


@pytest.mark.wanted
def test_with_marker():
    pass


class TestInClass:
    def test_passes(self):
        assert total({"plum": 1}) == 10
