"""Tasks made of real projects: bugs are seeded in a release, and patches deal with them or do not.

What decides a task comes from direct runs of pytest, never from what is tested. Knows no grader.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pytest_sandbox.grading.model import Candidate, Outcome, Task
from tests import fixture_repos, pypi
from tests.direct import run_direct
from tests.fixture_repos import git
from tests.interpreters import environment

#: A file, a text in it, and what stands there instead.
Edit = tuple[str, str, str]

#: What becomes of each candidate of every task.
OUTCOMES: Mapping[str, Outcome] = {
    "gold": "resolved",
    "empty": "empty",
    "partial": "partially_resolved",
    "other half": "partially_resolved",
    "regressing": "regressed",
    "conflict": "conflict",
    "malformed": "malformed",
}
#: Those that are run.
RUN = ("gold", "partial", "other half", "regressing")


@dataclass(frozen=True, slots=True)
class Seeded:
    """A project, two bugs to be put in it, and a mistake to be made on the way to mending them."""

    name: str
    #: None for a fixture repository, whose good patch makes the release.
    project: pypi.Project | None
    bugs: tuple[Edit, Edit]
    mistake: Edit
    args: tuple[str, ...] = ()
    pytest: str = "pytest==9.0.2"

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Made:
    """A task with its candidates, and what a direct run says of each that can be run."""

    task: Task
    repo: Path
    venv: Path
    candidates: tuple[Candidate, ...]
    #: Expected ids that do not pass, by candidate.
    failing: Mapping[str, frozenset[str]]


ASYNCSVC = Seeded(
    "asyncsvc", None,
    (("asyncsvc/server.py", 'line.split() or [""]', "line.split()"),
     ("asyncsvc/server.py", '" ".join(words[1:])', "words[1]")),
    ("asyncsvc/server.py", "len(words) == 1", "len(words) >= 1"),
)  # fmt: skip
CALC = Seeded(
    "calc", None,
    (("src/calc/arithmetic.py", "return int(a // b)", "return int(a / b)"),
     ("src/calc/expression.py", "return -self.sign()", "return self.sign()")),
    ("src/calc/arithmetic.py", "return div(1, power(base, -exponent))", "return 0"),
)  # fmt: skip
ITSDANGEROUS = Seeded(
    "itsdangerous", pypi.ITSDANGEROUS,
    (("src/itsdangerous/encoding.py", r'lstrip(b"\x00")', r'lstrip(b"\x01")'),
     ("src/itsdangerous/encoding.py", '.rstrip(b"=")', "")),
    ("src/itsdangerous/encoding.py",
     'raise BadData("Invalid base64-encoded data") from e', "raise"),
    ("tests/test_itsdangerous/test_encoding.py", "tests/test_itsdangerous/test_signer.py"),
)  # fmt: skip
CACHETOOLS = Seeded(
    "cachetools", pypi.CACHETOOLS,
    (("src/cachetools/keys.py", "key += tuple(type(v) for v in args)", "key += ()"),
     ("src/cachetools/__init__.py",
      "self.__order.move_to_end(key, last=False)", "self.__order.move_to_end(key)")),
    ("src/cachetools/__init__.py", "return self.__choice\n", "return None\n"),
    tuple(f"tests/test_{name}.py" for name in ("keys", "lru", "fifo", "mru", "rr")),
)  # fmt: skip
MORE_ITERTOOLS = Seeded(
    "more-itertools", pypi.MORE_ITERTOOLS,
    (("more_itertools/recipes.py",
      "return next(islice(iterable, n, None), default)",
      "return next(islice(iterable, n + 1, None), default)"),
     ("more_itertools/recipes.py",
      "cycle(islice(iterators, num_active))", "cycle(islice(iterators, num_active + 1))")),
    ("more_itertools/recipes.py",
     "return list(islice(iterable, n))\n", "return list(islice(iterable, n + 1))\n"),
    ("tests/test_recipes.py",),
)  # fmt: skip
TOOLZ = Seeded(
    "toolz", pypi.TOOLZ,
    (("toolz/itertoolz.py",
      "itertools.islice(seq, 0, None, n)", "itertools.islice(seq, 1, None, n)"),
     ("toolz/itertoolz.py", "return tail(1, seq)[0]", "return tail(2, seq)[0]")),
    ("toolz/itertoolz.py",
     "return itertools.chain([el], seq)", "return itertools.chain(seq, [el])"),
    ("toolz/tests/test_dicttoolz.py", "toolz/tests/test_itertoolz.py"),
)  # fmt: skip
BOLTONS = Seeded(
    "boltons", pypi.BOLTONS,
    (("boltons/mathutils.py", "return min(max(x, lower), upper)", "return max(x, lower)"),
     ("boltons/strutils.py",
      "return newline.join(indented_lines)", "return ''.join(indented_lines)")),
    ("boltons/strutils.py", "    return cleaned\n", "    return text\n"),
    ("tests/test_mathutils.py", "tests/test_strutils.py"),
    "pytest==8.4.2",
)  # fmt: skip
ALL = (ASYNCSVC, CALC, ITSDANGEROUS, CACHETOOLS, MORE_ITERTOOLS, TOOLZ, BOLTONS)


def make(seeded: Seeded, folder: Path) -> Made:
    """The task in a repository in ``folder``, which has to be empty.

    Raises:
        AssertionError: a bug or the mistake does not do what the task needs.
    """
    repo, pythonpath, requires = _release(seeded, folder)
    fixed = git(repo, "rev-parse", "HEAD").stdout.strip()
    for bug in seeded.bugs:
        _edit(repo, bug)
    git(repo, "commit", "-q", "-a", "-m", "Changes")
    python = environment(f"{sys.version_info[0]}.{sys.version_info[1]}", (seeded.pytest, *requires))
    patches = _patches(repo, fixed, seeded)

    def run() -> frozenset[str]:
        return _passing(repo, python, seeded.args, pythonpath)

    before = run()
    passing = {name: _with(repo, patches[name], run) for name in RUN}
    gold = passing["gold"]
    fail_to_pass, pass_to_pass = sorted(gold - before), sorted(gold & before)
    halves = [set(gold - passing[name]) for name in ("partial", "other half")]
    assert all(halves), f"tests of {seeded} see one of the bugs only"
    assert not halves[0] & halves[1], f"a test of {seeded} needs both bugs mended"
    assert before & gold - passing["regressing"], f"tests of {seeded} do not see the mistake"
    task = Task(
        id=f"{seeded.name}-1",
        source="here",
        repo=str(repo),
        base="HEAD",
        args=seeded.args,
        env={"PYTHONPATH": ":".join(pythonpath)} if pythonpath else {},
        fail_to_pass=tuple(fail_to_pass),
        pass_to_pass=tuple(pass_to_pass),
        gold=patches["gold"],
    )
    candidates = tuple(
        Candidate(task_id=task.id, name=name, patch=patch, source="here")
        for name, patch in patches.items()
    )
    failing = {name: frozenset(gold - passed) for name, passed in passing.items()}
    return Made(task, repo, python.parent.parent, candidates, failing)


def _release(seeded: Seeded, folder: Path) -> tuple[Path, tuple[str, ...], tuple[str, ...]]:
    """The repository as it should be, its PYTHONPATH, and what its tests need."""
    if seeded.project is not None:
        project = seeded.project
        return project.make(folder), project.pythonpath, project.requires
    loaded = fixture_repos.load(seeded.name)
    repo = loaded.make(folder)
    git(repo, "apply", str(loaded.patches["good.patch"]))
    git(repo, "commit", "-q", "-a", "-m", "As it should be")
    expected = loaded.expected
    return repo, tuple(expected["pythonpath"]), tuple(expected["requires"])


def _edit(repo: Path, edit: Edit) -> None:
    name, old, new = edit
    text = (repo / name).read_text("utf-8")
    assert old in text, f"{name} has no {old!r}"
    (repo / name).write_text(text.replace(old, new, 1), "utf-8")


def _patches(repo: Path, fixed: str, seeded: Seeded) -> dict[str, bytes]:
    """Each candidate's; the repository stays as it is."""
    first, second = seeded.bugs

    def leaving(*edits: Edit) -> bytes:
        """From the base to what is right but for these."""
        git(repo, "checkout", "-q", fixed, "--", ".")
        for edit in edits:
            _edit(repo, edit)
        made = git(repo, "diff", "HEAD").stdout.encode()
        git(repo, "checkout", "-q", "HEAD", "--", ".")
        return made

    gold = leaving()
    # Lines that the base does not have, round the place that has to change.
    name, old, new = first
    lines = f"-before\n-{new.strip()}\n+{old.strip()}\n after\n"
    return {
        "gold": gold,
        "empty": b"",
        "partial": leaving(second),
        "other half": leaving(first),
        "regressing": leaving(seeded.mistake),
        "conflict": (
            f"diff --git a/{name} b/{name}\n--- a/{name}\n+++ b/{name}\n@@ -1,3 +1,2 @@\n{lines}"
        ).encode(),
        # Cut in the middle of its last hunk.
        "malformed": gold.rstrip(b"\n").rpartition(b"\n")[0].rpartition(b"\n")[0] + b"\n",
    }


def _with(repo: Path, patch: bytes, run: Callable[[], frozenset[str]]) -> frozenset[str]:
    done = repo.parent / f"{repo.name}.patch"
    done.write_bytes(patch)
    git(repo, "apply", str(done))
    try:
        return run()
    finally:
        git(repo, "checkout", "-q", "HEAD", "--", ".")


def _passing(
    repo: Path, python: Path, args: tuple[str, ...], pythonpath: tuple[str, ...]
) -> frozenset[str]:
    done = run_direct(repo, str(python), ["-p", "no:cacheprovider", *args], pythonpath=pythonpath)
    assert done.finished, done.stdout + done.stderr
    return frozenset(nodeid for nodeid, labels in done.labels.items() if labels == ["passed"])
