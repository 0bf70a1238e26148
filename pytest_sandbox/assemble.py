"""From what the user asked for to a ``Run``: the one place where options become decisions."""

from __future__ import annotations

import glob
import os
import posixpath
import re
import shlex
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import platformdirs

from pytest_sandbox import environment, fallback, ini, interpreters, plan
from pytest_sandbox.errors import BadInput, PatchError
from pytest_sandbox.inside import Host
from pytest_sandbox.ledger import Ledger
from pytest_sandbox.options import OPTIONS, resolve
from pytest_sandbox.protection import Protection, protect
from pytest_sandbox.provider import Capabilities
from pytest_sandbox.store import PreparedStore
from pytest_sandbox.witness import libraries
from pytest_sandbox.workspace import Tree, Workspace

#: What a patch may be at most; anything larger is no patch a person or model wrote.
_MAX_PATCH = 50 * plan.MiB

#: Builds that take a version from git. Not "git" alone, which is in every address at GitHub.
_ASKS_GIT = re.compile(
    rb"[_-]scm\b|[_-]vcs\b|versioneer|versioningit|dunamai|dynamic-versioning|\bpbr\b"
    rb"|git-versioning|[\"']git[\"' ]"
)

OPTION_NAMES = tuple(option.name for option in OPTIONS)

Resolve = Callable[[Mapping[str, Any]], dict[str, Any]]


class TreeFiles:
    """A tree as the project's files, for reading configuration as data."""

    def __init__(self, workspace: Workspace, tree: Tree) -> None:
        self._workspace = workspace
        self._tree = tree

    def read(self, path: str) -> bytes | None:
        return self._workspace.read(self._tree, path)

    def names(self) -> Collection[str]:
        return self._names

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(
            entry.path.decode("utf-8", "surrogateescape")
            for entry in self._workspace.files(self._tree)
        )


def host() -> Host:
    """This machine's ledger and store."""
    state = platformdirs.user_state_path("pytest-sandbox")
    cache = platformdirs.user_cache_path("pytest-sandbox")
    return Host(
        Ledger(state / "ledger"),
        PreparedStore(cache / "prepared"),
        tuple(option.key for option in OPTIONS if option.ini),
        cache / "durations",
        cache / "baselines",
    )


def make_run(
    workspace: Workspace,
    resolve_with: Resolve,
    capabilities: Callable[[str], Capabilities],
    *,
    patch: tuple[str, bytes] | None,
    base: str | None,
    read_ini: bool,
    compose: Callable[[Tree], Tree | Protection] | None = None,
    provider: str | None = None,
    args: Sequence[str] = (),
    cwd: str = "",
    columns: int = 80,
    live: bool = False,
    directory: Path | None = None,
    environ: Mapping[str, str] = os.environ,
) -> tuple[plan.Run, dict[str, Any]]:
    """The run, and the options it was made from.

    Args:
        patch: its name and content.
        capabilities: of the provider of that name.
        resolve_with: gives every option's value, taking the repository's ini keys.
        compose: what to run, made of the base, instead of a patch: a tree that is trusted, or
            one to score.
        provider: the one of several to make the run for; the first when None.
        read_ini: the repository's own ``sandbox_*`` keys count, as they are at the base.
        directory: what relative paths in options are relative to.

    Raises:
        BadInput: with nothing started.
    """
    trusted, candidate = _trees(workspace, patch is not None or compose is not None, base)
    files = TreeFiles(workspace, trusted)
    keys = ini.sandbox_keys(files) if read_ini else {}
    options = resolve_with(keys)
    engine = provider or fallback.names(options["provider"])[0]
    able = replace(capabilities(engine), **account(options))
    if options["split"] > 1 and options["artifact"]:
        raise BadInput(
            "--sandbox-split and --sandbox-artifact do not go together: each sandbox has files of "
            "its own, by the same names; leave one of them out"
        )
    if os.sep in str(keys.get("sandbox_python", "")):
        raise BadInput(
            "the repository's ini sets sandbox_python to a path; an ini can name a version such "
            "as 3.12 only, as a Python at a path of its choice would be run on this machine"
        )
    if patch is not None:
        name, content = patch
        applied = workspace.apply(trusted, content, name=name, tolerance=options["patch_tolerance"])
        candidate = applied.tree
        if applied.how != "strict":
            candidate = replace(candidate, label=f"{candidate.label} ({applied.how})")
    protection = None
    if compose is not None:
        made = compose(trusted)
        protection = made if isinstance(made, Protection) else None
        candidate = made.scored if isinstance(made, Protection) else made
    elif candidate is not trusted:
        targets = _targets([*args, *shlex.split(options["pytest_args"])], cwd, files)
        protection = protect(
            workspace, trusted, candidate,
            restore=[glob.escape(path) for path in targets], unprotect=options["unprotect"],
        )  # fmt: skip
        candidate = protection.tree
    run = plan.Run(
        name=candidate.label,
        workspace=workspace,
        base=trusted,
        candidate=candidate,
        protection=protection,
        integrity=options["integrity"],
        witness=libraries() if options["integrity"] == "full" and protection is not None else {},
        environment=_environment(
            {**options, "provider": engine},
            files,
            trusted,
            able,
            directory or Path.cwd(),
            environ,
            workspace.root,
        ),
        args=(*args, *shlex.split(options["pytest_args"])),
        cwd=cwd,
        build=options["build"],
        env=dict(variables(options["env"], environ)),
        network=options["network"],
        history=options["history"],
        limits=limits(options, able),
        artifacts=options["artifact"],
        image=options["image"],
        region=options["region"],
        price=options["price"],
        retries=options["retries"],
        split=options["split"],
        keep=options["keep"],
        live=live,
        columns=columns,
    )
    return run, options


def _targets(args: Sequence[str], cwd: str, files: TreeFiles) -> Iterator[str]:
    """The trusted files that the arguments name: tests, or what configures them."""
    doctests = "--doctest-modules" in f"{args} {ini.pytest_keys(files).get('addopts')}"
    for argument in args:
        path = posixpath.normpath(posixpath.join(cwd, argument.partition("::")[0]))
        # With doctests, a module may be what is tested; what is a test by name is one anyway.
        if path in files.names() and not (doctests and path.endswith(".py")):
            yield path


def _trees(workspace: Workspace, patched: bool, base: str | None) -> tuple[Tree, Tree]:
    if not workspace.is_repository:
        if base is not None:
            raise BadInput(f"{workspace.root} is not a git repository: it has no revision {base!r}")
        tree = workspace.working_tree()
        return tree, tree
    if patched:
        tree = workspace.commit(base or "HEAD")
        return tree, tree
    if workspace.root is None:
        if base is None:
            raise BadInput("a bare repository has no working tree: name a --sandbox-base")
        tree = workspace.commit(base)
        return tree, tree
    if base is not None:
        return workspace.commit(base), workspace.working_tree()
    tree = workspace.working_tree()
    return tree, tree


def _environment(
    options: Mapping[str, Any],
    files: TreeFiles,
    tree: Tree,
    capabilities: Capabilities,
    directory: Path,
    environ: Mapping[str, str],
    checkout: Path | None,
) -> plan.Environment:
    setup = environment.detect(files, commands=options["setup"], inputs=options["setup_inputs"])
    secrets = dict(variables(options["setup_secret"], environ))
    if not capabilities.host_paths and options["venv"] is None:
        interpreter = interpreters.of_the_sandbox(options["python"])
        return _prepared(options, files, tree, setup, interpreter, secrets)
    if options["venv"] is not None:
        venv = interpreters.read_venv(Path(directory, options["venv"]), checkout=checkout)
        setup = replace(setup, commands=(), reason=f"the environment {venv.path} is reused")
        return plan.Environment(interpreter=venv.interpreter, setup=setup, venv=venv)
    python = options["python"]
    if python is not None and os.sep in python:
        python = str(Path(directory, python))
    interpreter = interpreters.find_interpreter(python, checkout=checkout)
    return _prepared(options, files, tree, setup, interpreter, secrets)


def _prepared(
    options: Mapping[str, Any],
    files: TreeFiles,
    tree: Tree,
    setup: environment.Setup,
    interpreter: interpreters.Interpreter,
    secrets: Mapping[str, str],
) -> plan.Environment:
    key = environment.setup_key(
        setup,
        files,
        interpreter=interpreter.identity,
        engine=options["provider"],
        extra={
            "secrets": ",".join(sorted(secrets)),
            "history": _history_identity(options, files, tree),
            "tree": tree.id if "*" in setup.inputs else "",
            "image": options["image"] or "",
        },
    )
    return plan.Environment(interpreter=interpreter, setup=setup, key=key, secrets=secrets)


def _history_identity(options: Mapping[str, Any], files: TreeFiles, tree: Tree) -> str:
    """What set-up sees of git, where the build asks git for the version."""
    build = [files.read(name) or b"" for name in ("pyproject.toml", "setup.py", "setup.cfg")]
    asks = any(_ASKS_GIT.search(text) for text in build)
    return f"{options['history']} {tree.commit}" if asks else ""


def variables(pairs: Sequence[str], environ: Mapping[str, str]) -> list[tuple[str, str]]:
    """NAME=VALUE pairs taken apart; a bare NAME takes its value from ``environ``.

    Raises:
        BadInput: a bare NAME is not set.
    """
    result = []
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            if name not in environ:
                raise BadInput(
                    f"the environment variable {name} is to be passed on, but is not set"
                )
            value = environ[name]
        result.append((name, value))
    return result


def account(options: Mapping[str, Any]) -> dict[str, Any]:
    """What the options say of the account with a provider: fields of ``Capabilities``."""
    fields = {"concurrency": "concurrency", "create_rate": "create_rate",
              "max_lifetime": "max_ttl"}  # fmt: skip
    return {field: options[name] for name, field in fields.items() if options[name] is not None}


def limits(options: Mapping[str, Any], capabilities: Capabilities) -> plan.Limits:
    """The limits among the options."""
    run = plan.Limits().run
    if capabilities.max_ttl is not None:
        around = plan.lifetime(plan.Limits(run=0.0, collect=options["collect_timeout"]))
        run = max(60.0, min(run, capabilities.max_ttl - around))
    return plan.Limits(
        run=options["timeout"] or run,
        test=options["test_timeout"],
        collect=options["collect_timeout"],
        setup=options["setup_timeout"],
        memory=options["memory"],
        cpus=options["cpu"],
        processes=options["processes"],
        disk=options["disk"],
    )


def read_patch(name: str, directory: Path) -> tuple[str, bytes]:
    """The patch called ``name`` and its content; '-' is standard input.

    Raises:
        BadInput: there is no such file.
        PatchError: it is too large to be a patch.
    """
    try:
        if name == "-":
            name, data = "standard input", sys.stdin.buffer.read(_MAX_PATCH + 1)
        else:
            with Path(directory, name).open("rb") as file:
                data = file.read(_MAX_PATCH + 1)
    except OSError as error:
        raise BadInput(f"--sandbox-patch {name}: {error.strerror or error}") from None
    if len(data) > _MAX_PATCH:
        raise PatchError("refused", f"{name}: larger than {_MAX_PATCH // plan.MiB} MiB")
    return PurePosixPath(name).name, data


def resolver(
    cli: Callable[[str], Any], marker: Mapping[str, Any], environ: Mapping[str, str]
) -> Resolve:
    return lambda keys: resolve(cli=cli, marker=marker, environ=environ, ini=keys)
