"""A scripted run: what tests of the plugin let a fake sandbox say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pytest

# An inner pytest's end forgets the modules that it was the first to import, and msgspec looks for
# the types of a kept class's fields in its module.
from pytest_sandbox import mirroring as mirroring
from pytest_sandbox import wire
from pytest_sandbox.provider import Provider
from pytest_sandbox.testing import FakeProvider

HELLO = wire.Hello(
    n=0, protocol=1, python="3.12.1", pytest="9.2.0", platform="linux", rootdir="", plugins=[]
)
FINISHED = wire.End(n=0, reason="finished", exitstatus=0)


def collected(
    *names: str, marks: Mapping[str, Sequence[wire.Mark]] = {}, file: str = "test_a.py"
) -> list[wire.Frame]:
    """A collection of functions in one module, up to ``Ready``."""
    nodes = [
        wire.Node(parent=-1, type="Dir", name="repo", nodeid="."),
        wire.Node(parent=0, type="Module", name=file, nodeid=file),
    ]
    items = [
        wire.Item(
            parent=1,
            type="Function",
            name=name,
            nodeid=f"{file}::{name}",
            path=file,
            lineno=number,
            domain=name,
            marks=list(marks.get(name, ())),
        )
        for number, name in enumerate(names)
    ]
    return [
        HELLO,
        wire.Collected(n=0, nodes=nodes, items=items),
        wire.Imports(n=0, paths={}),
        wire.Ready(n=0, total=len(items), deselected=0, seconds=0.1),
    ]


def report(item: int, when: wire.When, outcome: wire.Outcome = "passed", **kw: Any) -> wire.Report:
    return wire.Report(
        n=0, item=item, when=when, outcome=outcome, duration=0.01, start=1.0, stop=1.01, **kw
    )


def run_item(item: int, call: wire.Report | None = None) -> list[wire.Frame]:
    """All frames of one test; ``call`` instead of a passing call."""
    return [
        wire.Start(n=0, item=item),
        report(item, "setup"),
        call or report(item, "call"),
        report(item, "teardown"),
        wire.Finish(n=0, item=item),
    ]


def failure(item: int, text: str = "E   assert 1 == 2", **kw: Any) -> wire.Report:
    longrepr = wire.LongRepr(text=text, path="test_a.py", lineno=3, message="assert 1 == 2")
    return report(item, "call", "failed", longrepr=longrepr, **kw)


def all_pass(chosen: Sequence[int]) -> Iterable[wire.Frame]:
    for index in chosen:
        yield from run_item(index)
    yield FINISHED


class Fake:
    """The plugin that brings the provider "fake" into a session."""

    def __init__(self, provider: FakeProvider) -> None:
        self.provider = provider

    def pytest_sandbox_providers(self) -> Mapping[str, Callable[[], Provider]]:
        return {"fake": lambda: self.provider}


class Stage:
    """Runs pytest in a small repository against a script."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.extra: list[object] = []
        self.pytester = pytester
        # Only our plugin: what else is installed here is tried by the tests that name it.
        self.load("pytest_sandbox.plugin")
        pytester.run("git", "init", "-q")

    def load(self, *plugins: str) -> None:
        self.pytester._monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
        self.pytester._monkeypatch.setenv("PYTEST_PLUGINS", ",".join(plugins))

    def run(self, provider: FakeProvider, *args: str) -> pytest.RunResult:
        """Run in this process and capture what is printed."""
        plugins = [Fake(provider), *self.extra]
        result = self.pytester.runpytest_inprocess("--sandbox=fake", *args, plugins=plugins)
        assert all(sandbox.closed for sandbox in provider.sandboxes), "a sandbox was left open"
        return result
