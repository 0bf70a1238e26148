"""``ProviderConformance``: the provider contract as tests that any provider can be put to.

Knows only ``provider.py`` and ``errors.py``; what a provider does not declare must be refused.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import anyio
import pytest

from pytest_sandbox.conformance.base import DAEMON, FAMILY, MIB, Output, Within, noise
from pytest_sandbox.conformance.isolation import IsolationConformance
from pytest_sandbox.conformance.sealing import SealingConformance
from pytest_sandbox.errors import CommandTimeout, SandboxLost
from pytest_sandbox.provider import Command, Provider, Sandbox, Stream


class ProviderConformance(IsolationConformance, SealingConformance):
    """Subclass it as ``Test...`` and override the fixture ``provider_factory``.

    Each test makes a provider and a sandbox of its own, with a short time limit.
    """

    # -- commands -----------------------------------------------------------------------------

    def test_it_says_it_works_here(self, with_provider: Any) -> None:
        with_provider(lambda provider: provider.check())

    @pytest.mark.parametrize(
        ("script", "status"),
        [("exit 0", 0), ("exit 7", 7), ("exit 255", 255), ("kill -9 $$", 137), ("kill $$", 143)],
    )
    def test_exit_status(self, within: Within, script: str, status: int) -> None:
        async def body(sandbox: Sandbox) -> None:
            assert await sandbox.exec(Command(argv=("sh", "-c", script))) == status

        within(body)

    def test_a_program_that_is_not_there(self, within: Within) -> None:
        async def body(sandbox: Sandbox) -> None:
            output = Output()
            assert await sandbox.exec(Command(argv=("no-such-program",)), output) == 127
            assert b"no-such-program" in output.stderr

        within(body)

    def test_output_streams_are_apart_and_in_order(self, within: Within) -> None:
        source = """
import sys
for n in range(20000):
    (sys.stdout if n % 2 else sys.stderr).write(f"{n}\\n")
"""

        async def body(sandbox: Sandbox) -> None:
            output = Output()
            assert await sandbox.exec(self.script(source), output) == 0
            assert [int(x) for x in output.stdout.split()] == list(range(1, 20000, 2))
            assert [int(x) for x in output.stderr.split()] == list(range(0, 20000, 2))

        within(body)

    def test_fifty_megabytes_through_a_command(self, within: Within) -> None:
        data = noise(50 * MIB)

        async def body(sandbox: Sandbox) -> None:
            output = Output()
            assert await sandbox.exec(Command(argv=("cat",), stdin=data), output) == 0
            assert bytes(output.stdout) == data

        within(body)

    def test_a_slow_reader_gets_everything(self, within: Within) -> None:
        async def body(sandbox: Sandbox) -> None:
            output = Output(delay=0.05)
            source = "import os; os.write(1, b'x' * (1 << 20)); os.write(2, b'y' * (1 << 20))"
            assert await sandbox.exec(self.script(source), output) == 0
            assert output.stdout == b"x" * MIB
            assert output.stderr == b"y" * MIB

        within(body)

    def test_input_that_nobody_reads(self, within: Within) -> None:
        async def body(sandbox: Sandbox) -> None:
            assert await sandbox.exec(Command(argv=("true",), stdin=b"x" * 4 * MIB)) == 0

        within(body)

    def test_folder_and_environment(self, within: Within, monkeypatch: pytest.MonkeyPatch) -> None:
        canary = uuid.uuid4().hex
        monkeypatch.setenv("CONFORMANCE_CANARY", canary)
        source = "import os\nprint(os.getcwd())\nfor n, v in os.environ.items(): print(n + '=' + v)"

        async def body(sandbox: Sandbox) -> None:
            await sandbox.write_file(f"{sandbox.root}/a b/f", b"")
            given = {"GIVEN": "a=b c", "HOME": "/", "EMPTY": ""}
            command = self.script(source, cwd=f"{sandbox.root}/a b", env=given)
            cwd, *rest = await self.lines(sandbox, command)
            assert cwd == f"{sandbox.root}/a b"
            environment = dict(line.split("=", 1) for line in rest)
            assert given.items() <= environment.items()
            assert canary not in "".join(rest)
            ours = {"PATH", "HOME", "TMPDIR", "LANG", "PWD", "LC_CTYPE"}
            assert not (environment.keys() - ours - given.keys()) & os.environ.keys()
            assert {"PATH", "TMPDIR", "LANG"} <= environment.keys()
            [default, *_] = await self.lines(sandbox, self.script(source))
            assert default == sandbox.root

        within(body)

    def test_arguments_that_are_no_text(self, within: Within) -> None:
        odd = ("", " ", "a'b\"c$d`e\\", "new\nline", "\u00fc\u4e16\U0001f600", "raw-\udcff\udc80")
        source = "import os, sys; print(os.fsencode('|'.join(sys.argv[1:])).hex())"

        async def body(sandbox: Sandbox) -> None:
            [line] = await self.lines(sandbox, self.script(source, *odd))
            assert bytes.fromhex(line) == os.fsencode("|".join(odd))

        within(body)

    def test_eight_at_once(self, within: Within) -> None:
        async def body(sandbox: Sandbox) -> None:
            seen = []

            async def one(number: int) -> None:
                command = Command(argv=("sh", "-c", f"sleep 0.3; cat; exit {number}"))
                output = Output()
                data = b"%d" % number * 100_000
                seen.append((await sandbox.exec(replace(command, stdin=data), output), number))
                assert output.stdout == data

            async with anyio.create_task_group() as tasks:
                for number in range(8):
                    tasks.start_soon(one, number)
            assert sorted(seen) == [(n, n) for n in range(8)]

        within(body)

    # -- ends ---------------------------------------------------------------------------------

    def test_cancelling_kills_the_whole_tree(self, within: Within) -> None:
        async def body(sandbox: Sandbox) -> None:
            path = f"{sandbox.root}/beat"
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(sandbox.exec, self.script(FAMILY, path, DAEMON))
                await self.appears(sandbox, path, path + ".daemon")
                tasks.cancel_scope.cancel()
            assert not await self.still_grows(sandbox, path)
            assert not await self.still_grows(sandbox, path + ".daemon")
            assert await sandbox.exec(Command(argv=("true",))) == 0

        within(body)

    def test_a_command_that_takes_too_long(self, within: Within) -> None:
        async def body(sandbox: Sandbox) -> None:
            path = f"{sandbox.root}/beat"
            output = Output()
            command = self.script("print('early', flush=True)\n" + FAMILY, path, DAEMON)
            with pytest.raises(CommandTimeout):
                await sandbox.exec(replace(command, timeout=1.5), output)
            assert output.stdout == b"early\n"
            assert not await self.still_grows(sandbox, path)

        within(body)

    def test_what_outlives_its_command_stays_and_keeps_nobody_waiting(self, within: Within) -> None:
        async def body(sandbox: Sandbox) -> None:
            path = f"{sandbox.root}/beat"
            await sandbox.exec(self.script(DAEMON, path))
            await self.appears(sandbox, path)
            assert await self.still_grows(sandbox, path)
            output = Output()
            with anyio.fail_after(10):
                command = Command(argv=("sh", "-c", "sleep 60 & echo done"))
                assert await sandbox.exec(command, output) == 0
            assert output.stdout == b"done\n"

        within(body)

    def test_a_failing_sink_ends_the_command(self, within: Within) -> None:
        async def sink(stream: Stream, data: bytes) -> None:
            raise ZeroDivisionError

        async def body(sandbox: Sandbox) -> None:
            with anyio.fail_after(20), pytest.raises(ZeroDivisionError):
                await sandbox.exec(Command(argv=("sh", "-c", "echo x; sleep 100")), sink)

        within(body)

    def test_closing_again_at_once_and_during_a_command(self, with_provider: Any) -> None:
        async def main(provider: Provider) -> None:
            sandbox = await provider.create(self.spec(provider))
            path = f"{sandbox.root}/beat"
            lost: list[BaseException] = []

            async def run() -> None:
                try:
                    await sandbox.exec(self.script(FAMILY, path, DAEMON))
                except SandboxLost as error:
                    lost.append(error)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(run)
                await self.appears(sandbox, path, path + ".daemon")
                for _ in range(3):
                    tasks.start_soon(sandbox.close)
            assert len(lost) == 1
            await sandbox.close()
            for again in (
                lambda: sandbox.exec(Command(argv=("true",))),
                lambda: sandbox.read_file(path, limit=1),
                lambda: sandbox.write_file(path, b""),
            ):
                with pytest.raises(SandboxLost):
                    await again()

        with_provider(main)

    def test_it_ends_by_itself(self, within: Within) -> None:
        async def body(sandbox: Sandbox) -> None:
            with anyio.fail_after(30), pytest.raises(SandboxLost):
                await sandbox.exec(Command(argv=("sleep", "100")))
            with pytest.raises(SandboxLost):
                await sandbox.exec(Command(argv=("true",)))

        within(body, ttl=2.0)

    # -- files --------------------------------------------------------------------------------

    def test_fifty_megabytes_as_a_file(self, within: Within) -> None:
        data = noise(50 * MIB)

        async def pieces() -> AsyncIterator[bytes]:
            for start in range(0, len(data), 700_001):
                yield data[start : start + 700_001]

        async def body(sandbox: Sandbox) -> None:
            path = f"{sandbox.root}/new/folders/file"
            await sandbox.write_file(path, pieces())
            assert await sandbox.read_file(path, limit=len(data)) == data
            await sandbox.write_file(path, b"short", mode=0o755)
            assert await sandbox.read_file(path, limit=5) == b"short"
            assert await sandbox.exec(Command(argv=("test", "-x", path))) == 0

        within(body)

    def test_a_source_that_fails_leaves_no_file(self, within: Within) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"x" * MIB
            raise ZeroDivisionError

        async def body(sandbox: Sandbox) -> None:
            with pytest.raises(ZeroDivisionError):
                await sandbox.write_file(f"{sandbox.root}/f", pieces())
            await anyio.sleep(0.2)
            assert await self.lines(sandbox, Command(argv=("ls", "-A"))) == []

        within(body)

    def test_files_that_cannot_be_read(self, within: Within) -> None:
        async def body(sandbox: Sandbox) -> None:
            root = sandbox.root
            assert await sandbox.exec(Command(argv=("mkfifo", "pipe"))) == 0
            await sandbox.write_file(f"{root}/file", b"12345")
            with pytest.raises(FileNotFoundError):
                await sandbox.read_file(f"{root}/missing", limit=10)
            with pytest.raises(FileNotFoundError):
                await sandbox.read_file(f"{root}/no/folder", limit=10)
            for path, limit in (
                (root, 10),
                (f"{root}/pipe", 10),
                ("/dev/zero", 10),
                (f"{root}/file", 4),
                (f"{root}/file/below", 10),
            ):
                with anyio.fail_after(10), pytest.raises(OSError):
                    await sandbox.read_file(path, limit=limit)
            assert await sandbox.read_file(f"{root}/file", limit=5) == b"12345"

        within(body)

    def test_files_that_cannot_be_written(self, within: Within) -> None:
        async def body(sandbox: Sandbox) -> None:
            await sandbox.write_file(f"{sandbox.root}/file", b"")
            for path in (sandbox.root, f"{sandbox.root}/file/below"):
                with pytest.raises(OSError):
                    await sandbox.write_file(path, b"x")

        within(body)

    def test_file_names_that_are_no_text(self, within: Within) -> None:
        async def body(sandbox: Sandbox) -> None:
            for name in ("a b", "-x", "\u00fc\u4e16", "new\nline", "raw-\udcff\udc80"):
                path = f"{sandbox.root}/{name}"
                await sandbox.write_file(path, name.encode(errors="surrogateescape"))
                content = await sandbox.read_file(path, limit=100)
                assert content == name.encode(errors="surrogateescape")

        within(body)
