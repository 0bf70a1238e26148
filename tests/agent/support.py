"""Runs the agent as a sandbox would, without a provider, and decodes what it says."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent
from time import monotonic
from typing import TypeVar

import pytest

from pytest_sandbox import shipment, wire
from tests.interpreters import environment

PYTEST_9 = ("3.11", ("pytest>=9,<10",))
SAMPLE = (
    ("3.8", ("pytest==6.2.5",)),
    ("3.10", ("pytest==7.4.4",)),
    ("3.12", ("pytest>=8,<9",)),
    PYTEST_9,
)

#: The oldest and the newest pair; those between only in soak runs.
EDGES = (
    SAMPLE[0],
    SAMPLE[3],
    pytest.param(SAMPLE[1], marks=pytest.mark.soak),
    pytest.param(SAMPLE[2], marks=pytest.mark.soak),
)

F = TypeVar("F")


def python_of(pair: tuple[str, tuple[str, ...]]) -> Path:
    return environment(*pair)


def write_tree(folder: Path, files: Mapping[str, str]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text), encoding="utf-8")
    return folder


@dataclass
class Story:
    """What one run told."""

    frames: list[wire.Frame] = field(default_factory=list)
    #: Seconds from the start to the end frame.
    seconds: float = 0.0

    def all(self, kind: type[F]) -> list[F]:
        return [frame for frame in self.frames if isinstance(frame, kind)]

    @property
    def end(self) -> wire.End:
        (end,) = self.all(wire.End)
        assert self.frames[-1] is end
        return end

    @property
    def items(self) -> list[wire.Item]:
        return [item for frame in self.all(wire.Collected) for item in frame.items]

    @property
    def nodes(self) -> list[wire.Node]:
        return [node for frame in self.all(wire.Collected) for node in frame.nodes]

    def reports(self, name: str) -> list[wire.Report]:
        """Reports of the tests with this name, in order."""
        return [r for r in self.all(wire.Report) if self.items[r.item].name == name]

    def report(self, name: str, when: str = "call") -> wire.Report:
        (found,) = [r for r in self.reports(name) if r.when == when and r.subtest is None]
        return found

    @property
    def outcomes(self) -> dict[str, str]:
        """By name: the phases' outcomes in short, such as "p" or "p F p", and causes."""
        found: dict[str, list[str]] = {}
        for report in self.all(wire.Report):
            letter = {"passed": ".", "failed": "F", "skipped": "s"}[report.outcome]
            if report.wasxfail is not None:
                letter = {"passed": "X", "skipped": "x", "failed": "F"}[report.outcome]
            if report.subtest is not None:
                letter = f"({letter})"
            if report.cause != "test":
                letter += f"[{report.cause}]"
            found.setdefault(self.items[report.item].name, []).append(letter)
        return {name: "".join(letters) for name, letters in found.items()}

    @property
    def finished(self) -> list[str]:
        return [self.items[frame.item].name for frame in self.all(wire.Finish)]


Choose = Callable[[Story], Sequence[int]]


@dataclass
class Agent:
    """The agent in a control directory of its own."""

    control: Path
    python: Path

    @property
    def argv(self) -> list[str]:
        return [str(self.python), "-I", "-S", "-B", str(self.control / "agent.pyz")]

    def call(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([*self.argv, *args], capture_output=True, check=check, timeout=60)

    def plan(self, workspace: Path, args: Sequence[str] = (), **more: object) -> None:
        orders = {
            "protocol": 1,
            "args": list(args),
            "cwd": str(workspace),
            "workspace": str(workspace),
            "python": [str(self.python)],
            "env": {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"},
            "block": ["pytest_sandbox"],
            "restarts": 10,
            "run_timeout": 60.0,
            **more,
        }
        (self.control / "plan.json").write_text(json.dumps(orders))

    def select(self, items: Sequence[int], maxfail: int = 0) -> None:
        new = self.control / "select.new"
        new.write_text(json.dumps({"items": list(items), "maxfail": maxfail}) + "\n")
        new.rename(self.control / "select.json")

    def follow(
        self,
        *,
        choose: Choose | None = None,
        maxfail: int = 0,
        on_frame: Callable[[wire.Frame], None] | None = None,
    ) -> Story:
        story = Story()
        decoder = wire.Decoder()
        began = monotonic()
        with subprocess.Popen(
            [*self.argv, "follow", str(self.control), "0"], stdout=subprocess.PIPE
        ) as follower:
            assert follower.stdout is not None
            while data := os.read(follower.stdout.fileno(), 1 << 20):
                for frame in decoder.feed(data):
                    story.frames.append(frame)
                    if on_frame is not None:
                        on_frame(frame)
                    if isinstance(frame, wire.Ready):
                        chosen = range(len(story.items)) if choose is None else choose(story)
                        self.select(list(chosen), maxfail)
        story.seconds = monotonic() - began
        log = (self.control / "supervisor.log").read_text()
        assert follower.returncode == 0, log
        assert not log, log
        assert decoder.ended
        return story


def agent_in(folder: Path, pair: tuple[str, tuple[str, ...]] = PYTEST_9) -> Agent:
    control = Path(tempfile.mkdtemp(dir=folder, prefix="control-"))
    (control / "agent.pyz").write_bytes(shipment.agent())
    return Agent(control, python_of(pair))


def run_agent(
    folder: Path,
    files: Mapping[str, str],
    *args: str,
    pair: tuple[str, tuple[str, ...]] = PYTEST_9,
    choose: Choose | None = None,
    maxfail: int = 0,
    on_frame: Callable[[wire.Frame], None] | None = None,
    **plan: object,
) -> Story:
    """Write ``files`` as a project, run its tests through the agent, and return its story."""
    workspace = write_tree(folder / "repo", files)
    agent = agent_in(folder, pair)
    agent.plan(workspace, args, **plan)
    agent.call("run", str(agent.control))
    return agent.follow(choose=choose, maxfail=maxfail, on_frame=on_frame)


def direct(folder: Path, *args: str, pair: tuple[str, tuple[str, ...]] = PYTEST_9) -> str:
    """What pytest itself prints for the project that ``run_agent`` wrote."""
    done = subprocess.run(
        [python_of(pair), "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:pytest_sandbox",
         *args],
        cwd=folder / "repo",
        env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )  # fmt: skip
    return done.stdout
