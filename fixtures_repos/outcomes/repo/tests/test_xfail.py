import pytest


@pytest.mark.xfail(reason="known")
def test_xfailed():
    raise ValueError("as known")


@pytest.mark.xfail(reason="known", strict=True)
def test_xfailed_strict():
    raise ValueError("as known")


@pytest.mark.xfail(raises=ValueError)
def test_xfailed_raises():
    raise ValueError("as known")


@pytest.mark.xfail(raises=KeyError, reason="another error was expected")
def test_raises_something_else():
    raise ValueError("not as known")


@pytest.mark.xfail(reason="mended in the meantime")
def test_xpassed():
    pass


@pytest.mark.xfail(reason="mended in the meantime", strict=True)
def test_xpassed_strict():
    pass


@pytest.mark.xfail(run=False, reason="would hang")
def test_not_run():
    raise AssertionError("never runs")


@pytest.mark.xfail(False, reason="not here")
def test_condition_false():
    pass


def test_imperative():
    pytest.xfail("gives up")


@pytest.mark.xfail(reason="set-up is known to be broken")
def test_in_setup(broken_setup):
    pass


@pytest.mark.xfail(reason="teardown is not covered")
def test_in_teardown(broken_teardown):
    pass
