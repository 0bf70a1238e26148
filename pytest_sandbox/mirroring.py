"""Sets mirror mode up: from the parsed command line to the plugin that carries it out."""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from _pytest.capture import CaptureManager

from pytest_sandbox import artifacts, assemble, fallback, guard, plan, protection, registry, sides
from pytest_sandbox.errors import BadInput
from pytest_sandbox.mirror import Mirror, Way
from pytest_sandbox.workspace import Workspace


def start(config: pytest.Config, *, notes: list[str], others: Any) -> None:
    """Make the run and register the plugin; nothing is started yet.

    Raises:
        SandboxError: the user's input cannot be used.
    """
    option = config.option
    defaults = config._parser.parse_known_args([], namespace=argparse.Namespace())
    refused = sides.refusal(option, defaults)
    if refused is not None:
        raise BadInput(refused)
    guard.silence_plugins(config)
    directory = config.invocation_params.dir
    cli = _command_line(option)
    early = assemble.resolver(cli, {}, os.environ)({})
    repo = Path(directory, early["repo"] or ".").resolve()
    named = early["repo"] is not None
    candidate = early["base"] is not None and early["patch"] is None
    workspace = Workspace.open(repo, untrusted=candidate, exact=named)
    try:
        patch = None
        if early["patch"] is not None:
            capture = config.pluginmanager.get_plugin("capturemanager")
            if early["patch"] == "-" and isinstance(capture, CaptureManager):
                # pytest has put /dev/null in place of standard input; back to the real one.
                capture.suspend_global_capture(in_=True)
            patch = assemble.read_patch(early["patch"], directory)
        root = workspace.root or repo
        here = directory.resolve()
        cwd = "" if named else plan.inside(root, here, "the current directory")

        def made(provider: str | None) -> tuple[plan.Run, dict[str, Any]]:
            return assemble.make_run(
                workspace,
                assemble.resolver(cli, {}, os.environ),
                lambda name: registry.factory(name, others)().capabilities,
                patch=patch,
                base=early["base"],
                read_ini=True,
                provider=provider,
                args=_arguments(option, defaults, root, root if named else here, here),
                cwd=cwd,
                columns=_columns(),
                live=option.capture == "no",
                directory=directory,
            )

        run, options = made(None)
        first, *others_named = fallback.names(options["provider"])
        runs = {first: run, **{name: made(name)[0] for name in others_named}}
        account = assemble.account(options)
        makers = {name: registry.factory(name, others, account) for name in runs}
        for name, planned in runs.items():
            plan.check(planned, name, makers[name]().able)
        folder = Path(directory, options["artifact_dir"])
        if run.artifacts:
            artifacts.check_folder(folder)
            _no_link_out(root, folder, "--sandbox-artifact-dir")
        for place in _links(Path(config.rootpath, _cache_dir(config))):
            _no_link_out(root, place, "-o cache_dir, pytest's cache in")
        if getattr(option, "xmlpath", None):
            _no_link_out(root, Path(directory, option.xmlpath), "--junitxml")
        mirror = Mirror(
            config,
            {name: Way(runs[name], makers[name]) for name in runs},
            assemble.host(),
            notes=[*notes, *_notes(run, makers[first]().capabilities.isolated)],
            on_artifacts=lambda data: artifacts.extract(data, folder),
        )
        config.pluginmanager.register(mirror, "pytest_sandbox_mirror")
    except BaseException:
        workspace.close()
        raise


def _command_line(option: argparse.Namespace) -> Any:
    def value(name: str) -> Any:
        if name == "provider":
            # --sandbox=NAME, then --sandbox-provider, then PYTEST_SANDBOX=NAME.
            named = option.sandbox or option.sandbox_provider
            return named or _environment_provider()
        return getattr(option, "sandbox_" + name)

    return value


def _environment_provider() -> str | None:
    value = os.environ.get("PYTEST_SANDBOX", "")
    return None if value.lower() in (*guard.OFF, "1", "on", "true", "yes") else value


def _arguments(
    option: argparse.Namespace, defaults: argparse.Namespace, root: Path, cwd: Path, here: Path
) -> list[str]:
    """What the sandbox's pytest is told: its side's options, and what to collect."""
    config_file = option.inifilename
    if config_file is not None and not Path(config_file).resolve().is_relative_to(root):
        option = argparse.Namespace(**{**vars(option), "inifilename": None})
    return [
        *sides.sandbox_args(option, defaults),
        *(_target(argument, root, cwd, here) for argument in option.file_or_dir),
    ]


def _target(argument: str, root: Path, cwd: Path, here: Path) -> str:
    """A path or node id, made relative: it is looked for in the composed tree, not here.

    Below the named repository it is relative to that, or to where pytest is, as node ids are shown.
    """
    path, separator, rest = argument.partition("::")
    shown = os.path.normpath(os.path.join(here, path))
    there = os.path.lexists(os.path.join(cwd, path))
    if not there and os.path.lexists(shown) and Path(shown).is_relative_to(root):
        path = shown
    if not os.path.isabs(path):
        inside = os.path.normpath(os.path.join(cwd, path))
        plan.inside(root, Path(inside), "the argument")
        return argument
    plan.inside(root, Path(os.path.normpath(path)), "the argument")
    return os.path.relpath(path, cwd) + separator + rest


def _cache_dir(config: pytest.Config) -> str:
    try:
        return str(config.getini("cache_dir"))
    except ValueError:  # -p no:cacheprovider
        return ".pytest_cache"


def _links(folder: Path) -> Iterator[Path]:
    """Symbolic links at and below ``folder``, where a checkout can bring a cache of its own."""
    if folder.is_symlink():
        yield folder
    for top, folders, files in os.walk(folder):
        yield from (
            Path(top, name) for name in (*folders, *files) if os.path.islink(f"{top}/{name}")
        )


def _no_link_out(root: Path, path: Path, option: str) -> None:
    """Refuse to write where a link in the checkout leads: its author chose the place."""
    path = Path(os.path.normpath(path))
    top = root.resolve()
    lies_in = path.is_relative_to(root) or path.is_relative_to(top)
    if lies_in and not path.resolve().is_relative_to(top):
        raise BadInput(
            f"{option} {str(path)!r} goes through a symbolic link that leads out of the "
            "repository; name a place outside of it"
        )


def _columns() -> int:
    # The width tracebacks are drawn for; the reporter that knows it does not exist yet.
    return max(40, min(shutil.get_terminal_size((80, 24)).columns, 500))


def _notes(run: plan.Run, isolated: bool) -> list[str]:
    setup = run.environment.setup
    notes = [f"sandbox set-up: {setup.reason}"] if setup.reason else []
    if run.protection is not None and (kept := protection.note(run.protection)):
        notes.append(f"sandbox protects: {kept}")
    if run.history == "tag" and (far := run.workspace.history_note(run.base)):
        notes.append(f"sandbox history: {far}")
    if not isolated:
        notes.append(
            "warning: the host provider isolates nothing: the tests run with your rights, "
            "on your files and network"
        )
    return notes
