import pytest


@pytest.mark.parametrize("x", ["[x]", "y"])
def test_brackets(x):
    pass
