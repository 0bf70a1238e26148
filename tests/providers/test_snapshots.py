"""Prepared environments at a vendor: found by other machines, listed and removed by a command."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.emulators.running import Running
from tests.providers.known import SETUP, make_project
from tests.providers.test_traps import session


@pytest.mark.parametrize(
    "provider",
    ["e2b", pytest.param("modal", marks=pytest.mark.soak),
     pytest.param("daytona", marks=pytest.mark.soak)],
)  # fmt: skip
def test_another_machine_finds_what_was_prepared(provider: str, tmp_path: Path) -> None:
    """Two machines: the same account, but neither a ledger nor a cache in common."""
    repo = make_project(tmp_path / "repo")
    args = [f"--sandbox={provider}", f"--sandbox-setup={SETUP}", "-q"]
    with Running(provider) as running:
        for machine in ("one", "two"):
            done = session(repo, running, "xdist.plugin", args, tmp_path / machine)
            told = done.stdout + done.stderr
            assert "6 passed, 1 skipped, 1 xfailed" in done.stdout, told
            assert "sandbox set-up: python" not in done.stdout  # -q
            assert len(running.snapshots()) == 1
            assert f"{2 if machine == 'one' else 1} {provider} sandbox" in done.stdout
        if provider == "modal":
            return  # which lists no images; they are gone after 30 days
        there = ["--sandbox-cache=list", f"--sandbox={provider}"]
        done = session(repo, running, "xdist.plugin", there, tmp_path / "three")
        assert f"{provider}  " in done.stdout
        clear = ["--sandbox-cache=clear", f"--sandbox={provider}"]
        done = session(repo, running, "xdist.plugin", clear, tmp_path / "three")
        assert done.returncode == 0, done.stdout + done.stderr
        assert running.snapshots() == []
        assert running.live() == []
        assert running.unknown() == []
