"""Tests shared out among sandboxes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_sandbox.shares import shared


def sizes(nodeids: list[str], seconds: list[float | None], parts: int) -> list[int]:
    return [len(share) for share in shared(nodeids, seconds, parts)]


@pytest.mark.parametrize(
    ("nodeids", "seconds", "parts", "expected"),
    [
        ([f"t.py::{n}" for n in range(8)], [None] * 8, 4, [2, 2, 2, 2]),
        # By what they took; what is unknown takes as long as most.
        ([f"t.py::{n}" for n in range(5)], [9.0, 3.0, 3.0, 3.0, None], 2, [2, 3]),
        ([f"{n}.py::a" for n in range(4)], [30.0, 10.0, 10.0, 10.0], 2, [1, 3]),
        # A file is cut elsewhere than in its middle, if it need not be.
        (["a::1", "a::2", "a::3", "b::1", "b::2"], [1.0] * 5, 2, [3, 2]),
        (["a::1", "a::2", "a::3", "a::4", "b::1"], [None] * 5, 2, [2, 3]),
        # Nor a class.
        (["a::A::1", "a::A::2", "a::A::3", "a::B::1", "a::B::2"], [None] * 5, 2, [3, 2]),
        (["a::1"], [None], 3, [1, 0, 0]),
        ([], [], 3, [0, 0, 0]),
        (["a::1", "b::1"], [0.0, 0.0], 2, [1, 1]),
    ],
)
def test_shares(
    nodeids: list[str], seconds: list[float | None], parts: int, expected: list[int]
) -> None:
    found = sizes(nodeids, seconds, parts)
    assert sorted(found, reverse=True) == sorted(expected, reverse=True)
    assert len(nodeids) < 2 or found == expected


times = st.none() | st.floats(min_value=0, max_value=1e6)
tests = st.lists(st.tuples(st.sampled_from(["a::x", "a::B::y", "c::z[1]", "c::z[2]"]), times))


@given(tests, st.integers(min_value=1, max_value=9))
def test_every_test_has_one_share(found: list[tuple[str, float | None]], parts: int) -> None:
    result = shared([one for one, _ in found], [two for _, two in found], parts)
    assert len(result) == parts
    assert [at for share in result for at in share] == list(range(len(found)))
