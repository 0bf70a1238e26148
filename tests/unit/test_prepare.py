"""Preparing an environment, with a provider that only pretends: what is shown, kept and let go."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from pytest_sandbox import assemble, plan, prepare
from pytest_sandbox.consumer import Phase
from pytest_sandbox.errors import BadInput, SetupFailed
from pytest_sandbox.inside import Host
from pytest_sandbox.ledger import Ledger
from pytest_sandbox.provider import Command, SandboxSpec, Sink
from pytest_sandbox.results import Recorder
from pytest_sandbox.store import Prepared, PreparedStore
from pytest_sandbox.testing import FakeProvider, FakeSandbox
from pytest_sandbox.workspace import Workspace
from tests.unit.gitrepo import Repo

SECRET = "correct-horse-battery"


class KeptSandbox(FakeSandbox):
    """One that can be kept."""

    async def snapshot(self, name: str = "") -> str:
        assert isinstance(self._provider, KeepingProvider)
        return self._provider.keep()


class KeepingProvider(FakeProvider):
    """Says ``output`` to every command, in these pieces, and keeps numbered snapshots."""

    def __init__(self, *output: bytes, status: int = 0) -> None:
        super().__init__([], snapshot=True)
        self.kept: set[str] = set()
        self.commands: list[Command] = []
        self._output, self._status = output, status
        self._count = 0

    def keep(self) -> str:
        self._count += 1
        self.kept.add(f"s{self._count}")
        return f"s{self._count}"

    async def create(self, spec: SandboxSpec) -> FakeSandbox:
        self.log.append(("create", spec))
        return KeptSandbox(self, spec)

    async def command(self, command: Command, sink: Sink | None) -> int:
        self.commands.append(command)
        if "-c" in command.argv and command.argv[0] != "/bin/sh":
            return 0  # the search for secrets
        for piece in self._output:
            assert sink is not None
            await sink("stdout", piece)
        return self._status

    async def has_snapshot(self, snapshot: str) -> bool:
        return snapshot in self.kept

    async def delete_snapshot(self, snapshot: str) -> None:
        self.kept.discard(snapshot)

    async def snapshot_size(self, snapshot: str) -> int:
        return 10


class Bench:
    """A run, and a machine of its own for it."""

    def __init__(self, tmp_path: Path, workspace: Workspace) -> None:
        self.workspace = workspace
        self.store = PreparedStore(tmp_path / "prepared", max_bytes=25)
        self.host = Host(Ledger(tmp_path / "ledger"), self.store)
        self.phases: list[Phase] = []

    def run(self, **options: Any) -> plan.Run:
        environ = {"TOKEN": SECRET, "SHORT": "1"}
        resolve = assemble.resolver(lambda name: options.get(name), {}, environ)
        made, _ = assemble.make_run(
            self.workspace,
            resolve,
            lambda name: KeepingProvider().capabilities,
            patch=None,
            base=None,
            read_ini=False,
            environ=environ,
        )
        return made

    def prepare(self, provider: KeepingProvider, **options: Any) -> Prepared:
        recorder = Recorder(self.phases.append)
        run = self.run(**options)
        found = anyio.run(prepare.prepared, run, provider, recorder, self.host)
        assert found is not None
        return found


@pytest.fixture
def bench(tmp_path: Path) -> Any:
    Repo.make(tmp_path / "p", {"test_a.py": b"", "requirements.txt": b"x"})
    with Workspace.open(tmp_path / "p", exact=True) as workspace:
        yield Bench(tmp_path, workspace)


def test_prepared_once(bench: Bench) -> None:
    provider = KeepingProvider()
    first = bench.prepare(provider)
    assert len(provider.commands) == 3
    assert bench.prepare(provider).snapshot == first.snapshot
    assert bench.prepare(provider, setup=["true"]).snapshot != first.snapshot
    assert [what for what, _ in provider.log if what == "create"] == ["create"] * 2
    spec = provider.log[0][1]
    assert (spec.network, spec.snapshotable) == (True, True)
    assert spec.ttl > 3 * 1800


def test_a_snapshot_that_is_gone_is_made_again(bench: Bench) -> None:
    provider = KeepingProvider()
    first = bench.prepare(provider)
    provider.kept.clear()
    second = bench.prepare(provider)
    assert second.snapshot != first.snapshot
    assert [entry.snapshot for entry in bench.store.entries()] == [second.snapshot]


def test_whoever_is_first_is_kept(bench: Bench) -> None:
    """Another session prepares the same meanwhile, and may be running on it already."""

    class Slow(KeepingProvider):
        def keep(self) -> str:
            self.kept.add("theirs")
            made = Prepared.new(
                key=key, provider="fake", snapshot="theirs", size=1, tree="", reason="",
                repository="",
            )  # fmt: skip
            bench.store.put(made)
            return super().keep()

    key = bench.run().environment.key
    provider = Slow()
    assert bench.prepare(provider).snapshot == "theirs"
    assert provider.kept == {"theirs"}


def test_the_bound_lets_the_oldest_go(bench: Bench) -> None:
    provider = KeepingProvider()
    kept = [bench.prepare(provider, setup=[f"echo {number}"]) for number in range(3)]
    assert len(provider.kept) == 3  # all may be in use
    for age, entry in enumerate(reversed(kept), 3):
        bench.store.put(replace(entry, used=time.time() - age * 3600))
    newest = bench.prepare(provider, setup=["echo new"])
    assert provider.kept == {newest.snapshot, kept[2].snapshot}
    assert {entry.snapshot for entry in bench.store.entries()} == provider.kept


def test_nothing_is_kept_of_a_failed_set_up(bench: Bench) -> None:
    provider = KeepingProvider(b"first\n" + b"x" * 20_000 + b"\nthe \x1b[31mend\n", status=7)
    with pytest.raises(SetupFailed) as caught:
        bench.prepare(provider)
    text = str(caught.value)
    assert "ended with 7" in text
    assert "first" not in text
    assert text.endswith("\nthe \\x1b[31mend\n")
    assert (provider.kept, bench.store.entries()) == (set(), [])


RAW = SECRET.encode()
PIECES: list[tuple[bytes, ...]] = [
    (b"token " + RAW + b" end\n",),
    (b"token " + RAW[:9], RAW[9:] + b" end\n"),
    (*(bytes([byte]) for byte in b"token " + RAW + b"\r"), b"end\n"),
    # Where the end of the output begins within the secret.
    (b"a" * 100 + RAW + b"b" * (16_384 - 5) + b"\n",),
    (b"a" * 100 + RAW + b"b" * (16_384 + 5) + b"\n",),
    (b"a" * 100 + RAW, b"b" * 16_390, b"\n"),
]


@pytest.mark.parametrize("pieces", PIECES)
@pytest.mark.parametrize("status", [0, 1])
def test_secrets_are_not_shown(bench: Bench, pieces: tuple[bytes, ...], status: int) -> None:
    provider = KeepingProvider(*pieces, status=status)
    shown = ""
    command = f"install --token {SECRET}"
    try:
        bench.prepare(provider, setup=[command], setup_secret=["TOKEN"])
    except SetupFailed as error:
        shown = str(error)
    shown += "\n".join(phase.detail for phase in bench.phases)
    for length in range(6, len(SECRET)):
        assert SECRET[:length] not in shown
        assert SECRET[-length:] not in shown
    environments = [dict(command.env) for command in provider.commands]
    assert environments[0]["TOKEN"] == SECRET


def test_the_search_gets_secrets_where_nobody_can_read_them(bench: Bench) -> None:
    provider = KeepingProvider()
    bench.prepare(provider, setup=["true"], setup_secret=["TOKEN"])
    search = provider.commands[-1]
    assert RAW.hex().encode() in search.stdin
    assert not any(SECRET in text for text in (*search.argv, *search.env.values()))


def test_secrets_too_short_to_be_told_are_refused_first(bench: Bench) -> None:
    provider = KeepingProvider()
    with pytest.raises(BadInput, match="SHORT"):
        bench.prepare(provider, setup=["true"], setup_secret=["SHORT"])


def test_progress_shows_the_last_line(bench: Bench) -> None:
    bench.prepare(KeepingProvider(b"one\ntw", b"o\n\x1b[2J"))
    details = [phase.detail for phase in bench.phases if not phase.announce and phase.detail]
    assert details[:2] == ["tw", "\\x1b[2J"]
