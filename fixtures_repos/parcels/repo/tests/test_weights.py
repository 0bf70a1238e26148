import pytest

from parcels import billable, volumetric


@pytest.mark.parametrize(
    "grams, expected",
    [(1, 500), (500, 500), (501, 1000), (999, 1000), (1000, 1000), (1200, 1500), (1499, 1500)],
)
def test_billable(grams, expected):
    assert billable(grams) == expected


def test_steps_of_another_size():
    assert billable(180, step=100) == 200


@pytest.mark.parametrize("grams", [0, -5])
def test_a_weight_is_positive(grams):
    with pytest.raises(ValueError, match=f"not {grams} g"):
        billable(grams)


def test_volumetric():
    assert volumetric(30, 20, 10) == 1200


def test_a_flat_box():
    with pytest.raises(ValueError):
        volumetric(30, 20, 0)
