"""From runs of the base and of the gold patch to the tests that decide a task. Pure.

A test counts by what it did in every run of the same tree; one that passed in some runs only is
flaky and is set aside. Of those that pass with the gold patch:

==========================  =======================  ====================================
base                        base with the tests      is
==========================  =======================  ====================================
any                         passes                   PASS_TO_PASS
passes                      is not there             PASS_TO_PASS: the tests hide it
any                         fails                    FAIL_TO_PASS
does not pass               is not there             FAIL_TO_PASS, as *none to pass*
any                         is skipped               FAIL_TO_PASS, as *skip to pass*
==========================  =======================  ====================================
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pytest_sandbox.grading.matching import originals
from pytest_sandbox.grading.model import Observed, Status, Task
from pytest_sandbox.grading.verdict import PASSING, grade

What = Literal["derived", "base_broken", "gold_broken", "unsupported", "infra_error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Derived:
    """What decides a task, as runs of its base and of its gold patch have it."""

    task_id: str
    #: "derived"; else why there is nothing to use, and ``reason`` says more.
    outcome: What
    reason: str = ""
    fail_to_pass: tuple[str, ...] = ()
    pass_to_pass: tuple[str, ...] = ()
    #: What the task said is flaky, and what turned out to be.
    flaky: tuple[str, ...] = ()
    #: Those of ``fail_to_pass`` that cannot be collected at the base, or are skipped there.
    none_to_pass: tuple[str, ...] = ()
    skip_to_pass: tuple[str, ...] = ()
    #: What passes at the base and not with the gold patch: scored nowhere.
    pass_to_fail: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Did:
    """What one test did in all runs of one tree."""

    passes: bool
    flaky: bool
    skipped: bool
    there: bool


def derive(
    task: Task, base: Sequence[Observed], tests: Sequence[Observed], gold: Sequence[Observed]
) -> Derived:
    """What decides ``task``.

    Args:
        base, tests, gold: runs of the base, of the base with the test patch, and of both with the
            gold patch; at least one each.
    """
    broken = _broken(task, base, "as it is") or _broken(task, tests, "with the task's tests")
    if broken:
        return broken
    passing, _ = PASSING[task.profile]
    before, with_tests, after = (_did(runs, passing) for runs in (base, tests, gold))
    nothing = _Did(passes=False, flaky=False, skipped=False, there=False)
    flaky = dict.fromkeys(task.flaky)
    lists: dict[str, list[str]] = {"f2p": [], "p2p": [], "none": [], "skip": [], "broken": []}
    for nodeid in dict.fromkeys([*after, *with_tests]):
        first = before.get(nodeid, nothing)
        second, third = with_tests.get(nodeid, nothing), after.get(nodeid, nothing)
        if nodeid in flaky:
            continue
        if third.flaky or (third.passes and (second.flaky or first.flaky)):
            flaky[nodeid] = None
        elif not third.passes:
            lists["broken"] += [nodeid] if second.passes else []
        elif second.passes or (first.passes and not second.there):
            lists["p2p"].append(nodeid)
        else:
            lists["f2p"].append(nodeid)
            if second.skipped:
                lists["skip"].append(nodeid)
            elif not second.there:
                lists["none"].append(nodeid)
    derived = Derived(
        task_id=task.id,
        outcome="derived",
        fail_to_pass=tuple(lists["f2p"]),
        pass_to_pass=tuple(lists["p2p"]),
        flaky=tuple(flaky),
        none_to_pass=tuple(lists["none"]),
        skip_to_pass=tuple(lists["skip"]),
        pass_to_fail=tuple(lists["broken"]),
    )
    return _proved(task, derived, gold)


def _broken(task: Task, runs: Sequence[Observed], which: str) -> Derived | None:
    # pytest refuses files that only the tests or only the gold patch bring.
    whole = ("finished", "usage") if task.test_patch or task.gold else ("finished",)
    for run in runs:
        if run.end not in whole:
            # What was not reached would be taken for what is not there.
            reason = f"the base, {which}, does not run to its end: {run.end}"
            return Derived(task_id=task.id, outcome="base_broken", reason=reason)
    return None


def _did(runs: Sequence[Observed], passing: Collection[Status]) -> dict[str, _Did]:
    said: list[dict[str, Status]] = []
    for run in runs:
        said.append({})
        for nodeid, copies in originals(run).items():
            # An id that comes again passes only if all of them do.
            ways = [run.tests[copy] for copy in copies]
            said[-1][nodeid] = next((way for way in ways if way not in passing), ways[0])
    found = {}
    for nodeid in dict.fromkeys(nodeid for one in said for nodeid in one):
        statuses: list[Status] = [one.get(nodeid, "missing") for one in said]
        passed = [status in passing for status in statuses]
        found[nodeid] = _Did(
            passes=all(passed),
            flaky=any(passed) and not all(passed),
            skipped="skipped" in statuses,
            there=any(status != "missing" for status in statuses),
        )
    return found


def _proved(task: Task, derived: Derived, gold: Sequence[Observed]) -> Derived:
    """Only what makes the gold patch ``resolved`` is of use."""
    asked = replace(
        task,
        fail_to_pass=derived.fail_to_pass,
        pass_to_pass=derived.pass_to_pass,
        flaky=derived.flaky,
    )
    nothing = replace(derived, fail_to_pass=(), pass_to_pass=(), none_to_pass=(), skip_to_pass=())
    for run in gold:
        errors = list(run.collection_errors)
        verdict = grade(asked, "gold", run)
        if errors:
            reason = f"with the gold patch, {errors[0]} cannot be collected, so nothing is run"
            return replace(nothing, outcome="gold_broken", reason=reason)
        if run.end != "finished":
            reason = f"with the gold patch, the tests do not run to their end: {run.end}"
            return replace(nothing, outcome="gold_broken", reason=reason)
        if derived.fail_to_pass and not verdict.resolved:
            reason = f"the gold patch is {verdict.outcome}: {verdict.reason}"
            return replace(nothing, outcome="gold_broken", reason=reason)
    if derived.fail_to_pass:
        return derived
    if derived.pass_to_pass:
        reason = "no test fails at the base and passes with the gold patch, each time"
        return replace(nothing, outcome="gold_broken", reason=reason)
    reason = "no test passes, neither at the base nor with gold: is its environment right?"
    return replace(nothing, outcome="base_broken", reason=reason)
