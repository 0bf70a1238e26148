"""Which side each of pytest's own options belongs to, in one table.

The table makes the arguments for the sandbox's pytest, the refusals, and the documentation.
Knows nothing of runs and providers.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any, Final, Literal, NamedTuple

Side = Literal["host", "sandbox", "both", "refused"]


class Row(NamedTuple):
    """One option of pytest or of a well-known plugin, by argparse's ``dest``."""

    dest: str
    side: Side
    flags: str
    #: How it is passed on; "" for a value flag that is the first of ``flags``.
    form: Literal["", "switch", "each"] = ""
    #: Why it is refused, and what to do instead.
    instead: str = ""


_LOCAL = "it would collect or run the target's code on this machine"
_SANDBOX = "pass it to the sandbox's pytest instead: --sandbox-pytest-args"


def _rows(side: Side, *rows: tuple[str, ...]) -> Iterator[Row]:
    for dest, flags, *rest in rows:
        yield Row(dest, side, flags, *rest)  # type: ignore[arg-type]


TABLE: Final[tuple[Row, ...]] = (
    *_rows(
        "host",
        ("keyword", "-k"), ("markexpr", "-m"), ("deselect", "--deselect"),
        ("lf", "--lf"), ("failedfirst", "--ff"), ("newfirst", "--nf"),
        ("last_failed_no_failures", "--lfnf"), ("stepwise", "--sw"),
        ("stepwise_skip", "--sw-skip"), ("stepwise_reset", "--sw-reset"),
        ("cacheclear", "--cache-clear"), ("cacheshow", "--cache-show"),
        ("collectonly", "--collect-only"),
        ("continue_on_collection_errors", "--continue-on-collection-errors"),
        ("durations", "--durations"), ("durations_min", "--durations-min"),
        ("no_header", "--no-header"), ("no_summary", "--no-summary"),
        ("fold_skipped", "--no-fold-skipped"), ("force_short_summary", "--force-short-summary"),
        ("reportchars", "-r"), ("disable_warnings", "--disable-warnings"),
        ("max_warnings", "--max-warnings"), ("xfail_tb", "--xfail-tb"),
        ("showcapture", "--show-capture"), ("color", "--color"),
        ("code_highlight", "--code-highlight"), ("pastebin", "--pastebin"),
        ("xmlpath", "--junitxml"), ("junitprefix", "--junitprefix"), ("rootdir", "--rootdir"),
        ("disable_plugin_autoload", "--disable-plugin-autoload"),
        ("traceconfig", "--trace-config"), ("debug", "--debug"), ("version", "--version"),
        ("help", "--help"), ("usepdb_cls", "--pdbcls"),
    ),
    *_rows(
        "both",
        ("maxfail", "--maxfail"), ("verbose", "--verbosity"), ("tbstyle", "--tb"),
        ("capture", "--capture"), ("plugins", "-p", "each"),
    ),
    *_rows(
        "sandbox",
        ("showlocals", "--showlocals", "switch"), ("fulltrace", "--full-trace", "switch"),
        ("pythonwarnings", "-W", "each"), ("override_ini", "-o", "each"),
        ("importmode", "--import-mode"), ("doctestmodules", "--doctest-modules", "switch"),
        ("doctestreport", "--doctest-report"), ("doctestglob", "--doctest-glob", "each"),
        ("doctest_ignore_import_errors", "--doctest-ignore-import-errors", "switch"),
        ("doctest_continue_on_failure", "--doctest-continue-on-failure", "switch"),
        ("strict", "--strict", "switch"), ("strict_config", "--strict-config", "switch"),
        ("strict_markers", "--strict-markers", "switch"), ("runxfail", "--runxfail", "switch"),
        ("pyargs", "--pyargs", "switch"), ("ignore", "--ignore", "each"),
        ("ignore_glob", "--ignore-glob", "each"), ("confcutdir", "--confcutdir"),
        ("noconftest", "--noconftest", "switch"),
        ("keepduplicates", "--keep-duplicates", "switch"),
        ("collect_in_virtualenv", "--collect-in-virtualenv", "switch"),
        ("assertmode", "--assert"), ("log_level", "--log-level"),
        ("log_format", "--log-format"), ("log_date_format", "--log-date-format"),
        ("log_auto_indent", "--log-auto-indent"), ("logger_disable", "--log-disable", "each"),
        ("inifilename", "-c"),
    ),
    *(
        Row(dest, "refused", flags, instead=instead)
        for dest, flags, instead in (
            ("usepdb", "--pdb", "a debugger cannot be attached to the sandbox; run the failing "
             "test without --sandbox, or read its traceback with -l"),
            ("trace", "--trace", "a debugger cannot be attached to the sandbox"),
            ("showfixtures", "--fixtures", _LOCAL),
            ("show_fixtures_per_test", "--fixtures-per-test", _LOCAL),
            ("setuponly", "--setup-only", "it prints past pytest's reports; run without --sandbox"),
            ("setupshow", "--setup-show", "it prints past pytest's reports; run without --sandbox"),
            ("setupplan", "--setup-plan", "it prints past pytest's reports; run without --sandbox"),
            ("markers", "--markers", _LOCAL),
            ("basetemp", "--basetemp", "temporary files stay in the sandbox; bring files back with "
             "--sandbox-artifact GLOB"),
            ("log_cli_level", "--log-cli-level", _SANDBOX),
            ("log_cli_format", "--log-cli-format", _SANDBOX),
            ("log_cli_date_format", "--log-cli-date-format", _SANDBOX),
            ("log_file", "--log-file", "the file would stay in the sandbox; use "
             "--sandbox-pytest-args='--log-file=x.log' --sandbox-artifact x.log"),
            ("log_file_mode", "--log-file-mode", _SANDBOX),
            ("log_file_level", "--log-file-level", _SANDBOX),
            ("log_file_format", "--log-file-format", _SANDBOX),
            ("log_file_date_format", "--log-file-date-format", _SANDBOX),
            # Plugins that would act a second time on this side.
            ("numprocesses", "-n", "the tests run in one sandbox, not in this machine's workers; "
             "use --sandbox-pytest-args='-n 4' where the target's environment has pytest-xdist"),
            ("tx", "--tx", "the tests run in one sandbox"),
            ("looponfail", "-f", "it would run the target's code on this machine"),
            ("randomly_seed", "--randomly-seed", "the order is made where the tests run; use "
             "--sandbox-pytest-args='-p randomly --randomly-seed=1' where the target's environment "
             "has pytest-randomly"),
            ("cov_source", "--cov", "nothing of the target runs in this process; use "
             "--sandbox-pytest-args='--cov' --sandbox-artifact .coverage"),
            ("reruns", "--reruns", _SANDBOX + "='--reruns 2'"),
            ("timeout", "--timeout", "use --sandbox-test-timeout"),
        )
    ),
)  # fmt: skip

BY_DEST: Final = {row.dest: row for row in TABLE}


def refusal(options: argparse.Namespace, defaults: argparse.Namespace) -> str | None:
    """Why these options cannot be used in mirror mode, or None."""
    for row in TABLE:
        value = getattr(options, row.dest, None)
        if row.side == "refused" and value and value != getattr(defaults, row.dest, None):
            return f"{row.flags} does not go with --sandbox: {row.instead}"
    return None


def sandbox_args(options: argparse.Namespace, defaults: argparse.Namespace) -> list[str]:
    """Arguments for the sandbox's pytest that say what the user said here."""
    args: list[str] = []
    for row in TABLE:
        value = getattr(options, row.dest, None)
        default = getattr(defaults, row.dest, None)
        # pytest 8 has 0 for --maxfail where its parser, asked for the default, says None.
        same = value == default or not (value or default)
        if row.side in ("sandbox", "both") and value is not None and not same:
            args += _arguments(row, value)
    return args


def _arguments(row: Row, value: Any) -> list[str]:
    if row.form == "switch":
        return [row.flags] if value else []
    if row.form == "each":
        # Our own plugin stays here, also where it was named by -p.
        # The agent gives the sandbox's pytest a cache of its own.
        ours = ("pytest_sandbox", "no:pytest_sandbox", "cache_dir=")
        given = [str(one) for one in value if not str(one).startswith(ours)]
        return [part for one in given for part in _pair(row.flags, one)]
    return _pair(row.flags, str(value))


def _pair(flag: str, value: str) -> list[str]:
    return [f"{flag}={value}"] if flag.startswith("--") else [flag, value]


def markdown() -> str:
    """The table for the documentation."""
    lines = ["| option | side | |", "|---|---|---|"]
    lines += [f"| `{row.flags}` | {row.side} | {row.instead} |" for row in TABLE]
    return "\n".join(lines) + "\n"
