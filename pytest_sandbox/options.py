"""The options: each declared once, with its name, meaning and the places it may be set.

``OPTIONS`` makes the command line, the ini keys, the environment variables, the marker and the
documentation. Resolution is command line > environment > marker > ini > default. Knows neither
sandboxes nor runs; importing it is part of every pytest start, so it imports next to nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from pytest_sandbox.errors import BadInput

#: Providers this package brings. Others come through the ``pytest_sandbox_providers`` hook.
PROVIDERS: Final = ("local", "host", "docker", "e2b", "modal", "daytona")


class Option(NamedTuple):
    """One option. ``name`` is "timeout" for --sandbox-timeout and sandbox_timeout."""

    name: str
    help: str
    parse: Callable[[str], Any]
    metavar: str = ""
    default: Any = None
    many: bool = False
    ini: bool = True
    marker: bool = False
    #: Whether the environment may set it; not what decides what kind of session it is.
    environ: bool = True

    @property
    def flag(self) -> str:
        return "--sandbox-" + self.name.replace("_", "-")

    @property
    def key(self) -> str:
        return "sandbox_" + self.name

    @property
    def variable(self) -> str:
        """Its environment variable; "" where it has none."""
        return "PYTEST_SANDBOX_" + self.name.upper() if self.environ else ""


def seconds(text: str) -> float:
    """ "90", "90s", "15m" or "2h" as seconds."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|m|h|)\s*", text)
    if not match or float(match[1]) == 0:
        raise ValueError("a time such as 90, 90s, 15m or 2h, more than 0")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def size(text: str) -> int:
    """ "512MiB", "4G", "1000" as bytes; K, M, G are powers of 1024."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?\s*", text, re.IGNORECASE)
    if not match or float(match[1]) == 0:
        raise ValueError("a size such as 512MiB or 4GiB, more than 0")
    return int(float(match[1]) * 1024 ** " KMGT".index(match[2].upper() or " "))


def _of(least: int) -> Callable[[str], int]:
    """A size of so many MiB or more: with less nothing of ours starts, and it says so oddly."""

    def parse(text: str) -> int:
        found = size(text)
        if found < least << 20:
            alone = "; a number alone is bytes" if text.strip()[-1:].isdigit() else ""
            raise ValueError(f"a size of {least}MiB or more, such as 4GiB{alone}")
        return found

    return parse


#: Sizes of a sandbox's memory and disk.
memory, disk = _of(32), _of(8)


def count(text: str) -> int:
    if not text.strip().isdigit() or int(text) == 0:
        raise ValueError("a whole number of 1 or more")
    return int(text)


def whole(text: str) -> int:
    if not text.strip().isdigit():
        raise ValueError("a whole number of 0 or more")
    return int(text)


def number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e6:
        raise ValueError("a number more than 0")
    return value


def switch(text: str) -> bool:
    words = {"on": True, "true": True, "1": True, "off": False, "false": False, "0": False}
    if text.strip().lower() not in words:
        raise ValueError("on or off")
    return words[text.strip().lower()]


def one_of(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in words:
            raise ValueError("one of " + ", ".join(words))
        return text

    return parse


def variable(text: str) -> str:
    name = text.partition("=")[0]
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError("NAME or NAME=VALUE")
    if name.startswith("PYTEST_SANDBOX"):
        raise ValueError("another name: PYTEST_SANDBOX* never reaches a sandbox")
    return text


def arguments(text: str) -> str:
    """As it is, once it is known that it can be taken apart."""
    import shlex  # only here: see above

    try:
        shlex.split(text)
    except ValueError as error:
        why = str(error).lower()
        raise ValueError(f"arguments in the words of a shell, such as '-p x': {why}") from None
    return text


OPTIONS: Final[tuple[Option, ...]] = (
    Option("provider", "The provider that --sandbox and the fixture use when none is named.",
           str, "NAME", "local", marker=True),
    Option("repo", "The repository whose tests run; the current directory by default.",
           str, "PATH", ini=False),
    Option("base", "The trusted revision. With --sandbox-patch the patch is applied to it "
           "(HEAD by default); without, the checkout is the candidate and REV what is trusted.",
           str, "REV", ini=False),
    Option("patch", "A patch to apply to the base; '-' reads standard input.",
           str, "FILE", ini=False),
    Option("patch_tolerance", "How a patch may deviate and still apply: strict (the default), "
           "crlf, whitespace, recount, fuzz or 3way. What was used is reported.",
           one_of("strict", "crlf", "whitespace", "recount", "fuzz", "3way"), "NAME", "strict"),
    Option("history", "The git history the tests see: none, tag (one commit and the nearest tag; "
           "the default) or full (up to the base).",
           one_of("none", "tag", "full"), "NAME", "tag"),
    Option("setup", "A shell command that sets up the environment in the sandbox, with network. "
           "May be repeated; replaces what is found from the project.",
           str, "COMMAND", (), many=True),
    Option("setup_inputs", "Files the set-up depends on, as a glob; its result is reused until "
           "one changes. May be repeated.", str, "GLOB", (), many=True),
    Option("setup_secret", "An environment variable of this machine that only set-up commands "
           "see. May be repeated.", variable, "NAME", (), many=True, ini=False),
    Option("python", "The Python of the sandbox: a version such as 3.12, or a path.",
           str, "PYTHON", marker=True),
    Option("venv", "An existing virtual environment, used read-only instead of set-up.",
           str, "PATH", ini=False),
    Option("build", "A shell command that runs after the candidate's files are in place, "
           "without network. May be repeated.", str, "COMMAND", (), many=True),
    Option("env", "An environment variable for the tests: NAME=VALUE, or NAME for this "
           "machine's value. May be repeated.", variable, "NAME[=VALUE]", (), many=True,
           marker=True),
    Option("unprotect", "Files that run as the patch has them although they are tests or "
           "configuration, as a glob relative to the repository. May be repeated.",
           str, "GLOB", (), many=True, marker=True),
    Option("integrity", "How hard a pass is looked at: default, or full, which runs the tests "
           "again in ways that a patch cannot tell from nothing.",
           one_of("default", "full"), "LEVEL", "default", marker=True),
    Option("artifact", "Files to bring back, as a glob relative to the repository. May be "
           "repeated.", str, "GLOB", (), many=True),
    Option("artifact_dir", "The new folder artifacts are put in.",
           str, "PATH", "sandbox-artifacts", ini=False),
    Option("network", "Whether tests may use the network: off (the default) or on.",
           switch, "on|off", False, marker=True),
    Option("timeout", "The longest the tests may run, such as 90s, 15m or 2h; 1h by default, or "
           "what the provider's longest sandbox leaves for it.",
           seconds, "TIME", marker=True),
    Option("test_timeout", "The longest one test may run, set-up and teardown included.",
           seconds, "TIME", marker=True),
    Option("collect_timeout", "The longest collection may run.", seconds, "TIME", 600.0),
    Option("setup_timeout", "The longest each set-up or build command may run.",
           seconds, "TIME", 1800.0),
    Option("memory", "Memory of the sandbox, such as 4GiB. Like the other limits refused where "
           "the provider has none; without one, the provider's own (local: 4GiB).",
           memory, "SIZE", marker=True),
    Option("cpu", "How many processors the sandbox may use.", number, "N", marker=True),
    Option("disk", "Space the tests may fill with files, such as 2GiB (which is local's).",
           disk, "SIZE", marker=True),
    Option("processes", "Processes and threads in the sandbox at one time (local: 512).",
           count, "N", marker=True),
    Option("image", "What the sandbox is made from, in the provider's terms: an image such as "
           "python:3.12-slim (docker, modal, daytona), a template (e2b).", str, "NAME",
           marker=True),
    Option("region", "Where the sandbox runs, in the provider's terms.", str, "NAME"),
    Option("concurrency", "Sandboxes at one time, where your plan with the provider has another "
           "limit than its smallest.", count, "N"),
    Option("create_rate", "Sandboxes made per second, likewise.", number, "N"),
    Option("max_lifetime", "The longest a sandbox lives, likewise.", seconds, "TIME"),
    Option("price", "What a sandbox costs you an hour, in US dollars, for the estimate in the "
           "summary; by default what the provider publishes.", number, "USD"),
    Option("split", "Share the tests among so many sandboxes, by how long they took before. Each "
           "collects all of them, and makes its own session fixtures.", count, "N", 1, ini=False),
    Option("retries", "How often tests that have no result yet get a new sandbox when theirs is "
           "lost; 0 for never.", whole, "N", 2),
    Option("keep", "Leave the sandbox running for a look at it, until its time limit: never, "
           "failed or always. How to get in is printed.",
           one_of("never", "failed", "always"), "WHEN", "never", ini=False),
    Option("pytest_args", "More arguments for the pytest in the sandbox: options only the "
           "target's own conftest.py or plugins know.", arguments, "ARGS", "", ini=False),
)  # fmt: skip


def money_or_time(text: str) -> tuple[float | None, float | None]:
    """ "20USD" as dollars, "2h" as sandbox-seconds: the one or the other, None beside it."""
    match = re.fullmatch(r"\s*\$?\s*(\d+(?:\.\d+)?)\s*(USD|\$)?\s*", text, re.IGNORECASE)
    if match and (match[2] or "$" in text) and float(match[1]) > 0:
        return float(match[1]), None
    try:
        # Of a number alone, nobody knows which of the two it is.
        return None, seconds("" if text.strip()[-1:].isdigit() else text)
    except ValueError:
        raise ValueError(
            "an amount such as 20USD, or a time such as 90s or 10h, with its unit"
        ) from None


def share(text: str) -> tuple[int, int]:
    """ "3/8" as (3, 8)."""
    match = re.fullmatch(r"\s*(\d+)\s*/\s*(\d+)\s*", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise ValueError("a share such as 3/8")
    return int(match[1]), int(match[2])


#: Options of grade mode: no ini's.
GRADING: Final[tuple[Option, ...]] = (
    Option("predictions", "Grade these candidate patches (SWE-bench predictions, or a folder of "
           ".patch files) for the tasks among the arguments. May be repeated.",
           str, "PATH", (), many=True, ini=False, environ=False),
    Option("workers", "Sandboxes in flight at a time.", count, "N", 4, ini=False),
    Option("budget", "Start nothing more once this is spent: an amount such as 20USD, or "
           "sandbox-time such as 90s or 10h. The unit decides which.",
           money_or_time, "AMOUNT", (None, None), ini=False),
    Option("reruns", "Run a candidate that is not resolved again, so often, in fresh sandboxes; "
           "runs that disagree make it flaky.", whole, "N", 0, ini=False),
    Option("results", "The folder of results.jsonl and the reports. What is in it is not graded "
           "again.", str, "PATH", "sandbox-results", ini=False),
    Option("repeats", "How often --sandbox-derive runs base and gold each, to find tests that are "
           "flaky.", count, "K", 3, ini=False),
    Option("shard", "Grade one share of the candidates, such as 3/8, for machines that each take "
           "another.", share, "N/M", ini=False),
    Option("merge", "Run nothing: put together the results of other sessions, such as shards, "
           "found in this folder and below it. May be repeated.", str, "DIR", (), many=True,
           ini=False, environ=False),
)  # fmt: skip

#: What says which tree runs. Who names one and leaves its value empty (a variable of CI's that is
#: not set, say) would have the tree run that is there, and trusted.
TREE: Final = ("repo", "base", "patch")

BY_NAME: Final = {option.name: option for option in OPTIONS}


class OptionError(BadInput):
    """A value that cannot be used; the message names the place it came from."""


def resolve(
    *,
    cli: Callable[[str], Any] = lambda name: None,
    environ: Mapping[str, str] = {},
    marker: Mapping[str, Any] = {},
    ini: Mapping[str, Any] = {},
    table: Sequence[Option] = OPTIONS,
) -> dict[str, Any]:
    """Every option's value by name, from the strongest place that has one.

    Args:
        cli: raw value by option name, None where not given; lists for repeatable ones.
        marker: keyword arguments of ``@pytest.mark.sandbox``.
        ini: the repository's ``sandbox_*`` keys.
        table: the options asked for.

    Raises:
        OptionError: naming the place, the value and what would be right.
    """
    unknown = sorted(set(marker) - {option.name for option in OPTIONS if option.marker})
    if unknown:
        known = ", ".join(option.name for option in OPTIONS if option.marker)
        raise OptionError(f"@pytest.mark.sandbox takes {known}; not {', '.join(unknown)}")
    keys = {option.key for option in OPTIONS if option.ini}
    strange = sorted(key for key in ini if key.startswith("sandbox_") and key not in keys)
    if strange:
        raise OptionError(f"the ini file sets {strange[0]}, which is not an option that an ini "
                          "file can set; see pytest --help")  # fmt: skip
    return {option.name: _value(option, cli, environ, marker, ini) for option in table}


def _value(
    option: Option,
    cli: Callable[[str], Any],
    environ: Mapping[str, str],
    marker: Mapping[str, Any],
    ini: Mapping[str, Any],
) -> Any:
    places = (
        (option.flag, cli(option.name)),
        (option.variable, environ.get(option.variable)),
        ("@pytest.mark.sandbox", marker.get(option.name) if option.marker else None),
        (f"ini key {option.key}", ini.get(option.key) if option.ini else None),
    )
    given = option.flag if option.default != "" else ""
    for place, raw in places:
        empty = raw == "" or (isinstance(raw, list) and "" in raw)
        if empty and (place == given or (option.name in TREE and place == option.variable)):
            raise OptionError(f"{place} is empty: give it a value, or leave it out")
        if raw is None or raw == [] or raw == "":
            continue
        try:
            return _parse(option, raw)
        except ValueError as error:
            raise OptionError(f"{place}: {str(raw)!r} is not {error}") from None
    return option.default


def misplaced(cli: Callable[[str], Any], *, mirrors: bool, grades: bool) -> str | None:
    """What the command line asks for and this session would not do, as a sentence.

    Args:
        cli: raw value by option name, None where not given; lists for repeatable ones.
        mirrors: whether the session's tests run in a sandbox.
        grades: whether it grades candidates or derives tasks.
    """
    if not mirrors:
        for name in TREE:
            if cli(name) is not None:
                flag = BY_NAME[name].flag
                if grades:
                    return f"{flag} is not for tasks, which name their own trees: leave it out"
                return f"{flag} does nothing without --sandbox: add that, or the tests run here"
    if not grades:
        for option in GRADING:
            if cli(option.name) not in (None, []):
                other = "--sandbox-derive" if option.name == "repeats" else "--sandbox-predictions"
                return f"{option.flag} does nothing without {other}"
    return None


def _parse(option: Option, raw: Any) -> Any:
    if option.many:
        if isinstance(raw, Mapping):  # @pytest.mark.sandbox(env={"A": "1"})
            raw = [f"{name}={value}" for name, value in raw.items()]
        elif isinstance(raw, str):
            raw = [line.strip() for line in raw.splitlines() if line.strip()]
        return tuple(option.parse(str(entry)) for entry in raw)
    if isinstance(raw, bool) and option.parse is switch:
        return raw
    if isinstance(raw, Sequence) and not isinstance(raw, str):
        raise ValueError("one value")
    return option.parse(str(raw))
