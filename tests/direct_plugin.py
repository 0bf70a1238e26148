"""A pytest plugin that writes what a session reports, one JSON object a line, as it happens.

It runs inside the target's interpreter (Python 3.8+, pytest 6.2+) and must not import anything
but the standard library and pytest. The file to write is named by DIRECT_RECORD.
"""

from __future__ import annotations

import json
import os
from typing import Any

import pytest


class Recorder:
    """Appends to the record; each line is flushed, so that a crash loses nothing."""

    def __init__(self, path: str) -> None:
        self.file = open(path, "a", encoding="ascii")  # noqa: SIM115

    def write(self, kind: str, **fields: Any) -> None:
        self.file.write(json.dumps({"kind": kind, **fields}, default=repr) + "\n")
        self.file.flush()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: Any) -> None:
        subtest = None
        if type(report).__name__.lower() == "subtestreport":
            # Public in the pytest-subtests plugin, private in pytest 9.
            name = "sub_test_description"
            describe = getattr(report, name, None) or getattr(report, "_" + name)
            subtest = str(describe())
        self.write(
            "report",
            nodeid=report.nodeid,
            when=report.when,
            outcome=report.outcome,
            wasxfail=getattr(report, "wasxfail", None),
            subtest=subtest,
            text=report.longreprtext,
            sections=report.sections,
            properties=report.user_properties,
        )

    def pytest_collectreport(self, report: Any) -> None:
        if report.outcome != "passed":
            self.write(
                "collect", nodeid=report.nodeid, outcome=report.outcome, text=report.longreprtext
            )

    def pytest_deselected(self, items: Any) -> None:
        self.write("deselected", nodeids=[item.nodeid for item in items])

    def pytest_collection_finish(self, session: Any) -> None:
        self.write("collected", nodeids=[item.nodeid for item in session.items])

    def pytest_warning_recorded(self, warning_message: Any, when: str, nodeid: str) -> None:
        self.write(
            "warning",
            when=when,
            nodeid=nodeid,
            category=warning_message.category.__name__,
            message=str(warning_message.message),
        )

    def pytest_sessionfinish(self, exitstatus: Any) -> None:
        self.write("finish", exitstatus=int(exitstatus))


def pytest_configure(config: Any) -> None:
    # A worker of xdist reports to its controller, which reports here.
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Recorder(os.environ["DIRECT_RECORD"]), "direct-recorder")
