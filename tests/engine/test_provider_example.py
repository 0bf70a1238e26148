"""The provider of the documentation keeps the contract."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from examples.provider_example import AuditedProvider
from pytest_sandbox.provider import Provider
from pytest_sandbox.providers.local import LocalProvider
from pytest_sandbox.testing import ProviderConformance
from tests.engine.test_conformance import PYTHON


@pytest.mark.soak
class TestExample(ProviderConformance):
    python = PYTHON

    @pytest.fixture
    def provider_factory(self, tmp_path: Path) -> Callable[[], Provider]:
        engine = LocalProvider(cache_dir=tmp_path / "cache")
        return lambda: AuditedProvider(tmp_path / "audit.log", engine)
