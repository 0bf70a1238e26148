"""Every provider says what the local engine says, outcome for outcome, over the wire."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import fixture_repos
from tests.comparison import FIXTURES, same
from tests.direct import DirectRun
from tests.emulators.running import Running
from tests.fixture_repos import FixtureRepo
from tests.mirrored import run_mirrored

PROVIDERS = ("e2b", "modal", "daytona")
#: The fixed sample, on the first provider: an ordinary project with a patch. On each of the others
#: test_traps.py has a session, and test_chaos.py many runs.
SAMPLE = (("calc", "good"),)
SETUP = "python -I -m pip install -q --disable-pip-version-check pytest==9.0.2 pytest-asyncio"


@pytest.fixture(
    scope="module",
    params=[PROVIDERS[0], *(pytest.param(p, marks=pytest.mark.soak) for p in PROVIDERS[1:])],
)
def emulator(request: pytest.FixtureRequest) -> Iterator[tuple[str, Running]]:
    with Running(request.param) as running:
        yield request.param, running
        assert running.unknown() == []


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="module")
def local_runs() -> dict[tuple[str, str | None], DirectRun]:
    """What the local engine said; the same for all providers."""
    return {}


def run(
    loaded: FixtureRepo, repo: Path, scratch: Path, patch: str | None, provider: str
) -> DirectRun:
    content = b"" if patch is None else loaded.patches[f"{patch}.patch"].read_bytes()
    pythonpath = [f"/sandbox/repo/{path}" for path in loaded.expected["pythonpath"]]
    args = [
        f"--sandbox-setup={SETUP}",
        *([f"--sandbox-env=PYTHONPATH={':'.join(pythonpath)}"] if pythonpath else []),
        *(["--sandbox-patch=-"] if patch is not None else []),
        *[str(arg) for arg in loaded.expected["args"]],
    ]
    return run_mirrored(repo, args, scratch, provider=provider, stdin=content)


@pytest.mark.parametrize(
    ("name", "patch"),
    [
        pytest.param(name, patch, marks=() if (name, patch) in SAMPLE else pytest.mark.soak)
        for name in FIXTURES
        for patch in (None, "good")
    ],
)
def test_fixture_repositories(
    name: str,
    patch: str | None,
    emulator: tuple[str, Running],
    state: Path,
    local_runs: dict[tuple[str, str | None], DirectRun],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    provider, running = emulator
    for variable, value in running.env.items():
        monkeypatch.setenv(variable, value)
    for folder in ("STATE", "CACHE"):
        monkeypatch.setenv(f"XDG_{folder}_HOME", str(state / folder))
    loaded = fixture_repos.load(name)
    repo = loaded.make(tmp_path)
    if (name, patch) not in local_runs:
        local_runs[name, patch] = run(loaded, repo, tmp_path / "local", patch, "local")
    remote = run(loaded, repo, tmp_path / "remote", patch, provider)
    same(local_runs[name, patch], remote)
    assert running.live() == []
    ledger = state / "STATE" / "pytest-sandbox" / "ledger"
    assert list(ledger.glob("*.json")) == []
    assert os.environ.get("PYTEST_SANDBOX") is None
