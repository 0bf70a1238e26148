"""Frames made into pytest's own objects: nodes, items, reports, warnings.

Nothing is imported, looked up or opened by a name the sandbox sent. Knows no providers and no
git.
"""

from __future__ import annotations

import os.path
import warnings
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any, Literal

import pytest
from _pytest._code.code import ReprFileLocation, TerminalRepr
from _pytest._io import TerminalWriter

from pytest_sandbox import wire


class RemoteNode(pytest.Collector):
    """A collector of the sandbox's pytest; it only gives the tree its shape."""

    kind: str

    def collect(self) -> Iterable[pytest.Item | pytest.Collector]:
        return ()

    def __repr__(self) -> str:
        return f"<{self.kind} {self.name}>"


class RemoteDirectory(pytest.Directory):
    """The folder at the root, which pytest's ``-k`` leaves out by its type."""

    kind: str

    def collect(self) -> Iterable[pytest.Item | pytest.Collector]:
        return ()

    def __repr__(self) -> str:
        return f"<{self.kind} {self.name}>"


class RemoteItem(pytest.Item):
    """A test that ran, or will run, in the sandbox."""

    kind: str
    #: Its number there; -1 where it is not there.
    index: int
    _location: tuple[str, int | None, str]

    @property
    def location(self) -> tuple[str, int | None, str]:
        return self._location

    @cached_property
    def words(self) -> dict[str, Literal[1]]:
        """The keywords as reports have them; to gather them costs as much as the report."""
        return dict.fromkeys(self.keywords, 1)

    def reportinfo(self) -> tuple[str, int | None, str]:
        return self._location

    def runtest(self) -> None:
        raise RuntimeError(
            f"{self.nodeid} runs in the sandbox: a plugin of this session tried to run it here"
        )

    def __repr__(self) -> str:
        return f"<{self.kind} {self.name}>"


class Tree:
    """Builds the local tree from ``collected`` frames."""

    def __init__(self, session: pytest.Session, *, mark_arguments: bool) -> None:
        self._session = session
        self._nodes: list[pytest.Collector] = []
        # Plugins evaluate strings they find in marks (a skipif condition, say), so arguments
        # are only given to marks when the user's -m asks for them.
        self._mark_arguments = mark_arguments
        self.items: list[RemoteItem] = []

    def add(self, frame: wire.Collected) -> None:
        for node in frame.nodes:
            self._nodes.append(self._node(node))
        for item in frame.items:
            self.items.append(self._item(item))

    def _parent(self, number: int) -> pytest.Collector:
        return self._session if number < 0 else self._nodes[number]

    def _node(self, node: wire.Node) -> pytest.Collector:
        parent = self._parent(node.parent)
        made: Any
        if node.type == "Dir" and node.parent < 0:
            made = RemoteDirectory.from_parent(
                parent, path=self._session.path, nodeid=node.nodeid, name=node.name
            )
        else:
            made = RemoteNode.from_parent(parent, name=node.name, nodeid=node.nodeid)
        made.kind = node.type
        return made  # type: ignore[no-any-return]

    def _item(self, item: wire.Item) -> RemoteItem:
        made: RemoteItem = RemoteItem.from_parent(
            self._parent(item.parent), name=item.name, nodeid=item.nodeid
        )
        made.kind = item.type
        made.index = len(self.items)
        made._location = (item.path, item.lineno, item.domain)
        for mark in item.marks:
            kwargs = mark.kwargs if self._mark_arguments else {}
            made.own_markers.append(pytest.Mark(mark.name, (), kwargs, _ispytest=True))
            made.keywords[mark.name] = True
        for name in item.keywords:
            made.keywords[name] = True
        made.extra_keyword_matches.update(item.keywords)
        return made


def unnamed(session: pytest.Session) -> RemoteItem:
    """An item for what the sandbox's own pytest deselected, of which only the number is known."""
    made: RemoteItem = RemoteItem.from_parent(session, name="(in the sandbox)", nodeid="")
    made.kind, made.index, made._location = "Item", -1, ("", None, "")
    return made


class RemoteRepr(TerminalRepr):
    """A failure as the sandbox's pytest rendered it, with pytest's colours put back."""

    def __init__(self, longrepr: wire.LongRepr) -> None:
        self._text = longrepr.text
        self.reprcrash = ReprFileLocation(longrepr.path, longrepr.lineno, longrepr.message)
        if not longrepr.path:
            self.reprcrash = None  # type: ignore[assignment]

    def toterminal(self, tw: TerminalWriter) -> None:
        for line in self._text.split("\n"):
            if line.startswith("E "):
                tw.line(line, bold=True, red=True)
            else:
                tw.line(line)

    def __str__(self) -> str:
        return self._text


class SubtestReport(pytest.TestReport):
    """The report of one subtest."""

    description: str

    @property
    def head_line(self) -> str:
        return f"{self.location[2]} {self.description}"

    def sub_test_description(self) -> str:
        """What the pytest-subtests plugin offers to other plugins."""
        return self.description


def _longrepr(frame: wire.Report | wire.CollectReport) -> Any:
    longrepr = frame.longrepr
    if longrepr is None:
        # pytest's own reporters insist on a reason where there is none.
        return {"passed": None, "failed": "failed", "skipped": ("", 0, "skipped")}[frame.outcome]
    if frame.outcome == "skipped" and getattr(frame, "wasxfail", None) is None:
        return (longrepr.path, longrepr.lineno, longrepr.message)
    return RemoteRepr(longrepr)


def test_report(item: RemoteItem, frame: wire.Report) -> pytest.TestReport:
    """The local report of one phase."""
    make = pytest.TestReport if frame.subtest is None else SubtestReport
    report = make(
        item.nodeid,
        item.location,
        item.words.copy(),
        frame.outcome,
        _longrepr(frame),
        frame.when,
        frame.sections,
        frame.duration,
        frame.start,
        frame.stop,
        frame.properties,
    )
    if frame.wasxfail is not None:
        report.wasxfail = frame.wasxfail
    if isinstance(report, SubtestReport) and frame.subtest is not None:
        report.description = describe(frame.subtest)
    return report


test_report.__test__ = False  # type: ignore[attr-defined]


def describe(subtest: wire.Subtest) -> str:
    """As pytest 9 names subtests: ``[message] (i=1, j=2)``."""
    parts = [] if subtest.msg is None else [f"[{subtest.msg}]"]
    if subtest.kwargs:
        parts.append("(" + ", ".join(f"{k}={v}" for k, v in subtest.kwargs.items()) + ")")
    return " ".join(parts) or "(<subtest>)"


def failed_report(item: RemoteItem, text: str) -> pytest.TestReport:
    """A report of our own, for a test the sandbox left without a result."""
    longrepr: Any = text
    return pytest.TestReport(
        item.nodeid, item.location, dict.fromkeys(item.keywords, 1), "failed", longrepr, "setup"
    )


def refused_report(item: RemoteItem, text: str) -> pytest.TestReport:
    """A report of our own, for a test that did not do what it does at the base."""
    path, lineno, _ = item.location
    longrepr: Any = RemoteRepr(
        wire.LongRepr(text=text, path=path or item.name, lineno=(lineno or 0) + 1, message=text)
    )
    return pytest.TestReport(
        item.nodeid, item.location, item.words.copy(), "failed", longrepr, "call"
    )


def collect_report(frame: wire.CollectReport) -> pytest.CollectReport:
    return pytest.CollectReport(frame.nodeid, frame.outcome, _longrepr(frame), [], frame.sections)


def collected_report(items: Iterator[RemoteItem] | list[RemoteItem]) -> pytest.CollectReport:
    """One report for everything that was collected, from which pytest counts."""
    return pytest.CollectReport("", "passed", None, list(items))


def warning(frame: wire.Warned, rootpath: str) -> dict[str, Any]:
    """Arguments for ``pytest_warning_recorded``."""
    category = type(_identifier(frame.category), (Warning,), {})
    path = frame.path
    if not os.path.isabs(path):
        path = os.path.join(rootpath, path)
    message = warnings.WarningMessage(
        message=frame.message,
        category=category,
        filename=path,
        lineno=frame.lineno,
        # Without it, the line is read from a file of this machine that the sandbox chose.
        line="",
    )
    return {
        "warning_message": message,
        "when": frame.when,
        "nodeid": frame.nodeid,
        "location": None,
    }


def _identifier(name: str) -> str:
    return name if name.isidentifier() else "Warning"


def subtest_status(report: SubtestReport, *, quiet: bool) -> tuple[str, str, str]:
    """Category, letter and word of a subtest, as pytest 9 itself has them."""
    if report.failed:
        return "failed", "u", f"SUBFAILED{report.description}"
    if quiet:
        return "", "", ""
    if hasattr(report, "wasxfail"):
        return "xfailed", "y", f"SUBXFAIL{report.description}"
    if report.skipped:
        return "skipped", "-", f"SUBSKIPPED{report.description}"
    return "subtests passed", "u", f"SUBPASSED{report.description}"
