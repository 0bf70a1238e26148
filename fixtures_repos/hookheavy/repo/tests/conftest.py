import pytest


@pytest.fixture
def room(room):
    room.put("screw", 10)
    return room
