"""Reports of the running test, in the one order that the host expects.

Of each phase there is one report, whatever plugins that repeat tests make of it.
"""

from __future__ import annotations

from time import time
from typing import Any

from .channel import Channel
from .texts import short
from .values import Values, seconds


class Reports:
    """Sends, holds back, or renames reports; knows which test runs."""

    def __init__(self, channel: Channel, values: Values) -> None:
        self._channel = channel
        self._values = values
        #: Whether reports come only when all phases are over, and may be void then.
        self.hold = False
        self.current: int | None = None
        self._sent: dict[str, int] = {}
        self._held: list[dict[str, Any]] = []
        self._reruns: list[list[str]] = []
        self._void: dict[str, Any] | None = None

    def start(self, item: int) -> None:
        self.current = item
        self._sent = {}
        self._reruns = []
        self._channel.put("start", item=item)
        self._channel.flush()

    def finish(self) -> None:
        """Send what was held back because an attempt may be void."""
        held, self._held = self._held, []
        if self._void is not None:
            held = [frame for frame in held if frame["when"] != self._void["when"]]
            held.append(self._void)  # no attempt followed
            self._void = None
        for frame in held:
            if self._reruns:
                frame["sections"] = [*self._reruns, *frame.get("sections", [])][:256]
                self._reruns = []
            self._send(frame)
        self.current = None

    def phase(self, when: str) -> None:
        # Reports tell it, unless they are held back.
        if self.hold and self.current is not None:
            self._channel.put("phase", item=self.current, when=when)
        self._channel.flush()

    def take(self, report: Any) -> None:
        text = self._values.text
        outcome = report.outcome
        again = outcome in ("rerun", "retried")  # pytest-rerunfailures, pytest-retry
        if again:
            outcome = "failed"
        longrepr = self._values.longrepr(report.longrepr)
        if outcome not in ("passed", "failed", "skipped"):
            was = longrepr["text"] if longrepr else ""
            longrepr = {"text": text(f"the report says {outcome!r}, which is unknown\n{was}")}
            outcome = "failed"
        if self.current is None:
            if outcome == "failed":
                said = longrepr["text"] if longrepr else ""
                self._channel.put("internalerror", text=text(
                    f"a failure of {report.nodeid!r} was reported while no test ran\n{said}"
                ))  # fmt: skip
            return
        frame = self._frame(report, outcome, longrepr)
        when = frame["when"]
        if again:
            # This attempt is void, if another one follows.
            name = short(f"Attempt {len(self._reruns) + 1} failed in {when}")
            self._reruns.append([name, longrepr["text"] if longrepr else ""])
            self._void = frame
        elif self.hold:
            if when == "setup" and self._void is not None:
                self._held, self._void = [], None
            self._held.append(frame)
        else:
            if self._void is not None and self._void["when"] == when:
                self._void = None
            self._send(frame)

    def _frame(self, report: Any, outcome: str, longrepr: dict[str, Any] | None) -> dict[str, Any]:
        values = self._values
        stop = getattr(report, "stop", None) or time()
        duration = seconds(report.duration)
        frame: dict[str, Any] = {
            "item": self.current,
            "when": report.when if report.when in ("setup", "call", "teardown") else "call",
            "outcome": outcome,
            "duration": duration,
            "start": max(0.0, getattr(report, "start", None) or stop - duration),
            "stop": max(0.0, stop),
        }
        if longrepr is not None:
            frame["longrepr"] = longrepr
        if report.sections:
            frame["sections"] = values.sections(report.sections)
        if getattr(report, "user_properties", None):
            frame["properties"] = [
                [short(name), values.scalar(value)] for name, value in report.user_properties[:256]
            ]
        if hasattr(report, "wasxfail"):
            frame["wasxfail"] = values.text(report.wasxfail)
        context = getattr(report, "context", None)
        if hasattr(context, "msg") and hasattr(context, "kwargs"):
            frame["subtest"] = values.subtest(context)
        return frame

    def _send(self, frame: dict[str, Any]) -> None:
        """Send it; of each phase there is one report, and more are shown as subtests."""
        when = frame["when"]
        if "subtest" not in frame:
            count = self._sent[when] = self._sent.get(when, 0) + 1
            if count > 1:
                if frame["outcome"] == "passed":
                    return
                frame["subtest"] = {"msg": f"report {count} of {when}", "kwargs": {}}
        self._channel.put("report", **frame)
