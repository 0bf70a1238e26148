"""The supervisor: runs workers until every chosen test has its result.

Owns the control directory, keeps deadlines and caps, and imports neither pytest nor the project.
"""

from __future__ import annotations

import codecs
import json
import os
import selectors
import signal
from time import monotonic, sleep
from typing import Any

from . import ends, procfs
from . import plan as plans
from .child import Child, drain, sources
from .ends import Again, Nonsense, Over
from .progress import Progress
from .spool import Spool
from .strays import remove_caches
from .tail import Tail
from .texts import plain

#: Seconds a worker has to exit once its session is over.
GRACE = 3.0


class Supervisor:
    """Serves one worker after the other."""

    def __init__(self, control: str, spool: Spool) -> None:
        self._control = control
        self._spool = spool
        self._plan: dict[str, Any] = {}
        self._tail = Tail()
        self._progress = Progress(spool.put, self._send, self._tail)
        self._selector = selectors.DefaultSelector()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._worker: Child | None = None
        self._stopped = False
        self._began = self._beat = self._collecting = monotonic()
        self._oom: Any = None

    def run(self) -> None:
        """Run until there is nothing more to do.

        Raises:
            Over: always.
        """
        self._prepare()
        while True:
            self._start()
            self._attend()

    def clean_up(self) -> None:
        """Leave no process, and no cache."""
        self._kill()
        if "cache" in self._plan:
            import shutil

            # A worker that was killed could not; it follows no links.
            shutil.rmtree(self._plan["cache"], ignore_errors=True)

    def _prepare(self) -> None:
        self._plan = plans.load(self._control)
        self._spool.limit = int(self._plan["frame_limit"])
        self._sources = sources(self._plan)
        self._progress.layers = self._plan["layers"]
        try:
            import ctypes  # which not every Python has

            # PR_SET_CHILD_SUBREAPER: orphans below become children of this process, so
            # that none gets out of sight.
            ctypes.CDLL(None, use_errno=True).prctl(36, 1, 0, 0, 0)
        except (ImportError, OSError, AttributeError):
            pass
        read, write = os.pipe()
        os.set_blocking(read, False)
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._stop)
        self._selector.register(read, selectors.EVENT_READ, "wake")

    def _stop(self, *_: object) -> None:
        self._stopped = True

    def _send(self, orders: dict[str, Any]) -> None:
        assert self._worker is not None
        self._worker.send(orders)

    # ------------------------------------------------ one worker

    def _start(self) -> None:
        plan = self._plan
        self._oom = self._oom_state()
        if plan["hardened"]:
            remove_caches(plan["workspace"])
        try:
            self._worker = Child(plan, self._sources, self._progress.restarts, self._selector)
        except OSError as error:
            raise Over(
                "supervisor",
                None,
                f"the tests' Python could not be started: {plain(error)}; command: "
                f"{[*plan['demote'], *plan['python']]!r} in {plan['cwd']!r}",
            ) from None
        self._progress.start()
        self._collecting = self._progress.since
        self._tail.start()

    def _attend(self) -> None:
        """Serve one worker to its end; returns if another one is to follow."""
        worker, progress = self._worker, self._progress
        assert worker is not None
        pause = 0.002
        # Live output is told apart by when it comes.
        gather = 0.003 if self._plan["live"] else 0.01
        try:
            while True:
                timeout = pause if progress.phase == "select" else 0.1
                events = {key.data: key.fd for key, _ in self._selector.select(timeout)}
                busy = 0
                if "stdout" in events:
                    busy = self._frames(worker)
                if "stderr" in events:
                    busy += self._outputs(worker)
                if "stdin" in events:
                    worker.feed()
                if "wake" in events:
                    while drain(events["wake"]):
                        pass
                    self._reap()
                if worker.status is not None:
                    self._kill()
                    while self._frames(worker):
                        pass
                    self._outputs(worker)
                    return self._ended(worker)
                self._look_around(worker)
                self._spool.flush()
                waiting = progress.phase == "select" and not busy
                pause = min(pause * 1.5, 0.05) if waiting else 0.002
                if progress.phase == "run" and 0 < busy < 16384:
                    # Tests that take a fraction of this come in batches: a tenth of the cost.
                    sleep(gather)
        except Nonsense as nonsense:
            self._kill()
            text = f"the test process broke the protocol: {plain(nonsense)}"
            self._died(nonsense.cause, text)
        except Again as again:
            self._again(str(again))
        finally:
            self._kill()
            worker.close()
            self._worker = None

    def _frames(self, worker: Child) -> int:
        """Take what the worker says; the number of bytes."""
        size, lines = worker.lines()
        for line in lines:
            if self._progress.session is None:  # later nothing it says counts any more
                self._progress.take(worker.genuine(line))
        return size

    def _outputs(self, worker: Child) -> int:
        """Take what the tests write; the number of bytes."""
        total = 0
        limit = self._plan["output_limit"]
        for data in worker.output():
            total += len(data)
            self._tail.add(data)
            if self._plan["live"]:
                self._spool.put("output", {"text": plain(self._decoder.decode(data))})
            if self._tail.total > limit:
                self._give_up(worker, "output", f"more than {limit} bytes of output")
        return total

    # ------------------------------------------------ deadlines and orders

    def _look_around(self, worker: Child) -> None:
        """Whatever is due by the clock, or asked for by the host."""
        now = monotonic()
        plan, progress = self._plan, self._progress
        if now - self._beat >= plan["heartbeat"]:
            self._beat = now
            elapsed = now - progress.since
            beat = {"phase": progress.phase, "item": progress.running, "elapsed": elapsed}
            self._spool.put("heartbeat", beat)
        if self._stopped or os.path.exists(os.path.join(self._control, "stop")):
            raise Over("stopped", None, "the host asked for it")
        if progress.session is None and worker.closed is not None and now - worker.closed > 1:
            # Tests do that which close every descriptor they find; it forges nothing.
            raise Nonsense("it closed the channel to its supervisor", "crash")
        if progress.phase == "stop":
            if now - progress.since > GRACE:
                self._kill()
        elif progress.phase == "select":
            self._select(now)
        else:
            self._check_times(worker, now)

    def _select(self, now: float) -> None:
        try:
            with open(os.path.join(self._control, "select.json"), "rb") as file:
                data = file.read()
        except FileNotFoundError:
            data = b""
        if data.endswith(b"\n"):
            self._progress.choose(json.loads(data))
        elif now - self._progress.since > self._plan["select_timeout"]:
            raise Over("timeout", None, "the host sent no selection in time")

    def _check_times(self, worker: Child, now: float) -> None:
        plan, progress = self._plan, self._progress
        if now - self._began - progress.waited > plan["run_timeout"]:
            text = f"the run took more than {plan['run_timeout']:g} s"
            self._give_up(worker, "timeout", text, over=True)
        limit = plan["test_timeout"]
        if progress.phase != "run":
            if now - self._collecting > plan["collect_timeout"]:
                text = f"collection took more than {plan['collect_timeout']:g} s"
                self._give_up(worker, "timeout", text, over=True)
        elif progress.running is not None and limit is not None and now - progress.since > limit:
            self._give_up(worker, "timeout", f"the test took more than {limit:g} s")

    def _give_up(self, worker: Child, cause: str, text: str, *, over: bool = False) -> None:
        """Kill the worker; the running test, if any, failed for ``cause``."""
        progress = self._progress
        dump = ""
        if cause == "timeout":
            dump = worker.dump(progress.greeting, self._tail)
            text = f"Timeout: {text}"
        self._kill()
        progress.tell_death(cause, text, None)
        if progress.running is not None:
            progress.fail(cause, text, dump)
        elif progress.phase != "run" or cause == "output":
            over = True
        if over:
            detail = dump or self._tail.text()
            raise Over(cause, None, text + (f"\n\n{detail}" if detail else ""))
        raise Again(text)

    # ------------------------------------------------ ends

    def _ended(self, worker: Child) -> None:
        """The process is gone; raises Over, or returns for another one."""
        progress = self._progress
        if progress.session is not None:
            raise ends.of_session(
                progress.session, ready=progress.ready, failed=bool(progress.failed),
                internal=progress.internal, tail=self._tail,
            )  # fmt: skip
        how, code = ends.of_process(worker.status or 0, demoted=bool(self._plan["demote"]))
        if self._oom_state() != self._oom:
            self._died("memory", f"out of memory: {how}", code)
        else:
            self._died("crash" if code is None else "exit", how, code)

    def _died(self, cause: str, how: str, code: int | None = None) -> None:
        progress = self._progress
        progress.tell_death(cause, how, code)
        if progress.running is not None:
            how += f", while {progress.describe_running()}"
            progress.fail(cause, how)
        elif progress.phase == "run":
            how += ", between two tests"
        else:
            doing = {"start": "while pytest started", "collect": "during collection"}
            how += ", " + doing.get(progress.phase, "before any test ran")
            tail = self._tail.text()
            raise Over("died", None, how + (f". The end of its output:\n{tail}" if tail else ""))
        self._again(how)

    def _again(self, how: str) -> None:
        """Whether the tests left get another process: returns if they do."""
        progress = self._progress
        if progress.complete:
            raise Over("finished", 1)
        if progress.restarts >= self._plan["restarts"]:
            raise Over(
                "died",
                None,
                f"{how}. It was replaced {progress.restarts} times, which is the limit; "
                f"{len(progress.chosen or ())} tests were not run",
            )
        progress.restarts += 1

    def _oom_state(self) -> Any:
        path = self._plan["oom_notice"]
        if not path:
            return None
        try:
            with open(path, "rb") as file:
                return os.fstat(file.fileno()).st_mtime_ns, file.read(65536)
        except OSError:
            return None

    # ------------------------------------------------ processes

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if self._worker is not None and pid == self._worker.pid:
                self._worker.ended(status)

    def _kill(self) -> None:
        """End the worker and everything it started."""
        worker = self._worker
        deadline = monotonic() + 5
        if worker is not None and worker.status is None:
            for kill in (os.killpg, os.kill):
                try:
                    kill(worker.pid, signal.SIGKILL)
                except OSError:
                    pass
        while monotonic() < deadline:
            self._reap()
            left = procfs.descendants()
            if not left and (worker is None or worker.status is not None):
                return
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except OSError:
                    pass
            sleep(0.002)
