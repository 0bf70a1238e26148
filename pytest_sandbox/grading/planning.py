"""From a task and a tree to the run of it, and the key of what comes out. Starts nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from pytest_sandbox import assemble, baseline, plan
from pytest_sandbox.errors import BadInput
from pytest_sandbox.grading.compose import Composed, Unfit, compose, with_tests
from pytest_sandbox.grading.model import Candidate, Task
from pytest_sandbox.grading.repositories import Repositories
from pytest_sandbox.protection import Protection
from pytest_sandbox.provider import Provider
from pytest_sandbox.workspace import Tree, Workspace

#: Part of every key: verdicts that an older version gave are not reused.
_FORMAT = "2"


#: Options that are arguments of their own, or no matter of grading.
_NOT_TAKEN = frozenset({"provider", "repo", "base", "patch", "artifact", "artifact_dir"})


def check(options: Mapping[str, Any], *counts: tuple[str, object, int]) -> None:
    """Refuse what can only be a mistake of the caller.

    Args:
        options: by name, as ``run_tests`` takes them.
        counts: (name, value, the least it may be) of whole numbers.

    Raises:
        BadInput: naming it.
    """
    for name, value, least in counts:
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise BadInput(f"{name} is a whole number of {least} or more, not {value!r}")
    unknown = sorted(set(options) - (set(assemble.OPTION_NAMES) - _NOT_TAKEN))
    if unknown:
        raise BadInput(f"Grader has no option {unknown[0]!r}")
    assemble.resolver(options.get, {}, {})({})


@dataclass(frozen=True, slots=True)
class _Ground:
    """What all candidates of a task have in common."""

    base: Tree
    #: The base with the task's tests.
    trusted: Tree
    #: The run of ``trusted``.
    run: plan.Run
    unprotect: Sequence[str]


class Planner:
    """Makes runs for one provider. Its methods take a while and may be called from threads.

    Args:
        options: those of ``run_tests``; a task's own come first.

    Raises:
        BadInput: an option is no matter of grading.
    """

    def __init__(
        self, repositories: Repositories, provider: Provider, options: Mapping[str, Any]
    ) -> None:
        if options.get("split") not in (None, 1, "1"):
            raise BadInput(
                "split shares one suite among sandboxes; candidates are graded at the same time "
                "by workers"
            )
        self._repositories = repositories
        self._provider = provider
        self._options = options
        self._grounds: dict[tuple[str, str | None], _Ground] = {}

    def candidate(
        self, task: Task, candidate: Candidate, *, unprotect: Sequence[str] = ()
    ) -> tuple[plan.Run, Composed]:
        """The run of a candidate, as it is graded.

        Args:
            unprotect: globs of more files that run as the candidate has them.

        Raises:
            Unfit: there is nothing to run, with the outcome.
            BadInput: the task cannot be run.
        """
        ground = self._ground(task)
        made = compose(
            ground.run.workspace, task, candidate, ground.base, ground.trusted,
            unprotect=(*ground.unprotect, *unprotect),
        )  # fmt: skip
        run = replace(
            ground.run, name=f"{candidate.name} for {task.id}", candidate=made.protection.scored,
            protection=made.protection,
        )  # fmt: skip
        return run, made

    def _ground(self, task: Task) -> _Ground:
        """Found out once a task: a branch that moves meanwhile does not move its candidates."""
        name = (task.repo, identity(task, None)["task"])
        if name not in self._grounds:
            workspace = self._repositories.workspace(task.repo, task.base)
            resolve = assemble.resolver(lambda name: self._options.get(name), {}, {})
            base = workspace.commit(task.base)
            trusted = with_tests(workspace, task, base)
            run = self._made(workspace, task, Protection(tree=trusted, scored=trusted))
            self._grounds[name] = _Ground(base, trusted, run, resolve({})["unprotect"])
        return self._grounds[name]

    def trusted(self, task: Task) -> tuple[Tree, Tree | None]:
        """The base with the task's tests, and that with its gold patch, where it can be had.

        Raises:
            Unfit, BadInput: the task cannot be run.
        """
        ground = self._ground(task)
        if task.gold is None:
            return ground.trusted, None
        gold = Candidate(task_id=task.id, name="gold", patch=task.gold, source=task.source)
        try:
            run, _ = self.candidate(task, gold)
        except Unfit:
            return ground.trusted, None
        return ground.trusted, run.candidate

    def base(self, task: Task, *, tests: bool) -> plan.Run:
        """The run of the base as it is, or with the task's test patch.

        Raises:
            Unfit, BadInput: the task cannot be run.
        """
        ground = self._ground(task)
        tree = ground.trusted if tests else ground.base
        name = f"base{' with tests' if tests else ''} of {task.id}"
        return replace(ground.run, name=name, candidate=tree, protection=None, witness={})

    def _made(self, workspace: Workspace, task: Task, made: Protection) -> plan.Run:
        options = {**self._options, **_options(task)}
        run, _ = assemble.make_run(
            workspace,
            assemble.resolver(lambda name: options.get(name), {}, {}),
            lambda name: self._provider.able,
            patch=None,
            base=task.base,
            read_ini=False,
            compose=lambda base: made,
            provider=self._provider.name,
            args=task.args,
        )
        if task.workdir is None or run.image is None:
            return run
        run = replace(run, workdir=task.workdir)
        return run if task.setup else replace(run, environment=_of_the_image(run))


def _of_the_image(run: plan.Run) -> plan.Environment:
    """The environment that the image's repository was built in."""
    found = run.environment
    content = f"{run.image} {run.workdir} {found.interpreter.path}".encode()
    setup = replace(found.setup, commands=(), inputs=(), reason="the image has its environment")
    return replace(found, setup=setup, key=hashlib.sha256(content).hexdigest())


def _options(task: Task) -> dict[str, Any]:
    """The task's word on options; nothing where it has none."""
    found: Mapping[str, Any] = {
        "setup": list(task.setup),
        "setup_inputs": list(task.setup_inputs),
        "build": list(task.build),
        "python": task.python,
        "image": task.image,
        "env": [f"{name}={value}" for name, value in task.env.items()],
        "network": "on" if task.network else None,
        "timeout": task.timeout,
        "memory": task.memory,
        "cpu": task.cpus,
    }
    return {name: value for name, value in found.items() if value not in (None, [])}


def key(task: Task, run: plan.Run) -> str:
    """All that a verdict depends on, and no name of anybody's."""
    content = [
        _FORMAT, *baseline.decisive(run), run.integrity, list(task.fail_to_pass),
        list(task.pass_to_pass), list(task.flaky), task.ids, task.profile,
        msgspec.to_builtins(task.log), *_closer(task, run),
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _closer(task: Task, run: plan.Run) -> list[Any]:
    """What else decides with integrity "full"."""
    if run.integrity != "full":
        return []
    return [
        None if task.gold is None else task.gold.hex(), list(task.differential),
        task.differential_setup, [[p, text.hex()] for p, text in sorted(task.held_out.items())],
    ]  # fmt: skip


def identity(task: Task, patch: bytes | None) -> dict[str, str | None]:
    """What a verdict is about, in two digests: the task, wherever it lies, and the patch."""
    content = {
        name: value
        for name, value in msgspec.to_builtins(task).items()
        # Paths of one machine, and what only reports carry.
        if name not in ("source", "repo", "extra")
    }
    text = json.dumps(content, sort_keys=True).encode()
    return {
        "task": hashlib.sha256(text).hexdigest()[:32],
        "patch": None if patch is None else hashlib.sha256(patch).hexdigest(),
    }
