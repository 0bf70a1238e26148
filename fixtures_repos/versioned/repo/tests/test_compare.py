import pytest

import versioned


@pytest.mark.parametrize(
    "one, other", [("1.4.0", "1.3.9"), ("2.0", "1.9"), ("1.10.0", "1.9.0"), ("v1.4.1.dev3+g12", "1.4.0")]
)
def test_newer(one, other):
    assert versioned.newer(one, other)
    assert not versioned.newer(other, one)


def test_not_newer_than_itself():
    assert not versioned.newer(versioned.__version__, versioned.__version__)
