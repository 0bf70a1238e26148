"""The hooks that other pytest plugins may implement."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_sandbox.consumer import Phase
    from pytest_sandbox.provider import Provider
    from pytest_sandbox.results import RunResult
    from pytest_sandbox.wire import Frame


@pytest.hookspec
def pytest_sandbox_providers() -> Mapping[str, Callable[[], Provider]]:  # type: ignore[empty-body]
    """Return more providers: name to a callable that makes one."""


@pytest.hookspec
def pytest_sandbox_phase(phase: Phase) -> None:
    """A run has come to another phase; called in the main thread."""


@pytest.hookspec
def pytest_sandbox_frame(frame: Frame) -> None:
    """A frame came from the sandbox, typed, capped and printable; called in the main thread."""


@pytest.hookspec(firstresult=True)
def pytest_sandbox_verdict(result: RunResult) -> bool | None:
    """Decide whether a finished run passed; None leaves it to the default rule."""
