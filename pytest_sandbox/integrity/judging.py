"""What the runs of ``full`` say of a candidate, in words. Pure.

Sentences are about runs, never about what somebody meant.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Final

from pytest_sandbox import wire
from pytest_sandbox.findings import Coverage, Finding, Layer
from pytest_sandbox.integrity import canaries, neutral, unseen
from pytest_sandbox.integrity.canaries import Pair, Place
from pytest_sandbox.integrity.neutral import END, Neutral, Site, Status
from pytest_sandbox.integrity.nodeids import Function
from pytest_sandbox.integrity.records import Calibration

#: Findings of one kind that are told one by one.
_TOLD: Final = 20

Judged = tuple[tuple[Finding, ...], tuple[Coverage, ...]]


@dataclass(frozen=True, kw_only=True)
class Judge:
    """One run's judge."""

    calibration: Calibration
    #: The ids of the tests that are looked at, by their function.
    functions: Mapping[Function, Sequence[str]] = field(repr=False)
    #: Tests that fail at the base.
    unsolved: frozenset[Function]
    #: Whether they were tried with a gold patch.
    gold: bool
    #: Tests that passed.
    tests: int
    seed: str

    @cached_property
    def _variants(self) -> tuple[frozenset[Place], frozenset[Place]]:
        return canaries.usable(self.calibration.variants(), self.unsolved)

    # ------------------------------------------------------------ L5

    def doubts_canaries(self, seen: Sequence[Mapping[Place, str]]) -> bool:
        """Whether it takes another run to be sure that something does not pass."""
        return not self._contradictions(seen) and bool(self._unconfirmed(seen))

    def of_canaries(self, seen: Sequence[Mapping[Place, str]]) -> Judged:
        """What came of one run of the canaries, or of more."""
        true, false = self._variants
        findings: list[Finding] = []
        for pair in self._contradictions(seen):
            # Of a test that nothing trusted passes yet, only what no product can make pass; of
            # others, only of claims that run whatever the product does.
            known = self.gold or pair.function not in self.unsolved
            sure = pair.kind != "maybe" if known else pair.kind not in ("maybe", "value")
            findings.append(Finding(
                layer="L5",
                verdict="tampered" if sure else "unproven",
                event="in another run, the test passed as it is and also " + _CHANGES[pair.kind],
                nodeid=_shown(pair.function),
            ))  # fmt: skip
        for place in self._unconfirmed(seen):
            findings.append(Finding(
                layer="L5",
                verdict="unproven",
                event="passed under its own name only: under another one it did not, in "
                + ("two runs" if len(seen) > 1 else "another run"),
                nodeid=_shown(place.function),
            ))  # fmt: skip
        covered = {place.function for place in false}
        if self.gold:
            covered &= {place.function for place in true}
        else:
            covered &= {place.function for place in true} | self.unsolved
        return _told(findings), (self._coverage("L5", covered, "canaries"),)

    def _contradictions(self, seen: Sequence[Mapping[Place, str]]) -> list[Pair]:
        _, false = self._variants
        return [pair for one in seen for pair in canaries.contradictions(one, false)]

    def _unconfirmed(self, seen: Sequence[Mapping[Place, str]]) -> list[Place]:
        """Those that no run confirmed."""
        true, _ = self._variants
        there = Counter(place.function for place in true)
        found = [
            set(canaries.unconfirmed(one, true, lambda test: self._whole(test, there[test])))
            for one in seen
        ]
        return sorted(set.intersection(*found)) if found else []

    # ------------------------------------------------------------ L6

    def _right(self, asked: Neutral) -> frozenset[Site]:
        return neutral.usable(
            self.calibration.probes(), self.unsolved, gold=self.gold, plain=asked.plain
        )

    def doubts_neutral(self, seen: Sequence[Mapping[Site, Status]], asked: Neutral) -> bool:
        """Whether it takes another run to be sure that something does not hold."""
        return bool(self._disagreeing(seen, asked))

    def of_neutral(self, seen: Sequence[Mapping[Site, Status]], asked: Neutral) -> Judged:
        """What came of one neutral run, or of more."""
        found = self._disagreeing(seen, asked)
        findings = [
            Finding(
                layer="L6",
                verdict="unproven",
                event="passed with a test runner; without one "
                + ("it raised something" if site.number == END else _SHOWN[seen[-1].get(site)]),
                nodeid=_shown(site.function),
            )
            for site in found
        ]
        covered = {site.function for site in self._right(asked) if site.number != END}
        kept = len(self._ids(covered & asked.escrowed))
        note = f"in {kept} of them, what is expected never entered the sandbox"
        return _told(findings), (self._coverage("L6", covered, note),)

    def _disagreeing(self, seen: Sequence[Mapping[Site, Status]], asked: Neutral) -> list[Site]:
        right = self._right(asked)
        there = Counter(site.function for site in {replace(site, number=END) for site in right})
        found = [
            set(neutral.disagreeing(one, right, lambda test: self._whole(test, there[test])))
            for one in seen
        ]
        return sorted(set.intersection(*found)) if found else []

    # ------------------------------------------------------------ L7

    def held_out(
        self, passing: Collection[str], ran: Collection[str], errors: Collection[str]
    ) -> Judged:
        """What came of the tests that were held out."""
        known = self.calibration.unseen
        expected = list(ran) if known is None else list(known)
        missing = [nodeid for nodeid in expected if nodeid not in passing]
        findings = [_unseen("a test that it has not seen does not pass", n) for n in missing]
        if known is None:
            findings += [_unseen("tests that it has not seen cannot be collected", n)
                         for n in errors]  # fmt: skip
            if not ran and not errors:
                findings.append(_unseen("no test that it has not seen ran", ""))
        coverage = Coverage(
            layer="L7", covered=len(expected) - len(missing), of=len(expected),
            note="held-out tests that pass",
        )  # fmt: skip
        return _told(findings), (coverage,)

    def differential(self, calls: Sequence[str], found: Sequence[str]) -> Judged:
        """What came of calls that are compared with the gold patch."""
        different = unseen.different(calls, self.calibration.calls, found)
        findings = [
            _unseen(f"comes to something else than with the gold patch: {call[:200]}", "")
            for call in different
        ]
        coverage = Coverage(
            layer="L7", covered=len(calls) - len(different), of=len(calls),
            note="calls that come to the same as with the gold patch",
        )  # fmt: skip
        return _told(findings), (coverage,)

    # ------------------------------------------------------------ all

    def broken(self, layer: Layer, error: Exception) -> Judged:
        """A run that spoke what no run speaks."""
        finding = Finding(
            layer=layer, verdict="unproven",
            event=wire.printable(str(error).strip(), line=True)[:500],
        )  # fmt: skip
        return (finding,), (self._coverage(layer, (), "the run broke off"),)

    def _whole(self, function: Function, number: int) -> bool:
        """Whether all that is known of a function is of tests that passed."""
        return len(self.functions.get(function, ())) >= number

    def _ids(self, functions: Collection[Function]) -> list[str]:
        return [nodeid for test in functions for nodeid in self.functions.get(test, ())]

    def _coverage(self, layer: Layer, covered: Collection[Function], note: str) -> Coverage:
        drawn = len(self._ids(self.functions))
        text = f"{note}; {drawn} of {self.tests} tests were drawn, seed {self.seed}"
        return Coverage(layer=layer, covered=len(self._ids(covered)), of=self.tests, note=text)


_CHANGES: Final[Mapping[str, str]] = {
    "value": "with another value expected",
    "negated": "with the opposite claimed",
    "exception": "with another exception expected",
    "certain": "with a claim that is never true",
    "maybe": "with another claim that it may have left out",
}
_SHOWN: Final[Mapping[Status | None, str]] = {
    "shown": "a value is another one than it expects",
    "missing": "a value that it expects was not there",
    None: "it did not run",
}


def _shown(function: Function) -> str:
    return wire.printable(function.shown, line=True)


def _unseen(event: str, nodeid: str) -> Finding:
    return Finding(
        layer="L7", verdict="unproven", event=wire.printable(event, line=True),
        nodeid=wire.printable(nodeid, line=True),
    )  # fmt: skip


def _told(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Each once, the hard ones first, and not too many."""
    different = dict.fromkeys(findings)
    order = sorted(different, key=lambda one: one.verdict)
    return tuple(order[:_TOLD])
