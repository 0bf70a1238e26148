"""Makes docs/options.md from the tables in the code: ``python -m tests.documentation``."""

from __future__ import annotations

from pathlib import Path

from pytest_sandbox import sides
from pytest_sandbox.options import GRADING, OPTIONS

PATH = Path(__file__).parent.parent / "docs" / "options.md"

_INTRODUCTION = """# Options

Generated from the code by `python -m tests.documentation`; a test keeps it true.

The strongest place that sets an option decides: command line, then environment variable, then
`@pytest.mark.sandbox(...)` (fixture only), then the repository's ini. Of an ini, only the
`sandbox_*` keys are read, as data, and from the base commit when there is a candidate. An ini
cannot turn `--sandbox` on.

| option | environment | ini | marker | meaning |
|---|---|---|---|---|
"""

_COMMANDS = (
    ("--sandbox-derive", "Run the base and the gold patch of each task file among the arguments, "
     "and write the tests that decide it into the file."),
    ("--sandbox-doctor", "Say what each provider needs and what is missing, and exit."),
    ("--sandbox-reap", "End what dead sessions left behind, and exit; with `--sandbox=e2b,...` "
     "also what is ours in those accounts and older than `--sandbox-reap-age` (6h)."),
    ("--sandbox-cache list\\|clear", "List or remove prepared environments, and exit; with "
     "`--sandbox=e2b,...` also those other machines made."),
)  # fmt: skip

_SIDES = """
## Which side pytest's own options belong to

`host`: acts on the local session. `sandbox`: given to the sandbox's pytest. `both`: both.
Anything only the target's own `conftest.py` or plugins know goes through
`--sandbox-pytest-args='--run-slow --ds=settings'`.

"""


def options() -> str:
    """The page."""
    rows = [
        "| `--sandbox[=PROVIDER]` | `PYTEST_SANDBOX` | | | Run in a sandbox. A word after "
        "`--sandbox` counts as a provider only when it is the name of one. |\n"
    ]
    for option in (*OPTIONS, *GRADING):
        flag = f"`{option.flag} {option.metavar}`".replace("|", "\\|")
        ini = f"`{option.key}`" if option.ini else ""
        marker = f"`{option.name}`" if option.marker else ""
        variable = f"`{option.variable}`" if option.environ else ""
        rows.append(f"| {flag} | {variable} | {ini} | {marker} | {option.help} |\n")
    for flag, meaning in _COMMANDS:
        rows.append(f"| `{flag}` | | | | {meaning} |\n")
    return _INTRODUCTION + "".join(rows) + _SIDES + sides.markdown()


if __name__ == "__main__":
    PATH.write_text(options())
