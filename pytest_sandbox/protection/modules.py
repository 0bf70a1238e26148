"""The modules that a tree provides where Python looks for them, and what would hide others.

Pure: knows paths only, and neither tests' rules nor a workspace.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Final

#: The runner, what it imports, and plugins that nearly every environment has.
_RUNNER: Final = frozenset({
    "pytest", "_pytest", "pluggy", "iniconfig", "packaging", "exceptiongroup", "tomli", "py",
    "attr", "attrs", "pygments", "colorama", "importlib_metadata", "zipp", "typing_extensions",
    "xdist", "execnet", "pytest_asyncio", "pytest_cov", "pytest_mock", "pytest_timeout", "anyio",
    "conftest", "pkg_resources", "setuptools", "_distutils_hack", "pip",
})  # fmt: skip
#: Of this Python, and what other versions had or have.
_STDLIB: Final = sys.stdlib_module_names | {
    "asynchat", "asyncore", "binhex", "cgi", "cgitb", "chunk", "crypt", "distutils", "imghdr",
    "imp", "lib2to3", "mailcap", "pipes", "smtpd", "sndhdr", "telnetlib", "tomllib", "uu",
    "xdrlib", "zoneinfo",
}  # fmt: skip
#: Top folders whose packages nobody imports but themselves.
_ASIDE: Final = frozenset({"benchmarks", "doc", "docs", "example", "examples", "samples"})

Place = tuple[str, str]


class Modules:
    """Top-level names of a trusted tree by the folder Python looks in: ``(root, name)``.

    Args:
        trusted: its paths.
        packages: its folders with an ``__init__.py``.
        roots: folders that are known to be on ``sys.path``, beside those that are guessed.
        holding: folders with test files in them.
        in_tests: whether a path lies in a folder of tests.
    """

    def __init__(
        self,
        trusted: Collection[str],
        packages: Collection[str],
        roots: Iterable[str] = (),
        holding: Iterable[str] = (),
        in_tests: Callable[[str], bool] = lambda path: False,
    ) -> None:
        self._packages = packages
        found = {self._root_of(folder) for folder in holding}
        #: Roots with nothing but tests below them.
        self._tests = {root for root in found if in_tests(f"{root}/")}
        self._roots = {"", *roots, *found}
        self._roots |= {root for root in ("src", "lib") if root not in packages}
        aside: set[str] = set()
        for folder in packages:
            above = folder.rpartition("/")[0]
            if above and above not in packages and above not in self._roots:
                (aside if folder.split("/")[0] in _ASIDE else self._roots).add(above)
        known = Counter(place for path in trusted for place in self._provided(path))
        self._known: Counter[Place] = known
        self._where: dict[str, set[str]] = {}
        for root, name in known:
            self._where.setdefault(name, set()).add(root)
        self._roots |= aside
        #: Folders of tests that are no packages, by name: any package comes before one.
        self._spaces: dict[str, str] = {}
        for folder in {path.rpartition("/")[0] for path in trusted if path.endswith(".py")}:
            while folder and folder not in packages and in_tests(f"{folder}/"):
                above, _, name = folder.rpartition("/")
                if above in self._roots:
                    self._spaces.setdefault(name, folder)
                folder = above

    def _root_of(self, folder: str) -> str:
        """What pytest's default import mode puts on ``sys.path`` for the tests in ``folder``."""
        while folder in self._packages and folder:
            folder = folder.rpartition("/")[0]
        return folder

    def _provided(self, path: str) -> Iterator[Place]:
        """What ``path`` alone makes importable."""
        if not path.endswith(".py"):
            return
        folder, _, file = path.rpartition("/")
        if file != "__init__.py":
            if folder in self._roots:
                yield folder, file[:-3]
            return
        root, _, name = folder.rpartition("/")
        if root in self._roots:
            yield root, name
        above, _, space = root.rpartition("/")
        # A package in a folder that is none: a namespace. At the top, any folder may hold some.
        if above in self._roots and above and root not in self._packages:
            yield above, space

    def provides(self, path: str, added: Collection[str], *, link: bool = False) -> list[Place]:
        """The names that ``path``, one of ``added``, makes importable, or is a part of."""
        *folders, name = path.split("/")
        found = []
        for depth in range(len(folders) + 1):
            root = "/".join(folders[:depth])
            if root not in self._roots:
                continue
            if depth < len(folders):
                package = "/".join(folders[: depth + 1])
                if package in self._packages or f"{package}/__init__.py" in added:
                    found.append((root, folders[depth]))
            elif name.endswith(".py"):
                found.append((root, name[:-3]))
            elif link and "." not in name:
                found.append((root, name))
        return found

    def fresh(self, places: Iterable[Place]) -> set[str]:
        """The names that nothing trusted provides."""
        return {name for _, name in places} - self._where.keys()

    def hides(self, places: Iterable[Place], gone: Counter[Place]) -> str | None:
        """Why an added file would be taken for another; None where it would not.

        Args:
            places: what it provides.
            gone: what is no more provided by files that the candidate deletes.
        """
        for root, name in places:
            if (root, name) in self._known:
                continue
            space = self._spaces.get(name)
            if space is not None and space != f"{root}/{name}".lstrip("/"):
                return f"it would be imported in place of {space}/"
            others = self._where.get(name, set())
            if root not in self._tests:
                # Where tests are collected, their own folder comes first.
                others = others - self._tests
            if any(self._known[other, name] > gone[other, name] for other in others):
                return f"it would be imported in place of the project's own {name!r}"
            if others:
                continue
            if name in _RUNNER:
                return f"it would be imported in place of {name!r}, which runs the tests"
            if name in _STDLIB:
                return f"it would be imported in place of the standard library's {name!r}"
        return None

    def gone(self, deleted: Iterable[str]) -> Counter[Place]:
        """What ``deleted`` files do not provide any more."""
        return Counter(place for path in deleted for place in self._provided(path))
