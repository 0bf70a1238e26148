"""Docker's adapter over a real engine: what is asked for, what goes wrong, what is left."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from typing import Any

import anyio
import pytest

from pytest_sandbox.errors import (
    BadInput,
    InfraError,
    NothingDone,
    ProviderUnavailable,
    SandboxError,
    SandboxLost,
    Unsupported,
)
from pytest_sandbox.provider import Command, SandboxSpec
from pytest_sandbox.providers.docker import DockerProvider
from pytest_sandbox.providers.docker.attached import Frames
from pytest_sandbox.providers.docker.engine import DEFAULT
from pytest_sandbox.providers.docker.sandbox import DockerSandbox
from tests import fixture_repos
from tests.comparison import same
from tests.containers import Engine
from tests.e2e.test_protected import BUILD, attacked, out_of_reach
from tests.mirrored import run_mirrored

ROOT = Path(__file__).parents[2]
SETUP = "python -I -m pip install -q --disable-pip-version-check pytest==9.0.2"


@pytest.fixture(params=["docker", pytest.param("podman", marks=pytest.mark.soak)])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    running: Engine = request.getfixturevalue(f"{request.param}_engine")
    for name, value in running.env.items():
        monkeypatch.setenv(name, value)
    yield running
    left = running.live()
    with running.client() as client:
        for name in left:
            client.remove_container(name, force=True)
    assert left == []


def spec(**wishes: Any) -> SandboxSpec:
    wishes.setdefault("ttl", 60.0)
    return SandboxSpec(name=f"test-{uuid.uuid4().hex[:12]}", **wishes)


def with_provider(body: Callable[[DockerProvider], Awaitable[None]]) -> None:
    async def main() -> None:
        provider = DockerProvider()
        async with provider:
            with anyio.fail_after(60):
                await body(provider)

    anyio.run(main)


def _modest(client: Any) -> Any:
    """What Podman may set where the tests run."""
    limits = [{"Name": name, "Soft": 1024, "Hard": 1024} for name in ("nofile", "nproc")]
    return client.create_host_config(network_mode="none", ulimits=limits)


async def made(provider: DockerProvider, wanted: SandboxSpec) -> DockerSandbox:
    sandbox = await provider.create(wanted)
    assert isinstance(sandbox, DockerSandbox)
    return sandbox


@pytest.mark.engine
class TestWithAnEngine:
    def test_what_is_asked_for(self, engine: Engine) -> None:
        wanted = spec(memory=256 << 20, cpus=0.5, processes=50, labels={"run": "a b"})

        async def body(provider: DockerProvider) -> None:
            sandbox = await provider.create(wanted)
            try:
                with engine.client() as client:
                    told = client.inspect_container(sandbox.id)
                # As root: to change owners, ignore modes, end others, and become another.
                rights = "grep -q '^CapBnd:.00000000000000eb$' /proc/self/status"
                assert await sandbox.exec(Command(argv=("sh", "-c", rights))) == 0
            finally:
                await sandbox.close()
            host = told["HostConfig"]
            assert told["Name"] == f"/{wanted.name}"
            assert host["NetworkMode"] == "none"
            assert host["SecurityOpt"] == ["no-new-privileges"]
            assert host["Privileged"] is False
            assert host["AutoRemove"] is True
            assert host["Memory"] == host["MemorySwap"] == 256 << 20
            assert host["NanoCpus"] == 500_000_000
            assert 50 <= host["PidsLimit"] <= 70
            assert not host["Binds"]
            labels = told["Config"]["Labels"]
            assert labels["run"] == "a b"
            assert labels["pytest-sandbox"] == "1"
            assert labels["pytest_sandbox_name"] == wanted.name
            assert sandbox.rate is None
            assert sandbox.attach is not None
            assert sandbox.attach.endswith(f"exec -it {sandbox.id[:12]} /bin/sh")

        with_provider(body)

    def test_bounded_when_nothing_is_asked_for(self, engine: Engine) -> None:
        async def body(provider: DockerProvider) -> None:
            sandbox = await provider.create(spec())
            try:
                with engine.client() as client:
                    host = client.inspect_container(sandbox.id)["HostConfig"]
            finally:
                await sandbox.close()
            assert 0 < host["Memory"] <= 4 << 30
            assert 0 < host["PidsLimit"] < 1000

        with_provider(body)

    @pytest.mark.parametrize("limit", [{"disk": 1 << 30}, {"expose": (Path("/usr"),)}])
    def test_what_there_is_not(self, engine: Engine, limit: dict[str, Any]) -> None:
        async def body(provider: DockerProvider) -> None:
            with pytest.raises(Unsupported):
                await provider.create(spec(**limit))

        with_provider(body)

    def test_more_cpus_than_there_are(self, engine: Engine) -> None:
        async def body(provider: DockerProvider) -> None:
            said = "CPUs"
            try:
                await (await provider.create(spec(cpus=100_000))).close()  # Podman does not mind
            except BadInput as error:
                said = str(error)
            assert "CPUs" in said

        with_provider(body)

    def test_tests_are_another_user_without_any_rights(self, engine: Engine) -> None:
        script = "id -u; grep -E '^(CapEff|CapPrm|CapInh|CapAmb|NoNewPrivs|Seccomp):' "
        script += "/proc/self/status | cut -f2 | tr '\\n' ' '"

        async def body(provider: DockerProvider) -> None:
            sandbox = await provider.create(spec())
            try:
                seen = bytearray()

                async def sink(stream: str, data: bytes, /) -> None:
                    seen.extend(data)

                assert sandbox.owner == 59_999
                argv = (*sandbox.demote, "sh", "-c", script)
                assert await sandbox.exec(Command(argv=argv), sink) == 0
                none = b"0" * 16
                assert seen.split() == [b"59999", none, none, none, none, b"1", b"2"]
                for place in ("/usr/x", "/etc/x", "/run/pytest-sandbox/control/x", "/root/x"):
                    refused = Command(argv=(*sandbox.demote, "touch", place))
                    assert await sandbox.exec(refused) == 1, place
            finally:
                await sandbox.close()

        with_provider(body)

    def test_it_is_gone_after_its_time_without_us(self, engine: Engine) -> None:
        async def body(provider: DockerProvider) -> None:
            await provider.create(spec(ttl=2.0))
            with anyio.fail_after(30):
                while engine.live():
                    await anyio.sleep(0.2)

        with_provider(body)

    def test_a_kept_one_outlives_us(self, engine: Engine) -> None:
        wanted = spec()

        async def keep(provider: DockerProvider) -> None:
            await (await provider.create(wanted)).keep()

        with_provider(keep)
        assert engine.live() == [f"/{wanted.name}"]
        with_provider(lambda provider: provider.reap(wanted.name, None))
        assert engine.live() == []

    def test_reaping_and_sweeping(self, engine: Engine) -> None:
        async def body(provider: DockerProvider) -> None:
            one, two = spec(), spec()
            first, second = await provider.create(one), await provider.create(two)
            assert await provider.sweep(older_than=3600) == ()
            await provider.reap(one.name, None)
            assert engine.live() == [f"/{two.name}"]
            await provider.reap("anybody", second.id)
            assert engine.live() == []
            for sandbox in (first, second):
                with pytest.raises(SandboxLost, match="gone"):
                    await sandbox.exec(Command(argv=("true",)))
                await sandbox.close()
            third = spec()
            await provider.create(third)
            await anyio.sleep(1.1)
            assert await provider.sweep(older_than=0) == (third.name,)

        with_provider(body)

    def test_what_is_not_ours_is_left(self, engine: Engine) -> None:
        async def body(provider: DockerProvider) -> None:
            first = await made(provider, spec(snapshotable=True))
            snapshot = await first.snapshot("of-somebody")
            await first.close()
            # A person's, made of our snapshot: it has the labels of that.
            with engine.client() as client:
                theirs = client.create_container(
                    snapshot, entrypoint=["sleep", "100"], host_config=_modest(client)
                )["Id"]
                client.start(theirs)
                try:
                    assert await provider.sweep(older_than=-60) == ()
                    assert client.inspect_container(theirs)["State"]["Running"]
                    with pytest.raises(NothingDone, match=r"in use|being used|using"):
                        await provider.delete_snapshot(snapshot)
                finally:
                    client.remove_container(theirs, force=True)
            await provider.delete_snapshot(snapshot)

        with_provider(body)

    @pytest.mark.parametrize("delay", [0.0, 0.05, 0.2, 0.4, 0.7])
    def test_creating_given_up_leaves_nothing(self, engine: Engine, delay: float) -> None:
        async def body(provider: DockerProvider) -> None:
            await provider.check()
            with anyio.move_on_after(delay):
                sandbox = await provider.create(spec())
                await sandbox.close()
            assert engine.live() == []

        with_provider(body)

    def test_snapshots_by_name(self, engine: Engine) -> None:
        async def body(provider: DockerProvider) -> None:
            name = f"Name of {uuid.uuid4().hex}"
            assert await provider.find_snapshot(name) is None
            sandbox = await provider.create(spec(snapshotable=True))
            await sandbox.write_file("/sandbox/data", b"x" * (3 << 20))
            left = (*sandbox.demote, "sh", "-c", "echo secret > /tmp/left")
            assert await sandbox.exec(Command(argv=left)) == 0
            snapshot = await sandbox.snapshot(name)
            await sandbox.close()
            assert await provider.find_snapshot(name) == snapshot
            assert snapshot in await provider.snapshots()
            size = await provider.snapshot_size(snapshot)
            assert size is not None
            assert 3 << 20 <= size < 8 << 20
            again = await provider.create(spec(snapshot=snapshot))
            assert len(await again.read_file("/sandbox/data", limit=4 << 20)) == 3 << 20
            with pytest.raises(FileNotFoundError):
                await again.read_file("/tmp/left", limit=10)
            await again.close()
            await provider.delete_snapshot(snapshot)
            assert await provider.find_snapshot(name) is None
            assert await provider.snapshot_size(snapshot) is None
            assert snapshot not in await provider.snapshots()

        with_provider(body)

    def test_an_image_that_cannot_be_had(self, engine: Engine) -> None:
        async def body(provider: DockerProvider) -> None:
            for image in ("127.0.0.1:9/nobody/nothing:1", "127.0.0.1:9/nobody/nothing"):
                with pytest.raises(ProviderUnavailable, match="cannot be got from its registry"):
                    await provider.create(spec(image=image))
            with pytest.raises(BadInput, match="--sandbox-image"):
                await provider.create(spec(image="Not An Image"))

        with_provider(body)

    def test_an_image_without_python(self, engine: Engine) -> None:
        async def body(provider: DockerProvider) -> None:
            sandbox = await made(provider, spec())
            script = 'rm "$(readlink -f "$(command -v python3)")"'
            assert await sandbox.run(("sh", "-c", script), limit=20) == 0
            image = await sandbox.freeze("without-python")
            await sandbox.close()
            try:
                with pytest.raises(SandboxError, match="python3"):
                    await provider.create(spec(image=image))
                assert engine.live() == []
            finally:
                await provider.delete_snapshot(image)

        with_provider(body)

    @pytest.mark.parametrize("what", ["kill", "remove"])
    def test_one_that_is_lost(self, engine: Engine, what: str) -> None:
        async def body(provider: DockerProvider) -> None:
            sandbox = await provider.create(spec())
            lost: list[SandboxLost] = []

            async def run() -> None:
                try:
                    await sandbox.exec(Command(argv=("sleep", "50")))
                except SandboxLost as error:
                    lost.append(error)

            with anyio.fail_after(20):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(run)
                    await anyio.sleep(1)
                    with engine.client() as client:
                        if what == "kill":
                            client.kill(sandbox.id)
                        else:
                            client.remove_container(sandbox.id, force=True)
            assert len(lost) == 1
            with pytest.raises(SandboxLost):
                await sandbox.read_file("/etc/passwd", limit=1 << 20)
            await sandbox.close()

        with_provider(body)

    def test_a_fork_bomb_can_be_ended(self, engine: Engine) -> None:
        async def body(provider: DockerProvider) -> None:
            sandbox = await provider.create(spec(processes=60))
            try:
                bomb = ("sh", "-c", "b() { b | b & }; b; sleep 60")
                # Where the shell itself finds no process left, it gives up at once.
                with anyio.move_on_after(4), suppress(InfraError):
                    await sandbox.exec(Command(argv=(*sandbox.demote, *bomb)))
                with anyio.fail_after(10):
                    assert await sandbox.exec(Command(argv=("true",))) == 0
            finally:
                await sandbox.close()

        with_provider(body)

    def test_nothing_is_left_behind_in_the_process(self, engine: Engine) -> None:
        """No thread, no socket, no warning, with a command given up in the middle."""
        code = """
        import sys
        import pytest_sandbox.providers.docker
        assert not {"docker", "requests", "urllib3"} & set(sys.modules)
        import anyio, gc, threading, time
        from pytest_sandbox.provider import Command, SandboxSpec
        from pytest_sandbox.providers.docker import DockerProvider

        async def main():
            async with DockerProvider() as provider:
                sandbox = await provider.create(SandboxSpec(name=sys.argv[1], ttl=60))
                assert await sandbox.exec(Command(argv=("cat",), stdin=b"x" * 3000000)) == 0
                with anyio.move_on_after(1):
                    await sandbox.exec(Command(argv=("sleep", "100")))
                await sandbox.close()

        anyio.run(main)
        gc.collect()
        # anyio's own threads are told to end with the loop, which takes them a moment.
        until = time.monotonic() + 5
        while threading.active_count() > 1 and time.monotonic() < until:
            time.sleep(0.01)
        left = [t.name for t in threading.enumerate() if t is not threading.main_thread()]
        print("left", left)
        """
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", textwrap.dedent(code), spec().name],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=ROOT,
        )
        assert done.stderr == ""
        assert done.stdout == "left []\n"

    def test_as_a_user_types_it(
        self, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A proxy that is not there is no hindrance, and the answer is the local engine's."""
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        for folder in ("STATE", "CACHE"):
            monkeypatch.setenv(f"XDG_{folder}_HOME", str(tmp_path / folder))
        loaded = fixture_repos.load("calc")
        repo = loaded.make(tmp_path)
        patch = loaded.patches["good.patch"].read_bytes()
        path = ":".join(f"/sandbox/repo/{name}" for name in loaded.expected["pythonpath"])
        args = [f"--sandbox-setup={SETUP}", f"--sandbox-env=PYTHONPATH={path}"]
        args += ["--sandbox-patch=-", *map(str, loaded.expected["args"])]
        here = tmp_path / "docker"
        there = run_mirrored(repo, args, here, provider="docker", stdin=patch)
        assert there.exit_status == 0
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.delenv(name)
        same(run_mirrored(repo, args, tmp_path / "local", stdin=patch), there)
        with_provider(_without_snapshots)

    @pytest.mark.soak
    def test_what_decides_is_out_of_reach(
        self, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As in the local engine, by the users and folders that all remote sandboxes have."""
        for folder in ("STATE", "CACHE"):
            monkeypatch.setenv(f"XDG_{folder}_HOME", str(tmp_path / folder))
        options: dict[str, Any] = {"venv": None, "setup": [SETUP], "build": [BUILD]}
        out_of_reach(attacked(tmp_path, provider="docker", **options))
        with_provider(_without_snapshots)


async def _without_snapshots(provider: DockerProvider) -> None:
    found = await provider.snapshots()
    assert len(found) == 1
    await provider.delete_snapshot(found[0])


# -- without one ------------------------------------------------------------------------------


@contextmanager
def answering(path: Path, info: dict[str, Any], *, delay: float = 0.0) -> Iterator[str]:
    """A service at a socket that says ``info`` of itself, and knows nothing else."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            time.sleep(delay)
            version = {"ApiVersion": "1.41", "Version": "1", "Components": []}
            body = json.dumps(info if self.path.endswith("/info") else version).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            return

        def address_string(self) -> str:
            return ""

    with ThreadingUnixStreamServer(str(path), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"unix://{path}"
        finally:
            server.shutdown()
            thread.join()


ABLE = {"OSType": "linux", "MemoryLimit": True, "PidsLimit": True, "CpuCfsQuota": True}
ROOTLESS = {"SecurityOptions": ["name=seccomp,profile=default", "name=rootless"]}


@pytest.mark.parametrize(
    ("more", "limits"),
    [
        ({"CgroupVersion": "1"}, {"memory", "processes", "cpus"}),
        ({"CgroupVersion": "2", "Rootless": True}, {"memory", "processes", "cpus"}),
        ({"CgroupVersion": "2", "PidsLimit": False}, {"memory", "cpus"}),
        # Podman says so in one way, Docker in the other; both say that they keep limits.
        ({"CgroupVersion": "1", "Rootless": True}, set()),
        ({"CgroupVersion": "1", **ROOTLESS}, set()),
    ],
)
def test_limits_that_an_engine_keeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any], limits: set[str]
) -> None:
    async def body(provider: DockerProvider) -> None:
        await provider.check()
        assert provider.capabilities.limits == limits | {"file_size"}
        for limit in {"memory", "processes", "cpus"} - limits:
            with pytest.raises(Unsupported, match=f"keeps no limit of {limit}"):
                await provider.create(spec(**{limit: 1 << 29}))

    with answering(tmp_path / "s", ABLE | more) as url:
        monkeypatch.setenv("DOCKER_HOST", url)
        with_provider(body)


def _unavailable(monkeypatch: pytest.MonkeyPatch, **env: str) -> str:
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    said = []

    async def body(provider: DockerProvider) -> None:
        with pytest.raises(ProviderUnavailable) as caught, anyio.fail_after(8):
            await provider.check()
        said.append(str(caught.value))
        findings = await provider.doctor()
        assert [finding.ok for finding in findings] == [True, False]

    with_provider(body)
    return said[0]


def test_no_socket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said = _unavailable(monkeypatch, DOCKER_HOST=f"unix://{tmp_path}/none")
    assert f"unix://{tmp_path}/none: no such socket" in said
    assert "DOCKER_HOST" in said
    assert DEFAULT not in said


def test_nobody_listens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with answering(tmp_path / "s", ABLE) as url:
        pass
    assert "nobody listens there" in _unavailable(monkeypatch, DOCKER_HOST=url)
    tcp = _unavailable(monkeypatch, DOCKER_HOST="tcp://127.0.0.1:9")
    assert "tcp://127.0.0.1:9: " in tcp
    assert "refused" in tcp


def test_no_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with answering(tmp_path / "s", ABLE, delay=4.0) as url:
        assert "timed out" in _unavailable(monkeypatch, DOCKER_HOST=url).lower()


def test_containers_of_windows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with answering(tmp_path / "s", ABLE | {"OSType": "windows"}) as url:
        assert "switch it to Linux" in _unavailable(monkeypatch, DOCKER_HOST=url)


def test_the_current_context_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from docker.context.config import get_context_id  # type: ignore[import-untyped]

    url = f"unix://{tmp_path}/theirs"
    folder = tmp_path / "contexts" / "meta" / get_context_id("mine")
    folder.mkdir(parents=True)
    described = {"Name": "mine", "Metadata": {}, "Endpoints": {"docker": {"Host": url}}}
    (folder / "meta.json").write_text(json.dumps(described))
    (tmp_path / "config.json").write_text('{"currentContext": "mine"}')
    assert f"{url}: no such socket" in _unavailable(monkeypatch, DOCKER_CONFIG=str(tmp_path))
    both = {"DOCKER_CONFIG": str(tmp_path), "DOCKER_CONTEXT": "other"}
    assert "no Docker context 'other'" in _unavailable(monkeypatch, **both)


@pytest.mark.parametrize("size", [1, 3, 7, 8, 1000])
def test_output_is_taken_apart_wherever_it_is_cut(size: int) -> None:
    sent = b"\1\0\0\0\0\0\0\3abc\2\0\0\0\0\0\0\1X\1\0\0\0\0\0\0\0\1\0\0\0\0\0\0\2de"
    frames = Frames("it")
    seen = {1: b"", 2: b""}
    for start in range(0, len(sent), size):
        for stream, part in frames.feed(sent[start : start + size]):
            seen[stream] += part
    assert seen == {1: b"abcde", 2: b"X"}


def test_what_is_no_output() -> None:
    with pytest.raises(InfraError):
        list(Frames("it").feed(b"HTTP/1.1 200 OK\r\n"))
