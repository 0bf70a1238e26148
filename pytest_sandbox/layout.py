"""A project's files as data, and the import names they provide.

Content may be hostile: reading it costs bounded time, raises nothing, and imports nothing.
Knows no set-up commands.
"""

from __future__ import annotations

import configparser
import posixpath
import re
import sys
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Protocol

#: Nobody writes more by hand.
_MAX_TOML = 1 << 20
#: A dotted key costs the square of its parts.
_MAX_DOTS = 500
#: Folders at the top that hold no package of the project.
_NO_PACKAGES = frozenset(
    {"test", "tests", "testing", "doc", "docs", "example", "examples", "benchmark", "benchmarks",
     "bench", "script", "scripts", "tool", "tools", "build", "dist", "ci", "utils"}
)  # fmt: skip
_NO_MODULES = frozenset({"setup", "conftest", "noxfile", "tasks", "fabfile", "manage"})
_PACKAGE_DIR = re.compile(r"""package_dir\s*=\s*\{\s*(?:""|'')\s*:\s*["']([\w./-]{1,100})["']""")
_FIND = re.compile(
    r"""find_(?:namespace_)?packages\(\s*(?:where\s*=\s*)?["']([\w./-]{1,100})["']"""
)


class Files(Protocol):
    """A project's files, by path relative to its top."""

    def read(self, path: str) -> bytes | None: ...

    def names(self) -> Collection[str]: ...


def toml(files: Files, path: str) -> tuple[Mapping[str, Any], bool]:
    """A file's content, {} when there is none, and whether there is one that cannot be read."""
    content = files.read(path)
    if content is None:
        return {}, False
    try:
        return parse_toml(content), False
    except ValueError:
        return {}, True


def parse_toml(content: bytes) -> dict[str, Any]:
    """TOML that may be hostile, in bounded time.

    Raises:
        ValueError: it is not valid, or larger or deeper than any configuration.
    """
    if len(content) > _MAX_TOML or any(n.count(b".") > _MAX_DOTS for n in content.splitlines()):
        raise ValueError("too large")
    try:
        return tomllib.loads(content.decode())
    except (RecursionError, OverflowError) as error:
        raise ValueError(str(error)) from None


def ini(files: Files, path: str) -> Mapping[str, Mapping[str, str]]:
    """A file's sections; {} when there are none that can be read."""
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string((files.read(path) or b"").decode())
    except (ValueError, configparser.Error):
        return {}
    return {section: dict(parser.items(section)) for section in parser.sections()}


def table(data: Mapping[str, Any], *path: str) -> Mapping[str, Any]:
    """The table at ``path``; {} when something else is there."""
    for key in path:
        value = data.get(key)
        if not isinstance(value, dict):
            return {}
        data = value
    return data


def top_level_packages(files: Files) -> tuple[str, ...]:
    """The import names the tree provides.

    They are looked for in the folders the build files name, in ``src``, and, where those hold
    none, at the top. Of a namespace package, which may be spread over several projects, the
    packages below it are named (``company.tool``).
    """
    names = files.names()
    found: set[str] = set()
    for root in {"src", *_hints(files)} - {""}:
        inside = [n[len(root) + 1 :] for n in names if n.startswith(f"{root}/")]
        found |= set(_packages(inside))
    return tuple(sorted(found or set(_at_top(names))))


def _at_top(names: Iterable[str]) -> Iterator[str]:
    for name in _packages(name for name in names if name.count("/") < 2):
        if name not in _NO_PACKAGES | _NO_MODULES and not name.startswith("test_"):
            yield name


def _packages(names: Iterable[str]) -> Iterator[str]:
    """Modules, packages, and what is a package in folders that are none."""
    folders = set()
    for name in names:
        folder, _, file = name.rpartition("/")
        if file == "__init__.py" and folder:
            folders.add(folder)
        elif not folder and file.endswith(".py") and not file.startswith("__"):
            yield from _importable(file[:-3])
    for folder in folders:
        parts = folder.split("/")
        if not any("/".join(parts[:n]) in folders for n in range(1, min(len(parts), 32))):
            yield from _importable(*parts)


def _importable(*parts: str) -> Iterator[str]:
    # What the standard library has as well is imported from there.
    named = len(parts) <= 4 and all(part.isidentifier() for part in parts)
    if named and parts[0] not in sys.stdlib_module_names:
        yield ".".join(parts)


def _hints(files: Files) -> Iterator[str]:
    """Folders that build files say the packages are in; "" is the top."""
    for hint in _said(files):
        if isinstance(hint, str) and len(hint) < 200:
            folder = posixpath.normpath(hint)
            if not folder.startswith(("/", "..")):
                yield "" if folder == "." else folder


def _said(files: Files) -> Iterator[Any]:
    project, _ = toml(files, "pyproject.toml")
    setuptools = table(project, "tool", "setuptools")
    yield table(setuptools, "package-dir").get("")
    yield from _list(table(setuptools, "packages", "find").get("where"))
    for package in _list(table(project, "tool", "poetry").get("packages")):
        yield package.get("from") if isinstance(package, dict) else None
    for package in _list(
        table(project, "tool", "hatch", "build", "targets", "wheel").get("packages")
    ):
        yield posixpath.dirname(package) if isinstance(package, str) else None
    yield table(project, "tool", "pdm", "build").get("package-dir")
    yield table(project, "tool", "maturin").get("python-source")
    yield table(project, "tool", "uv", "build-backend").get("module-root")
    cfg = ini(files, "setup.cfg")
    for line in cfg.get("options", {}).get("package_dir", "").splitlines():
        name, equals, folder = line.partition("=")
        yield folder.strip() if equals and not name.strip() else None
    yield cfg.get("options.packages.find", {}).get("where")
    script = (files.read("setup.py") or b"").decode("utf-8", "replace")
    yield from _PACKAGE_DIR.findall(script)
    yield from _FIND.findall(script)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
