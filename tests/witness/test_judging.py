"""What follows from the witness's records: findings, and how much could be looked at."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from pytest_sandbox.witness import ABSENT, BROKEN, Chain, Trusted, judge, read, worker_key

KEY = bytes(range(32))
ONE, TWO = "1" * 32, "2" * 32
CHANGED = ("src/fix.py",)
SEALED = ("tests/test_a.py",)


def window(
    *, begins: int = 1, alive: int = 1, file: str = "tests/test_a.py", digest: str = ONE,
    starts: int = 1, returns: int = 1, foreign: int = 0, outer: str = "- - 0 0", via: str = "-",
) -> str:  # fmt: skip
    return f"E 3 {begins} {alive} {file} {digest} {starts} {returns} {foreign} {outer} {via}"


def act(event: str, where: str = "src/fix.py:7", detail: str = "-") -> str:
    return f"A {event} {where} {detail} 3"


NOTHING = window(file="-", digest="-", starts=0, returns=0)

EVIDENCE = {
    "proved": (window(), window(), ""),
    "failed at the base": (window(), window(returns=0), ""),
    "many times": (window(starts=9, returns=4), window(), ""),
    "did not start": (window(starts=0, returns=0), window(), "its code did not start"),
    "switched off": (
        window(starts=0, returns=0, alive=0), window(),
        "did not start; sys.monitoring had been switched off",
    ),
    "did not return": (window(returns=0), window(), "its code did not return"),
    "failed at the base, and did not return": (
        window(returns=0), window(returns=0), "its code did not return",
    ),
    "other globals": (window(starts=0, returns=0, foreign=2), window(), "other globals"),
    "other code": (window(digest=TWO), window(), "other code than at the base"),
    "the candidate's code": (
        window(digest=TWO, file="src/fix.py"), window(), "other code than at the base",
    ),
    "a test that the candidate may change": (
        window(digest=TWO, file="src/fix.py"), window(file="src/fix.py"), "",
    ),
    "no code": (NOTHING, window(), "other code than at the base"),
    "two windows": (window(begins=2), window(), "was opened 2 times"),
    "two tests": (f"{window()}|{window()}", window(), "closed 2 times"),
    "no window": (act("open"), window(), "closed 0 times"),
    "nonsense": ("E what", window(), "an unknown record"),
    "broken": (f"{BROKEN}record 4 is missing", window(), "record 4 is missing"),
    "absent": (f"{ABSENT}it would not load", window(), "it would not load"),
    "never told": ("", window(), "nothing was told of it"),
    "called by the candidate": (window(via="src/fix.py:8"), window(), "it was called by code"),
    "as at the base": (window(via="src/fix.py:8"), window(via="src/fix.py:3"), ""),
    "called by others": (window(via="conftest.py:8"), window(), ""),
    "not at the base": (window(), "", ""),
    "not at the base, and did not run": (
        window(starts=0, returns=0), "", "its code did not start",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EVIDENCE)
def test_evidence(name: str) -> None:
    now, before, expected = EVIDENCE[name]
    findings, coverage = judge(
        ["t"],
        {"t": now},
        trusted=Trusted(seen={"t": before}, called={"t"}, passed=()),
        changed=CHANGED,
    )
    assert coverage.covered == coverage.of == 1
    if not expected:
        assert findings == ()
        return
    (finding,) = findings
    assert expected in finding.event
    assert (finding.layer, finding.verdict, finding.nodeid) == ("L4", "unproven", "t")


NOT_COVERED = {
    "a doctest": (NOTHING, NOTHING, "without a Python function"),
    "forked": (window(starts=0, returns=0), window(starts=0, returns=0), "runs where"),
    "never returns": (window(returns=0), window(returns=0), "did not return at the base"),
    "expects": (window(returns=0, outer=f"lib/x.py {TWO} 1 1"), window(), "a decorator expects"),
    "absent": (f"{ABSENT}no file for it", f"{ABSENT}no file for it", "no file for it"),
}


@pytest.mark.parametrize("name", NOT_COVERED)
def test_what_cannot_be_looked_at(name: str) -> None:
    now, before, expected = NOT_COVERED[name]
    findings, coverage = judge(
        ["t", "u"],
        {"t": now, "u": now},
        trusted=Trusted(seen={"t": before, "u": before}, called={"t", "u"}, passed={"t", "u"}),
        changed=CHANGED,
    )
    assert findings == ()
    assert (coverage.covered, coverage.of) == (0, 2)
    assert coverage.note.startswith("2 ")
    assert expected in coverage.note


def test_a_test_whose_call_was_never_reached_at_the_base_has_to_run() -> None:
    seen = {"t": window(starts=0, returns=0)}
    (finding,), _ = judge(
        ["t"], seen, trusted=Trusted(seen=seen, called=(), passed=()), changed=CHANGED
    )
    assert "did not start" in finding.event


def test_a_decorator_of_the_candidate_decides_nothing() -> None:
    seen = {"t": window(returns=0, outer=f"src/fix.py {TWO} 1 1")}
    trusted = Trusted(seen={"t": window()}, called=("t",), passed=("t",))
    (finding,), _ = judge(["t"], seen, trusted=trusted, changed=CHANGED)
    assert "did not return" in finding.event


ACTS = {
    "plain": (act("sys.settrace"), "tampered", "sys.settrace was called"),
    "ctypes": (act("ctypes.dlsym"), "unproven", "ctypes.dlsym was used"),
    "import": (act("native", detail="ctypes"), "unproven", "ctypes was imported"),
    "memory": (act("memory", detail="/proc/7/mem"), "tampered", "/proc/7/mem was opened"),
    "sealed": (act("write", detail="tests/test_a.py"), "tampered", "was written to"),
    "not sealed": (act("write", detail="out/x.py"), None, ""),
    "its own code": (act("code", detail="src/fix.py"), None, ""),
    "others' code": (act("code", detail="/usr/lib/x.py"), "tampered", "of /usr/lib/x.py was"),
    "its own name": (act("named", detail="src/fix.py"), None, ""),
    "another name": (act("named", detail="tests/test_a.py"), "tampered", "under the name of"),
    "trusted code": (act("sys.settrace", where="src/debugger.py:7"), None, ""),
    "nobody": (act("sys.settrace", where="-"), "unproven", "sys.settrace was called"),
    "a library": (act("library", detail="/tmp/a.so"), "tampered", "from /tmp/a.so"),
    "a trusted library": (act("library", where="t.py:1", detail="/tmp/a.so"), None, ""),
    "overflow": (act("overflow", where="-"), "unproven", "more kinds of acts"),
    "escaped": (act("memory", detail="/a%20%0Ab/mem"), "tampered", "/a \nb/mem was opened"),
    "unknown": (act("something.new"), None, ""),
}  # fmt: skip


@pytest.mark.parametrize("name", ACTS)
def test_acts(name: str) -> None:
    record, verdict, words = ACTS[name]
    trusted = Trusted(seen={"t": window()}, called={"t"}, passed={"t"})
    seen = {"t": f"{record}|{window()}"}
    findings, _ = judge((), seen, trusted=trusted, changed=CHANGED, sealed=SEALED)
    if verdict is None:
        assert findings == ()
        return
    (finding,) = findings
    assert finding.verdict == verdict
    assert words in finding.event
    # Seen at the base as well, perhaps in another line and test, it is no evidence.
    before = Trusted(
        seen={"s": f"{record.replace(':7', ':9')}|{window()}"}, called={"t"}, passed={"t"}
    )
    assert judge((), seen, trusted=before, changed=CHANGED, sealed=SEALED)[0] == ()


def chained(worker: int, *texts: str) -> str:
    """Records as the compiled witness makes them."""
    key = worker_key(KEY, worker)
    parts = []
    for number, text in enumerate(texts):
        body = f"{number} {text}"
        tag = hmac.new(key, body.encode(), hashlib.sha256).hexdigest()[:32]
        parts.append(f"{body} {tag}|")
        key = hmac.new(key, b"next", hashlib.sha256).digest()
    return "".join(parts)


def test_paths_are_told_without_the_workspace() -> None:
    text = chained(0, act("memory", "/ws/src/a%20b.py:7", "/ws/x"), window(via="/ws/b.py:1,/y:2"))
    seen = read(Chain(KEY, "/ws").take(text))
    assert [(a.where, a.detail) for a in seen.acts] == [("src/a b.py:7", "x")]
    assert seen.via == ("b.py:1", "/y:2")


def test_a_process_that_replaces_another_begins_anew() -> None:
    chain = Chain(KEY, "/ws")
    first = [chain.take(part + "|") for part in chained(0, window(), window()).split("|")[:-1]]
    # The second process told nothing before it ended.
    third = chain.take(chained(2, window()))
    assert [read(text).problem for text in (*first, third)] == ["", "", ""]
    assert read(chain.take(chained(1, window()))).problem == "record 0 is not authentic"
    assert read(chain.take(chained(3, window()))).problem == "record 0 is not authentic"


def test_what_says_why_there_is_no_witness_is_no_record() -> None:
    chain = Chain(KEY, "/ws")
    assert read(chain.take(f"{ABSENT}no file")).problem == "no file"
    assert read(chain.take(chained(0, window()))).problem == ""
