import time

import pytest

pytestmark = pytest.mark.slow


def test_many(room):
    time.sleep(0.2)
    for _ in range(1000):
        room.put("pin", 1)
    assert room.items["pin"] == 1000
