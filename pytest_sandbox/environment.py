"""How a project's test environment is set up, found from its files.

The files are data from a tree, and may be hostile: names taken from them are checked, and
nothing of them is run or imported here. Knows neither pytest nor providers.
"""

from __future__ import annotations

import fnmatch
import hashlib
import posixpath
import re
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_sandbox.layout import Files, ini, table, toml, top_level_packages

#: Part of every key: what an older version prepared is not reused.
_FORMAT = "3"
#: Names under which projects keep what their tests need, the most telling first.
_TEST_NAMES = ("test", "tests", "testing", "dev", "develop", "development")
_REQUIREMENTS = (
    "requirements-test.txt", "requirements-tests.txt", "requirements-testing.txt",
    "test-requirements.txt", "tests-requirements.txt", "requirements_test.txt",
    "requirements_tests.txt", "requirements/test.txt", "requirements/tests.txt",
    "requirements/testing.txt", "tests/requirements.txt", "test/requirements.txt",
    "requirements-dev.txt", "dev-requirements.txt", "requirements_dev.txt",
    "requirements/dev.txt",
)  # fmt: skip
_BUILD_FILES = ("pyproject.toml", "setup.cfg", "setup.py")
_COMPILED = (".pyx", ".pxd", ".c", ".cc", ".cpp", ".cxx", ".h", ".hpp", ".rs")
_VERSION_FILES = ("__init__.py", "_version.py", "version.py", "__about__.py", "__version__.py")
# -I: a logging.py or pip.py at the project's top must not be taken for the real one.
_INSTALL = "-m pip install -q --disable-pip-version-check --no-input"
_PIP = f"python -I {_INSTALL}"
#: PEP 685: names of extras and groups. Anything else in that place is ignored.
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,60}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What to run, what its result depends on, and what to say about it."""

    #: For ``sh -c`` in the workspace, with the fresh virtual environment first on PATH.
    commands: tuple[str, ...]
    #: Paths whose content the result depends on; "*" stands for the whole tree.
    inputs: tuple[str, ...]
    reason: str
    #: The project's own top-level import names.
    packages: tuple[str, ...]


def detect(files: Files, *, commands: Sequence[str] = (), inputs: Sequence[str] = ()) -> Setup:
    """The set-up of a project: the user's commands, or what its files suggest."""
    names = frozenset(files.names())
    packages = top_level_packages(files)
    if commands:
        chosen = tuple(sorted(n for n in names for g in inputs if fnmatch.fnmatchcase(n, g)))
        return Setup(
            commands=tuple(commands),
            # Globs that match nothing would keep the result forever.
            inputs=chosen or ("*",),
            reason=f"{len(commands)} command{'s' * (len(commands) > 1)} given",
            packages=packages,
        )
    found, why = _commands(files, names)
    depends = set(_depends(files, names, packages))
    depends |= {n for g in inputs for n in names if fnmatch.fnmatchcase(n, g)}
    return Setup(
        commands=(*found, _ensure_pytest()),
        inputs=tuple(sorted(depends)),
        reason=why,
        packages=packages,
    )


def _depends(files: Files, names: frozenset[str], packages: Collection[str]) -> Iterator[str]:
    """What the commands found here read, as far as files can tell."""
    wanted = {
        *_BUILD_FILES,
        *_REQUIREMENTS,
        "requirements.txt",
        "uv.lock",
        "poetry.lock",
        ".python-version",
        "MANIFEST.in",
        "VERSION",
        "VERSION.txt",
        "version.txt",
        # What builds run, read or are steered by.
        "build.py",
        "hatch_build.py",
        "versioneer.py",
        "meson.build",
        "CMakeLists.txt",
        "Cargo.toml",
        "Cargo.lock",
    }
    # Where builds read a version that is not written in a build file.
    wanted |= {f"{top}{package}/{name}" for top in ("", "src/") for package in packages
               for name in _VERSION_FILES}  # fmt: skip
    todo = {n for n in names if n in wanted or n.startswith("requirements/")}
    for value in table(toml(files, "pyproject.toml")[0], "tool", "setuptools", "dynamic").values():
        listed = value.get("file") if isinstance(value, dict) else None
        todo |= names & {n for n in (listed if isinstance(listed, list) else [listed])
                         if isinstance(n, str)}  # fmt: skip
    seen: set[str] = set()
    while todo:
        name = todo.pop()
        seen.add(name)
        yield name
        if name.endswith((".txt", ".in")):
            # Requirements that name other files.
            text = (files.read(name) or b"").decode("utf-8", "replace")
            for other in re.findall(r"^(?:-r|-c|--requirement|--constraint)[ =]*(\S+)", text, re.M):
                todo |= names & {posixpath.normpath(posixpath.join(posixpath.dirname(name), other))}
            todo -= seen
    # What an editable build compiles.
    yield from (n for n in names if n.endswith(_COMPILED))


def _commands(files: Files, names: frozenset[str]) -> tuple[list[str], str]:
    project, broken = toml(files, "pyproject.toml")
    if "uv.lock" in names and project:
        return _uv(project)
    if "poetry.lock" in names and project:
        return _poetry(project, locked=True)
    if _only_poetry_knows(project):
        return _poetry(project, locked=False)
    commands: list[str] = []
    reasons: list[str] = []
    if any(name in names for name in _BUILD_FILES) and _installable(files, names, project):
        extra = _first(_extras(files, project))
        target = f".[{extra}]" if extra else "."
        commands.append(f"{_PIP} -e {shlex.quote(target)}")
        reasons.append(f"the project itself{f' with its extra {extra!r}' if extra else ''}")
    group = _first(table(project, "dependency-groups"))
    if group:
        groups = {_normal(n): v for n, v in table(project, "dependency-groups").items()}
        requirements = list(_group(groups, _normal(group), set()))
        if requirements:
            commands.append(f"{_PIP} {' '.join(shlex.quote(r) for r in requirements)}")
            reasons.append(f"its dependency group {group!r}")
    listed = next((name for name in _REQUIREMENTS if name in names), None)
    if "requirements.txt" in names and not commands:
        commands.append(f"{_PIP} -r requirements.txt")
        reasons.append("requirements.txt")
    if listed is not None and not group:
        commands.append(f"{_PIP} -r {shlex.quote(listed)}")
        reasons.append(listed)
    if broken:
        reasons.append("pyproject.toml cannot be read")
    if not commands:
        return [], "; ".join(["nothing to install but pytest", *reasons])
    return commands, "installs " + ", ".join(reasons)


def _uv(project: Mapping[str, Any]) -> tuple[list[str], str]:
    group = _first(table(project, "dependency-groups"))
    extra = _first(table(project, "project", "optional-dependencies"))
    options = f" --group {group}" if group else ""
    options += f" --extra {extra}" if extra else ""
    return (
        [
            # Not into the environment: that holds what is locked, and its own Python.
            f'{_PIP} --target "$TMPDIR/uv" uv',
            'UV_PROJECT_ENVIRONMENT="$VIRTUAL_ENV" UV_PYTHON="$VIRTUAL_ENV/bin/python" '
            "UV_PYTHON_DOWNLOADS=never UV_NO_CACHE=1 "
            f'"$TMPDIR/uv/bin/uv" sync -q --frozen --inexact{options}',
        ],
        "uv.lock: installs exactly what it locks",
    )


def _only_poetry_knows(project: Mapping[str, Any]) -> bool:
    """Whether what tests need is written in poetry's own way, which pip does not read."""
    poetry = table(project, "tool", "poetry")
    return bool(_first(table(poetry, "group")) or table(poetry, "dev-dependencies"))


def _poetry(project: Mapping[str, Any], *, locked: bool) -> tuple[list[str], str]:
    group = _first(table(project, "tool", "poetry", "group"))
    extra = _first(
        [
            *table(project, "project", "optional-dependencies"),
            *table(project, "tool", "poetry", "extras"),
        ]
    )
    options = f" --with {group}" if group else ""
    options += f" --extras {extra}" if extra else ""
    # Without a lock it makes one, which the project does not have.
    options += "" if locked else " && rm -f poetry.lock"
    return (
        [
            # Apart, or it would replace packages that it runs on itself. Its -q would hide
            # errors, too.
            'python -I -m venv "$TMPDIR/poetry" && '
            f'"$TMPDIR/poetry/bin/python" -I {_INSTALL} poetry',
            # Not quiet: it would keep its errors to itself.
            f'"$TMPDIR/poetry/bin/poetry" install -n{options}',
        ],
        "poetry.lock: installs exactly what it locks"
        if locked
        else "poetry without a lock: installs the newest that fits",
    )


def _ensure_pytest() -> str:
    return f"python -I -c 'import pytest' 2>/dev/null || {_PIP} pytest"


def _installable(files: Files, names: frozenset[str], project: Mapping[str, Any]) -> bool:
    """Whether the build files describe a package, and not only tools' settings."""
    if "setup.py" in names or "build-system" in project or "project" in project:
        return True
    return "metadata" in ini(files, "setup.cfg")


def _first(names: Iterable[str]) -> str | None:
    found = {name.lower(): name for name in names if _NAME.fullmatch(name)}
    return next((found[name] for name in _TEST_NAMES if name in found), None)


def _extras(files: Files, project: Mapping[str, Any]) -> Iterator[str]:
    yield from table(project, "project", "optional-dependencies")
    yield from table(project, "tool", "poetry", "extras")
    yield from table(project, "tool", "flit", "metadata", "requires-extra")
    yield from ini(files, "setup.cfg").get("options.extras_require", {})
    script = (files.read("setup.py") or b"").decode("utf-8", "replace")
    # Where setup() is told of a variable, what that was set to.
    variable = re.search(r"extras_require\s*=\s*([A-Za-z_]\w{0,60})\s*[,)]", script)
    name = variable[1] if variable else "extras_require"
    block = re.search(rf"\b{name}\s*=\s*(?:dict\(|\{{)(.{{0,4000}})", script, re.DOTALL)
    if block:
        yield from re.findall(r"""["']?\b([A-Za-z]+)\b["']?\s*[:=]\s*[\[(\w]""", block[1])
    yield from re.findall(rf"""\b{name}\[["']([A-Za-z]+)["']\]\s*=""", script)


def _group(groups: Mapping[str, Any], name: str, seen: set[str]) -> Iterator[str]:
    """The requirements of a dependency group (PEP 735), each included group once."""
    entries = groups.get(name)
    if not isinstance(entries, list) or name in seen:
        return
    seen.add(name)
    for entry in entries:
        if isinstance(entry, str) and _requirement(entry):
            yield entry
        elif isinstance(entry, dict) and isinstance(entry.get("include-group"), str):
            yield from _group(groups, _normal(entry["include-group"]), seen)


def _normal(name: str) -> str:
    """PEP 503: names that differ in this only are the same."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _requirement(text: str) -> bool:
    """Whether pip will take it for a requirement and not for an option."""
    return bool(re.match(r"[A-Za-z0-9]", text)) and text.isprintable() and len(text) < 1000


def setup_key(
    setup: Setup, files: Files, *, interpreter: str, engine: str, extra: Mapping[str, str]
) -> str:
    """The content address of a prepared environment.

    Args:
        extra: whatever else the result depends on, such as the names of secrets, and the
            tree's own address where ``setup.inputs`` is the whole tree.
    """
    digest = hashlib.sha256()

    def add(*parts: bytes) -> None:
        digest.update(len(parts).to_bytes(8, "big"))
        for part in parts:
            digest.update(len(part).to_bytes(8, "big") + part)

    add(_FORMAT.encode(), interpreter.encode(), engine.encode())
    add(
        *(
            f"{name}={value}".encode("utf-8", "surrogateescape")
            for name, value in sorted(extra.items())
        )
    )
    add(*(command.encode("utf-8", "surrogateescape") for command in setup.commands))
    # Some editable installs list the packages there are.
    add(*(package.encode("utf-8", "surrogateescape") for package in setup.packages))
    for path in setup.inputs:
        if path != "*":
            add(path.encode("utf-8", "surrogateescape"), files.read(path) or b"")
    return digest.hexdigest()
