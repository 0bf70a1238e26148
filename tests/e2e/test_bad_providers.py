"""Providers that break, lie or hang: results stay right, and what fails is named, never a test."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterable, Callable, Sequence
from typing import Any

import anyio
import pytest

from pytest_sandbox import inside, wire
from pytest_sandbox.errors import InfraError, NothingDone, SandboxLost
from pytest_sandbox.provider import Provider, SandboxSpec, Sink, Stream
from pytest_sandbox.testing import FakeProvider, FakeSandbox, encode
from tests.plugin.support import FINISHED, Stage, all_pass, collected, failure, run_item

COLLECTION = collected("test_a", "test_b", "test_c")


@pytest.fixture
def stage(pytester: pytest.Pytester) -> Stage:
    return Stage(pytester)


def mixed(chosen: Sequence[int]) -> list[wire.Frame]:
    return [*run_item(0), *run_item(1, failure(1)), *run_item(2), FINISHED]


class Spool(FakeSandbox):
    """Writes a spool as an agent does, which a broken stream can be resumed from."""

    def data(self) -> bytes:
        frames = [*COLLECTION]
        if f"{self.control}/select.json" in self.files:
            frames += mixed([0, 1, 2])
        return encode(frames)

    async def _follow(self, offset: int, sink: Sink) -> int:
        before = self.data()[offset:]
        if not before or b'"end"' not in before:
            await self.tell(sink, before)
            await self._selected.wait()
            before = self.data()[offset + len(before) :]
        await self.tell(sink, before)
        return 0

    async def tell(self, sink: Sink, data: bytes) -> None:
        await sink("stdout", data)


class Dropping(Spool):
    """Ends each stream after so many bytes."""

    size = 1000
    how: Callable[[], int] = staticmethod(lambda: 0)

    async def tell(self, sink: Sink, data: bytes) -> None:
        await sink("stdout", data[: self.size])
        if len(data) > self.size:
            raise Dropped

    async def _follow(self, offset: int, sink: Sink) -> int:
        try:
            return await super()._follow(offset, sink)
        except Dropped:
            return type(self).how()


class Dropped(Exception):
    """Inside of this module: the stream ends here."""


def fails(error: BaseException) -> Callable[[], int]:
    def fail() -> int:
        raise error

    return fail


class Making(FakeProvider):
    """Makes sandboxes of the class it is given."""

    def __init__(self, kind: type[FakeSandbox], **kwargs: Any) -> None:
        super().__init__(COLLECTION, mixed, **kwargs)
        self._kind = kind

    async def create(self, spec: SandboxSpec) -> FakeSandbox:
        sandbox = self._kind(self, spec)
        self.sandboxes.append(sandbox)
        return sandbox


WAYS = {"end": lambda: 0, "garbage": lambda: -77, "signal": lambda: 137,
        "error": fails(InfraError("the connection broke")),
        "timeout": fails(NothingDone("503"))}  # fmt: skip


@pytest.mark.parametrize("size", [700, 1001, 4096])
@pytest.mark.parametrize("way", WAYS)
def test_a_broken_stream_is_resumed(stage: Stage, way: str, size: int) -> None:
    kind = type("Kind", (Dropping,), {"size": size, "how": staticmethod(WAYS[way])})
    result = stage.run(Making(kind))
    result.assert_outcomes(passed=2, failed=1)
    assert result.ret == 1


@pytest.mark.soak
def test_a_stream_that_gives_nothing_is_given_up(stage: Stage) -> None:
    kind = type("Kind", (Dropping,), {"size": 0, "how": staticmethod(WAYS["error"])})
    result = stage.run(Making(kind))
    assert result.ret == 31
    result.stdout.fnmatch_lines(["*no more can be read from the sandbox*", "*connection broke*"])


def test_a_dropped_stream_while_the_host_selects(stage: Stage) -> None:
    """The stream breaks at the very frame that asks for the selection."""

    class Kind(Spool):
        broken = False

        async def tell(self, sink: Sink, data: bytes) -> None:
            if not self.broken and b'"ready"' in data:
                self.broken = True
                with anyio.move_on_after(0):
                    await sink("stdout", data)
                raise InfraError("lost just now")
            await super().tell(sink, data)

    result = stage.run(Making(Kind))
    result.assert_outcomes(passed=2, failed=1)


@pytest.mark.parametrize("file", ["select.json", "plan.json", "tree-0.tar.gz"])
def test_what_did_not_arrive_is_sent_again(stage: Stage, file: str) -> None:
    sizes: list[int] = []

    class Kind(Spool):
        async def write_file(
            self, path: str, data: bytes | AsyncIterable[bytes], *, mode: int = 0o644
        ) -> None:
            if path.endswith(file):
                if not isinstance(data, bytes):
                    data = b"".join([chunk async for chunk in data])
                sizes.append(len(data))
                if len(sizes) < 3:
                    raise InfraError("lost just now")
            await super().write_file(path, data, mode=mode)

    stage.run(Making(Kind)).assert_outcomes(passed=2, failed=1)
    # All of it, each time.
    assert sizes == [sizes[0]] * 3
    assert sizes[0] > 0


def test_output_of_a_stream_given_up_does_not_count(stage: Stage) -> None:
    late: list[Sink] = []

    class Kind(Dropping):
        async def tell(self, sink: Sink, data: bytes) -> None:
            for old in late:
                if old is not sink:
                    await old("stdout", b'{"n": 0, "kind": "nonsense"}\n')
            late.append(sink)
            await super().tell(sink, data)

    stage.run(Making(Kind)).assert_outcomes(passed=2, failed=1)
    assert len(late) > 1


def test_a_provider_cannot_make_a_broken_line_of_a_broken_frame(stage: Stage) -> None:
    class Kind(Spool):
        async def tell(self, sink: Sink, data: bytes) -> None:
            try:
                await sink("stdout", data.replace(b'"kind":"ready"', b'"kind":"steady"'))
                await sink("stdout", data.replace(b'"kind": "ready"', b'"kind": "steady"'))
            except Exception as error:
                raise InfraError("something with the connection") from error

    result = stage.run(Making(Kind))
    assert result.ret == 33


FAILURES: dict[str, tuple[str, BaseException, str]] = {
    "upload: no space": ("agent.pyz", OSError(errno.ENOSPC, "No space left on device"), "No space"),
    "plan: no space": ("plan.json", OSError(errno.ENOSPC, "No space left on device"), "No space"),
    "select: no space": ("select.json", OSError(errno.EIO, "Input/output error"), "Input/output"),
    "tree: a mistake": ("tree-0.tar.gz", KeyError("oops"), "KeyError"),
    "select: a mistake": ("select.json", ValueError("\x1b[2Joops"), "x1b"),
    "select: lost": ("select.json", SandboxLost("it went away"), "it went away"),
    "a group": (
        "select.json", ExceptionGroup("several", [ValueError("a"), SandboxLost("the real one")]),
        "the real one"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAILURES)
def test_whatever_writing_raises_is_told(stage: Stage, name: str) -> None:
    file, error, word = FAILURES[name]

    class Kind(Spool):
        async def write_file(
            self, path: str, data: bytes | AsyncIterable[bytes], *, mode: int = 0o644
        ) -> None:
            if path.endswith(file):
                raise error
            await super().write_file(path, data, mode=mode)

    result = stage.run(Making(Kind))
    text = result.stdout.str() + result.stderr.str()
    assert result.ret == 31, text
    assert word in text
    assert "INTERNALERROR" not in text
    assert "\x1b[2J" not in text
    assert "failed" not in text.splitlines()[-1]


@pytest.mark.parametrize("method", ["check", "create", "__aenter__"])
@pytest.mark.parametrize("error", [RuntimeError("oops"), OSError(5, "oops"), InfraError("oops")])
def test_a_provider_that_fails_at_once(stage: Stage, method: str, error: Exception) -> None:
    async def fail(self: Provider, *args: Any) -> Any:
        raise error

    kind = type("Failing", (FakeProvider,), {method: fail})
    result = stage.run(kind(COLLECTION, mixed))
    text = result.stdout.str() + result.stderr.str()
    assert result.ret == 31, text
    assert "oops" in text
    assert "INTERNALERROR" not in text


@pytest.mark.parametrize("error", [RuntimeError("oops"), OSError(5, "oops"), InfraError("oops")])
def test_results_stand_when_closing_fails(stage: Stage, error: Exception) -> None:
    class Kind(FakeSandbox):
        async def close(self) -> None:
            self.closed = True
            raise error

    provider = Making(Kind)
    result = stage.run(provider)
    result.assert_outcomes(passed=2, failed=1)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*may still be there*oops*--sandbox-reap*"])


def test_closing_that_hangs_is_left_to_the_reaper(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inside, "CLOSE_PATIENCE", 0.2)

    class Kind(FakeSandbox):
        async def close(self) -> None:
            self.closed = True
            await anyio.sleep_forever()

    result = stage.run(Making(Kind))
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["*may still be there*--sandbox-reap*"])


@pytest.mark.parametrize("error", [FileNotFoundError(2, "gone"), OSError(27, "too long")])
def test_artifacts_that_cannot_be_read(stage: Stage, error: OSError) -> None:
    class Kind(FakeSandbox):
        async def read_file(self, path: str, *, limit: int) -> bytes:
            raise error

    result = stage.run(Making(Kind), "--sandbox-artifact=*.xml")
    result.assert_outcomes(passed=2, failed=1)
    assert result.ret == 31
    assert "INTERNALERROR" not in result.stdout.str()


def test_a_sandbox_that_says_more_after_the_end(stage: Stage) -> None:
    def act(chosen: Sequence[int]) -> list[wire.Frame | bytes]:
        return [*all_pass(chosen), b'{"kind":"junk"}\n' * 3]

    result = stage.run(FakeProvider(COLLECTION, act))
    assert result.ret in (0, 33)
    assert "INTERNALERROR" not in result.stdout.str()


def test_stderr_without_end_takes_no_memory(stage: Stage) -> None:
    class Kind(Spool):
        async def tell(self, sink: Sink, data: bytes) -> None:
            stream: Stream = "stderr"
            for _ in range(2000):
                await sink(stream, bytes(100_000))
            await super().tell(sink, data)

    stage.run(Making(Kind)).assert_outcomes(passed=2, failed=1)
