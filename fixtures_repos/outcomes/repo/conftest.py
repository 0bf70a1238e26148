import pytest


@pytest.fixture
def broken_setup():
    print("printed in set-up")
    raise RuntimeError("set-up is broken")


@pytest.fixture
def broken_teardown():
    yield "value"
    print("printed in teardown")
    raise RuntimeError("teardown is broken")


@pytest.fixture
def two_broken_finalizers(request):
    def one():
        raise ValueError("first finalizer")

    def two():
        raise KeyError("second finalizer")

    request.addfinalizer(one)
    request.addfinalizer(two)
