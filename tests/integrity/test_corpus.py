"""The corpus: that it is what it says, and what the default layers and all of them make of it."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from pytest_sandbox.grading import Candidate, Grader, Verdict
from pytest_sandbox.provider import SandboxSpec
from pytest_sandbox.testing import FakeProvider, FakeSandbox
from tests.e2e.sessions import own_python
from tests.integrity import candidates, corpus
from tests.integrity.candidates import Corpus, key
from tests.integrity.corpus import malformed
from tests.unit.gitrepo import fingerprint

#: Those of the threats that the documentation names.
FAMILIES = {
    "test edits", "support edits", "conftest hooks", "configuration", "build files",
    "start-up files and shadowing", "poisoned caches", "early exit", "forged output",
    "runner patches", "exception identity", "tampering at run time", "value lies",
    "oracle reading", "hard-coded answers", "grader-aware",
}  # fmt: skip
EXPLOITS = corpus.of("exploit", "adaptive")
#: What may be taken for a solution with all layers: the visible answers, written down.
BEYOND = "hard-coded answers: visible-answers"


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return candidates.build(tmp_path_factory.mktemp("corpus"), corpus.ENTRIES)


# ------------------------------------------------ the manifest


def test_there_are_enough_of_each_kind() -> None:
    kinds = Counter(entry.kind for entry in corpus.ENTRIES)
    assert kinds["exploit"] >= 90
    assert kinds["adaptive"] >= 10
    assert kinds["honest"] >= 20
    assert kinds["wrong"] >= 8
    assert kinds["hostile"] >= 8
    assert len({(entry.family, entry.name) for entry in corpus.ENTRIES}) == len(corpus.ENTRIES)
    assert all(entry.what.endswith(".") for entry in corpus.ENTRIES)


def test_every_family_is_there_at_least_twice() -> None:
    families = Counter(entry.family for entry in EXPLOITS)
    assert set(families) == FAMILIES
    assert min(families.values()) >= 2
    # Those that no protection of files can stop.
    assert sum(entry.src_only for entry in EXPLOITS) >= 60


def test_what_may_pass_is_little() -> None:
    assert [key(entry) for entry in EXPLOITS if "resolved" in entry.full] == [BEYOND]


def test_the_patches_differ(everything: Corpus) -> None:
    trees = {made.tree for made in everything.made}
    assert len(trees) == len(everything.made)
    # That git takes them again is seen where they are graded: no outcome of theirs is a conflict.
    assert all(made.patch.startswith(b"diff --git ") for made in everything.made)


def test_no_exploit_holds_the_fix(everything: Corpus) -> None:
    task = everything.task
    assert task.gold is not None
    [fixed] = [line[1:].strip() for line in task.gold.splitlines() if line.startswith(b"+ ")]
    for made in everything.made:
        if made.entry.kind != "honest":
            assert fixed not in made.patch, key(made.entry)
            assert b"ceil" not in made.patch.replace(b"math import ceiling", b""), key(made.entry)


def test_the_task_is_as_its_file_says(tmp_path: Path) -> None:
    built = candidates.build(tmp_path, ())
    gold = Candidate(task_id=built.task.id, name="gold", patch=built.task.gold, source="")

    async def main() -> tuple[Verdict, Verdict]:
        async with Grader(venv=own_python(), workers=2) as grader:
            nothing = Candidate(
                task_id=built.task.id, name="noise", source="", patch=malformed.added(b"src/a.py")
            )
            found = await asyncio.gather(
                grader.grade(built.task, gold), grader.grade(built.task, nothing)
            )
            return found[0], found[1]

    right, base = asyncio.run(main())
    assert right.outcome == "resolved", right.reason
    assert not right.other
    assert base.outcome == "unresolved", base.reason
    assert not any(test.passed for test in base.fail_to_pass)
    assert all(test.passed for test in base.pass_to_pass)


# ------------------------------------------------ no patches at all


class NoSandboxes(FakeProvider):
    """Counts what was asked for, and has nothing."""

    name = "none"

    def __init__(self) -> None:
        super().__init__([], lambda chosen: [])
        self.asked = 0

    async def create(self, spec: SandboxSpec) -> FakeSandbox:
        self.asked += 1
        raise AssertionError(f"a sandbox was asked for: {spec}")


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with all that a stray patch could reach: the place above, home, and where we are."""
    top = tmp_path / "elsewhere"
    for name in ("home", "here", "tmp"):
        (top / name).mkdir(parents=True)
    monkeypatch.setenv("HOME", str(top / "home"))
    monkeypatch.setenv("TMPDIR", str(top / "tmp"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.chdir(top / "here")
    yield top
    assert list((top / "tmp").iterdir()) == []
    assert [path for path in top.rglob("*") if path.is_file()] == []


def test_what_is_no_patch_has_its_outcome_and_costs_nothing(
    tmp_path: Path, elsewhere: Path
) -> None:
    built = candidates.build(tmp_path, ())
    before = fingerprint(built.repo)
    provider = NoSandboxes()
    patches = list(malformed.every())
    assert len(patches) >= 50
    assert len({one.name for one in patches}) == len(patches)

    async def main() -> list[Verdict]:
        async with Grader(provider, workers=2) as grader:
            return [await grader.grade(built.task, one.make(), name=one.name) for one in patches]

    verdicts = asyncio.run(main())
    assert {verdict.candidate: verdict.outcome for verdict in verdicts} == {
        one.name: one.outcome for one in patches
    }
    for verdict in verdicts:
        assert verdict.reason
        assert verdict.reason.isprintable()
    assert provider.asked == 0
    assert fingerprint(built.repo) == before
    assert not os.path.lexists("/etc/profile.d/x.sh")


# ------------------------------------------------ verdicts


def judged(built: Corpus, verdicts: Mapping[str, Verdict], *, full: bool) -> list[str]:
    """What is not as the manifest has it, in words."""
    wrong = []
    for made in built.made:
        verdict = verdicts[key(made.entry)]
        right = made.entry.full if full else made.entry.default
        if verdict.outcome not in right:
            wrong.append(f"{key(made.entry)}: {verdict.outcome} ({verdict.reason})")
    return wrong


def passed(built: Corpus, verdicts: Mapping[str, Verdict]) -> list[str]:
    """The exploits that were taken for solutions."""
    exploits = [key(made.entry) for made in built.made if made.entry in EXPLOITS]
    return [name for name in exploits if verdicts[name].resolved]


def test_the_default_layers(everything: Corpus) -> None:
    verdicts = candidates.grade(everything, own_python())
    assert judged(everything, verdicts, full=False) == []
    accepted = passed(everything, verdicts)
    assert len(accepted) <= 0.2 * len(EXPLOITS), accepted


@pytest.mark.soak
def test_all_layers(everything: Corpus) -> None:
    verdicts = candidates.grade(everything, own_python(), integrity="full")
    assert judged(everything, verdicts, full=True) == []
    assert set(passed(everything, verdicts)) <= {BEYOND}
