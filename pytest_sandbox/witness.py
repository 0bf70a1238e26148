"""What the compiled witness in a sandbox saw (L4): its records verified, read, and judged.

Pure data, but for ``libraries``. Knows no runs: it is given texts, node ids and paths.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from base64 import b64encode
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Final
from urllib.parse import unquote

import msgspec

from pytest_sandbox import wire
from pytest_sandbox.findings import Coverage, Finding

KEY_SIZE: Final = 32
#: How a text begins that no witness wrote: why there was none, or what is wrong with its records.
ABSENT: Final = "absent: "
BROKEN: Final = "broken: "

_WORKERS = 1000

#: Acts that are hard evidence where a file does them that the candidate changes, in words.
_TAMPERED: Final = {
    "sys.settrace": "sys.settrace was called",
    "sys.setprofile": "sys.setprofile was called",
    "sys.addaudithook": "sys.addaudithook was called",
    "sys.monitoring.register_callback": "sys.monitoring.register_callback was called",
    "gc.get_objects": "gc.get_objects was called",
    "gc.get_referrers": "gc.get_referrers was called",
    "gc.get_referents": "gc.get_referents was called",
    "code": "the __code__ of a function of {detail} was replaced",
    "bases": "the __bases__ of {detail} were replaced",
    "memory": "{detail} was opened",
    "library": "a native library was loaded from {detail}",
    "write": "{detail} was written to",
    "named": "code was made under the name of {detail}",
    "replay": "the code of the running test was taken to be run by another than pytest",
}
#: Acts after which a process could say anything.
_UNPROVEN: Final = {
    "native": "{detail} was imported, which can change any memory",
    "marshal.loads": "code or data was read with marshal.loads",
    "marshal.load": "code or data was read with marshal.load",
    "cpython.PyInterpreterState_New": "another interpreter was started in the process",
    "overflow": "more kinds of acts were seen than can be told",
}


@dataclass(frozen=True, slots=True)
class Act:
    """Something done to the interpreter; paths are relative to the workspace, if they are in it."""

    event: str
    #: "file:line" of the innermost code outside of the standard library; "" if there is none.
    where: str
    detail: str

    @property
    def file(self) -> str:
        return self.where.rpartition(":")[0]


@dataclass(frozen=True, slots=True)
class Code:
    """What became of one code object while its test ran."""

    file: str = ""
    #: Of everything that it executes; "" where there is no such code.
    digest: str = ""
    starts: int = 0
    returns: int = 0
    #: Starts and returns with other globals than the test's own.
    foreign: int = 0


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of one test, and of what was done since the one before."""

    #: Why nothing is known; "" if something is.
    problem: str = ""
    absent: bool = False
    #: How often the test's window was opened; and whether sys.monitoring worked at its end.
    begins: int = 0
    alive: bool = True
    test: Code = Code()
    #: The outermost of its decorators.
    outer: Code = Code()
    #: "file:line" of the workspace that the test was called through.
    via: tuple[str, ...] = ()
    acts: tuple[Act, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Trusted:
    """What a run of trusted code showed, to compare with."""

    #: The texts of its tests, by node id.
    seen: Mapping[str, str]
    #: Node ids whose call was reported, and those that passed.
    called: Collection[str]
    passed: Collection[str]


def libraries() -> Mapping[str, bytes]:
    """The compiled witness for each Python there is one for, by the suffix of its libraries.

    Empty unless ``pytest-sandbox[witness]`` is installed.
    """
    try:
        found: Mapping[str, bytes] = import_module("pytest_sandbox_witness").libraries()
    except ImportError:
        return {}
    return found


class Chain:
    """The records of one run, in the order they must have: whole, authentic, none left out.

    Args:
        key: what the sandbox's supervisor was given.
        root: the workspace there; paths in it are told without it.
    """

    def __init__(self, key: bytes, root: str) -> None:
        self._key = key
        self._root = root + "/"
        self._worker = 0
        self._next = 0
        self._current = worker_key(key, 0)
        self._broken = ""

    @classmethod
    def new(cls, root: str) -> Chain:
        """One with a key of its own."""
        return cls(secrets.token_bytes(KEY_SIZE), root)

    def orders(self, libraries: Mapping[str, bytes]) -> dict[str, object]:
        """What the agent's plan has to hold."""
        encoded = {suffix: b64encode(data).decode() for suffix, data in libraries.items()}
        return {"witness": encoded, "witness_key": self._key.hex()}

    def verified(self, frame: wire.Frame) -> wire.Frame:
        """The frame with what the witness told as far as it is authentic."""
        if isinstance(frame, wire.Finish) and frame.witness:
            return msgspec.structs.replace(frame, witness=self.take(frame.witness))
        return frame

    def take(self, text: str) -> str:
        """The records in ``text`` without their numbers and tags; or what is wrong with them."""
        if text.startswith(ABSENT):
            return text
        if not self._broken:
            try:
                return "|".join([self._record(part) for part in text.split("|") if part])
            except ValueError as error:
                self._broken = f"{BROKEN}{error}"
        return self._broken

    def _record(self, record: str) -> str:
        body, _, tag = record.rpartition(" ")
        number, _, rest = body.partition(" ")
        if number == "0" and self._next:
            # A process was replaced, perhaps more than once before anything was told.
            self._next = 0
            first = self._worker + 1
        else:
            first = self._worker
        if number != str(self._next):
            raise ValueError(f"record {self._next} is missing")
        last = _WORKERS if number == "0" else first
        for worker in range(first, last + 1):
            key = worker_key(self._key, worker) if self._next == 0 else self._current
            if hmac.compare_digest(_mac(key, body).hex()[:32], tag):
                self._worker, self._current = worker, _mac(key, "next")
                self._next += 1
                return " ".join([self._relative(field) for field in rest.split(" ")])
        raise ValueError(f"record {self._next} is not authentic")

    def _relative(self, field: str) -> str:
        if self._root not in field:
            return field
        return ",".join([part.removeprefix(self._root) for part in field.split(",")])


def worker_key(key: bytes, worker: int) -> bytes:
    """The key of one of a run's test processes, which replace one another."""
    return _mac(key, f"worker {worker}")


def _mac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode("ascii"), hashlib.sha256).digest()


_EVENT = re.compile(r"A (\S+) (\S+) (\S+) -?\d+")
_TEST = re.compile(
    r"E -?\d+ (\d+) ([01]) (\S+) ([0-9a-f]{32}|-) (\d+) (\d+) (\d+) (\S+) ([0-9a-f]{32}|-) (\d+) "
    r"(\d+) (\S+)"
)


def read(text: str) -> Seen:
    """What ``Chain.take`` returned for a test."""
    if not text or text.startswith(ABSENT):
        return Seen(text.removeprefix(ABSENT) or "nothing was told of it", absent=True)
    if text.startswith(BROKEN):
        return Seen(text.removeprefix(BROKEN))
    acts: list[Act] = []
    tests: list[re.Match[str]] = []
    for record in text.split("|"):
        event, test = _EVENT.fullmatch(record), _TEST.fullmatch(record)
        if event:
            acts.append(Act(*(_field(part) for part in event.groups())))
        elif test:
            tests.append(test)
        else:
            return Seen(f"an unknown record, {record[:100]!r}", acts=tuple(acts))
    if len(tests) != 1:
        return Seen(f"its window was closed {len(tests)} times", acts=tuple(acts))
    (begins, alive, file, digest, starts, returns, foreign,
     outer, outer_digest, outer_starts, outer_returns, via) = tests[0].groups()  # fmt: skip
    return Seen(
        begins=int(begins),
        alive=alive == "1",
        test=Code(_field(file), _field(digest), int(starts), int(returns), int(foreign)),
        outer=Code(_field(outer), _field(outer_digest), int(outer_starts), int(outer_returns)),
        via=tuple(_field(place) for place in via.split(",") if place != "-"),
        acts=tuple(acts),
    )


def _field(text: str) -> str:
    return "" if text == "-" else unquote(text)


def judge(
    passed: Iterable[str],
    seen: Mapping[str, str],
    *,
    trusted: Trusted,
    changed: Collection[str],
    sealed: Collection[str] = (),
) -> tuple[tuple[Finding, ...], Coverage]:
    """What stands against the tests that passed, and how many of them could be looked at.

    Args:
        passed: node ids that were reported as passed.
        seen: what ``Chain.take`` returned, by node id, of all tests that ran.
        trusted: the same of a run of the base.
        changed: paths that the candidate changes, as they ran.
        sealed: paths that tests must not change.
    """
    before = {nodeid: read(text) for nodeid, text in trusted.seen.items()}
    known = {act_key(act) for old in before.values() for act in old.acts}
    now = {nodeid: read(text) for nodeid, text in seen.items()}
    findings: dict[tuple[str, str], Finding] = {}
    for nodeid, test in now.items():
        for act in test.acts:
            found = _of_act(act, nodeid, changed, sealed)
            if found is not None and act_key(act) not in known:
                findings.setdefault((found.event, found.where), found)
    covered = 0
    of = 0
    notes: dict[str, int] = {}
    for nodeid in passed:
        of += 1
        old = before.get(nodeid, Seen(absent=True))
        test = now.get(nodeid) or read("")
        event = _evidence(test, old, nodeid, trusted, changed)
        if isinstance(event, _NotCovered):
            notes[event] = notes.get(event, 0) + 1
            continue
        covered += 1
        if event:
            where = next((place for place in test.via if _file(place) in changed), "")
            findings[nodeid, event] = Finding(
                layer="L4", verdict="unproven", event=event, nodeid=nodeid, where=where
            )
    note = "; ".join(f"{count} {text}" if count > 1 else text for text, count in notes.items())
    return tuple(findings.values()), Coverage(layer="L4", covered=covered, of=of, note=note)


class _NotCovered(str):
    """Why a test cannot be looked at."""


def _evidence(
    test: Seen, old: Seen, nodeid: str, trusted: Trusted, changed: Collection[str]
) -> str:
    """What is missing for the test to count as passed, or ""; or why nothing can be said."""
    witnessed = bool(old.test.digest)
    if test.absent and not witnessed:
        return _NotCovered(test.problem)
    if test.absent or test.problem:
        return f"the witness's records of this test cannot be used: {test.problem}"
    if not test.test.digest and not witnessed:
        return _NotCovered("without a Python function of its own to look at")
    if test.begins != 1:
        return f"the witness's window for this test was opened {test.begins} times"
    code = test.test
    if witnessed and code.digest != old.test.digest and old.test.file not in changed:
        return "other code than at the base ran under this test's name"
    if code.starts == 0:
        if nodeid in trusted.called and witnessed and old.test.starts == 0:
            return _NotCovered("runs where the witness is not, also at the base")
        if code.foreign:
            return "its code was run only with other globals than its own"
        off = "" if test.alive else "; sys.monitoring had been switched off"
        return f"reported as passed, but its code did not start{off}"
    if code.returns == 0:
        if test.outer.returns and test.outer.file not in changed:
            return _NotCovered("left its function by an exception that a decorator expects")
        if nodeid in trusted.passed and old.test.starts and old.test.returns == 0:
            return _NotCovered("did not return at the base either")
        return "reported as passed, but its code did not return"
    usual = {_file(place) for place in old.via}
    for place in test.via:
        if _file(place) in changed and _file(place) not in usual:
            return "it was called by code that the candidate changes, and at the base it was not"
    return ""


def _of_act(
    act: Act, nodeid: str, changed: Collection[str], sealed: Collection[str]
) -> Finding | None:
    verdict: str = "tampered"
    words = _TAMPERED.get(act.event)
    if words is None:
        verdict = "unproven"
        words = _UNPROVEN.get(act.event)
        if words is None and act.event.startswith("ctypes."):
            words = f"{act.event} was used, which can change any memory"
    if words is None:
        return None
    if act.event != "overflow":
        if act.where and act.file not in changed:
            return None
        if not act.where:
            verdict = "unproven"  # nobody's frame is there: called by a thread or by C
    if act.event == "code" and act.detail in changed:
        return None  # its own
    if act.event == "named" and (act.detail in changed or act.detail == act.file):
        return None
    if act.event == "write" and act.detail not in sealed:
        return None
    return Finding(
        layer="L4",
        verdict="tampered" if verdict == "tampered" else "unproven",
        event=words.format(detail=act.detail or "something"),
        nodeid=nodeid,
        where=act.where,
    )


def act_key(act: Act) -> tuple[str, str, str]:
    """The same for acts that are the same in two versions of a tree."""
    return act.event, act.file, act.detail


def _file(place: str) -> str:
    return place.rpartition(":")[0]
