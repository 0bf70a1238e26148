"""The engines that need nothing installed, put to the conformance class."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_sandbox.conformance import ProviderConformance
from pytest_sandbox.provider import Provider
from pytest_sandbox.providers.host import HostProvider
from pytest_sandbox.providers.local import LocalProvider

PYTHON = os.path.realpath(getattr(sys, "_base_executable", sys.executable))


class TestLocal(ProviderConformance):
    python = PYTHON

    @pytest.fixture
    def provider_factory(self, tmp_path: Path) -> Callable[[], Provider]:
        return lambda: LocalProvider(cache_dir=tmp_path / "cache")


class TestHost(ProviderConformance):
    python = PYTHON

    @pytest.fixture
    def provider_factory(self) -> Callable[[], Provider]:
        return HostProvider
