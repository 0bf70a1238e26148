"""The tree that is graded: the candidate's, with the tests of whoever set the task.

Nothing here is run, and a candidate that cannot be applied costs nothing.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pytest_sandbox.errors import PatchError
from pytest_sandbox.grading.model import Candidate, Outcome, Task
from pytest_sandbox.protection import Protection, named, protect
from pytest_sandbox.workspace import Tolerance, Tree, Workspace

#: What SWE-bench's harness tries, in this order. Never ``patch --fuzz`` itself, which writes .git.
SWEBENCH: tuple[Tolerance, ...] = ("strict", "whitespace", "fuzz")


class Unfit(Exception):
    """A candidate, or its task, has an outcome already."""

    def __init__(self, outcome: Outcome, reason: str) -> None:
        super().__init__(reason)
        self.outcome: Outcome = outcome
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Composed:
    """What is run, and how it came about."""

    protection: Protection
    #: "strict", or the tolerance the candidate took.
    applied: str


def compose(
    workspace: Workspace,
    task: Task,
    candidate: Candidate,
    base: Tree,
    trusted: Tree,
    *,
    unprotect: Sequence[str] = (),
) -> Composed:
    """The candidate on its base, with the task's tests.

    Args:
        trusted: the base with the task's tests.
        unprotect: globs of files that are run as the candidate has them after all.

    Raises:
        Unfit: nothing can be run; with the outcome.
    """
    if candidate.patch is None or not candidate.patch.strip():
        raise Unfit("empty", "there is no patch")
    try:
        applied = _apply(workspace, task, base, candidate)
    except PatchError as error:
        raise Unfit(error.outcome, str(error)) from error
    made = protect(
        workspace, base, applied[0], trusted=trusted,
        restore=(*task.restore, *map(glob.escape, set(_deciding(task)))), unprotect=unprotect,
    )  # fmt: skip
    if made.scored.id == trusted.id:
        raise Unfit("empty", f"nothing that is run is changed by it: {_instead(made)}")
    return Composed(made, applied[1])


def _deciding(task: Task) -> Iterator[str]:
    """The files whose tests decide, wherever they lie; doctests are part of the product.

    And those that pytest is given as arguments, such as its ini.
    """
    yield from (argument for argument in task.args if not argument.endswith(".py"))
    for node in (*task.fail_to_pass, *task.pass_to_pass):
        path, separator, name = node.partition("::")
        if separator and not (path.endswith(".py") and "." in name.partition("[")[0]):
            yield path


def _instead(made: Protection) -> str:
    """What became of all its changes."""
    lists = {
        "as trusted": made.restored,
        "not used": tuple(path for path, _ in made.dropped),
        "tests of its own": made.own_tests,
    }
    return "; ".join(f"{what}: {named(paths)}" for what, paths in lists.items() if paths)


def _apply(workspace: Workspace, task: Task, base: Tree, candidate: Candidate) -> tuple[Tree, str]:
    assert candidate.patch is not None
    name = f"{candidate.name} for {task.id}"
    ways: tuple[Tolerance, ...] = SWEBENCH if task.profile == "swebench" else ("strict",)
    for way in ways:
        try:
            applied = workspace.apply(base, candidate.patch, name=name, tolerance=way)
        except PatchError as error:
            if error.outcome == "conflict" and way != ways[-1]:
                continue
            raise
        return applied.tree, applied.how
    raise AssertionError("no way to apply a patch")


def with_tests(workspace: Workspace, task: Task, tree: Tree) -> Tree:
    """``tree`` with the task's test patch.

    Raises:
        Unfit: it does not apply, which is nobody's fault but the task's.
    """
    if task.test_patch is None or not task.test_patch.strip():
        return tree
    try:
        return workspace.apply(tree, task.test_patch, name=f"test_patch of {task.id}").tree
    except PatchError as error:
        raise Unfit("base_broken", f"the task's test_patch: {error}") from error
