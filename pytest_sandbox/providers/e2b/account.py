"""The user's account at E2B: its key, and a client bound to both.

Knows no sandbox.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from pytest_sandbox.errors import ProviderUnavailable

INSTALL = "pip install 'pytest-sandbox[e2b]'"
KEYS = "https://e2b.dev/dashboard?tab=keys"
DOMAIN = "e2b.app"
#: Seconds for one request that does no work.
REQUEST = 30.0
#: Seconds the end of the process waits for the threads of E2B's HTTP library.
SETTLING = 1.0


@atexit.register
def settle() -> None:
    """Waits for the native threads that are inside Python, :data:`SETTLING` at most.

    E2B's HTTP library, pyqwest, hands each answer over from a thread of its own, which can still
    be on its way out of asyncio's ``call_soon_threadsafe`` when the answer has been used and the
    process ends. Before Python 3.14 the interpreter unwinds such a thread through its native
    frames, and that aborts the process: a session whose tests passed exits with -6.
    """
    if "pyqwest" not in sys.modules:
        return
    until = time.monotonic() + SETTLING
    python = {thread.ident for thread in threading.enumerate()}
    while sys._current_frames().keys() - python and time.monotonic() < until:
        time.sleep(0.001)


def sdk() -> ModuleType:
    """E2B's package, which takes a second to import.

    Raises:
        ProviderUnavailable: it is missing, or too old.
    """
    try:
        import e2b
    except ImportError as error:
        raise ProviderUnavailable(
            f"the provider e2b needs E2B's package, which cannot be imported ({error}): {INSTALL}"
        ) from error
    # What of it is used here came with it.
    if not hasattr(e2b, "SandboxNotRunningException") or not hasattr(e2b, "E2B"):
        raise ProviderUnavailable(f"the package e2b is too old, 2.63 is needed: {INSTALL}")
    return e2b


@dataclass(frozen=True, slots=True)
class Account:
    """Where to go with which key; None for what the environment says, as E2B's own tools do."""

    api_key: str | None = None
    domain: str | None = None
    api_url: str | None = None
    sandbox_url: str | None = None

    def key(self) -> str:
        """Raises ProviderUnavailable: there is none."""
        key = self.api_key or os.environ.get("E2B_API_KEY")
        if not key:
            raise ProviderUnavailable(
                f"the provider e2b needs an API key: get one at {KEYS}, then "
                "export E2B_API_KEY=e2b_..."
            )
        return key

    def host(self) -> str:
        return self.domain or os.environ.get("E2B_DOMAIN") or DOMAIN

    def url(self) -> str:
        """Of the API."""
        named = self.api_url or os.environ.get("E2B_API_URL")
        return named or f"https://api.{self.host()}"

    def sandboxes(self) -> Any:
        """The SDK's class of sandboxes, bound to this account and to nothing else.

        Raises:
            ProviderUnavailable: no package, or no key.
        """
        options: dict[str, Any] = {
            "api_key": self.key(),
            "api_url": self.url(),
            "domain": self.host(),
            # With it the SDK would talk to a single sandbox on this machine.
            "debug": False,
            "request_timeout": REQUEST,
        }
        if sandbox_url := self.sandbox_url or os.environ.get("E2B_SANDBOX_URL"):
            options["sandbox_url"] = sandbox_url
        return sdk().E2B(**options).AsyncSandbox
