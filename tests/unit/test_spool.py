"""Streams that are kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_sandbox.workspace.spool import Spool


class Made:
    """Gives some bytes, and counts how often it was asked."""

    def __init__(self, *chunks: bytes) -> None:
        self.chunks = chunks
        self.times = 0

    def __call__(self) -> Iterator[bytes]:
        self.times += 1
        yield from self.chunks


def test_a_stream_is_made_once(tmp_path: Path) -> None:
    spool, made = Spool(tmp_path), Made(b"one", b"two" * 300_000)
    whole = b"".join(made.chunks)
    for _ in range(3):
        assert b"".join(spool.stream("key", made)) == whole
    assert made.times == 1
    assert b"".join(spool.stream("other", Made(b"x"))) == b"x"


def test_what_was_not_read_to_its_end_is_made_again(tmp_path: Path) -> None:
    spool, made = Spool(tmp_path), Made(b"one", b"two")
    stream = spool.stream("key", made)
    assert next(stream) == b"one"
    del stream

    def broken() -> Iterator[bytes]:
        yield b"one"
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        list(spool.stream("key", broken))
    assert list(tmp_path.iterdir()) == []
    assert b"".join(spool.stream("key", made)) == b"onetwo"


def test_two_at_a_time_do_not_wait_for_each_other(tmp_path: Path) -> None:
    spool, made = Spool(tmp_path), Made(b"one", b"two")
    pair = [spool.stream("key", made) for _ in range(2)]
    assert [b"".join(each) for each in zip(*pair, strict=True)] == [b"oneone", b"twotwo"]
    assert made.times == 2
    assert len(list(tmp_path.iterdir())) == 1


def test_the_least_used_go_and_may_be_read_to_their_end(tmp_path: Path) -> None:
    spool, large = Spool(tmp_path, most=2), Made(b"x" * 700_000)
    list(spool.stream(0, large))
    reading = spool.stream(0, large)
    first = next(reading)
    for key in (1, 2):
        list(spool.stream(key, Made(b"y")))
    assert len(list(tmp_path.iterdir())) == 2
    assert first + b"".join(reading) == b"x" * 700_000
    list(spool.stream(0, large))
    assert large.times == 2
