"""``Running``: an emulator as a process of its own, for as long as a ``with`` block.

Knows its side door only.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


class Running:
    """Starts ``python -m tests.emulators.NAME`` and ends it, which has to go well."""

    def __init__(self, name: str, *arguments: str) -> None:
        self._command = [sys.executable, "-m", f"tests.emulators.{name}", "--json", *arguments]
        #: Variables that lead a client to it.
        self.env: dict[str, str] = {}
        self.control = ""

    def __enter__(self) -> Running:
        environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        self._process = subprocess.Popen(
            self._command,
            cwd=ROOT,
            env=environment | {"PYTHONWARNINGS": "error", "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            # Ctrl-C in a terminal is for the tests, which then end it.
            start_new_session=True,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._process.stdout.close()
            raise RuntimeError(f"{self._command} ended with {self._process.returncode}")
        said = json.loads(line)
        self.env, self.control = said["env"], said["control"]
        return self

    def __exit__(self, *exc: object) -> None:
        process = self._process
        assert process.stdout is not None
        process.send_signal(signal.SIGTERM)
        try:
            status = process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
        process.stdout.close()
        if exc == (None, None, None):
            assert status == 0, f"{self._command} ended with {status}"

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """A request to the side door."""
        request = urllib.request.Request(
            self.control + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        # Whatever proxy the environment names: this is loopback.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=60) as answer:
            return json.load(answer)

    def state(self) -> dict[str, Any]:
        return dict(self.ask("GET", "/state"))

    def live(self) -> list[Any]:
        """Sandboxes that exist (for the vendor: are paid for)."""
        return list(self.state()["live"])

    def snapshots(self) -> list[Any]:
        return list(self.state()["snapshots"])

    def endless(self) -> list[Any]:
        """Snapshots that the vendor would keep until somebody deletes them."""
        state = self.state()
        return list(state.get("endless", state["snapshots"]))

    def unknown(self) -> list[str]:
        """Requests that the emulator does not know."""
        return list(self.ask("GET", "/unknown"))

    def calls(self) -> dict[str, int]:
        return dict(self.ask("GET", "/calls"))

    def fault(self, operation: str, kind: str, **more: Any) -> None:
        """Adds a rule: the fields of ``tests.emulators.faults.Rule``."""
        self.ask("POST", "/faults", {"operation": operation, "kind": kind, **more})

    def faults(self) -> list[dict[str, Any]]:
        return list(self.ask("GET", "/faults"))

    def no_faults(self) -> None:
        self.ask("DELETE", "/faults")

    def act(self, action: str, **arguments: Any) -> Any:
        """Something that happens at the vendor: see the emulator's ``act``."""
        return self.ask("POST", f"/act/{action}", arguments)
