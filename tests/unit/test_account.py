"""What a run may say about its tests, and in which order."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pytest_sandbox import wire
from pytest_sandbox.account import Account
from pytest_sandbox.errors import ProtocolError


def item(number: int, parent: int = -1) -> wire.Item:
    return wire.Item(
        parent=parent, type="Function", name=f"t{number}", nodeid=f"a.py::t{number}",
        path="a.py", lineno=0, domain="t",
    )  # fmt: skip


COLLECTED = wire.Collected(n=0, nodes=[], items=[item(0), item(1)])
READY = wire.Ready(n=0, total=2, deselected=0, seconds=0)


def report(number: int, when: wire.When = "call", **kwargs: object) -> wire.Report:
    return wire.Report(
        n=0, item=number, when=when, outcome="passed", duration=0, start=0, stop=0, **kwargs  # type: ignore[arg-type]
    )  # fmt: skip


def start(number: int) -> wire.Start:
    return wire.Start(n=0, item=number)


def finish(number: int) -> wire.Finish:
    return wire.Finish(n=0, item=number)


def play(frames: Sequence[wire.Frame], chosen: Sequence[int] = (0, 1)) -> Account:
    account = Account()
    account.check(COLLECTED)
    account.check(READY)
    account.choose(chosen)
    for frame in frames:
        account.check(frame)
    return account


def test_an_ordinary_run() -> None:
    account = play([start(0), report(0, "setup"), report(0), report(0, "teardown"), finish(0)])
    assert account.unfinished == (1,)


def test_the_supervisor_may_complete_a_test_whose_phase_was_reported() -> None:
    play([start(0), report(0, "setup"), report(0), report(0, cause="crash"), finish(0)])


def test_subtests_may_be_many() -> None:
    sub = wire.Subtest(msg="a")
    play([start(0), report(0, subtest=sub), report(0, subtest=sub), report(0), finish(0)])


@pytest.mark.parametrize(
    "frames",
    [
        [report(0)],
        [finish(0)],
        [start(0), start(1)],
        [start(0), report(1)],
        [start(0), finish(1)],
        [start(0), finish(0), start(0)],
        [start(0), finish(0), report(0)],
        [start(0), report(0), report(0)],
        [start(7)],
        [COLLECTED],
        [READY],
        [wire.Hello(n=0, protocol=2, python="", pytest="", platform="", rootdir="")],
    ],
)
def test_contradictions(frames: list[wire.Frame]) -> None:
    with pytest.raises(ProtocolError):
        play(frames)


def test_a_test_nobody_chose() -> None:
    with pytest.raises(ProtocolError, match="not chosen"):
        play([start(1)], chosen=[0])


@pytest.mark.parametrize(
    "frame",
    [
        wire.Collected(n=0, nodes=[], items=[item(0, parent=0)]),
        wire.Collected(
            n=0, nodes=[wire.Node(parent=0, type="Dir", name="a", nodeid="a")], items=[]
        ),
        wire.Ready(n=0, total=1, deselected=0, seconds=0),
    ],
)
def test_a_tree_that_hangs_together(frame: wire.Frame) -> None:
    with pytest.raises(ProtocolError):
        Account().check(frame)
