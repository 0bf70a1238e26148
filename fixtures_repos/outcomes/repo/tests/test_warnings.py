import threading
import warnings

import pytest

from shop import old_total

warnings.warn("at collection", UserWarning)


def test_deprecated():
    assert old_total({}) == 0


def test_user_warning():
    warnings.warn("mind the gap")


def test_expected_warning():
    with pytest.warns(DeprecationWarning, match="use total"):
        old_total({})


@pytest.fixture
def warning_fixture():
    warnings.warn("in set-up", RuntimeWarning)
    yield
    warnings.warn("in teardown", RuntimeWarning)


def test_in_fixture(warning_fixture):
    pass


@pytest.mark.filterwarnings("error")
def test_warning_as_error():
    warnings.warn("now an error")


@pytest.mark.not_registered
def test_unknown_marker():
    pass


def test_thread():
    def run():
        raise ValueError("in a thread")

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()


def test_unraisable():
    class Dropped:
        def __del__(self):
            raise ValueError("in __del__")

    Dropped()


def test_returns_a_value():
    return 1 + 1 == 3
