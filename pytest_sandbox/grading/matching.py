"""Which observed tests an expected id stands for. Pure; what passed and what did not is not its
business.

``exact``: the id is a node id as the sandbox's pytest has it, and nothing else matches.

``swebench``: SWE-bench's lists were read from logs, and many ids in them are no node ids. Each
rule below undoes one known defect. They are tried in this order, the first that finds tests is
taken and named in the verdict, and a rule that finds several tests stands for all of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from pytest_sandbox.grading.model import Observed, Task
from pytest_sandbox.wire import printable

#: The rules of ``swebench`` by the name that a verdict shows.
RULES: Final[Mapping[str, str]] = {
    "checkout path": "the id starts with the path of the image's checkout, or with ./",
    "xdist prefix": "[gw0] before the id, or @group after it, as pytest-xdist prints them",
    "rootdir": "the id is relative to the repository, the node id to a rootdir below it",
    "changes each run": "addresses of objects and temporary folders differ from run to run",
    "cut at a space": "the log parser took the line up to a space in the parameter",
    "last part of a path": "the log parser kept only /name of a parameter that is a path",
    "checkout path in a parameter": "a parameter is a path below the image's checkout",
    "mouse button": "the log parser wrote matplotlib's MouseButton.LEFT and RIGHT as 1 and 3",
    "bare name": "a function without its file, as sympy's runner prints them",
    "unittest name": "test (module.Class), as unittest and django's runner print them",
}

#: Where SWE-bench's images hold the repository.
_CHECKOUT: Final = "/testbed"
_WORKER: Final = re.compile(r"\A\[gw\d+\] ")
# Not an @ in a parameter that was cut.
_GROUP: Final = re.compile(r"([^\[]*|.*\])@[\w.-]+", re.DOTALL)
_COPY: Final = re.compile(r"(.+) \((\d{1,9})\)", re.DOTALL)
# Only what looks like an address: 0xffffffff may well be a parameter that means something.
_ADDRESS: Final = re.compile(r"\bat 0x[0-9a-fA-F]{6,16}\b|\b0x[0-9a-fA-F]{11,16}\b")
_TEMPORARY: Final = re.compile(r"/tmp/pytest-of-[^/\s\]]+/pytest-\d+|/tmp/tmp[a-z0-9_]{8}\b")
_SHORT_PATH: Final = re.compile(r"[^\[\]]*\[/[^/*\s][^/*\s]*\]")
_UNITTEST: Final = re.compile(r"(\w+) \(([\w.]+)\)")
_PATCHED: Final = re.compile(rb"^\+\+\+ (?:b/)?([^\t\r\n\"]+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Match:
    """The node ids an expected id stands for; none when it is not there."""

    nodeids: tuple[str, ...]
    #: "" when the id is the node id; else names of ``RULES``.
    rule: str = ""


def matcher(task: Task, observed: Observed) -> Callable[[str], Match]:
    """A function from an expected id of ``task`` to what was observed of it."""
    known = _Known(observed)
    if task.ids == "exact":
        return known.exact
    files = _files(task, known)
    roots = tuple(dict.fromkeys(root for root in (task.workdir, _CHECKOUT) if root))

    def match(expected: str) -> Match:
        found = known.exact(expected)
        if found.nodeids:
            return found
        text, undone = _unprefixed(printable(expected, line=True), roots)
        for rule, names in _tried(text, known, files, roots):
            nodeids = known.nodeids(names)
            if nodeids:
                parts = [*undone, rule] if rule else undone
                return Match(nodeids, " + ".join(parts))
        return Match(())

    return match


def originals(observed: Observed) -> Mapping[str, tuple[str, ...]]:
    """What was observed by the ids that pytest has: an id, and the copies that results number."""
    return {first: tuple(copies) for first, copies in _Known(observed).copies.items()}


class _Known:
    """The observed node ids, looked up in several ways."""

    def __init__(self, observed: Observed) -> None:
        #: A node id, with the copies that results number when an id is repeated: all count.
        self.copies: dict[str, list[str]] = {}
        for nodeid in observed.tests:
            copy = _COPY.fullmatch(nodeid)
            first = self.copies.get(copy[1]) if copy else None
            if copy and first is not None and int(copy[2]) == len(first) + 1:
                first.append(nodeid)
            else:
                self.copies[nodeid] = [nodeid]
        #: What a node id may be called: its own name, and the one relative to the repository.
        self.names: dict[str, str] = {nodeid: nodeid for nodeid in self.copies}
        self.below: dict[str, str] = {}
        if observed.rootdir:
            self.below = {f"{observed.rootdir}/{nodeid}": nodeid for nodeid in self.copies}
            self.names = {**self.below, **self.names}
        self._indexes: dict[Callable[[str], str | None], dict[str, list[str]]] = {}

    def exact(self, expected: str) -> Match:
        """By the id itself. Node ids come through the gate, which makes them printable."""
        for text in (expected, printable(expected, line=True)):
            if text in self.copies:
                return Match(tuple(self.copies[text]))
        return Match(())

    def by(self, key: Callable[[str], str | None], wanted: str) -> list[str]:
        """The names whose key is ``wanted``."""
        index = self._indexes.get(key)
        if index is None:
            index = self._indexes[key] = {}
            for name in self.names:
                found = key(name)
                if found is not None:
                    index.setdefault(found, []).append(name)
        return index.get(wanted, [])

    def nodeids(self, names: Iterable[str]) -> tuple[str, ...]:
        firsts = dict.fromkeys(self.names[name] for name in names)
        return tuple(nodeid for first in firsts for nodeid in self.copies[first])


def _unprefixed(text: str, roots: Iterable[str]) -> tuple[str, list[str]]:
    """The id without what was printed around it, and the rules that took it off."""
    undone = []
    bare = _WORKER.sub("", text, count=1)
    grouped = _GROUP.fullmatch(bare)
    bare = grouped[1] if grouped else bare
    if bare != text:
        text = bare
        undone.append("xdist prefix")
    for prefix in (*(f"{root.rstrip('/')}/" for root in roots), "./"):
        if text.startswith(prefix):
            return text[len(prefix) :], [*undone, "checkout path"]
    return text, undone


def _tried(
    text: str, known: _Known, files: frozenset[str] | None, roots: Iterable[str]
) -> Iterator[tuple[str, Iterable[str]]]:
    """Each rule with the names it finds, in the order of ``RULES``."""
    yield "", [text] if text in known.names and text not in known.below else []
    yield "rootdir", [text] if text in known.below else []
    steady = _steady(text)
    if steady != text:
        yield "changes each run", known.by(_steady, steady)
    if _is_cut(text):
        near = known.by(_function, _function(text))
        yield "cut at a space", [name for name in near if _cut_from(text, name)]
        if steady != text:
            found = [name for name in near if _cut_from(steady, _steady(name))]
            yield "changes each run + cut at a space", found
    if _SHORT_PATH.fullmatch(text):
        yield "last part of a path", known.by(_shortened, text)
    for root in roots:
        if root in text.partition("[")[2]:
            pattern = _elsewhere(text, root)
            near = known.by(_function, _function(text))
            found = [name for name in near if pattern.fullmatch(name)]
            yield "checkout path in a parameter", found
    yield "mouse button", known.by(_unbuttoned, text)
    if text.isidentifier():
        yield "bare name", _within(files, known.by(_module_level, text))
    unittest = _UNITTEST.fullmatch(text)
    if unittest:
        # Python 3.11 and later put the test's name behind that of its class.
        dotted = unittest[2].removesuffix(f".{unittest[1]}")
        near = known.by(_test_and_class, f"{unittest[1]} {dotted.rpartition('.')[2]}")
        found = [name for name in near if f".{_dotted(name)}".endswith(f".{dotted}")]
        yield "unittest name", _within(files, found)


def _function(name: str) -> str:
    """A node id without its parameters."""
    return name.partition("[")[0]


def _steady(name: str) -> str:
    """A node id without what no two runs have in common."""
    return _TEMPORARY.sub("/tmp/*", _ADDRESS.sub("0x*", name))


def _is_cut(text: str) -> bool:
    """Whether a parameter begins and does not end, so that the id can be no node id."""
    if "::" not in text or "[" not in text:
        return False
    return not text.endswith("]") or text.count("[") > text.count("]")


def _cut_from(text: str, name: str) -> bool:
    return name.startswith(text) and name[len(text) : len(text) + 1].isspace()


def _shortened(name: str) -> str | None:
    """As SWE-bench's parse_log_pytest_options writes an id; None where it changes nothing."""
    # No pattern: it would search an id of many brackets from each of them.
    begin, end = name.find("["), name.rfind("]")
    if not 0 <= begin < end or " " in name:
        return None
    path = name[begin + 1 : end]
    if not path.startswith("/") or path.startswith("//") or "*" in path or path.count("/") == 1:
        return None
    return f"{name[:begin]}[/{path.rpartition('/')[2]}]"


def _elsewhere(text: str, root: str) -> re.Pattern[str]:
    """Matches ids that have another checkout, the same one everywhere, in the place of ``root``."""
    first, *rest = (re.escape(part) for part in text.split(root))
    pattern = first + r"(/[^\s\[\]]{0,4095}?)" + r"\1".join(rest)
    return re.compile(pattern + (r"\s.*" if _is_cut(text) else ""), re.DOTALL)


def _unbuttoned(name: str) -> str | None:
    if "MouseButton." not in name:
        return None
    return name.replace("MouseButton.LEFT", "1").replace("MouseButton.RIGHT", "3")


def _module_level(name: str) -> str | None:
    parts = _function(name).split("::")
    return parts[1] if len(parts) == 2 else None


def _test_and_class(name: str) -> str | None:
    unittest = _UNITTEST.fullmatch(name)
    if unittest:
        dotted = unittest[2].removesuffix(f".{unittest[1]}")
        return f"{unittest[1]} {dotted.rpartition('.')[2]}"
    parts = _function(name).split("::")
    return f"{parts[-1]} {parts[-2]}" if len(parts) > 2 else None


def _dotted(name: str) -> str:
    """``module.Class`` of a test in a class."""
    unittest = _UNITTEST.fullmatch(name)
    if unittest:
        return unittest[2].removesuffix(f".{unittest[1]}")
    path, *classes, _ = _function(name).split("::")
    return ".".join([path.removesuffix(".py").replace("/", "."), *classes])


def _files(task: Task, known: _Known) -> frozenset[str] | None:
    """Where tests that an id does not locate can be: files and folders that the task names.

    Otherwise a candidate could put a passing test of the same name into a file of its own.
    None where the task names none.
    """
    named = {path.decode("utf-8", "replace") for path in _PATCHED.findall(task.test_patch or b"")}
    tops = {name.partition("::")[0] for name in known.names}
    for arg in task.args:
        path = arg.partition("::")[0].removeprefix("./").rstrip("/")
        # An option's value is no folder that has tests.
        if path.endswith(".py") or any(top.startswith(f"{path}/") for top in tops):
            named.add(path)
    return frozenset(named) or None


def _within(files: frozenset[str] | None, names: Iterable[str]) -> list[str]:
    if files is None:
        return list(names)
    found = []
    for name in names:
        path = name.partition("::")[0]
        # A log's ids name no file, and its command ran only those of the task.
        if "::" not in name or any(path == file or path.startswith(f"{file}/") for file in files):
            found.append(name)
    return found
