"""The ``sandbox`` fixture: runs of other projects' tests, and a plain sandbox, inside a test."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import pytest

from pytest_sandbox import assemble, fallback, inside, reaper, registry
from pytest_sandbox.api import listed, load_patch, run_on
from pytest_sandbox.errors import BadInput, ProviderUnavailable, SandboxError
from pytest_sandbox.inside import marks, new_name, opened
from pytest_sandbox.interpreters import find_interpreter, of_the_sandbox
from pytest_sandbox.options import BY_NAME, resolve
from pytest_sandbox.portal import Portal
from pytest_sandbox.provider import Command, Provider, Sandbox, SandboxSpec, Stream
from pytest_sandbox.results import RunResult

if TYPE_CHECKING:
    from pytest_sandbox.grading import Candidate, Task, Verdict

T = TypeVar("T")

#: Options that a task has its own word on, or grading none.
_NOT_GRADED = frozenset({"provider", "repo", "base", "patch", "artifact", "artifact_dir"})


@dataclass(frozen=True, slots=True)
class Process:
    """A finished program in the sandbox."""

    args: tuple[str, ...]
    returncode: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """Standard output as text, undecodable bytes replaced."""
        return self.stdout.decode(errors="replace")


class Session:
    """What the tests of one pytest session share: the event loop and open providers."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._resources = ExitStack()
        self.portal = self._resources.enter_context(Portal())
        self._providers: dict[str, Provider] = {}
        self.host = assemble.host()

    def provider(self, name: str, account: Mapping[str, Any]) -> Provider:
        if name not in self._providers:
            found = self._config.hook.pytest_sandbox_providers()
            others = {key: make for names in found for key, make in names.items()}
            if not self._providers:
                self.portal.run(reaper.at_start, self.host, others, lambda text: None)
            make = registry.factory(name, others, account)
            held = self.portal.hold(inside.provided(make, lambda phase: None))
            provider = self._resources.enter_context(held)
            self.portal.run(provider.check)
            self._providers[name] = provider
        return self._providers[name]

    def close(self) -> None:
        self._resources.close()


class SandboxFixture:
    """What the ``sandbox`` fixture gives a test."""

    def __init__(self, session: Session, request: pytest.FixtureRequest) -> None:
        self._session = session
        self._request = request
        config = request.config
        self._marker = _marker(request.node)
        self._ini = {
            f"sandbox_{name}": value
            for name, value in ((name, _ini(config, name)) for name in assemble.OPTION_NAMES)
            if value is not None
        }
        self._options = self._resolve({})
        self._plain: Sandbox | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _resolve(self, keys: Mapping[str, Any]) -> dict[str, Any]:
        option = self._request.config.option
        return resolve(
            cli=lambda name: getattr(option, "sandbox_" + name, None),
            environ=os.environ,
            marker=self._marker,
            ini={**keys, **self._ini},
        )

    @property
    def provider(self) -> Provider:
        """The open provider this test uses: the first of those named that works here."""
        return next(self._providers())

    def _providers(self) -> Iterator[Provider]:
        """Open those named, in turn, leaving out what cannot work here."""
        *before, last = fallback.names(self._options["provider"])
        account = assemble.account(self._options)
        for name in before:
            try:
                yield self._session.provider(name, account)
            except ProviderUnavailable:
                continue
        yield self._session.provider(last, account)

    def run_tests(
        self,
        repo: str | Path,
        *,
        patch: str | bytes | Path | None = None,
        base: str | None = None,
        args: Sequence[str] = (),
    ) -> RunResult:
        """Run the tests of ``repo``, with ``patch`` applied, in a sandbox of their own.

        Relative paths are looked for beside this test, then in the rootdir; a patch also in
        ``repo`` and beside it. When the run does not pass and the calling test fails, the
        failing remote tests and their tracebacks are part of its report.

        Raises:
            SandboxError: see ``pytest_sandbox.errors``.
            TypeError: ``args`` is one string.
        """
        args = listed(args)
        folders = (self._request.path.parent, self._request.config.rootpath, Path.cwd())
        found = next((f / repo for f in folders if (f / repo).is_dir()), None)
        if found is None:
            raise BadInput(f"there is no folder {str(repo)!r} in {folders[0]} or {folders[1]}")
        content = load_patch(patch, *folders, found, found.parent)

        def attempt(provider: Provider) -> RunResult:
            return self._session.portal.run(
                _run, provider, found, content, base, args, self._resolve
            )

        run = self._first_able(attempt)
        if not run.passed:
            self._request.node.add_report_section("call", "sandbox", f"{run!r}\n{run.report()}\n")
        return run

    def grade(self, task: Task | str | Path, patch: str | bytes | Path | None) -> Verdict:
        """What becomes of ``patch`` as a candidate for ``task``, or for the task in that file.

        Relative paths are looked for as in ``run_tests``. When the candidate is not resolved
        and the calling test fails, the expected tests that are not right are in its report.

        Raises:
            SandboxError: the task or the patch cannot be read. Trouble with the infrastructure
                is the verdict ``infra_error``, which is no score.
        """
        from pytest_sandbox import grading

        folders = (self._request.path.parent, self._request.config.rootpath, Path.cwd())
        if not isinstance(task, grading.Task):
            path = next((f / task for f in folders if (f / task).is_file()), Path(task))
            task = grading.read_task(path)
        loaded = load_patch(patch, *folders)
        name, content = loaded if loaded is not None else ("candidate", None)
        candidate = grading.Candidate(task_id=task.id, name=name, patch=content, source=name)
        chosen = task

        def attempt(provider: Provider) -> Verdict:
            return self._session.portal.run(_grade, provider, chosen, candidate, self._given())

        verdict = self._first_able(attempt)
        if not verdict.resolved:
            self._request.node.add_report_section("call", "sandbox", f"{grading.told(verdict)}\n")
        return verdict

    def _given(self) -> dict[str, Any]:
        """Options that are not at their defaults, for who takes them one by one."""
        return {
            name: value
            for name, value in self._options.items()
            if name not in _NOT_GRADED and value != BY_NAME[name].default
        }

    def _first_able(self, attempt: Callable[[Provider], T]) -> T:
        """What ``attempt`` returns for the first provider that can make a sandbox."""
        failed: SandboxError | None = None
        for provider in self._providers():
            try:
                return attempt(provider)
            except fallback.UNABLE as error:
                failed = error
        assert failed is not None
        raise failed

    def exec(
        self,
        args: Sequence[str],
        *,
        input: bytes = b"",
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Process:
        """Run a program in the plain sandbox, as untrusted code runs there.

        "python" is the sandbox's interpreter, also where it is only installed as python3.

        Args:
            cwd: absolute; the sandbox's writable root when None.
            timeout: seconds.

        Raises:
            CommandTimeout, SandboxLost, InfraError.
        """
        sandbox = self._sandbox()
        output: dict[Stream, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}

        async def sink(stream: Stream, data: bytes) -> None:
            output[stream] += data

        command = Command(
            argv=(*sandbox.demote, *self._program(args)),
            cwd=cwd,
            env={"PATH": self._path, **dict(assemble.variables(self._options["env"], os.environ)),
                 **(env or {})},
            stdin=input,
            timeout=timeout,
        )  # fmt: skip
        status = self._session.portal.run(sandbox.exec, command, sink)
        return Process(tuple(args), status, bytes(output["stdout"]), bytes(output["stderr"]))

    def write_file(self, path: str, data: bytes | str) -> None:
        """Create or replace a file; relative paths are below the sandbox's root."""
        content = data.encode() if isinstance(data, str) else data
        self._session.portal.run(self._sandbox().write_file, self._absolute(path), content)

    def read_file(self, path: str, *, limit: int = 64 << 20) -> bytes:
        """The content of a file of at most ``limit`` bytes."""
        sandbox = self._sandbox()
        where = self._absolute(path)

        async def read() -> bytes:
            return await sandbox.read_file(where, limit=limit)

        return self._session.portal.run(read)

    def _program(self, args: Sequence[str]) -> tuple[str, ...]:
        if isinstance(args, str):
            raise TypeError("a list of arguments, not one string: no shell takes it apart")
        return (self._python, *args[1:]) if args[:1] in (["python"], ("python",)) else tuple(args)

    def _absolute(self, path: str) -> str:
        return path if path.startswith("/") else f"{self._sandbox().root}/{path}"

    def _sandbox(self) -> Sandbox:
        """The plain sandbox, made when first used."""
        if self._plain is None:
            self._plain = self._first_able(self._made)
        return self._plain

    def _made(self, provider: Provider) -> Sandbox:
        options = self._options
        own = provider.capabilities.host_paths
        find = find_interpreter if own else of_the_sandbox
        interpreter = find(options["python"])
        self._python = str(interpreter.path)
        folders = ("/usr/local/bin", "/usr/bin", "/bin")
        self._path = ":".join((*([str(interpreter.path.parent)] if own else []), *folders))
        limits = assemble.limits(options, provider.able)
        spec = SandboxSpec(
            name=new_name(),
            ttl=limits.run + 600,
            network=options["network"],
            memory=limits.memory,
            cpus=limits.cpus,
            disk=limits.disk,
            processes=limits.processes,
            image=options["image"],
            region=options["region"],
            price=options["price"],
            labels=marks(),
            expose=() if interpreter.prefix is None else (interpreter.prefix,),
        )
        manager: AbstractContextManager[Sandbox] = self._session.portal.hold(
            opened(spec, provider, self._session.host)
        )
        return self._stack.enter_context(manager)


async def _grade(
    provider: Provider, task: Task, candidate: Candidate, options: dict[str, Any]
) -> Verdict:
    from pytest_sandbox import grading

    async with grading.Grader(provider, **options) as grader:
        return await grader.grade(task, candidate)


async def _run(
    provider: Provider,
    repo: Path,
    patch: tuple[str, bytes] | None,
    base: str | None,
    args: Sequence[str],
    resolve_with: assemble.Resolve,
) -> RunResult:
    return await run_on(
        provider, repo, patch, base, args, resolve_with, lambda phase: None, read_ini=False
    )


def _marker(node: pytest.Item) -> Mapping[str, Any]:
    """What the test's markers say together; the one nearest to it has the last word."""
    found: dict[str, Any] = {}
    for marker in reversed(list(node.iter_markers("sandbox"))):
        if marker.args:
            raise BadInput(
                f"{node.nodeid}: @pytest.mark.sandbox takes keyword arguments only, such as "
                f"provider='local'; not {marker.args[0]!r}"
            )
        found.update(marker.kwargs)
    return found


def _ini(config: pytest.Config, name: str) -> Any:
    try:
        return config.getini(f"sandbox_{name}") or None
    except ValueError:  # not every option may be set there
        return None
