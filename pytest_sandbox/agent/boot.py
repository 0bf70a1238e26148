"""The agent's modules in the worker: made from texts, and known to nobody but each other."""

from __future__ import annotations

import json
import marshal
import sys

# Public as importlib.util.MAGIC_NUMBER, whose module a direct run may not import.
from _frozen_importlib_external import MAGIC_NUMBER
from types import ModuleType
from typing import Any, Callable

NAME = "<pytest_sandbox_agent>"
#: Bytes of a .pyc before its code.
HEADER = 16


def boot(sources: dict[str, Any]) -> Callable[[], None]:
    """The worker's main function, out of the texts of its modules by name.

    Nothing lies in a file, and nothing stays in sys.modules: the tests' imports, and whoever
    looks at what is imported, find what they would find in a direct run.
    """
    package = "pytest_sandbox_agent"
    given = json.loads(sources.pop("given", "null"))
    compiled = sources.pop("compiled")
    made: dict[str, ModuleType] = {}

    def code(name: str) -> Any:
        data = bytes.fromhex(compiled.get(name, ""))
        if data.startswith(MAGIC_NUMBER):
            return marshal.loads(data[HEADER:])  # noqa: S302 - it came with the source
        return compile(sources[name], NAME, "exec")

    def load(*names: str) -> Any:
        """Execute modules, each after those it imports from; the last of them."""
        sys.modules.update(made)
        try:
            for name in names:
                module = ModuleType(f"{package}.{name}")
                module.__package__ = package
                exec(code(name), module.__dict__)  # noqa: S102
                made[module.__name__] = sys.modules[module.__name__] = module
        finally:
            for name in made:
                sys.modules.pop(name, None)
        return module

    def main() -> None:
        # First, so that it sees whatever comes after it.
        witness = load("witness").witness(given, 0) if given is not None else None
        load("texts", "channel", "worker").worker(load, witness)

    return main
