"""What grading is about: tasks, candidates, verdicts. Frozen data; knows no pytest and no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pytest_sandbox.findings import Coverage, Finding

Outcome = Literal[
    "resolved", "partially_resolved", "unresolved", "regressed",
    "empty", "malformed", "conflict", "refused",
    "collection_error", "no_tests", "timeout", "crashed", "tampered", "unproven", "flaky",
    "base_broken", "gold_broken", "infra_error", "over_budget", "unsupported",
]  # fmt: skip

#: What happened to one test, in pytest's words; "missing" when nothing was reported of it.
Status = Literal["passed", "failed", "error", "skipped", "xfailed", "xpassed", "missing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """How SWE-bench itself runs an instance's tests and reads what they print."""

    #: "django/django", and the version of it that its tables have.
    repo: str
    version: str
    #: What the test command is given, in its own terms.
    files: tuple[str, ...] = ()
    #: The parser's name, and the whole script, where the data set has them.
    parser: str | None = None
    script: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One problem: a repository at a commit, how its tests run, and what a good patch does."""

    id: str
    #: Where it was read: "tasks/a.toml" or "verified.jsonl:12".
    source: str
    #: A path on this machine, or a URL git can fetch.
    repo: str
    #: Commit, tag or branch.
    base: str
    #: What the sandbox is made from, in the provider's terms.
    image: str | None = None
    #: Where the image holds the repository already, such as "/testbed".
    workdir: str | None = None
    setup: tuple[str, ...] = ()
    setup_inputs: tuple[str, ...] = ()
    build: tuple[str, ...] = ()
    python: str | None = None
    #: For pytest in the sandbox: files, options.
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    network: bool = False
    #: Adds or changes tests; applied after the candidate.
    test_patch: bytes | None = None
    #: Globs of files taken from the base, whatever the candidate did to them.
    restore: tuple[str, ...] = ()
    gold: bytes | None = None
    #: Tests that are only run, with integrity "full", once all others have passed: path to content.
    held_out: Mapping[str, bytes] = field(default_factory=dict)
    #: Expressions that come to the same with the gold patch, and statements that they need.
    differential: tuple[str, ...] = ()
    differential_setup: str = ""
    fail_to_pass: tuple[str, ...] = ()
    pass_to_pass: tuple[str, ...] = ()
    #: Tests that are known to give different results: never scored.
    flaky: tuple[str, ...] = ()
    #: Seconds, bytes, processors; None for the session's own.
    timeout: float | None = None
    memory: int | None = None
    cpus: float | None = None
    #: How ids of FAIL_TO_PASS and PASS_TO_PASS are matched to node ids: see ``matching``.
    ids: Literal["exact", "swebench"] = "exact"
    #: How candidates are applied: as ``--sandbox-patch-tolerance`` says, or as SWE-bench does.
    profile: Literal["strict", "swebench"] = "strict"
    #: Why it cannot be graded here; it stays in the denominator as ``unsupported``.
    unsupported: str | None = None
    #: Where ``unsupported`` is only so with our pytest: the official way.
    log: Log | None = None
    #: What the file holds beside, for reports: dataset, difficulty, version.
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A patch that claims to solve a task."""

    task_id: str
    #: The model's or the file's name.
    name: str
    #: None where nothing was predicted.
    patch: bytes | None
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What one run said, by node id, in order of collection. Comes from frames only."""

    tests: Mapping[str, Status]
    #: Collectors that failed: node id to what went wrong.
    collection_errors: Mapping[str, str] = field(default_factory=dict)
    #: Why the run ended, as ``wire.End.reason`` says.
    end: str = "finished"
    #: What was said of that, in a line.
    said: str = ""
    #: What the supervisor saw kill tests: "crash", "timeout", "memory", "output"; by node id.
    causes: Mapping[str, str] = field(default_factory=dict)
    #: What node ids are relative to: a folder of the repository, "" for its top.
    rootdir: str = ""
    seconds: float = 0.0
    #: What an honest run does not show.
    findings: tuple[Finding, ...] = ()
    #: What kept the tests from making results: "" where it was in force, else why it was not.
    layers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TestVerdict:
    """One expected test."""

    __test__ = False

    #: As the task has it.
    expected: str
    #: The node ids it was matched to.
    nodeids: tuple[str, ...]
    status: Status
    passed: bool
    #: Which rule matched, where it is not the id itself: "prefix of a parameter", ...
    rule: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of one candidate. ``infra_error`` and ``over_budget`` are never a score."""

    task_id: str
    candidate: str
    outcome: Outcome
    #: One sentence for people: why.
    reason: str = ""
    #: What else a person should know, a sentence each; no part of the score.
    notes: tuple[str, ...] = ()
    fail_to_pass: tuple[TestVerdict, ...] = ()
    pass_to_pass: tuple[TestVerdict, ...] = ()
    #: Tests that ran and are in neither list: shown, not scored.
    other: Mapping[str, Status] = field(default_factory=dict)
    #: How the patch applied: "strict", a tolerance, or a step of the profile.
    applied: str = ""
    #: "frames" (our protocol) or "log" (parsed from output; never reported as protected).
    evidence: Literal["frames", "log"] = "frames"
    #: What was seen that an honest run does not show, with the layer that saw it.
    findings: tuple[Finding, ...] = ()
    #: What kept the tests from making results: "" where it was in force, else why it was not.
    layers: Mapping[str, str] = field(default_factory=dict)
    #: How much of the run further layers could look at.
    coverage: tuple[Coverage, ...] = ()
    #: Provenance: commits, tree hashes, versions, seconds by phase, sandboxes, cost.
    record: Mapping[str, Any] = field(default_factory=dict)

    @property
    def resolved(self) -> bool:
        return self.outcome == "resolved"

    @property
    def scored(self) -> bool:
        """Whether it says something about the candidate."""
        return not self.pending and self.outcome not in (
            "unsupported", "base_broken", "gold_broken",
        )  # fmt: skip

    @property
    def pending(self) -> bool:
        """Whether the candidate was not graded, and will be by a session that goes on with it."""
        return self.outcome in ("infra_error", "over_budget")
