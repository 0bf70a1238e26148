"""The fields of a task file, and what each may hold: docs/tasks.md documents them in this order."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

from pytest_sandbox import options
from pytest_sandbox.grading.jsonvalues import shown


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("a text, in quotes")
    return value


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(v, str) and v.strip() for v in value):
        raise ValueError('a list of texts, such as ["one", "two"]')
    return tuple(value)


def _test_ids(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(v, str) and v.strip() for v in value):
        raise ValueError('a list of test ids, such as ["tests/test_a.py::test_b"]')
    return tuple(dict.fromkeys(value))


def _commands(value: object) -> tuple[str, ...]:
    if isinstance(value, str) and value.strip():
        return (value,)
    try:
        return _texts(value)
    except ValueError:
        raise ValueError("a command, or a list of commands") from None


def _revision(value: object) -> str:
    if isinstance(value, str) and re.fullmatch(r"[^\s\x00-\x1f\x7f-][^\s\x00-\x1f\x7f]*", value):
        return value
    raise ValueError("a commit, tag or branch, in quotes")


def _folder(value: object) -> str:
    if not isinstance(value, str) or not value.startswith("/") or "\0" in value:
        raise ValueError('a folder of the image, such as "/testbed"')
    return value


def _switch(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def _variables(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ValueError('a table of texts, such as { TZ = "UTC" }')
    for name, text in value.items():
        options.variable(name)
        if "=" in name or not isinstance(text, str) or "\0" in text:
            raise ValueError(f'a table of texts, such as {{ TZ = "UTC" }}; {shown(name)} is none')
    return dict(value)


def _files(value: object) -> dict[str, str]:
    if not isinstance(value, dict) or not value:
        raise ValueError('a table of files, such as { "tests/test_more.py" = "more.py" }')
    for path, file in value.items():
        parts = path.split("/")
        plain = path.isprintable() and not {"", ".", "..", ".git"} & set(parts)
        if not plain or not isinstance(file, str) or not file.strip() or "\0" in file:
            raise ValueError(f"a table of files by their path in the tree; {shown(path)} is none")
    return dict(value)


def _expressions(value: object) -> tuple[str, ...]:
    found = _texts(value)
    for text in found:
        _parsed(text, "eval")
    return found


def _statements(value: object) -> str:
    return _parsed(_text(value), "exec")


def _parsed(text: str, mode: Literal["eval", "exec"]) -> str:
    try:
        compile(text, "task", mode, ast.PyCF_ONLY_AST, dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        kind = "expressions" if mode == "eval" else "statements"
        raise ValueError(f"Python's {kind}; {shown(text)} is none") from None
    return text


def _amount(parse: Callable[[str], float]) -> Callable[[object], float]:
    def checked(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            value = ""
        if len(str(value)) > 30:
            value = ""
        # As text, so that nan, inf and negative numbers go the way of all that is no amount.
        return parse(str(value))

    return checked


def _one_of(*words: str) -> Callable[[object], str]:
    def checked(value: object) -> str:
        if value not in words:
            raise ValueError(" or ".join(f'"{word}"' for word in words))
        return str(value)

    return checked


#: What may be in a file, and how it is read. What docs/tasks.md documents, in its order.
FIELDS: Final[Mapping[str, Mapping[str, Callable[[object], Any]]]] = {
    "task": {
        "id": _text, "repo": _text, "base": _revision, "test_patch": _text, "gold": _text,
        "patches": _one_of("strict", "swebench"),
    },
    "environment": {
        "image": _text, "workdir": _folder, "python": _text, "setup": _commands,
        "setup_inputs": _texts, "build": _commands, "env": _variables, "network": _switch,
    },
    "tests": {
        "files": _texts, "args": _texts, "restore": _texts, "ids": _one_of("exact", "swebench"),
        "fail_to_pass": _test_ids, "pass_to_pass": _test_ids, "flaky": _test_ids,
    },
    "unseen": {
        "held_out": _files, "calls": _expressions, "setup": _statements,
    },
    "limits": {
        "timeout": _amount(options.seconds), "memory": _amount(options.memory),
        "cpus": _amount(options.number),
    },
}  # fmt: skip
#: A table of the user's own, kept for reports.
EXTRA: Final = "extra"
