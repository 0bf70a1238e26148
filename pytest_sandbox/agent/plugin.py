"""The pytest plugin that tells the supervisor what happens, and takes its selection."""

from __future__ import annotations

import io
import os
import platform
import sys
from time import monotonic
from typing import Any, Callable, Iterator

import pytest

from .channel import Channel
from .collection import describe, installed, origins, packages
from .reports import Reports
from .sentinels import Sentinels, foreign
from .texts import NAME_LIMIT, short
from .values import Values, line_number

PROTOCOL = 1

#: What pytest's reporter says after the last test. Plugins' own summaries are still made.
SUMMARIES = (
    "summary_errors",
    "summary_failures",
    "summary_xfailures",
    "summary_warnings",
    "summary_passes",
    "summary_xpasses",
    "short_test_summary",
)


def _nothing(*args: Any, **kwargs: Any) -> None:
    pass


class Nowhere(io.StringIO):
    """Where pytest's own report goes: the host makes another."""

    def write(self, data: str) -> int:
        return len(data)


class Plugin:
    """One session.

    Args:
        plan: the host's orders.
        channel: the line to the supervisor.
        orders: waits for the supervisor's selection.
        dump: the signal on which this process tells its stacks.
        witness: what looks at the tests' code, or None.
    """

    __name__ = "pytest_sandbox_agent"

    def __init__(
        self,
        plan: dict[str, Any],
        channel: Channel,
        orders: Callable[[], dict[str, Any]],
        dump: int | None,
        witness: Any,
    ) -> None:
        self._plan = plan
        self._channel = channel
        self._orders = orders
        self._dump = dump
        self._witness = witness
        self._began = monotonic()
        self._values = Values(channel.text, plan["columns"])
        self._reports = Reports(channel, self._values)
        #: Why the session was interrupted.
        self.told: str | None = None
        self._greeted = False
        self._early: list[dict[str, Any]] = []
        self._ready = False
        self._complete = False
        self._deselected = 0
        self._items: list[Any] = []  # kept, so that no other object gets the id of one
        self._numbers: dict[int, int] = {}
        self._done: set[int] = set()
        self._sentinels: Sentinels | None = None

    # ------------------------------------------------ configuration

    @pytest.hookimpl(trylast=True)
    def pytest_addoption(self, parser: Any) -> None:
        for key in self._plan["ini_keys"]:
            try:
                parser.addini(key, "read by the host")
            except ValueError:
                pass  # the project registers it itself

    @pytest.hookimpl(hookwrapper=True, tryfirst=True)
    def pytest_cmdline_parse(self, pluginmanager: Any, args: list[str]) -> Iterator[None]:
        # Without the plugin that knows it, pytest would warn of the option.
        if not pluginmanager.is_blocked("cacheprovider"):
            args[:0] = ["-o", f"cache_dir={self._plan['cache']}"]
        outcome: Any = yield
        if outcome.excinfo is not None:
            return
        option = outcome.get_result().option
        # As -n0 does, which only xdist knows.
        if hasattr(option, "numprocesses") and hasattr(option, "dist"):
            option.numprocesses, option.dist, option.tx = 0, "no", []
        # The host decides what collection errors mean; nobody is there to debug.
        option.continue_on_collection_errors = True
        option.usepdb = option.trace = False

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self, session: Any) -> None:
        config = session.config
        manager = config.pluginmanager
        rootdir = str(getattr(config, "rootpath", None) or config.rootdir)
        self._values.root = os.path.join(rootdir, "")
        reporter = manager.getplugin("terminalreporter")
        writer = getattr(reporter, "_tw", None)
        if writer is not None and hasattr(writer, "_file"):
            writer._file = Nowhere()
            # Nobody reads them here, and rendering all failures again costs as much as running.
            for name in SUMMARIES:
                if hasattr(reporter, name):
                    setattr(reporter, name, _nothing)
        self._reports.hold = manager.hasplugin("rerunfailures")
        workspace = os.path.realpath(self._plan["workspace"])
        where = os.path.relpath(os.path.realpath(rootdir), workspace)
        self._channel.put(
            "hello",
            protocol=PROTOCOL,
            python=platform.python_version(),
            pytest=pytest.__version__,
            platform=sys.platform,
            rootdir="" if where == "." else short(where, NAME_LIMIT),
            plugins=installed(manager),
            packages=packages(),
            pid=self._channel.pid,
            dump=self._dump,
        )
        self._greeted = True
        for frame in self._early:
            self._channel.put("warning", **frame)
        self._channel.flush()

    # ------------------------------------------------ collection

    def pytest_deselected(self, items: Any) -> None:
        if not self._ready:
            self._deselected += len(items)

    @pytest.hookimpl(trylast=True)
    def pytest_collectreport(self, report: Any) -> None:
        if report.outcome == "passed":
            return
        self._channel.put(
            "collectreport",
            nodeid=short(report.nodeid, NAME_LIMIT),
            outcome="skipped" if report.outcome == "skipped" else "failed",
            longrepr=self._values.longrepr(report.longrepr) or {"text": "no reason was given"},
            sections=self._values.sections(report.sections),
        )
        self._channel.flush()

    @pytest.hookimpl(hookwrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(self) -> Iterator[None]:
        outcome: Any = yield
        self._complete = outcome.excinfo is None

    # After every modifyitems there is, also of plugins that registered later than this.
    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_finish(self, session: Any) -> None:
        if self._complete and not self._ready:
            self._choose(session, list(session.items))

    @pytest.hookimpl(hookwrapper=True, tryfirst=True)
    def pytest_collection(self, session: Any) -> Iterator[None]:
        outcome: Any = yield
        # --exitfirst, and a collector failed: no tests, but the host has to hear of it.
        found = outcome.excinfo
        if found and not self._ready and issubclass(found[0], session.Failed):
            self._choose(session, [])

    def _choose(self, session: Any, items: list[Any]) -> None:
        self._ready = True
        self._items = items
        put, flush = self._channel.put, self._channel.flush
        for frame in describe(items, self._values):
            put("collected", **frame)
            flush()
        self._tell_origins()
        strange = foreign(items) if self._plan["hardened"] else ""
        if strange:
            put("foreign", name=short(strange, NAME_LIMIT))
        maxfail = session.config.getoption("maxfail", 0) or 0
        put(
            "ready", total=len(items), deselected=self._deselected,
            seconds=monotonic() - self._began, maxfail=max(0, maxfail),
        )  # fmt: skip
        flush()
        chosen = self._orders()
        if chosen["maxfail"]:
            session.config.option.maxfail = chosen["maxfail"]
        self._numbers = {id(items[number]): number for number in chosen["items"]}
        if self._plan["hardened"]:
            self._sentinels = Sentinels({number: items[number] for number in chosen["items"]})
        session.items[:] = [items[number] for number in chosen["items"]]
        session.testsfailed += chosen["failed"]

    def _tell_origins(self) -> None:
        self._channel.put("imports", paths=origins(self._plan["packages"]))

    # ------------------------------------------------ running

    @pytest.hookimpl(hookwrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: Any) -> Iterator[None]:
        index = self._numbers.get(id(item))
        if index is None or index in self._done or self._reports.current is not None:
            yield  # made or repeated by a plugin: part of what is running, or unknown
            return
        self._reports.start(index)
        if self._sentinels is not None:
            outcome = self._sentinels.before(index, item)
            if outcome:
                self._channel.put("sentinel", item=index, outcome=outcome)
        if self._witness is not None:
            self._witness.begin(index, item)
        called: Any = yield
        self._reports.finish()
        if called.excinfo is None:
            self._done.add(index)
            seen = {} if self._witness is None else {"witness": self._witness.end()}
            self._channel.put("finish", item=index, **seen)

    def pytest_runtest_setup(self) -> None:
        self._reports.phase("setup")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_call(self) -> None:
        self._reports.phase("call")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_teardown(self) -> None:
        self._reports.phase("teardown")

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: Any) -> None:
        self._reports.take(report)

    # ------------------------------------------------ other news

    @pytest.hookimpl(trylast=True)
    def pytest_warning_recorded(self, warning_message: Any, when: str, nodeid: str) -> None:
        message = warning_message
        frame = {
            "message": self._values.text(message.message),
            "category": short(getattr(message.category, "__name__", "Warning")),
            "path": self._values.relative(message.filename),
            "lineno": max(0, line_number(message.lineno)),
            "when": when if when in ("config", "collect") else "runtest",
            "nodeid": short(nodeid, NAME_LIMIT),
        }
        if self._greeted:
            self._channel.put("warning", **frame)
        else:
            self._early.append(frame)

    @pytest.hookimpl(trylast=True)
    def pytest_internalerror(self, excrepr: Any) -> None:
        self._channel.put("internalerror", text=self._values.render(excrepr))
        self._channel.flush()

    @pytest.hookimpl(trylast=True)
    def pytest_keyboard_interrupt(self, excinfo: Any) -> None:
        value = excinfo.value
        self.told = self._values.text(getattr(value, "msg", None) or value) or type(value).__name__

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        if self._ready:
            self._tell_origins()
        self._channel.flush()
