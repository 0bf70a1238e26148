"""How far a run is: what was collected, what is left to do, what runs now.

Judges whether a worker's frames fit, and tells the host; knows nothing of processes.
"""

from __future__ import annotations

from time import monotonic, time
from typing import Any, Callable

from .checks import MAX_ITEMS, Gate
from .ends import Nonsense, Over
from .tail import Tail

_FOLLOWS = {"setup": "call", "call": "teardown", "teardown": "teardown"}


class Progress:
    """One run, over all its workers.

    Args:
        emit: sends a frame to the host.
        send: sends orders to the worker.
        tail: the end of the worker's output.
    """

    def __init__(
        self,
        emit: Callable[[str, dict[str, Any]], None],
        send: Callable[[dict[str, Any]], None],
        tail: Tail,
    ) -> None:
        self._emit = emit
        self._send = send
        self._tail = tail
        self._gate = Gate()
        self.phase = "start"
        #: Start of the phase, or of the running test.
        self.since = monotonic()
        #: Seconds spent waiting for the host.
        self.waited = 0.0
        self.restarts = 0
        #: What is to be told of the layers of protection once a worker is launched.
        self.layers: dict[str, Any] | None = None
        #: What is left to do, in order; None before the selection.
        self.chosen: dict[int, None] | None = None
        self.failed = 0
        self.running: int | None = None
        self._when = "setup"
        self._whens: set[str] = set()
        self._maxfail = 0
        self._first = True  # no worker has been ready yet
        self._items: list[tuple[str, int]] = []  # node id, how many of that id came before
        self._places: list[tuple[str, int]] = []  # path and line number
        self._to_global: dict[int, int] = {}
        self.start()

    def start(self) -> None:
        """Another worker starts, with a numbering of tests of its own."""
        self.enter("start")
        #: Its pid in its own namespace, and the signal for a stack dump.
        self.greeting: tuple[int, int | None] = (0, None)
        self._launched = False
        #: Its last frame.
        self.session: dict[str, Any] | None = None
        #: Whether it was selecting or running when its session ended.
        self.ready = False
        #: Whether it told an internal error.
        self.internal = False
        self._local: list[tuple[str, int]] = []
        self._seen: dict[str, int] = {}
        self._nodes = 0

    def enter(self, phase: str) -> None:
        self.phase = phase
        self.since = monotonic()

    @property
    def complete(self) -> bool:
        """Whether nothing is left to do."""
        return not self.chosen or bool(self._maxfail and self.failed >= self._maxfail)

    def describe_running(self) -> str:
        assert self.running is not None
        return f"{self._items[self.running][0]} ran ({self._when})"

    # ------------------------------------------------ the selection

    def choose(self, orders: dict[str, Any]) -> None:
        """Take the host's selection, and have the worker run it.

        Raises:
            Over: it names tests that are not there.
        """
        items = [int(item) for item in orders["items"]]
        if len(set(items)) != len(items) or not all(0 <= i < len(self._items) for i in items):
            raise Over("supervisor", None, "the host chose tests that were not collected")
        self.chosen = dict.fromkeys(items)
        asked = int(orders.get("maxfail") or 0)
        if asked:
            self._maxfail = min(asked, self._maxfail or asked)
        self.waited += monotonic() - self.since
        self._go()

    def _go(self) -> None:
        """Send the worker what is left to do, in its own numbering."""
        assert self.chosen is not None
        numbers = {key: local for local, key in enumerate(self._local)}
        self._to_global = {}
        for item in list(self.chosen):
            local = numbers.get(self._items[item])
            if local is None:
                self._begin(item)
                self.fail(
                    "crash", "the test was not collected again after its process was replaced"
                )
            else:
                self._to_global[local] = item
        orders = {
            "items": list(self._to_global), "maxfail": self._maxfail, "failed": self.failed,
        }  # fmt: skip
        self._send(orders)
        self.enter("run")

    # ------------------------------------------------ the running test

    def _begin(self, item: int) -> None:
        self.running, self._when, self._whens = item, "setup", set()
        self.since = monotonic()
        self._emit("start", {"item": item})

    def _finish(self, item: int, witness: str = "") -> None:
        assert self.chosen is not None
        del self.chosen[item]
        self.running = None
        self.since = monotonic()
        self._emit("finish", {"item": item, "witness": witness} if witness else {"item": item})

    def tell_death(self, cause: str, text: str, status: int | None) -> None:
        """The worker ended before its session did, or was made to."""
        over = self.phase == "run" and self.running is None and self.complete
        fields = {"cause": cause, "status": status, "item": self.running, "message": text}
        self._emit("died", {**fields, "phase": "stop" if over else self.phase})

    def fail(self, cause: str, text: str, dump: str = "") -> None:
        """The running test failed, says the supervisor."""
        item = self.running
        assert item is not None
        now, took = time(), monotonic() - self.since
        path, lineno = self._places[item]
        full = f"{text}\n\n{dump}" if dump else text
        tail = "" if dump else self._tail.text()
        longrepr = {"text": full, "path": path, "lineno": lineno, "message": text}
        self.failed += 1
        self._emit("report", {
            "item": item, "when": self._when, "outcome": "failed", "duration": took,
            "start": now - took, "stop": now, "longrepr": longrepr, "cause": cause,
            "sections": [["Output before the test process ended", tail]] if tail else [],
        })  # fmt: skip
        self._finish(item)

    # ------------------------------------------------ frames from the worker

    def take(self, line: bytes) -> None:
        """Take a line from the worker.

        Raises:
            Nonsense: no worker sends that, or not now.
        """
        kind, frame = self._gate.frame(line)
        getattr(self, "_on_" + kind)(frame)

    def _expect(self, condition: bool, what: str) -> None:
        if not condition:
            raise Nonsense(f"{what} while {self.phase}ing")

    def _on_launched(self, frame: dict[str, Any]) -> None:
        self._expect(self.phase == "start" and not self._launched, "a launch")
        self._launched = True
        if self.layers is None:
            return
        on, off = list(self.layers["on"]), dict(self.layers["off"])
        if frame["tree"]:
            names = ", ".join(frame["tree"])
            off["hardened"] = f"the tree under test provides what runs its tests: {names}"
        else:
            on.insert(0, "hardened")
        if frame["pid"] == 1:
            off["init"] = "the tests' process is the first of its namespace, whom signals spare"
        else:
            on.append("init")
        self._emit("layers", {"on": on, "off": off})
        self.layers = None

    def _on_hello(self, frame: dict[str, Any]) -> None:
        self._expect(self.phase == "start", "a greeting")
        self.greeting = frame.pop("pid"), frame.pop("dump")
        self.enter("collect")
        self._emit("hello", frame)

    def _on_collectreport(self, frame: dict[str, Any]) -> None:
        self._expect(self.phase == "collect", "a report of collection")
        if self._first:
            self._emit("collectreport", frame)

    def _on_collected(self, frame: dict[str, Any]) -> None:
        self._expect(self.phase == "collect", "tests")
        for node in frame["nodes"]:
            self._expect(node["parent"] < self._nodes, "a collector without its parent")
            self._nodes += 1
        for item in frame["items"]:
            self._expect(item["parent"] < self._nodes, "a test without its collector")
            nodeid = item["nodeid"]
            before = self._seen.get(nodeid, 0)
            self._seen[nodeid] = before + 1
            self._local.append((nodeid, before))
            if self._first:
                self._places.append((item["path"], (item["lineno"] or 0) + 1))
        self._expect(len(self._local) <= MAX_ITEMS, "too many tests")
        if self._first:
            self._emit("collected", frame)

    def _on_ready(self, frame: dict[str, Any]) -> None:
        self._expect(self.phase == "collect", "the end of collection")
        self._expect(frame["total"] == len(self._local), "a wrong number of tests")
        self._maxfail = frame.pop("maxfail") or self._maxfail
        self.enter("select")
        if self._first:
            self._first = False
            self._items = self._local
            self._emit("ready", frame)
        else:
            self._go()

    def _on_imports(self, frame: dict[str, Any]) -> None:
        self._emit("imports", frame)

    def _on_warning(self, frame: dict[str, Any]) -> None:
        if self.restarts == 0 or frame["when"] == "runtest":
            self._emit("warning", frame)

    def _on_internalerror(self, frame: dict[str, Any]) -> None:
        self.internal = True
        self._emit("internalerror", frame)

    def _on_start(self, frame: dict[str, Any]) -> None:
        item = self._to_global.get(frame["item"], -1)
        self._expect(self.phase == "run" and self.running is None, "the start of a test")
        self._expect(self.chosen is not None and item in self.chosen, "a test nobody chose")
        self._tail.clear()
        self._begin(item)

    def _own(self, frame: dict[str, Any], what: str) -> int:
        item = self._to_global.get(frame["item"], -1)
        self._expect(item == self.running and item >= 0, f"{what} of a test that is not running")
        return item

    def _on_foreign(self, frame: dict[str, Any]) -> None:
        raise Nonsense(f"something else than pytest loaded {frame['name']}")

    def _on_sentinel(self, frame: dict[str, Any]) -> None:
        self._own(frame, "a sentinel")
        if frame["outcome"] == "passed":
            raise Nonsense("a test that fails was reported as passed")

    def _on_phase(self, frame: dict[str, Any]) -> None:
        self._own(frame, "a phase")
        self._when = frame["when"]

    def _on_report(self, frame: dict[str, Any]) -> None:
        frame["item"] = self._own(frame, "a report")
        when = frame["when"]
        if frame.get("subtest") is None:
            self._expect(when not in self._whens, f"a second report of {when}")
            self._whens.add(when)
            failed = frame["outcome"] != "passed"
            self._when = "teardown" if when == "setup" and failed else _FOLLOWS[when]
        if frame["outcome"] == "failed" and frame.get("wasxfail") is None:
            self.failed += 1
        self._emit("report", frame)

    def _on_finish(self, frame: dict[str, Any]) -> None:
        self._finish(self._own(frame, "the end"), frame.get("witness", ""))

    def _on_session(self, frame: dict[str, Any]) -> None:
        self.session = frame
        self.ready = self.phase in ("run", "select")
        self.enter("stop")
