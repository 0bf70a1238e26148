import pytest

import parcels
from support import DATA


@pytest.fixture(scope="session")
def zones():
    return parcels.load_zones(DATA / "zones.json")


@pytest.fixture
def home(zones):
    return zones["home"]


@pytest.fixture
def quote(zones):
    return parcels.Quote().add("book", 480, zones["home"]).add("lamp", 1200, zones["island"])
