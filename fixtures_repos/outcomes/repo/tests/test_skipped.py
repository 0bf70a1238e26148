import sys

import pytest


@pytest.mark.skip(reason="marked: not today")
def test_mark():
    raise AssertionError("never runs")


@pytest.mark.skip
def test_mark_without_reason():
    raise AssertionError("never runs")


@pytest.mark.skipif(sys.version_info >= (3,), reason="Python 3")
def test_skipif():
    raise AssertionError("never runs")


@pytest.mark.skipif("sys.version_info < (3,)")
def test_skipif_not():
    pass


def test_imperative():
    pytest.skip("in the middle")


def test_importorskip():
    pytest.importorskip("no_such_module_anywhere")


@pytest.fixture
def skipping():
    pytest.skip("in a fixture")


def test_in_fixture(skipping):
    raise AssertionError("never runs")


@pytest.fixture
def skipping_late():
    yield
    pytest.skip("in teardown")


def test_in_teardown(skipping_late):
    pass
