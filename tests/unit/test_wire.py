"""The gate: any bytes make frames or a ProtocolError, and no failure gets lost on the way."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_sandbox import wire
from pytest_sandbox.errors import ProtocolError
from pytest_sandbox.testing import encode

REPORT = wire.Report(
    n=0,
    item=3,
    when="call",
    outcome="failed",
    duration=0.25,
    start=1.0,
    stop=1.25,
    longrepr=wire.LongRepr(text="E assert 1 == 2", path="t.py", lineno=3, message="assert 1 == 2"),
    sections=[("Captured stdout call", "hello\n")],
    properties=[("key", 1)],
)
FRAMES: tuple[wire.Frame, ...] = (
    wire.Hello(n=0, protocol=1, python="3.12.1", pytest="9.2.0", platform="linux", rootdir=""),
    wire.CollectReport(
        n=1, nodeid="t.py", outcome="failed", longrepr=wire.LongRepr(text="SyntaxError")
    ),
    wire.Collected(
        n=2,
        nodes=[wire.Node(parent=-1, type="Module", name="t.py", nodeid="t.py")],
        items=[
            wire.Item(
                parent=0, type="Function", name="test_a", nodeid="t.py::test_a", path="t.py",
                lineno=None, domain="test_a", marks=[wire.Mark(name="slow", kwargs={"a": 1})],
            )
        ],
    ),
    wire.Imports(n=3, paths={"calc": ["/sandbox/repo/src/calc"]}),
    wire.Ready(n=4, total=1, deselected=0, seconds=0.5),
    wire.Start(n=5, item=0),
    REPORT,
    wire.Finish(n=7, item=0),
    wire.Warned(
        n=8, message="old", category="DeprecationWarning", path="t.py", lineno=1, when="collect"
    ),
    wire.Output(n=9, text="hello"),
    wire.InternalError(n=10, text="boom"),
    wire.Heartbeat(n=11, phase="run", item=None, elapsed=1.5),
    wire.Layers(n=12, on=["hardened"], off={"sealed": "one user"}),
    wire.Died(n=13, cause="exit", status=0, item=0, phase="run", message="gone"),
    wire.End(n=14, reason="finished", exitstatus=0),
)  # fmt: skip


def decode(data: bytes, **kwargs: Any) -> list[wire.Frame]:
    return list(wire.Decoder(**kwargs).feed(data))


def test_every_kind_survives_the_way() -> None:
    renumbered = [msgspec.structs.replace(f, n=n) for n, f in enumerate(FRAMES)]
    assert decode(encode(FRAMES)) == renumbered


@pytest.mark.parametrize("size", [1, 7, 4096])
def test_chunks_do_not_matter(size: int) -> None:
    data = encode(FRAMES)
    decoder = wire.Decoder()
    frames = [f for i in range(0, len(data), size) for f in decoder.feed(data[i : i + size])]
    assert len(frames) == len(FRAMES)
    assert decoder.ended
    assert decoder.offset == len(data)


@pytest.mark.timeout(60)
def test_a_long_line_may_come_in_small_pieces() -> None:
    """Putting the whole line together at each of them would copy 30 GB."""
    line = encode([wire.Output(n=0, text="x" * 2_000_000)])
    decoder = wire.Decoder()
    found = [f for at in range(0, len(line), 64) for f in decoder.feed(line[at : at + 64])]
    assert len(found) == 1


def test_offset_is_where_to_resume() -> None:
    data = encode(FRAMES)
    decoder = wire.Decoder()
    first = list(decoder.feed(data[:300]))
    decoder.lost()
    rest = list(decoder.feed(data[decoder.offset :]))
    assert len(first) + len(rest) == len(FRAMES)


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"null\n",
        b"[]\n",
        b'"report"\n',
        b"{}\n",
        b'{"kind":"start"}\n',
        b'{"kind":"start","n":0}\n',
        b'{"kind":"start","n":1,"item":0}\n',
        b'{"kind":"start","n":0,"item":-1}\n',
        b'{"kind":"start","n":0,"item":1e99}\n',
        b'{"kind":"start","n":0,"item":0,"extra":1}\n',
        b'{"kind":"begin","n":0,"item":0}\n',
        b'{"kind":"start","n":0,"item":true}\n',
        b'{"kind":"output","n":0,"text":"\xc3\xa4"}\n',
        b'{"kind":"output","n":0,"text":"\xff"}\n',
        b'{"kind":"heartbeat","n":0,"phase":"run","item":null,"elapsed":NaN}\n',
        b"[" * 200_000 + b"\n",
        b'{"kind":"end","n":0,"reason":"passed","exitstatus":0}\n',
        b'{"kind":"end","n":0,"reason":"finished","exitstatus":0}\nx\n',
        b"x" * (wire.MAX_LINE + 1),
    ],
)
def test_anything_else_is_refused(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(line)


def test_more_than_the_total_is_refused() -> None:
    with pytest.raises(ProtocolError, match="more than 100 bytes"):
        decode(encode(FRAMES), max_total=100)


def test_an_unknown_outcome_is_an_error_and_no_missing_failure() -> None:
    data = encode([REPORT]).replace(b'"failed"', b'"flaky"')
    with pytest.raises(ProtocolError):
        decode(data)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)  # fmt: skip


@given(st.binary(max_size=400))
def test_no_bytes_make_another_exception(data: bytes) -> None:
    decoder = wire.Decoder()
    try:
        for frame in decoder.feed(data):
            assert isinstance(frame, wire.Frame)
    except ProtocolError:
        pass


@settings(max_examples=400)
@given(st.sampled_from(FRAMES), st.data())
def test_no_mutation_makes_another_exception(frame: wire.Frame, data: st.DataObject) -> None:
    fields = {**msgspec.to_builtins(frame), "n": 0}
    key = data.draw(st.sampled_from(sorted(fields)))
    fields[key] = data.draw(_JSON)
    line = json.dumps(fields).encode() + b"\n"
    try:
        (result,) = decode(line)
    except ProtocolError:
        return
    assert isinstance(result, wire.Frame)


@given(st.binary(min_size=1, max_size=3), st.integers(min_value=0))
def test_no_damage_loses_a_failure(junk: bytes, where: int) -> None:
    """Bytes put anywhere into a failing report: still that failure, or an error."""
    data = encode([REPORT])
    cut = where % (len(data) + 1)
    try:
        frames = decode(data[:cut] + junk + data[cut:] + b"\n")
    except ProtocolError:
        return
    assert [f.outcome for f in frames if isinstance(f, wire.Report)] == ["failed"]


@given(st.text())
def test_text_is_printable(text: str) -> None:
    shown = wire.printable(text)
    assert not any(ord(c) < 32 and c not in "\n\t" for c in shown)
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert not any(line.lstrip(" \t").startswith(("::", "##[")) for line in shown.split("\n"))
    shown.encode()  # no surrogates


@given(st.text())
def test_one_line_texts_are_one_line(text: str) -> None:
    assert "\n" not in wire.printable(text, line=True)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("tests/a.py::test_b", "tests/a.py::test_b"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\r\nb", "a\nb"),
        ("a\rb", "a\\x0db"),
        ("::error::x", "\\::error::x"),
        ("ok\n  ::set-output name=a::b", "ok\n  \\::set-output name=a::b"),
        ("##[group]", "\\##[group]"),
        ("\u202etxt.exe", "\\u202etxt.exe"),
        ("\ud800", "\\ud800"),
        ("ünïcode 漢字", "ünïcode 漢字"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert wire.printable(text) == shown


def test_frames_come_out_printable() -> None:
    (frame,) = decode(
        encode([msgspec.structs.replace(REPORT, sections=[("a\nb", "\x1b]0;x\x07")])])
    )
    assert isinstance(frame, wire.Report)
    assert frame.sections == [("a\nb", "\\x1b]0;x\\x07")]


@given(st.text(st.sampled_from('a :#[\\\n\t"\x7f\x1b\u200b\u00e9')))
def test_no_shortcut_lets_a_text_through(text: str) -> None:
    """Lines and texts that look harmless are not looked at again."""
    sent = wire.Output(n=0, text=text)
    line = json.dumps({"n": 0, "kind": "output", "text": text}).encode()
    assert decode(line + b"\n") == [wire.clean(sent)]
    shown = wire.printable(text, line=True)
    assert shown == wire.printable(text + "\n", line=True).removesuffix("\\n")
    assert not shown.lstrip(" \t").startswith(("::", "##["))


def test_layers_of_several_sandboxes_are_those_of_all() -> None:
    first = wire.Layers(n=0, on=["hardened", "sealed", "apart"], off={})
    second = wire.Layers(n=0, on=["hardened", "apart"], off={"sealed": "one user"})
    assert first.and_of(None) == first
    for both in (second.and_of(first), first.and_of(second)):
        assert both == second
