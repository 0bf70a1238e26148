"""What is collected, what the host chooses of it, and what runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_sandbox import wire
from tests.agent.support import run_agent

FIVE = {"test_it.py": "".join(f"def test_{name}(): pass\n" for name in "abcde")}


def test_the_chosen_run_in_the_chosen_order(tmp_path: Path) -> None:
    story = run_agent(tmp_path, FIVE, choose=lambda _: [4, 0, 2])
    assert story.finished == ["test_e", "test_a", "test_c"]
    assert story.end.reason == "finished"


def test_nothing_chosen(tmp_path: Path) -> None:
    story = run_agent(tmp_path, FIVE, choose=lambda _: [])
    assert story.finished == []
    assert story.end.reason == "finished"


def test_a_wrong_choice_is_refused(tmp_path: Path) -> None:
    story = run_agent(tmp_path, FIVE, choose=lambda _: [0, 0])
    assert story.end.reason == "supervisor"


def test_maxfail_of_the_host_and_of_the_arguments(tmp_path: Path) -> None:
    files = {"test_it.py": "".join(f"def test_{name}(): assert 0\n" for name in "abcde")}
    assert len(run_agent(tmp_path, files, maxfail=2).finished) == 2
    assert len(run_agent(tmp_path, files, "-x").finished) == 1


def test_collection_errors_leave_the_decision_to_the_host(tmp_path: Path) -> None:
    files = {
        **FIVE,
        "test_broken.py": "import missing_module\n",
        "test_skipped.py": "import pytest\npytest.skip('not here', allow_module_level=True)\n",
    }
    story = run_agent(tmp_path, files)
    failed, skipped = story.all(wire.CollectReport)
    assert (failed.nodeid, failed.outcome) == ("test_broken.py", "failed")
    assert "No module named 'missing_module'" in failed.longrepr.text
    assert (skipped.nodeid, skipped.outcome) == ("test_skipped.py", "skipped")
    assert (skipped.longrepr.path, skipped.longrepr.lineno) == ("test_skipped.py", 2)
    assert skipped.longrepr.message == "Skipped: not here"
    assert len(story.finished) == 5
    assert story.end.reason == "finished"


def test_exitfirst_stops_collection(tmp_path: Path) -> None:
    files = {**FIVE, "test_broken.py": "import missing_module\n"}
    story = run_agent(tmp_path, files, "-x")
    assert len(story.all(wire.CollectReport)) == 1
    assert [frame.total for frame in story.all(wire.Ready)] == [0]
    assert (story.end.reason, story.end.exitstatus) == ("finished", 1)


def test_deselected_by_the_project_is_counted(tmp_path: Path) -> None:
    files = {**FIVE, "pytest.ini": "[pytest]\naddopts = -k 'not test_b'\n"}
    story = run_agent(tmp_path, files)
    (ready,) = story.all(wire.Ready)
    assert (ready.total, ready.deselected) == (4, 1)


def test_arguments_with_odd_ids(tmp_path: Path) -> None:
    files = {
        "tests/test_it.py": """
            import pytest
            @pytest.mark.parametrize("x", ["a b", "c::d", "[e]/f"])
            def test_it(x): pass
        """
    }
    story = run_agent(tmp_path, files, "tests/test_it.py::test_it[a b]")
    assert [item.nodeid for item in story.items] == ["tests/test_it.py::test_it[a b]"]
    story = run_agent(tmp_path, files, "--pyargs", "tests")
    assert len(story.finished) == 3


def test_the_projects_own_hooks_see_all_and_the_host_has_the_last_word(tmp_path: Path) -> None:
    files = {
        **FIVE,
        "conftest.py": """
            import pytest
            @pytest.hookimpl(hookwrapper=True, tryfirst=True)
            def pytest_collection_modifyitems(items):
                yield
                items.reverse()
        """,
    }
    story = run_agent(tmp_path, files, choose=lambda _: [1])
    assert [item.name for item in story.items] == [f"test_{name}" for name in "edcba"]
    assert story.finished == ["test_d"]


def test_keywords_and_marks(tmp_path: Path) -> None:
    files = {
        "pytest.ini": "[pytest]\nmarkers = one\n  two\n",
        "test_it.py": """
            import pytest
            @pytest.mark.one
            class TestIt:
                @pytest.mark.two(a=1, b="x", c=object(), d=None)
                def test_it(self): pass
                test_it.special = True
        """,
    }
    (item,) = run_agent(tmp_path, files).items
    assert {mark.name: mark.kwargs for mark in item.marks} == {
        "one": {},
        "two": {"a": 1, "b": "x", "d": None},
    }
    assert "special" in item.keywords
    assert (item.path, item.domain, item.type) == ("test_it.py", "TestIt.test_it", "Function")


def test_rootdir_above_and_many_tests(tmp_path: Path) -> None:
    files = {
        "sub/pytest.ini": "[pytest]\n",
        "sub/test_many.py": """
            import pytest
            @pytest.mark.parametrize("i", range(1000))
            def test_it(i): pass
        """,
    }
    story = run_agent(tmp_path, files, "sub", cwd=str(tmp_path / "repo" / "sub"), args_cwd=1)
    assert story.end.reason == "usage"
    story = run_agent(tmp_path, files, cwd=str(tmp_path / "repo" / "sub"))
    assert [frame.rootdir for frame in story.all(wire.Hello)] == ["sub"]
    assert len(story.finished) == 1000
    assert all(len(frame.items) <= 200 for frame in story.all(wire.Collected))


@pytest.mark.parametrize("args", [["--continue-on-collection-errors"], []])
def test_an_unselected_run_with_errors_ends_well(tmp_path: Path, args: list[str]) -> None:
    files = {**FIVE, "test_broken.py": "1/0\n"}
    story = run_agent(tmp_path, files, *args, choose=lambda _: [])
    assert story.end.reason == "finished"
