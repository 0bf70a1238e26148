import pytest


@pytest.mark.parametrize("x", ["ünï", "-"])
def test_path(x):
    pass
