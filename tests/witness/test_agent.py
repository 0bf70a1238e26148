"""The witness in the agent: which Python it works in, and what becomes of it when a worker ends."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from pytest_sandbox import wire
from pytest_sandbox.witness import Chain, read
from tests.agent.support import run_agent
from tests.witness.compiled import VERSIONS, library, suffix

KEY = bytes(range(32))
PYTEST_8 = ("pytest>=8,<9",)


def libraries() -> dict[str, str]:
    return {
        suffix(version): base64.b64encode(library(version).read_bytes()).decode()
        for version in VERSIONS
    }


@pytest.mark.parametrize("version", VERSIONS)
def test_the_fitting_file_is_used(tmp_path: Path, version: str) -> None:
    story = run_agent(
        tmp_path,
        {"test_a.py": "import sys\ndef test_a():\n    assert 'memfd' not in str(sys.modules)\n"},
        pair=(version, PYTEST_8), witness=libraries(), witness_key=KEY.hex(),
    )  # fmt: skip
    (finish,) = story.all(wire.Finish)
    seen = read(Chain(KEY, str(tmp_path / "repo")).take(finish.witness))
    assert (seen.problem, seen.test.file, seen.test.returns) == ("", "test_a.py", 1)
    assert story.outcomes == {"test_a": "..."}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({".so": "eA=="}, "there is no witness for cpython-31"),
        (dict.fromkeys(libraries(), "eA=="), "file too short"),
    ],
)
def test_without_one_that_fits_all_else_goes_on(
    tmp_path: Path, given: dict[str, str], words: str
) -> None:
    story = run_agent(
        tmp_path, {"test_a.py": "def test_a(): pass\n"}, pair=("3.12", PYTEST_8),
        witness=given, witness_key=KEY.hex(),
    )  # fmt: skip
    (finish,) = story.all(wire.Finish)
    seen = read(Chain(KEY, "").take(finish.witness))
    assert seen.absent
    assert words in seen.problem
    assert story.outcomes == {"test_a": "..."}


def test_a_worker_that_replaces_another_is_believed_as_well(tmp_path: Path) -> None:
    story = run_agent(
        tmp_path,
        {
            "test_a.py": "import os\n"
            "def test_one(): pass\n"
            "def test_two(): os._exit(3)\n"
            "def test_three(): os.kill(os.getpid(), 9)\n"
            "def test_four(): pass\n"
        },
        pair=("3.12", PYTEST_8), witness=libraries(), witness_key=KEY.hex(),
    )  # fmt: skip
    chain = Chain(KEY, str(tmp_path / "repo"))
    told = {story.items[f.item].name: chain.take(f.witness) for f in story.all(wire.Finish)}
    assert read(told["test_one"]).test.returns == read(told["test_four"]).test.returns == 1
    assert told["test_two"] == told["test_three"] == ""


def test_what_pytest_does_with_tests(tmp_path: Path) -> None:
    """Which code counts as the test's own, and what of it was seen."""
    story = run_agent(
        tmp_path,
        {
            "test_a.py": '''
                import functools
                import pytest
                from helper import Shared, made

                class TestShared(Shared): pass
                test_made = made(3)

                @pytest.fixture
                def thing():
                    yield 3

                def test_skips(): pytest.skip("not now")
                @pytest.mark.xfail
                def test_xfails(): assert 0
                def test_fixture(thing): assert thing == 3
                class TestStatic:
                    @staticmethod
                    def test_static(): pass
                    @classmethod
                    def test_class(cls): pass
                def twice(function):
                    @functools.wraps(function)
                    def wrapper():
                        function(); function()
                    return wrapper
                @twice
                def test_twice(): pass
                test_partial = functools.partial(lambda number: None, 3)
            ''',
            "helper.py": '''
                class Shared:
                    def test_shared(self): pass
                def made(number):
                    def test(): assert number == 3
                    return test
                def doc():
                    """
                    >>> 1 + 1
                    2
                    """
            ''',
        },
        "--doctest-modules", "helper.py", "test_a.py",
        pair=("3.13", PYTEST_8), witness=libraries(), witness_key=KEY.hex(),
    )  # fmt: skip
    chain = Chain(KEY, str(tmp_path / "repo"))
    found = {}
    for frame in story.all(wire.Finish):
        seen = read(chain.take(frame.witness))
        assert seen.problem == ""
        name = story.items[frame.item].name
        found[name] = (seen.test.file, seen.test.starts, seen.test.returns)
    assert found == {
        "helper.doc": ("", 0, 0),
        "test_skips": ("test_a.py", 1, 0),
        "test_xfails": ("test_a.py", 1, 0),
        "test_fixture": ("test_a.py", 1, 1),
        "test_static": ("test_a.py", 1, 1),
        "test_class": ("test_a.py", 1, 1),
        "test_twice": ("test_a.py", 2, 2),
        "test_partial": ("test_a.py", 1, 1),
        "test_shared": ("helper.py", 1, 1),
        "test_made": ("helper.py", 1, 1),
    }
