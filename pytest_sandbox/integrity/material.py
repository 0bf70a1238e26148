"""What canaries and probes are made from: trusted sources, and where they lie.

Reads trees; starts nothing.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pytest_sandbox import ini, plan
from pytest_sandbox.integrity import canaries, neutral, nodeids
from pytest_sandbox.integrity.canaries import Canaries
from pytest_sandbox.integrity.neutral import Neutral, Project
from pytest_sandbox.integrity.nodeids import Function
from pytest_sandbox.protection import followed
from pytest_sandbox.workspace import Entry, Tree, Workspace

#: A test module that is larger has no canaries.
_MAX_FILE = 2 << 20
#: Options by which tests see other warnings, other plugins or another configuration.
_ACTING = re.compile(
    r"(?:^|\s)(?:-W|-o|-c|--pythonwarnings|--override-ini|--config-file|-p\s*(?!\s|no:)|"
    r"-p\s*no:warnings)"
)


@dataclass(frozen=True, slots=True)
class Material:
    """Of one run's tests."""

    #: Ids by function, of modules that are the candidate's as they are trusted.
    tests: Mapping[Function, list[str]]
    #: Text by path of these modules.
    sources: Mapping[str, bytes] = field(repr=False)
    #: Of those, the ones that nothing else needs: they are not there when others run.
    gone: tuple[str, ...]
    #: What the ini file puts on Python's path.
    pythonpath: tuple[str, ...]
    _project: Project = field(repr=False)

    @classmethod
    def read(cls, run: plan.Run, trusted: Tree, ids: Collection[str], rootdir: str) -> Material:
        """From the trees of ``run``."""
        workspace = run.workspace
        found = nodeids.functions(ids, rootdir)
        right = _modules(workspace, trusted)
        there = _modules(workspace, run.candidate)
        modules = {test.path for test in found}
        same = {path for path in modules if path in right and right[path] == there.get(path)}
        support = {
            path
            for path in right
            if posixpath.basename(path) in ("conftest.py", "__init__.py")
            or any(posixpath.dirname(path) == posixpath.dirname(module) for module in modules)
        }
        wanted = [right[path] for path in sorted(same | support)]
        contents = {
            path.decode("utf-8", "surrogateescape"): content
            for path, content in workspace.contents(wanted, most=_MAX_FILE).items()
        }
        sources = {path: contents[path] for path in sorted(same) if path in contents}
        needed = _imported(contents, sources)
        keys = ini.pytest_keys(_Reader(run, trusted))
        project = Project(
            contents.get, cwd=run.cwd, pythonpath=_paths(keys.get("pythonpath")),
            bare=_bare(keys, [*run.args, run.env.get("PYTEST_ADDOPTS", "")]),
        )  # fmt: skip
        return cls(
            {test: list(names) for test, names in found.items() if test.path in sources},
            sources,
            tuple(path for path in sources if path not in needed),
            _paths(keys.get("pythonpath")),
            project,
        )

    def canaries(
        self,
        functions: Collection[Function],
        decisive: Collection[Function],
        unknown: Collection[Function],
    ) -> Canaries:
        """Variants of the tests, under new names each time."""
        modules = {test.path for test in functions}
        sources = {path: text for path, text in self.sources.items() if path in modules}
        return canaries.make(sources, functions, decisive, unknown=unknown)

    def neutral(self, functions: Collection[Function]) -> Neutral:
        """Probes of the tests."""
        return neutral.make(self._project, functions)


def _modules(workspace: Workspace, tree: Tree) -> dict[str, Entry]:
    """The modules of a tree; for a link, what it leads to."""
    files = {
        entry.path.decode("utf-8", "surrogateescape"): entry for entry in workspace.files(tree)
    }
    for path, way in followed(workspace, files).items():
        if way.end in files:
            files[path] = replace(files[way.end], path=files[path].path)
    return {path: entry for path, entry in files.items() if path.endswith(".py")}


@dataclass(frozen=True, slots=True)
class _Reader:
    run: plan.Run
    tree: Tree

    def read(self, path: str) -> bytes | None:
        return self.run.workspace.read(self.tree, path)


def _paths(found: object) -> tuple[str, ...]:
    if isinstance(found, str):
        return tuple(found.split())
    return tuple(path for path in found if isinstance(path, str)) if isinstance(found, list) else ()


def _bare(keys: Mapping[str, object], args: Sequence[str]) -> bool:
    """Whether no key and no option changes what a test sees: warnings, fixtures, variables."""
    given = keys.get("addopts", "")
    options = [*args, *(map(str, given) if isinstance(given, list) else [str(given)])]
    # Of plugins that are named by a key, "env" is the one that many have.
    named = {"filterwarnings", "usefixtures", "env"} & set(keys)
    return not named and _ACTING.search(" ".join(options)) is None


def _imported(contents: Mapping[str, bytes], sources: Mapping[str, bytes]) -> set[str]:
    """Those of ``sources`` that another file imports."""
    found = set()
    lines = {
        path: b"\n".join(re.findall(rb"^\s*(?:from|import)\b[^\n]*(?:\([^)]*\))?", text, re.M))
        for path, text in contents.items()
    }
    for path in sources:
        stem = posixpath.basename(path).removesuffix(".py").encode()
        word = re.compile(rb"\b" + re.escape(stem) + rb"\b")
        if any(word.search(text) for other, text in lines.items() if other != path):
            found.add(path)
    return found
