import pytest

collect_ignore = ["test_ignored.py"]


@pytest.fixture(params=[1, 10])
def count(request):
    return request.param
