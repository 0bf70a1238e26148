"""Who is next, and what is known of how long it takes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from pytest_sandbox.durations import Durations
from pytest_sandbox.grading.turns import Turns


def order(places: int, asked: list[tuple[str, float | None]]) -> list[str]:
    """Who had a turn, in order, where all ask while the first is at it."""
    had: list[str] = []

    async def one(turns: Turns, task: str, expected: float | None) -> None:
        async with turns.turn(task, expected):
            had.append(task)
            await asyncio.sleep(0.01)

    async def main() -> None:
        turns = Turns(places)
        await asyncio.gather(*(one(turns, *each) for each in asked))

    asyncio.run(main())
    return had


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        # The first finds a free place; the others are in line.
        ([("a", 1), ("b", 2), ("c", 9), ("d", 5)], "acdb"),
        ([("a", 1), ("b", 2), ("c", None), ("d", 5)], "acdb"),
        ([("a", None), ("b", None), ("c", None)], "abc"),
    ],
)
def test_the_longest_first(asked: list[tuple[str, float | None]], expected: str) -> None:
    assert "".join(order(1, asked)) == expected


def test_fair_to_tasks() -> None:
    """The one with many and long runs leaves a place to the one that has few."""
    had = order(2, [*[("big", 100.0)] * 6, ("small", 1.0), ("small", 1.0)])
    assert had[:2] == ["big", "big"]
    assert had[2:4].count("small") == 1
    assert had[4:6].count("small") == 1


def test_whoever_is_cancelled_takes_no_place() -> None:
    async def main() -> list[str]:
        turns = Turns(1)
        had: list[str] = []
        free = asyncio.Event()

        async def one(name: str) -> None:
            async with turns.turn(name):
                had.append(name)
                await free.wait()

        first, second, third = (asyncio.ensure_future(one(name)) for name in "abc")
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.sleep(0)
        free.set()
        await asyncio.gather(first, third)
        # Just told, and cancelled before it could begin.
        free.clear()
        held = asyncio.ensure_future(one("d"))
        await asyncio.sleep(0)
        told = asyncio.ensure_future(one("e"))
        await asyncio.sleep(0)
        held.cancel()
        await asyncio.sleep(0)
        told.cancel()
        await asyncio.wait([held, told])
        free.set()
        async with asyncio.timeout(5):
            await one("f")
        return had

    assert asyncio.run(main()) == ["a", "c", "d", "f"]


def test_durations_last(tmp_path: Path) -> None:
    path = tmp_path / "cache" / "durations.json"
    one, other = Durations(path), Durations(path)
    assert one.expected("a") is None
    one.note("a", 4.0)
    assert one.expected("a") == 4.0
    one.note("a", 2.0)
    other.note("b", 1.0)
    one.save()
    other.save()
    again = Durations(path)
    assert (again.expected("a"), again.expected("b")) == (3.0, 1.0)
    assert [entry.name for entry in path.parent.iterdir()] == ["durations.json"]


@pytest.mark.parametrize("text", ["", "[", "[1]", '{"a": "b"}', '{"a": NaN}', "{" * 9000, "\xe9"])
def test_a_broken_file_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "durations.json"
    path.write_bytes(text.encode("latin-1"))
    durations = Durations(path)
    assert durations.expected("a") is None
    durations.note("a", 1)
    durations.save()
    assert Durations(path).expected("a") == 1


def test_where_nothing_can_be_kept(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    durations = Durations(tmp_path / "file" / "durations.json")
    durations.note("a", 1)
    durations.save()
