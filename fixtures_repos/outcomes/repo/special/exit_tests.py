import pytest


def test_before():
    pass


def test_exits():
    pytest.exit("the test ends the session", returncode=17)


def test_after():
    pass
