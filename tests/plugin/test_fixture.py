"""The ``sandbox`` fixture in other people's tests."""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Sequence
from pathlib import Path

import pytest

from pytest_sandbox import wire
from pytest_sandbox.provider import Command, Sink
from pytest_sandbox.testing import FakeProvider
from tests import fixture_repos
from tests.interpreters import environment
from tests.plugin.support import FINISHED, Fake, Stage, collected, failure, run_item

CALC = fixture_repos.load("calc")


class Provider(FakeProvider):
    """The fake, which also counts and runs two programs."""

    opened = 0
    over = 0

    def __init__(self, *, good: bool = True) -> None:
        def act(items: Sequence[int]) -> list[wire.Frame]:
            sections = [("Captured stdout call", "printed there\n")]
            bad = None if good else failure(0, sections=sections)
            return [*run_item(0, bad), *run_item(1), FINISHED]

        super().__init__(collected("test_a", "test_b"), act)

    async def __aenter__(self) -> Provider:
        self.opened += 1
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.over += 1

    async def command(self, command: Command, sink: Sink | None) -> int:
        if "echo" in command.argv and sink is not None:
            await sink("stdout", " ".join(command.argv[1:]).encode() + b"\xff\n")
            await sink("stderr", json.dumps(dict(command.env)).encode())
            return 7
        return 0


@pytest.fixture
def stage(pytester: pytest.Pytester) -> Stage:
    stage = Stage(pytester)
    CALC.make(pytester.path)
    for name, path in CALC.patches.items():
        (pytester.path / name).write_bytes(path.read_bytes())
    return stage


def run(stage: Stage, provider: Provider, source: str, *args: str) -> pytest.RunResult:
    """Run tests that use the fixture; whatever they do, everything is closed afterwards."""
    stage.pytester.makepyfile(test_mine=textwrap.dedent(source))
    args = ("--sandbox-provider=fake", "-p", "no:cacheprovider", "test_mine.py", *args)
    plugins = [Fake(provider), *stage.extra]
    result = stage.pytester.runpytest_inprocess(*args, plugins=plugins, no_reraise_ctrlc=True)
    assert all(sandbox.closed for sandbox in provider.sandboxes)
    assert provider.over == provider.opened <= 1
    return result


def test_a_good_patch(stage: Stage) -> None:
    source = """
        def test_agent(sandbox):
            run = sandbox.run_tests(repo="calc", patch="good.patch", args=["-x", "tests"])
            assert run.passed, run
            assert run["test_a.py::test_a"].outcome == "passed"
            assert len(run) == 2
            assert run.name == "good.patch on HEAD"
    """
    provider = Provider()
    run(stage, provider, source).assert_outcomes(passed=1)
    told = json.loads(provider.sandboxes[0].files["/control/plan.json"])
    assert told["args"] == ["-x", "tests"]


def test_a_bad_patch_shows_what_failed_there(stage: Stage) -> None:
    source = """
        def test_agent(sandbox):
            assert sandbox.run_tests(repo="calc", patch="bad.patch").passed
    """
    result = run(stage, Provider(good=False), source)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([
        "E  *assert False",
        "E  *<run of bad.patch on HEAD: 1 failed, 1 passed; failed: test_a.py::test_a>.passed",
        "*- Captured sandbox call -*",
        "<run of bad.patch on HEAD*",
        "___ FAILED test_a.py::test_a ___",
        "E   assert 1 == 2",
        "--- Captured stdout call ---",
        "printed there",
    ])  # fmt: skip


def test_an_id_that_did_not_run(stage: Stage) -> None:
    source = """
        def test_agent(sandbox):
            sandbox.run_tests(repo="calc")["test_b"]
    """
    result = run(stage, Provider(), source)
    result.stdout.fnmatch_lines(["*KeyError:*did you mean 'test_a.py::test_b'*"])


def test_the_plain_sandbox(stage: Stage) -> None:
    source = r"""
        import json
        import pytest

        @pytest.mark.sandbox(env={"A": "1", "B": "2"})
        def test_plain(sandbox):
            done = sandbox.exec(["echo", "hi"], env={"B": "3"})
            assert (done.returncode, done.stdout, done.text) == (7, b"hi\xff\n", "hi\ufffd\n")
            env = json.loads(done.stderr)
            assert (env["A"], env["B"]) == ("1", "3")
            sandbox.write_file("deep/name", "text")
            sandbox.write_file("/sandbox/other", b"\xff")
            assert sandbox.read_file("/sandbox/deep/name") == b"text"
            assert sandbox.read_file("other") == b"\xff"
            with pytest.raises(FileNotFoundError):
                sandbox.read_file("nowhere")
            with pytest.raises(TypeError):
                sandbox.exec("echo hi")
            with pytest.raises(TypeError, match="not one string"):
                sandbox.run_tests("calc", args="tests/test_calc.py")
            assert sandbox.exec(["python", "-V"]).args == ("python", "-V")
    """
    provider = Provider()
    run(stage, provider, source).assert_outcomes(passed=1)
    assert len(provider.sandboxes) == 1
    argv = [arg for kind, arg in provider.log if kind == "exec"][-1]
    assert os.path.isabs(argv[0])


def test_tests_share_a_provider_and_no_sandbox(stage: Stage) -> None:
    source = """
        import pytest

        @pytest.mark.parametrize("number", range(3))
        def test_plain(sandbox, number):
            with pytest.raises(FileNotFoundError):
                sandbox.read_file("name")
            sandbox.write_file("name", "text")

        def test_unused(sandbox):
            pass
    """
    provider = Provider()
    run(stage, provider, source).assert_outcomes(passed=4)
    assert len(provider.sandboxes) == 3
    assert provider.opened == 1
    kinds = [kind for kind, _ in provider.log]
    assert kinds == ["create", "close"] * 3, "each is over before the next begins"


@pytest.mark.parametrize(
    "body",
    [
        "assert 0",
        "raise SystemExit(3)",
        "pytest.exit('enough')",
        "raise KeyboardInterrupt",
        "pytest.skip('no')",
        "sandbox.run_tests('nowhere')",
        "sandbox.read_file('nowhere')",
        "os.chdir('/')",
    ],
)
def test_everything_is_closed_however_a_test_ends(stage: Stage, body: str) -> None:
    source = f"""
        import os, pytest

        def test_plain(sandbox):
            sandbox.write_file("name", "text")
            sandbox.run_tests("calc")
            {body}
    """
    provider = Provider()
    run(stage, provider, source, "--no-summary")
    assert len(provider.sandboxes) == 2


@pytest.mark.parametrize(
    ("args", "variable", "expected"),
    [([], None, 180), ([], "2m", 120), (["--sandbox-timeout=1m"], "2m", 60)],
)
def test_command_line_environment_marker_ini(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, args: list[str], variable: str | None,
    expected: int,
) -> None:  # fmt: skip
    if variable is not None:
        monkeypatch.setenv("PYTEST_SANDBOX_TIMEOUT", variable)
    stage.pytester.makefile(".ini", pytest="[pytest]\nsandbox_timeout = 4m\nsandbox_memory = 1G")
    source = """
        import pytest

        @pytest.mark.sandbox(timeout="3m", network=True)
        class TestMine:
            @pytest.mark.sandbox(network=False, processes=9)
            def test_agent(self, sandbox):
                sandbox.run_tests("calc")
    """
    provider = Provider()
    run(stage, provider, source, *args).assert_outcomes(passed=1)
    told = json.loads(provider.sandboxes[0].files["/control/plan.json"])
    assert told["run_timeout"] == expected
    spec = next(value for kind, value in provider.log if kind == "create")
    assert (spec.memory, spec.network, spec.processes) == (1 << 30, False, 9)


@pytest.mark.parametrize(
    ("mark", "text"),
    [
        ("timout=3", "takes provider, *; not timout"),
        ("repo='x'", "not repo"),
        ("memory='lots'", "@pytest.mark.sandbox: 'lots' is not a size"),
        ("'local'", "keyword arguments only*'local'"),
        (
            "provider='cloud9'",
            "no provider 'cloud9'; known: daytona, docker, e2b, fake, host, local, modal",
        ),
    ],
)
def test_a_marker_that_cannot_be_is_refused(stage: Stage, mark: str, text: str) -> None:
    source = f"""
        import pytest

        @pytest.mark.sandbox({mark})
        def test_plain(sandbox):
            sandbox.write_file("name", "text")
    """
    provider = Provider()
    stage.pytester.makepyfile(test_mine=textwrap.dedent(source))
    result = stage.pytester.runpytest_inprocess("test_mine.py", plugins=[Fake(provider)])
    result.stdout.fnmatch_lines([f"E  *{text}*"])
    assert result.ret == 1
    assert provider.log == []


HARD = """
    import asyncio
    import pytest

    @pytest.mark.parametrize("number", range(2))
    def test_agent(sandbox, number):
        assert sandbox.run_tests("calc").passed

    MARK
    async def test_async(sandbox):
        await asyncio.sleep(0)
        assert sandbox.run_tests("calc").passed
        assert sandbox.exec(["echo"]).returncode == 7
"""


@pytest.mark.parametrize("mode", ["strict", "auto"])
def test_beside_other_plugins(stage: Stage, mode: str) -> None:
    stage.load(
        "pytest_sandbox.plugin", "pytest_asyncio.plugin", "pytest_timeout", "pytest_randomly",
        "pytest_rerunfailures",
    )  # fmt: skip
    source = HARD.replace("MARK", "@pytest.mark.asyncio" if mode == "strict" else "")
    args = ["-W", "error", "-o", f"asyncio_mode={mode}", "--timeout=30", "--reruns=1"]
    args += ["-o", "asyncio_default_fixture_loop_scope=function"]
    # The sockets of pytest-rerunfailures are left to the garbage collector.
    args += ["-W", "ignore::ResourceWarning"]
    run(stage, Provider(), source, *args).assert_outcomes(passed=3)


def test_a_time_limit_in_the_middle_of_a_run(stage: Stage) -> None:
    stage.load("pytest_sandbox.plugin", "pytest_timeout")
    provider = Provider()
    provider.act = lambda items: ()
    provider._hang = True
    source = """
        def test_agent(sandbox):
            sandbox.run_tests("calc")

        def test_next(sandbox):
            sandbox.write_file("name", "text")
    """
    result = run(stage, provider, source, "--timeout=4", "--timeout-method=signal")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*Timeout*"])


def test_in_several_processes(stage: Stage) -> None:
    stage.load("pytest_sandbox.plugin", "xdist.plugin", "bring")
    stage.pytester.makepyfile(
        bring="""
        from tests.plugin.support import Fake
        from tests.plugin.test_fixture import Provider

        provider = Provider()
        pytest_sandbox_providers = Fake(provider).pytest_sandbox_providers

        def pytest_unconfigure(config):
            assert provider.over == provider.opened
            assert all(sandbox.closed for sandbox in provider.sandboxes)
        """
    )
    top = Path(__file__).parents[2]
    stage.pytester._monkeypatch.setenv("PYTHONPATH", f"{top}{os.pathsep}{stage.pytester.path}")
    stage.pytester.makepyfile(test_mine=textwrap.dedent(HARD.split("    MARK")[0]))
    args = ["--sandbox-provider=fake", "-n2", "-W", "error", "test_mine.py"]
    stage.pytester.runpytest_subprocess(*args).assert_outcomes(passed=2)


def test_for_real(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The local engine, with an environment that is there already."""
    python = environment("3.12", ("pytest==8.3.5",))
    monkeypatch.setenv("PYTEST_SANDBOX_VENV", str(python.parent.parent))
    stage.pytester.makepyfile(
        test_mine="""
        import pytest

        pytestmark = pytest.mark.sandbox(provider="local", env={"PYTHONPATH": "src"})

        def test_good(sandbox):
            run = sandbox.run_tests("calc", patch="good.patch")
            assert run.passed, run.report()
            assert run["tests/test_calc.py::test_div"].outcome == "passed"

        def test_bad(sandbox):
            assert sandbox.run_tests("calc", patch="bad.patch").passed

        @pytest.mark.sandbox(env={"NAME": "value"}, python="3.12")
        def test_plain(sandbox):
            assert sandbox.exec(["python", "-V"]).text.startswith("Python 3.12")
            sandbox.write_file("run.sh", "echo $NAME; cat; exit 3")
            done = sandbox.exec(["sh", "run.sh"], input=b"given")
            assert (done.returncode, done.stdout) == (3, b"value\\ngiven")
        """
    )
    result = stage.pytester.runpytest_subprocess("test_mine.py")
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["___ FAILED tests/test_*", "E  *"])


def test_without_use_it_costs_nothing(stage: Stage) -> None:
    source = """
        import sys

        def test_plain():
            assert not {"anyio", "git", "pytest_sandbox.fixture"} & set(sys.modules)
    """
    stage.pytester.makepyfile(test_mine=textwrap.dedent(source))
    stage.pytester.runpytest_subprocess("test_mine.py").assert_outcomes(passed=1)
