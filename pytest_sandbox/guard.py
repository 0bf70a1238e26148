"""Keeps the target's ini, ``addopts`` and ``conftest.py`` out of the host's pytest.

Works on pytest's own configuration while it is being made. Knows nothing of sandboxes.
"""

from __future__ import annotations

import argparse
import copy
import functools
import inspect
import itertools
import os
import shlex
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from _pytest.config.findpaths import determine_setup

#: Values of PYTEST_SANDBOX that say no.
OFF = ("", "0", "off", "false", "no")

#: Plugins of this process, by module, that would act a second time on what runs elsewhere. Each
#: has its counterpart in the sandbox, where the target's environment has it.
_TWICE = frozenset(
    {"pytest_timeout", "pytest_randomly", "pytest_rerunfailures", "pytest_asyncio.plugin"}
)


def wanted(args: list[str], environ: Mapping[str, str]) -> bool:
    """Whether these arguments, or the environment, turn mirror mode on."""
    more = environ.get("PYTEST_ADDOPTS", "")
    if "--sandbox" in more:
        try:
            args = [*shlex.split(more), *args]
        except ValueError:
            pass  # pytest itself will say what is wrong with it
    if any(arg.startswith(("--sandbox-predictions", "--sandbox-derive")) for arg in args):
        return False  # candidates are graded: what runs here are items of tasks
    named = any(arg == "--sandbox" or arg.startswith("--sandbox=") for arg in args)
    return named or environ.get("PYTEST_SANDBOX", "").lower() not in OFF


def silence_plugins(config: pytest.Config) -> None:
    """Take the plugins out that would act on tests which do not run here."""
    for _, plugin in config.pluginmanager.list_name_plugin():
        if getattr(plugin, "__name__", None) in _TWICE:
            config.pluginmanager.unregister(plugin)


def drop_requirements(config: pytest.Config) -> None:
    """Plugins the target requires have to be in the sandbox, not here."""
    _ini(config).pop("required_plugins", None)
    config._inicache.pop("required_plugins", None)


def set_aside(
    config: pytest.Config, args: list[str], providers: Container[str], repo: Path | None
) -> list[str]:
    """Make ``config`` one that has never seen the target's ini.

    Changes ``args`` in place: without the ini's ``addopts``, and with ``--sandbox`` given its
    value by ``=`` only, so that ``--sandbox tests/`` leaves ``tests/`` an argument of pytest's.

    Returns:
        Sentences to show: what had its effect on this process before we could prevent it.
    """
    addopts = list(config.getini("addopts"))
    notes = []
    plugins = [two for one, two in itertools.pairwise(addopts) if one == "-p"]
    plugins += [arg[2:] for arg in addopts if arg.startswith("-p") and len(arg) > 2]
    loaded = [name for name in plugins if not name.startswith("no:")]
    if loaded:
        notes.append(
            f"warning: the target's addopts made this pytest import {', '.join(loaded)}; for a "
            "checkout you do not trust, use the command pytest-sandbox"
        )
    if addopts and args[: len(addopts)] == addopts:
        del args[: len(addopts)]
    args[:] = with_values(args, providers)
    parser = config._parser
    known = parser.parse_known_args(args, namespace=copy.copy(config.option))
    _ini(config).clear()
    _ini(config).update(_overrides(config, known.override_ini))
    config._inicache.clear()
    known.noconftest = True
    config.known_args_namespace = known
    parser.extra_info["options of the target's own conftest.py or plugins"] = (
        "go through --sandbox-pytest-args='--option=value'"
    )
    config._inipath = None
    config._rootpath = _rootdir(config, known) if repo is None else repo
    return notes


def leave_out_conftests(config: pytest.Config, args: Sequence[str]) -> None:
    """Where candidates are graded, no ``conftest.py`` at or below what is named is imported.

    Those of the folder pytest was started in, of all above it, and of all above what is named are
    the user's own. For every other folder, pytest is shown those of the nearest such one.
    """
    here = config.invocation_params.dir
    known = config._parser.parse_known_args(list(args), namespace=copy.copy(config.option))
    paths = [Path(os.path.abspath(here / arg.partition("::")[0])) for arg in known.file_or_dir]
    # A file's folder counts as named: it may be a task that somebody else has published.
    named = [path if path.is_dir() else path.parent for path in paths]
    mine = {here, *here.parents}
    mine |= {
        folder
        for folder in itertools.chain.from_iterable(path.parents for path in named)
        if not any(folder.is_relative_to(other) for other in named)
    }

    @functools.cache
    def own(path: Path) -> Path:
        found = (folder for folder in (path, *path.parents) if folder in mine)
        return next(found, Path(path.anchor))

    manager = config.pluginmanager
    load, loaded = manager._loadconftestmodules, manager._getconftestmodules

    def load_own(path: Path, *more: Any, **options: Any) -> None:
        load(own(path), *more, **options)

    def own_loaded(path: Path) -> Sequence[ModuleType]:
        return loaded(own(path))

    # pytest has no hook that comes before it imports one.
    vars(manager).update(_loadconftestmodules=load_own, _getconftestmodules=own_loaded)


def _ini(config: pytest.Config) -> dict[str, Any]:
    # pytest 9 keeps it privately and hands out a copy that warns.
    found = config.__dict__.get("_inicfg")
    return config.inicfg if found is None else found  # type: ignore[return-value]


def _rootdir(config: pytest.Config, known: argparse.Namespace) -> Path:
    """The rootdir by the whole command line.

    pytest's own was found before any plugin's options were known, so it took the PATH of
    ``--sandbox-venv PATH`` for a file of tests.
    """
    given: dict[str, Any] = {
        "inifile": known.inifilename,
        "args": known.file_or_dir,
        "rootdir_cmd_arg": known.rootdir or None,
        "invocation_dir": config.invocation_params.dir,
    }
    if "override_ini" in inspect.signature(determine_setup).parameters:  # since pytest 9
        given["override_ini"] = None
    return determine_setup(**given)[0]


def _overrides(config: pytest.Config, given: list[str] | None) -> dict[str, Any]:
    """What -o set: the user's word, so it holds here too where this pytest knows the key."""
    try:
        from _pytest.config.findpaths import parse_override_ini
    except ImportError:  # pytest 8 keeps them apart from the ini
        return {}
    found = parse_override_ini(given)
    return {key: value for key, value in found.items() if key in config._parser._inidict}


def with_values(args: list[str], providers: Container[str]) -> list[str]:
    result: list[str] = []
    rest = iter(args)
    for arg in rest:
        if arg == "--":
            return [*result, arg, *rest]
        if arg != "--sandbox":
            result.append(arg)
            continue
        value = next(rest, None)
        if value is not None and all(name in providers for name in value.split(",")):
            result.append(f"--sandbox={value}")
        else:
            result += ["--sandbox="] + ([] if value is None else with_values([value], providers))
    return result
