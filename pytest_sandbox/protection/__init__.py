"""Which of a candidate's changes are run: decided on trees, and on this side.

Tests, conftest.py and configuration run as whoever is trusted has them; what would act before or
around the tests is not run at all. Knows no provider and not how tests run.
"""

from __future__ import annotations

import glob
import posixpath
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_sandbox import ini
from pytest_sandbox.protection import links
from pytest_sandbox.protection.links import Way
from pytest_sandbox.protection.modules import Modules
from pytest_sandbox.protection.rules import Rules, words
from pytest_sandbox.wire import printable
from pytest_sandbox.workspace import Change, Entry, Tree, Workspace


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What ``protect`` was asked."""

    base: Tree
    candidate: Tree
    trusted: Tree
    restore: tuple[str, ...] = ()
    unprotect: tuple[str, ...] = ()


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
    #: Of those restored and dropped: conftest.py and what configures tests or builds.
    configuration: tuple[str, ...] = ()
    #: What tests must not be able to change while they run.
    sealed: tuple[str, ...] = ()
    #: Names that the candidate adds where Python looks for modules.
    fresh: tuple[str, ...] = ()
    #: Those of ``kept`` that only an unprotecting glob lets through.
    let_through: tuple[str, ...] = ()
    #: What all this is the answer to; None for what nobody asked.
    asked: Asked | None = None


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
    right = {_text(entry.path): entry for entry in workspace.files(trusted)}
    given = {_text(change.path): change for change in workspace.differences(base, trusted)}
    asked = {_text(change.path): change for change in workspace.differences(base, candidate)}
    keys = ini.pytest_keys(_Files(workspace, trusted))
    rules = Rules(right, keys, restore, unprotect, followed(workspace, right))
    found = _Decision(rules, right, given, asked)
    added = found.added()
    found.hiding(_modules(rules, right, keys, added, _inserted(workspace, right) if added else ()))

    tree = workspace.edited(candidate, found.edits)
    alone = {path.encode("utf-8", "surrogateescape"): None for path in found.own}
    return Protection(
        tree=tree,
        scored=workspace.edited(tree, alone),
        kept=tuple(found.kept),
        restored=tuple(found.restored),
        dropped=tuple(sorted(found.dropped.items())),
        flagged=tuple(found.flags(_plugins(workspace, right, keys) if found.kept else ())),
        own_tests=tuple(found.own),
        configuration=tuple(
            path for path in sorted({*found.restored, *found.dropped}) if rules.configures(path)
        ),
        sealed=tuple(
            path
            for path in right
            if (path in given or rules.protects(path)) and path not in found.as_asked
        ),
        fresh=tuple(sorted(found.fresh)),
        let_through=tuple(found.let_through),
        asked=Asked(
            base=base, candidate=candidate, trusted=trusted,
            restore=tuple(restore), unprotect=tuple(unprotect),
        ),
    )  # fmt: skip


def with_tests(workspace: Workspace, made: Protection, files: Iterable[str]) -> Protection:
    """``made``, where it is known from a run of what is trusted that ``files`` hold its tests.

    The same object when that changes nothing.
    """
    asked = made.asked
    known = {*made.sealed, *made.let_through}
    more = [glob.escape(path) for path in files if path not in known]
    if asked is None or not more:
        return made
    return protect(
        workspace, asked.base, asked.candidate, trusted=asked.trusted,
        restore=(*asked.restore, *more), unprotect=asked.unprotect,
    )  # fmt: skip


def followed(workspace: Workspace, files: Mapping[str, Entry]) -> Mapping[str, Way]:
    """Where the symbolic links among all the files of a tree lead, as far as they stay in it."""
    targets = workspace.targets(files.values())
    return links.ways({_text(path): _text(target) for path, target in targets.items()})


def named(paths: Sequence[str], most: int = 3) -> str:
    """The first of ``paths``, safe to show, and how many there are beside."""
    shown = ", ".join(printable(path, line=True) for path in paths[:most])
    return shown + (f" and {len(paths) - most} more" if len(paths) > most else "")


def withheld(protection: Protection) -> str:
    """One line that says what does not run as the candidate has it; "" for nothing."""
    parts = []
    if protection.restored:
        parts.append(f"as at the base: {named(protection.restored)}")
    if protection.dropped:
        parts.append(f"not used: {named([path for path, _ in protection.dropped])}")
    if parts:
        parts[-1] += " (--sandbox-unprotect lets a file through)"
    return "; ".join(parts)


def note(protection: Protection) -> str:
    """``withheld``, and what runs as the candidate has it only by request."""
    through = protection.let_through
    parts = (withheld(protection), f"let through: {named(through)}" if through else "")
    return "; ".join(filter(None, parts))


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")


_PLUGINS = re.compile(rb"^pytest_plugins\b[^=\n]*=\s*(\[[^\]]*\]|\([^)]*\)|[^\n]*)", re.MULTILINE)
_INSERTED = re.compile(rb"^[^#\n]*\bsys\.path\.insert\(([^\n]*)", re.MULTILINE)
_QUOTED = re.compile(rb"[\"']([^\"'\n]*)[\"']")
_HOLE = re.compile(r"\{[^}]*\}")
_NAME = re.compile(rb"[\"']([A-Za-z_][\w.]*)[\"']")


class _Files:
    def __init__(self, workspace: Workspace, tree: Tree) -> None:
        self._workspace = workspace
        self._tree = tree

    def read(self, path: str) -> bytes | None:
        return self._workspace.read(self._tree, path)


def _modules(
    rules: Rules,
    right: Mapping[str, Entry],
    keys: Mapping[str, Any],
    added: Mapping[str, Entry],
    inserted: Iterable[str],
) -> Modules:
    # Where a test is added, its folder becomes a place to look for modules.
    more = {path.rpartition("/")[0] for path in added if rules.is_test_file(path)}
    more -= {folder for folder in more if f"{folder}/__init__.py" in added}
    roots = [path.strip("/").removeprefix("./") for path in words(keys.get("pythonpath"))]
    return Modules(
        right,
        rules.packages,
        [root for root in (*roots, *inserted) if root != "."],
        rules.holding | more,
        rules.in_tests,
    )


def _inserted(workspace: Workspace, right: Mapping[str, Entry]) -> set[str]:
    """The folders that a line of the trusted conftest.py files puts first on ``sys.path`` by name.

    Not a package, where a module of any name may be meant for it. What is appended hides nothing.
    """
    files = [e for path, e in right.items() if path.rpartition("/")[2] == "conftest.py"]
    named = set()
    for path, text in workspace.contents(files).items():
        for line in _INSERTED.findall(text):
            parts = [_HOLE.sub("", _text(part)) for part in _QUOTED.findall(line)]
            place = posixpath.normpath("/".join(parts).lstrip("/"))
            # From there, or from the top or a folder above: which one, only running it would tell.
            here = posixpath.normpath(posixpath.join(posixpath.dirname(_text(path)), place))
            named |= {here, place.replace("../", "")}
    folders = {path.rpartition("/")[0] for path in right if path.endswith(".py")}
    return {name for name in named & folders if name and f"{name}/__init__.py" not in right}


def _plugins(
    workspace: Workspace, right: Mapping[str, Entry], keys: Mapping[str, Any]
) -> Collection[str]:
    """The modules that the trusted tests load as plugins, as ends of paths."""
    given = " ".join(words(keys.get("addopts")))
    names = set(re.findall(r"(?:^|\s)-p[ =]?([\w.]+)", given))
    files = [e for path, e in right.items() if path.rpartition("/")[2] == "conftest.py"]
    for text in workspace.contents(files).values():
        for value in _PLUGINS.findall(text):
            names |= {name.decode() for name in _NAME.findall(value)}
    return {name.replace(".", "/") for name in names}


class _Decision:
    """What becomes of each path; ``edits`` is what makes the candidate's tree the one to run."""

    def __init__(
        self,
        rules: Rules,
        right: Mapping[str, Entry],
        given: Mapping[str, Change],
        asked: Mapping[str, Change],
    ) -> None:
        self._rules = rules
        self._given = given
        self._asked = asked
        self.kept: list[str] = []
        self.own: list[str] = []
        self.restored: list[str] = []
        self.let_through: list[str] = []
        self.dropped: dict[str, str] = {}
        self.fresh: set[str] = set()
        self.edits: dict[bytes, Entry | None] = {}
        for path, change in given.items():
            self._put(path, change.new)
        for path, change in asked.items():
            if path in given:
                # Part of the trusted tests, which the candidate may happen to have as well.
                if change.new != given[path].new:
                    self.restored.append(path)
            elif change.old is not None and rules.protects(path):
                if rules.lets_through(path):
                    self.let_through.append(path)
                else:
                    self.restored.append(path)
                    self._put(path, right[path])
        self._displace()
        inits = {path[: -len("/__init__.py")] for path in asked if path.endswith("/__init__.py")}
        packages = rules.packages | inits
        for path, change in asked.items():
            if path in given or path in self.dropped or path in self.let_through:
                continue
            if change.old is not None:
                if not rules.protects(path):
                    self.kept.append(path)
            elif rules.lets_through(path):
                plain = rules.objection(path) is None and not rules.is_own_test(path, packages)
                (self.kept if plain else self.let_through).append(path)
            elif why := rules.objection(path):
                self._drop(path, why)
            else:
                (self.own if rules.is_own_test(path, packages) else self.kept).append(path)
        self.kept = sorted([*self.kept, *self.let_through])

    def _put(self, path: str, entry: Entry | None) -> None:
        self.edits[path.encode("utf-8", "surrogateescape")] = entry

    def _drop(self, path: str, why: str) -> None:
        self.dropped[path] = why
        self._put(path, None)

    def _displace(self) -> None:
        """Drop what the candidate has in the place of what is restored or given."""
        put = {_text(path) for path, entry in self.edits.items() if entry is not None}
        folders = {path[:at] for path in put for at, char in enumerate(path) if char == "/"}
        for path, change in self._asked.items():
            if change.new is None or path in put or path in self._given:
                continue
            above = (path[:at] for at, char in enumerate(path) if char == "/")
            if path in folders:
                self._drop(path, f"it takes the place of the folder {path}/")
            elif (file := next((a for a in above if a in put), None)) is not None:
                self._drop(path, f"it takes the place of {file}")

    def added(self) -> dict[str, Entry]:
        """What the candidate adds, as far as it is run."""
        changes = ((path, self._asked[path]) for path in (*self.kept, *self.own))
        return {path: change.new for path, change in changes if change.old is None and change.new}

    @property
    def as_asked(self) -> frozenset[str]:
        """The paths that are the candidate's or nobody's."""
        return frozenset(self.kept)

    def hiding(self, modules: Modules) -> None:
        """Drop what Python would import in place of something else."""
        added = self.added()
        gone = modules.gone(path for path in self.kept if self._asked[path].new is None)
        for path, entry in added.items():
            places = modules.provides(path, added, link=entry.mode == "120000")
            why = modules.hides(places, gone)
            if why is None or path in self.let_through:
                self.fresh |= modules.fresh(places)
            elif self._rules.lets_through(path):
                self.let_through.append(path)
                self.fresh |= modules.fresh(places)
            else:
                self._drop(path, why)
        self.kept = [path for path in self.kept if path not in self.dropped]
        self.own = [path for path in self.own if path not in self.dropped]
        self.let_through.sort()

    def flags(self, plugins: Collection[str]) -> Iterator[tuple[str, str]]:
        """What a person should know of files that run as the candidate has them."""
        for path in self.kept:
            old, new = self._asked[path].old, self._asked[path].new
            if self._rules.is_requirement(path):
                yield path, "the environment is that of the base: it has no effect"
            if new is None:
                continue
            module = path.removesuffix(".py").removesuffix("/__init__")
            if any(f"/{module}".endswith(f"/{plugin}") for plugin in plugins):
                yield path, "the tests load it as a plugin"
            if new.mode == "120000" and (old is None or old.mode != "120000"):
                yield path, "a symbolic link"
            elif old is not None and old.blob == new.blob:
                yield path, "only its mode changes"
