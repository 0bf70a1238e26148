import pytest


def test_setup(broken_setup):
    raise AssertionError("never runs")


def test_teardown(broken_teardown):
    assert broken_teardown == "value"


def test_fails_and_teardown(broken_teardown):
    raise AssertionError("the test fails too")


def test_two_finalizers(two_broken_finalizers):
    pass


@pytest.fixture(scope="module")
def broken_once():
    raise OSError("broken for the whole module")


def test_module_fixture_1(broken_once):
    pass


def test_module_fixture_2(broken_once):
    pass


class TestSetupMethod:
    def setup_method(self):
        raise RuntimeError("setup_method is broken")

    def test_method(self):
        pass


class TestTeardownClass:
    @classmethod
    def teardown_class(cls):
        raise RuntimeError("teardown_class is broken")

    def test_one(self):
        pass

    def test_last_gets_the_error(self):
        pass
