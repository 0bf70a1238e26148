"""The pytest plugin: hooks only. What they do is in the modules they import when needed.

Importing this module is part of every pytest start on machines that have the package, so it
imports nothing heavy: no SDK, no event loop, no git.

PYTEST_DONT_REWRITE: it may be imported before pytest comes to it, which pytest 8 warns of.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_sandbox import guard
from pytest_sandbox.options import GRADING, OPTIONS, PROVIDERS, misplaced

if TYPE_CHECKING:
    from pytest_sandbox.fixture import SandboxFixture, Session

_MIRROR = pytest.StashKey[bool]()
_NOTES = pytest.StashKey[list[str]]()
_SESSION: pytest.StashKey[Session] = pytest.StashKey()


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    from pytest_sandbox import hookspecs

    pluginmanager.add_hookspecs(hookspecs)


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    group = parser.getgroup("sandbox", "run the tests in a throw-away sandbox")
    group.addoption(
        "--sandbox", nargs="?", const="", default=None, metavar="PROVIDER",
        help="Run the tests in a sandbox and report every result here. Without PROVIDER, "
        f"sandbox_provider or 'local' is used. Known: {', '.join(PROVIDERS)}.",
    )  # fmt: skip
    for option in (*OPTIONS, *GRADING):
        group.addoption(
            option.flag,
            dest=option.key,
            default=None,
            metavar=option.metavar,
            action="append" if option.many else "store",
            help=(option.help + option.environ * f" [{option.variable}]").replace("%", "%%"),
        )
        if option.ini:
            kind: Any = "linelist" if option.many else "string"
            parser.addini(option.key, option.help, type=kind, default=None)
    group.addoption(
        "--sandbox-derive", action="store_true", default=False,
        help="Run the base and the gold patch of each task file among the arguments, and write "
        "the tests that decide it into the file.",
    )  # fmt: skip
    group.addoption(
        "--sandbox-reap", action="store_true", default=False,
        help="End what dead sessions left behind, and exit. With --sandbox=e2b,... also "
        "what is ours in those accounts and old, whichever machine made it.",
    )  # fmt: skip
    group.addoption(
        "--sandbox-reap-age", default="6h", metavar="TIME",
        help="How old is old for --sandbox-reap; longer than any run of yours, 6h by default.",
    )  # fmt: skip
    group.addoption(
        "--sandbox-doctor", action="store_true", default=False,
        help="Say what each provider needs and what is missing (those of --sandbox=e2b,... or "
        "all), and exit.",
    )  # fmt: skip
    group.addoption(
        "--sandbox-cache", choices=("list", "clear"), default=None,
        help="List or remove the prepared environments this machine knows, and exit. With "
        "--sandbox=e2b,... also those other machines made in these accounts.",
    )  # fmt: skip
    config = pluginmanager.get_plugin("pytestconfig")
    if config is not None and guard.wanted(list(config.invocation_params.args), os.environ):
        guard.drop_requirements(config)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(
    early_config: pytest.Config, parser: pytest.Parser, args: list[str]
) -> Generator[None, object, object]:
    addopts = list(early_config.getini("addopts"))
    given = args[len(addopts) :] if args[: len(addopts)] == addopts else args
    mirror = guard.wanted(given, os.environ)
    if not mirror and guard.wanted(addopts, {}):
        raise pytest.UsageError(
            f"{early_config.inipath}: addopts turns --sandbox on, which an ini file cannot do; "
            "put it on the command line, or set PYTEST_SANDBOX"
        )
    early_config.stash[_MIRROR] = mirror
    if mirror:
        known = early_config.known_args_namespace
        repo = known.sandbox_repo or os.environ.get("PYTEST_SANDBOX_REPO")
        early_config.stash[_NOTES] = guard.set_aside(
            early_config,
            args,
            {*PROVIDERS, *_other_providers(early_config)},
            None if repo is None else Path(early_config.invocation_params.dir, repo).resolve(),
        )
    else:
        known = early_config.known_args_namespace
        if "--sandbox" in args:
            # Candidates are graded, and `--sandbox tasks/` names no provider.
            args[:] = guard.with_values(args, {*PROVIDERS, *_other_providers(early_config)})
        if known.sandbox_predictions or known.sandbox_derive:
            guard.leave_out_conftests(early_config, args)
    return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> int | None:
    option = config.option
    if option.help or option.version:
        return None
    if option.sandbox_reap or option.sandbox_cache or option.sandbox_doctor:
        from pytest_sandbox import housekeeping

        return housekeeping.main(config)
    mirrors = config.stash.get(_MIRROR, False)
    grades = bool(option.sandbox_predictions or option.sandbox_derive)
    text = misplaced(
        lambda name: getattr(option, f"sandbox_{name}"), mirrors=mirrors, grades=grades
    )
    if text is not None:
        raise pytest.UsageError(text)
    if not mirrors and not grades:
        return None
    from pytest_sandbox.errors import SandboxError

    try:
        if option.sandbox_derive:
            from pytest_sandbox.grading import deriving

            deriving.start(config, others=_other_providers(config))
        elif option.sandbox_predictions:
            from pytest_sandbox.grading import session

            session.start(config, others=_other_providers(config))
        else:
            from pytest_sandbox import mirroring

            mirroring.start(config, notes=config.stash[_NOTES], others=_other_providers(config))
    except SandboxError as error:
        sys.stderr.write(f"ERROR: {error}\n")
        return error.exit_status
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; no sandbox had been started\n")
        return int(pytest.ExitCode.INTERRUPTED)
    return None


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "sandbox(provider, timeout, network, memory, env, ...): what the sandbox fixture of this "
        "test needs; the options of the same names",
    )


@pytest.fixture
def sandbox(request: pytest.FixtureRequest) -> Generator[SandboxFixture]:
    """A throw-away sandbox: ``run_tests``, ``exec``, ``read_file``, ``write_file``."""
    from pytest_sandbox.fixture import SandboxFixture, Session

    config = request.config
    if _SESSION not in config.stash:
        config.stash[_SESSION] = Session(config)
    fixture = SandboxFixture(config.stash[_SESSION], request)
    with fixture:
        yield fixture


def pytest_unconfigure(config: pytest.Config) -> None:
    session = config.stash.get(_SESSION, None)
    if session is not None:
        session.close()


def _other_providers(config: pytest.Config) -> dict[str, Any]:
    """Providers that other plugins bring: name to what makes one."""
    return {k: v for found in config.hook.pytest_sandbox_providers() for k, v in found.items()}
