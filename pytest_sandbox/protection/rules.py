"""What of a tree is tests and configuration, as the trusted tree has them.

Names and the trusted pytest configuration decide. Pure: knows no workspace and reads no file.
"""

from __future__ import annotations

import fnmatch
import glob
import re
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from pytest_sandbox.protection.links import Way, below

#: What pytest and its plugins read, or what builds and runs the tests, where tests lie below it.
_CONFIGURATION: Final = frozenset({
    "pytest.ini", ".pytest.ini", "pytest.toml", ".pytest.toml", "tox.ini", "tox.toml",
    "setup.cfg", "setup.py", "pyproject.toml", "noxfile.py", ".coveragerc", "Makefile",
    "GNUmakefile", "makefile", "justfile", "MANIFEST.in", ".gitlab-ci.yml", ".travis.yml",
    "azure-pipelines.yml", "appveyor.yml", ".appveyor.yml", "Jenkinsfile",
})  # fmt: skip
_CI_FOLDERS: Final = (".github/", ".circleci/", ".gitlab/", ".buildkite/")
_TEST_FOLDER: Final = re.compile(r"(?:.*[_-])?tests?(?:[_-].*)?|testsuite")
#: What Python loads, or finds plugins by, without a source that anybody could read.
_BINARY: Final = re.compile(
    r".*\.(?:py[cod]|so(?:\.[\d.]+)?|dylib|dll|pth|egg-link|egg|whl)"
    r"|(?:.*/)?(?:__pycache__|\.pytest_cache|[^/]+\.(?:dist|egg)-info)(?:/.*)?",
    re.IGNORECASE,
)
_STARTUP: Final = frozenset({"sitecustomize", "usercustomize"})
_REQUIREMENTS: Final = re.compile(
    r"(?:[^/]*/)?[^/]*requirements[^/]*\.(?:txt|in)|requirements/[^/]+|(?:.*/)?(?:poetry\.lock|"
    r"uv\.lock|pdm\.lock|Pipfile(?:\.lock)?|pylock\.toml|environment\.ya?ml|constraints\.txt)"
)


class Rules:
    """What is protected in a project.

    Args:
        trusted: the paths of the trusted tree.
        keys: the trusted pytest configuration.
        restore: globs of more files that run as they are trusted.
        unprotect: globs of files that run as the candidate has them after all.
        links: where the trusted tree's symbolic links lead.
    """

    def __init__(
        self,
        trusted: Collection[str],
        keys: Mapping[str, Any],
        restore: Sequence[str] = (),
        unprotect: Sequence[str] = (),
        links: Mapping[str, Way] | None = None,
    ) -> None:
        patterns = ["test_*.py", "*_test.py", "tests.py", "test*.txt", *_test_files(keys)]
        wanted = [path.strip("/").removeprefix("./") for path in words(keys.get("testpaths"))]
        self._wanted = any_of(path for path in wanted if path not in ("", ".", "src", "lib"))
        self._files = any_of(p for p in patterns if "/" not in p)
        paths = [q for p in patterns if "/" in p for q in (p, f"*/{p}")]
        self._paths = any_of((*paths, *self._all_tests(trusted, keys)))
        self._restore = any_of(restore)
        self._unprotect = any_of(unprotect)
        #: Folders with test files in them, some of which pytest puts on sys.path.
        self.holding: set[str] = set()
        #: Folders with an ``__init__.py``.
        self.packages: set[str] = set()
        self._folders: set[str] = set()
        self._trusted = trusted
        #: Folders with other modules in them.
        self._others: set[str] = set()
        for path in trusted:
            folder, _, name = path.rpartition("/")
            if self.is_test_file(path):
                self.holding.add(folder)
            elif name == "__init__.py":
                self.packages.add(folder)
            elif name.endswith(".py") and name != "conftest.py":
                self._others.add(folder)
        folders = self._linked_folders(links or {})
        #: Those and every folder above them: configuration there is the tests'.
        self._above = {""}
        for folder in self.holding:
            parts = folder.split("/") if folder else []
            for depth in range(1, len(parts) + 1):
                above = "/".join(parts[:depth])
                self._above.add(above)
                called = _TEST_FOLDER.fullmatch(parts[depth - 1]) or above == "testing"
                if called or (self._wanted.fullmatch(above) and above not in self.packages):
                    self._folders.add(above)
            if folder and folder not in self.packages and folder not in self._others:
                self._folders.add(folder)
        #: What the tests read by another name.
        self._reached: set[str] = set()
        for link, files in folders.items():
            self._follow_folder(link, (links or {})[link], files)
        for link, way in (links or {}).items():
            if link not in folders and self._is_ours(link, way.end):
                self._reached |= {way.end, *way.over}

    def _linked_folders(self, links: Mapping[str, Way]) -> dict[str, list[str]]:
        """The links to folders, with what lies there; what holds tests may be called so."""
        found = {}
        for link, way in links.items():
            # A folder around the link holds everything, and says nothing.
            if not way.end or way.end in self._trusted or f"{link}/".startswith(f"{way.end}/"):
                continue
            files = below(way.end, self._trusted)
            if files:
                found[link] = files
            for path in files:
                seen = link + path[len(way.end) :]
                if self.is_test_file(path) or self.is_test_file(seen):
                    self.holding.add(seen.rpartition("/")[0])
        return found

    def _follow_folder(self, link: str, way: Way, files: Sequence[str]) -> None:
        if link in self._folders:
            self._reached |= {link, *way.over}
            inner = {path.rpartition("/")[0] for path in files if not self.in_tests(path)}
            # Packages with other modules are the product, next to its tests.
            if not inner & self._others & self.packages:
                self._folders.add(way.end)
        elif self.in_tests(link) and not any(path.endswith(".py") for path in files):
            # With modules in it, it is the product as the tests import it.
            self._reached |= {*way.over, *(f for f in files if self._is_data(f))}
        ours = {f for f in files if self._restore.fullmatch(link + f[len(way.end) :])}
        if ours:
            self._reached |= {link, *way.over, *ours}

    def _is_ours(self, link: str, path: str) -> bool:
        """Whether what a link leads to is part of the tests because of it."""
        if self._named(link) or self.configures(link) or self._restore.fullmatch(link):
            return True
        return self.in_tests(link) and path in self._trusted and self._is_data(path)

    def _is_data(self, path: str) -> bool:
        """Whether a file that tests link to is no part of the product."""
        folder = path.rpartition("/")[0]
        if not folder or folder.split("/")[0] in ("src", "lib") or path.endswith(".py"):
            return False
        while folder:
            if folder in self.packages:
                return False
            folder = folder.rpartition("/")[0]
        return True

    def _all_tests(self, trusted: Collection[str], keys: Mapping[str, Any]) -> Iterator[str]:
        """Globs of what ``testpaths`` alone tells to be tests, as any module's name is one's.

        No folder is meant in which the product lies as well: a package, or where packages lie.
        With doctests, any module may be the product's.
        """
        any_name = any(name.strip("*") in ("", ".py") for name in words(keys.get("python_files")))
        if not any_name or "--doctest-modules" in _options(keys):
            return
        packages = {path.rpartition("/")[0] for path in trusted if path.endswith("/__init__.py")}
        roots = {path.strip("/").removeprefix("./") for path in words(keys.get("pythonpath"))}
        others = packages | {folder.rpartition("/")[0] for folder in packages} | roots
        folders = {path[:at] for path in trusted for at, char in enumerate(path) if char == "/"}
        for path in folders - others:
            if self._wanted.fullmatch(path):
                yield f"{glob.escape(path)}/*.py"

    def lets_through(self, path: str) -> bool:
        return self._unprotect.fullmatch(path) is not None

    def is_test(self, path: str) -> bool:
        """Whether a file is one of tests, or lies with them."""
        return self._named(path) or self.in_tests(path)

    def is_test_file(self, path: str) -> bool:
        """Whether pytest takes a module for tests by its name."""
        return path.endswith(".py") and self._named(path)

    def is_own_test(self, path: str, packages: Collection[str]) -> bool:
        """Whether a file that the candidate adds is a test of its own and no part of the product.

        Away from all tests, ``test_runner.py`` in one of its ``packages`` may be either, and stays.
        """
        folder = path.rpartition("/")[0]
        if self.in_tests(path) or self._restore.fullmatch(path):
            return True
        return self._named(path) and (folder in self.holding or folder not in packages)

    def protects(self, path: str) -> bool:
        """Whether a tracked file runs as it is trusted."""
        return (
            self.configures(path)
            or self.is_test(path)
            or _BINARY.fullmatch(path) is not None
            or self._restore.fullmatch(path) is not None
            or path in self._reached
        )

    def objection(self, path: str) -> str | None:
        """Why a file that the candidate adds is not run, whatever else there is."""
        folder, _, name = path.rpartition("/")
        if _BINARY.fullmatch(path):
            return "nobody can read what it does"
        if any(part.partition(".")[0] in _STARTUP for part in path.split("/")):
            return "Python would run it at every start"
        if name == "conftest.py":
            return "it would change how the tests run"
        if self.configures(path):
            return "it would configure the tests or the build"
        if path in self._reached:
            return "a link of the tests leads to it"
        if name == "__init__.py":
            if folder in self._folders or folder in self.holding or not folder:
                return "it would change how the tests are imported"
            if f"{folder}.py" in self._trusted and self.protects(f"{folder}.py"):
                return f"it would be imported in place of {folder}.py"
        module = folder if name == "__init__.py" else path.removesuffix(".py")
        if module in self._others and self.in_tests(f"{module}/"):
            # Python takes what is added before a folder that is no package.
            return f"it would be imported in place of {module}/"
        return None

    def is_requirement(self, path: str) -> bool:
        return _REQUIREMENTS.fullmatch(path) is not None

    def configures(self, path: str) -> bool:
        """Whether a file says how tests run or how the project is built."""
        folder, _, name = path.rpartition("/")
        if name == "conftest.py":
            return True
        if name in _CONFIGURATION and (folder in self._above or self.in_tests(path)):
            return True
        return path.startswith(_CI_FOLDERS)

    def _named(self, path: str) -> bool:
        name = path.rpartition("/")[2]
        if self._files.fullmatch(name) or self._paths.fullmatch(path):
            return name.endswith(".py") or not self.is_requirement(path)
        return False

    def in_tests(self, path: str) -> bool:
        """Whether a path lies in a folder of tests; the folder itself ends with "/"."""
        at = path.find("/")
        while at >= 0:
            if path[:at] in self._folders:
                return True
            at = path.find("/", at + 1)
        return False


def words(value: object) -> list[str]:
    """The words of an ini key, in whichever form it is written."""
    if isinstance(value, str):
        return value.split()
    return [str(part) for part in value] if isinstance(value, list) else []


def any_of(globs: Iterable[str]) -> re.Pattern[str]:
    """What matches one of ``globs``; nothing where there are none."""
    return re.compile("|".join(fnmatch.translate(glob) for glob in globs) or r"(?!)")


def _test_files(keys: Mapping[str, Any]) -> list[str]:
    """The files with tests in them that the configuration names."""
    # One that takes in every module says nothing of which are tests.
    found = [p for p in words(keys.get("python_files")) if p.strip("*") not in ("", ".py")]
    given = _options(keys)
    for at, word in enumerate(given):
        if word == "--doctest-glob" and at + 1 < len(given):
            found.append(given[at + 1])
        elif word.startswith("--doctest-glob="):
            found.append(word.partition("=")[2])
    return [glob for glob in found if glob.strip("*") not in ("", ".py")]


def _options(keys: Mapping[str, Any]) -> list[str]:
    """What the configuration's ``addopts`` are; none where they cannot be read."""
    options = keys.get("addopts", "")
    try:
        return shlex.split(options) if isinstance(options, str) else words(options)
    except ValueError:
        return []
