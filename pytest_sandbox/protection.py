"""Which of a candidate's changes are run: decided on trees, and on this side.

Tests, conftest.py and configuration run as whoever is trusted has them; what would act before or
around the tests is not run at all. Knows no provider and not how tests run.
"""

from __future__ import annotations

import fnmatch
import re
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from pytest_sandbox import ini
from pytest_sandbox.wire import printable
from pytest_sandbox.workspace import Entry, Tree, Workspace

#: Read by pytest, by what builds the project, or by CI; wherever they lie.
_CONFIGURATION: Final = frozenset({
    "conftest.py", "pytest.ini", ".pytest.ini", "pytest.toml", ".pytest.toml", "tox.ini",
    "tox.toml", "setup.cfg", "setup.py", "pyproject.toml", "noxfile.py", ".coveragerc", "Makefile",
    "GNUmakefile", "makefile", "justfile", ".gitlab-ci.yml", ".travis.yml", "azure-pipelines.yml",
    "appveyor.yml", "Jenkinsfile", "MANIFEST.in",
})  # fmt: skip
_CI_FOLDERS: Final = (".github/", ".circleci/", ".gitlab/", ".buildkite/")
_TEST_FOLDER: Final = re.compile(r"(?:.*[_-])?tests?(?:[_-].*)?|testsuite")
#: What Python loads without a source that anybody could read in the patch.
_BINARY: Final = re.compile(
    r".*\.(?:py[cod]|so(?:\.[\d.]+)?|dylib|dll|pth|egg-link|egg|whl)"
    r"|(?:.*/)?(?:__pycache__|\.pytest_cache|[^/]+\.(?:dist|egg)-info)(?:/.*)?",
    re.IGNORECASE,
)
_STARTUP: Final = frozenset({"sitecustomize", "usercustomize"})
#: The runner, what it imports, and plugins that nearly every environment has.
_RUNNER: Final = frozenset({
    "pytest", "_pytest", "pluggy", "iniconfig", "packaging", "exceptiongroup", "tomli", "py",
    "attr", "attrs", "pygments", "colorama", "importlib_metadata", "zipp", "typing_extensions",
    "xdist", "execnet", "pytest_asyncio", "pytest_cov", "pytest_mock", "pytest_timeout", "anyio",
    "conftest", "pkg_resources", "setuptools", "_distutils_hack", "pip",
})  # fmt: skip
_STDLIB: Final = frozenset(sys.stdlib_module_names)


@dataclass(frozen=True, slots=True, kw_only=True)
class Protection:
    """What became of a candidate's changes. Paths are relative, with ``/``, sorted."""

    #: What is run: the candidate's tree after everything below.
    tree: Tree
    #: ``tree`` without the tests that the candidate adds: what a score is made from.
    scored: Tree
    #: Changed, and run as the candidate has them.
    kept: tuple[str, ...] = ()
    #: Changed or deleted by the candidate, and run as they are trusted.
    restored: tuple[str, ...] = ()
    #: Added by the candidate and not run, with the reason.
    dropped: tuple[tuple[str, str], ...] = ()
    #: Run as the candidate has them, with what a person should know.
    flagged: tuple[tuple[str, str], ...] = ()
    #: Tests, and their support, that the candidate adds.
    own_tests: tuple[str, ...] = ()
    #: What tests must not be able to change while they run.
    sealed: tuple[str, ...] = ()
    #: Names that the candidate adds where Python looks for modules.
    fresh: tuple[str, ...] = ()


def protect(
    workspace: Workspace,
    base: Tree,
    candidate: Tree,
    *,
    trusted: Tree | None = None,
    restore: Sequence[str] = (),
    unprotect: Sequence[str] = (),
) -> Protection:
    """What runs of ``candidate``, which somebody made of ``base``.

    Args:
        trusted: the base with tests that the candidate has not seen; the base when None.
        restore: globs of more files that run as they are trusted.
        unprotect: globs of files that run as the candidate has them after all.
            As everywhere here, a glob matches whole paths, "*" also across "/".
    """
    trusted = trusted or base
    before = _by_path(workspace, base)
    right = _by_path(workspace, trusted)
    after = _by_path(workspace, candidate)
    rules = _Rules(right, _ini(workspace, trusted), restore, unprotect)

    result = _Result(after)
    kept, restored, own = [], [], []
    dropped = result.dropped
    given = {path for path in right.keys() | before.keys() if right.get(path) != before.get(path)}
    for path in sorted(before.keys() | after.keys() | right.keys()):
        was, now = before.get(path), after.get(path)
        if path in given:
            # Part of the trusted tests, which the candidate may happen to have as well.
            result.put(path, right.get(path))
            if now not in (was, right.get(path)):
                restored.append(path)
        elif now != was:
            if rules.lets_through(path):
                kept.append(path)
            elif was is not None and rules.protects(path):
                result.put(path, was)
                restored.append(path)
            elif was is None and (why := rules.objection(path)):
                dropped[path] = why
            elif was is None and rules.is_test(path):
                own.append(path)
            else:
                kept.append(path)
    for path in dropped:
        result.pop(path, None)
    names = _Names(right, result, rules.roots(result))
    for path in [*kept, *own]:
        why = names.shadows(path) if path not in before and path in result else None
        if why and not rules.lets_through(path):
            dropped[path] = why
            del result[path]
    kept = [path for path in kept if path not in dropped]
    own = [path for path in own if path in result]
    alone = set(own)
    scored = {path: entry for path, entry in result.items() if path not in alone}

    def made(entries: Mapping[str, Entry]) -> Tree:
        if entries == after:
            return candidate
        return replace(candidate, id=workspace.tree_of(entries.values()))

    return Protection(
        tree=made(result),
        scored=made(scored),
        kept=tuple(kept),
        restored=tuple(restored),
        dropped=tuple(sorted(dropped.items())),
        flagged=tuple(_flags(kept, before, result)),
        own_tests=tuple(own),
        sealed=tuple(sorted(p for p in scored if p in right and rules.protects(p))),
        fresh=tuple(sorted(names.fresh(kept + own))),
    )


def named(paths: Sequence[str], most: int = 3) -> str:
    """The first of ``paths``, safe to show, and how many there are beside."""
    shown = ", ".join(printable(path, line=True) for path in paths[:most])
    return shown + (f" and {len(paths) - most} more" if len(paths) > most else "")


def note(protection: Protection) -> str:
    """One line that says what does not run as the candidate has it; "" where all does."""
    parts = []
    if protection.restored:
        parts.append(f"as at the base: {named(protection.restored)}")
    if protection.dropped:
        parts.append(f"not used: {named([path for path, _ in protection.dropped])}")
    if not parts:
        return ""
    return f"{'; '.join(parts)} (--sandbox-unprotect lets a file through)"


def _by_path(workspace: Workspace, tree: Tree) -> dict[str, Entry]:
    return {entry.path.decode("utf-8", "surrogateescape"): entry for entry in workspace.files(tree)}


def _ini(workspace: Workspace, tree: Tree) -> Mapping[str, Any]:
    class Files:
        def read(self, path: str) -> bytes | None:
            return workspace.read(tree, path)

    return ini.pytest_keys(Files())


class _Result(dict[str, Entry]):
    """The files of the tree that is being made."""

    def __init__(self, files: Mapping[str, Entry]) -> None:
        super().__init__(files)
        self.dropped: dict[str, str] = {}
        self._folders = {path[:at] for path in files for at, c in enumerate(path) if c == "/"}

    def put(self, path: str, entry: Entry | None) -> None:
        """Have ``path`` as it is in ``entry``, and nothing of the candidate's in its place."""
        if entry is None:
            self.pop(path, None)
            return
        others = [path[:at] for at, char in enumerate(path) if char == "/"]
        if path in self._folders:
            others += [other for other in self if other.startswith(path + "/")]
        for other in others:
            if self.pop(other, None) is not None:
                self.dropped[other] = f"it takes the place of {path}"
        self[path] = entry


class _Rules:
    """What is protected, as the trusted tree and its pytest configuration say."""

    def __init__(
        self,
        trusted: Collection[str],
        keys: Mapping[str, Any],
        restore: Sequence[str],
        unprotect: Sequence[str],
    ) -> None:
        patterns = [p for p in _words(keys.get("python_files")) if p.strip("*") not in ("", ".py")]
        self._files = _any_of(["test_*.py", "*_test.py", "tests.py", *patterns])
        self._restore = _any_of(restore)
        self._unprotect = _any_of(unprotect)
        self._pythonpath = [path.strip("/") for path in _words(keys.get("pythonpath"))]
        wanted = {path.strip("/") for path in _words(keys.get("testpaths"))} - {"", ".", "src"}
        folders: set[str] = set()
        #: Folders with test files in them, some of which pytest puts on sys.path.
        self._holding: set[str] = set()
        for path in trusted:
            *parents, name = path.split("/")
            if not self._files.fullmatch(name):
                continue
            self._holding.add("/".join(parents))
            for depth in range(1, len(parents) + 1):
                folder = "/".join(parents[:depth])
                called = _TEST_FOLDER.fullmatch(parents[depth - 1]) or folder == "testing"
                if called or (folder in wanted and f"{folder}/__init__.py" not in trusted):
                    folders.add(folder)
        self._folders = frozenset(folders)

    def lets_through(self, path: str) -> bool:
        return self._unprotect.fullmatch(path) is not None

    def is_test(self, path: str) -> bool:
        *parents, name = path.split("/")
        if self._files.fullmatch(name):
            return True
        return any("/".join(parents[:n]) in self._folders for n in range(1, len(parents) + 1))

    def protects(self, path: str) -> bool:
        """Whether a tracked file runs as it is trusted."""
        name = path.rpartition("/")[2]
        return (
            name in _CONFIGURATION
            or path.startswith(_CI_FOLDERS)
            or self.is_test(path)
            or _binary(path)
            or self._restore.fullmatch(path) is not None
        )

    def objection(self, path: str) -> str | None:
        """Why a file that the candidate adds is not run, whatever else there is."""
        parts = path.split("/")
        name = parts[-1]
        if _binary(path):
            return "nobody can read what it does"
        if any(part.partition(".")[0] in _STARTUP for part in parts):
            return "Python would run it at every start"
        if name == "conftest.py":
            return "it would change how the tests run"
        if name in _CONFIGURATION or path.startswith(_CI_FOLDERS):
            return "it would configure the tests or the build"
        if name == "__init__.py" and "/".join(parts[:-1]) in (self._folders | self._holding):
            return "it would change how the tests are imported"
        return None

    def roots(self, result: Collection[str]) -> frozenset[str]:
        """The folders that Python may look for modules in."""
        found = {"", "src", "lib", *self._pythonpath}
        for folder in self._holding:
            # With its default import mode, pytest takes the first folder above that is no package.
            while f"{folder}/__init__.py" in result:
                folder = folder.rpartition("/")[0]
            found.add(folder)
        return frozenset(found)


def _binary(path: str) -> bool:
    return _BINARY.fullmatch(path) is not None


def _words(value: object) -> list[str]:
    if isinstance(value, str):
        return value.split()
    return [str(part) for part in value] if isinstance(value, list) else []


def _any_of(globs: Sequence[str]) -> re.Pattern[str]:
    return re.compile("|".join(fnmatch.translate(glob) for glob in globs) or r"(?!)")


class _Names:
    """The names of modules that a tree provides at each place Python looks for them."""

    def __init__(
        self, trusted: Collection[str], result: Collection[str], roots: frozenset[str]
    ) -> None:
        self._roots = roots
        self._result = result
        self._trusted = dict(self._all(trusted))
        self._there = dict(self._all(result))

    def _all(self, paths: Collection[str]) -> Iterator[tuple[tuple[str, str], None]]:
        for path in paths:
            for root, name in self._at(path, paths):
                yield (root, name), None

    def _at(self, path: str, paths: Collection[str]) -> Iterator[tuple[str, str]]:
        """(root, module) for each root that ``path`` makes importable as a top-level name."""
        if not path.endswith(".py"):
            return
        parts = path.split("/")
        for depth in range(len(parts)):
            root = "/".join(parts[:depth])
            if root not in self._roots:
                continue
            if depth == len(parts) - 1:
                yield root, parts[-1][:-3]
            elif f"{root}/{parts[depth]}/__init__.py".lstrip("/") in paths:
                yield root, parts[depth]

    def fresh(self, added: Collection[str]) -> set[str]:
        """The names that only the candidate provides."""
        known = {name for _, name in self._trusted}
        return {name for path in added for _, name in self._at(path, self._result)} - known

    def shadows(self, path: str) -> str | None:
        """Why a file that the candidate adds would be taken for another; None where it is not."""
        for root, name in self._at(path, self._result):
            if (root, name) in self._trusted:
                continue
            if any(known == name for _, known in self._trusted):
                others = [r for r, known in self._trusted if known == name]
                if any((other, name) in self._there for other in others):
                    return f"it would be imported in place of the project's own {name!r}"
                continue
            if name in _RUNNER:
                return f"it would be imported in place of {name!r}, which runs the tests"
            if name in _STDLIB:
                return f"it would be imported in place of the standard library's {name!r}"
        return None


def _flags(
    kept: Sequence[str], before: Mapping[str, Entry], after: Mapping[str, Entry]
) -> Iterator[tuple[str, str]]:
    for path in kept:
        now, was = after.get(path), before.get(path)
        if now is None:
            continue
        if now.mode == "120000" and (was is None or was.mode != "120000"):
            yield path, "a symbolic link"
        elif was is not None and was.blob == now.blob:
            yield path, "only its mode changes"
