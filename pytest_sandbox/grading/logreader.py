"""A program: what SWE-bench's own package says of a repository's tests, and of a log of theirs.

Run as a process of its own with an isolated interpreter, as a log is anybody's text and the
package's patterns can be slow on it. Of the package only its tables and log parsers are loaded:
the rest of it, and all that it requires, is not needed.

Orders are JSON on standard input: ``package`` (the folder it is in), ``repo``, ``version``,
``parser`` (a name, or null) and, where a log is to be read, ``log``. The answer is JSON on standard
output: ``command`` and ``before`` (shell commands), or ``tests`` (statuses by name).
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import json
import sys
import types
from collections.abc import Callable
from typing import Any

_WANTED = ("swebench.harness.constants", "swebench.harness.log_parsers")


class _Rest(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Stands for all other modules of the package, which have types and programs."""

    def find_spec(
        self, name: str, path: Any = None, target: Any = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name.partition(".")[0] != "swebench" or name.startswith(_WANTED):
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        module = types.ModuleType(spec.name)
        folder = "/".join([orders["package"], *spec.name.split(".")[1:]])
        module.__path__ = [folder]
        module.__getattr__ = lambda name: Any  # type: ignore[method-assign]
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        return None


def parser(name: str | None, repo: str) -> Callable[..., dict[str, str]] | None:
    """The parser of that name (releases from 5 on), or the repository's (before)."""
    found = importlib.import_module(_WANTED[1])
    by_name = getattr(found, "PARSER_REGISTRY", {})
    if name in by_name:
        chosen: Callable[..., dict[str, str]] = by_name[name]
        return chosen
    python = importlib.import_module(f"{_WANTED[1]}.python")
    if name is not None:
        return getattr(python, name, None)
    return getattr(python, "MAP_REPO_TO_PARSER_PY", {}).get(repo)


def main() -> dict[str, Any]:
    sys.meta_path.insert(0, _Rest())
    read = parser(orders["parser"], orders["repo"])
    if read is None:
        return {"problem": "has no log parser for it"}
    if "log" in orders:
        return {"tests": read(orders["log"], None)}
    constants = importlib.import_module(_WANTED[0])
    by_version = getattr(constants, "MAP_REPO_VERSION_TO_SPECS", {}).get(orders["repo"], {})
    spec = by_version.get(orders["version"])
    if spec is None:
        return {"problem": f"does not know how tests of version {orders['version']!r} are run"}
    command = spec["test_cmd"]
    if isinstance(command, list):
        command = " && ".join(command)
    return {"command": command, "before": list(spec.get("eval_commands", ()))}


if __name__ == "__main__":
    orders: dict[str, Any] = json.load(sys.stdin)
    answer = main()
    json.dump(answer, sys.stdout)
