"""Every outcome there is, on real interpreters with real pytests."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pytest_sandbox import wire
from tests.agent.support import SAMPLE, direct, run_agent

Pair = tuple[str, tuple[str, ...]]

PROJECT = {
    "test_all.py": """
        import os
        import unittest
        import warnings

        import pytest

        def test_pass():
            pass

        def test_fail():
            value = {"a": [1, 2]}
            print("to stdout")
            assert value == {"a": [1, 3]}

        def test_skip():
            pytest.skip("not today")

        @pytest.mark.skipif(True, reason="by mark")
        def test_skip_mark():
            pass

        @pytest.mark.xfail(reason="known")
        def test_xfail():
            assert 0

        @pytest.mark.xfail(reason="fixed")
        def test_xpass():
            pass

        @pytest.mark.xfail(strict=True, reason="fixed")
        def test_xpass_strict():
            pass

        def test_warn():
            warnings.warn("look out")

        @pytest.fixture
        def broken():
            raise ValueError("setup broke")

        def test_setup_error(broken):
            pass

        @pytest.fixture
        def leaky():
            yield
            raise ValueError("teardown broke")

        def test_teardown_error(leaky):
            pass

        def test_both(leaky):
            assert 0, "call broke"

        def test_properties(record_property):
            record_property("answer", 42)
            record_property("object", {1})

        @pytest.mark.parametrize("x", ["a b", "[x]::y/z", "é"])
        @pytest.mark.slow
        def test_param(x):
            pass

        class TestClass:
            def test_method(self):
                raise RuntimeError("chained") from KeyError("first")

        class Case(unittest.TestCase):
            def test_case(self):
                self.assertEqual(1, 2)

            @unittest.skip("unittest skip")
            def test_case_skip(self):
                pass
    """,
    "pytest.ini": "[pytest]\nmarkers = slow\n",
}

EXPECTED = {
    "test_pass": "...",
    "test_fail": ".F.",
    "test_skip": ".s.",
    "test_skip_mark": "s.",
    "test_xfail": ".x.",
    "test_xpass": ".X.",
    "test_xpass_strict": ".F.",
    "test_warn": "...",
    "test_setup_error": "F.",
    "test_teardown_error": "..F",
    "test_both": ".FF",
    "test_properties": "...",
    "test_param[a b]": "...",
    "test_param[[x]::y/z]": "...",
    "test_param[\\xe9]": "...",
    "test_method": ".F.",
    "test_case": ".F.",
    "test_case_skip": "s.",
}

#: Pairs of Python and pytest that exist.
MATRIX = [
    (f"3.{minor}", (requirement,))
    for requirement, first, last in [
        ("pytest>=6.2,<6.3", 8, 9),
        ("pytest>=7.4,<8", 8, 12),
        ("pytest>=8,<9", 8, 13),
        ("pytest>=9,<10", 10, 13),
    ]
    for minor in range(first, last + 1)
]


def unaddressed(text: str) -> str:
    """Without the addresses of objects, which differ from process to process."""
    return re.sub(r"0x[0-9a-f]+", "0x", text)


def check(tmp_path: Path, pair: Pair) -> None:
    story = run_agent(tmp_path, PROJECT, pair=pair)
    expected = dict(EXPECTED)
    if story.report("test_case_skip", "teardown") and len(story.reports("test_case_skip")) == 3:
        expected["test_case_skip"] = ".s."
    assert story.outcomes == expected
    assert (story.end.reason, story.end.exitstatus) == ("finished", 1)
    assert story.finished == list(expected)

    told = unaddressed(direct(tmp_path, pair=pair))
    for report in story.all(wire.Report):
        if report.longrepr is not None and report.outcome == "failed":
            assert unaddressed(report.longrepr.text) in told
    skip = story.report("test_skip").longrepr
    assert skip is not None
    assert (skip.path, skip.message) == ("test_all.py", "Skipped: not today")
    assert skip.lineno > 0
    fail = story.report("test_fail").longrepr
    assert fail is not None
    assert fail.path.endswith("test_all.py")
    assert fail.lineno > 0
    assert "assert" in fail.message
    assert story.report("test_fail").sections == [("Captured stdout call", "to stdout\n")]
    assert story.report("test_xfail").wasxfail == "known"
    assert story.report("test_properties").properties == [("answer", 42), ("object", "{1}")]
    (warned,) = story.all(wire.Warned)
    assert (warned.message, warned.category) == ("look out", "UserWarning")
    assert (warned.path, warned.when) == ("test_all.py", "runtest")
    hello = story.all(wire.Hello)
    assert [frame.rootdir for frame in hello] == [""]
    assert story.nodes[-1].parent >= 0
    methods = [item for item in story.items if item.name == "test_method"]
    assert story.nodes[methods[0].parent].name == "TestClass"
    params = [item for item in story.items if item.name == "test_param[a b]"]
    assert {mark.name for mark in params[0].marks} == {"parametrize", "slow"}
    for report in story.all(wire.Report):
        assert report.stop >= report.start > 1.6e9
        assert report.cause == "test"


@pytest.mark.parametrize("pair", SAMPLE, ids=lambda pair: f"py{pair[0]}-{pair[1][0]}")
def test_every_outcome(tmp_path: Path, pair: Pair) -> None:
    check(tmp_path, pair)


@pytest.mark.soak
@pytest.mark.parametrize("pair", MATRIX, ids=lambda pair: f"py{pair[0]}-{pair[1][0]}")
def test_every_outcome_on_every_pair(tmp_path: Path, pair: Pair) -> None:
    check(tmp_path, pair)


@pytest.mark.parametrize(
    "args",
    [
        ["--tb=short"],
        ["-l", "-vv"],
        pytest.param(["--tb=native"], marks=pytest.mark.soak),
        pytest.param(["--tb=long"], marks=pytest.mark.soak),
    ],
)
def test_tracebacks_are_those_of_a_direct_run(tmp_path: Path, args: list[str]) -> None:
    story = run_agent(tmp_path, PROJECT, *args)
    told = unaddressed(direct(tmp_path, *args))
    texts = [
        unaddressed(report.longrepr.text)
        for report in story.all(wire.Report)
        if report.longrepr is not None and report.outcome == "failed"
    ]
    assert len(texts) == 8
    for text in texts:
        assert text in told


def test_subtests_are_reports_of_their_item(tmp_path: Path) -> None:
    files = {
        "test_sub.py": """
            import unittest
            def test_sub(subtests):
                for i in range(3):
                    with subtests.test("even", i=i):
                        assert i % 2 == 0
            class Case(unittest.TestCase):
                def test_case(self):
                    for i in range(2):
                        with self.subTest(i=i):
                            self.assertEqual(i, 0)
        """
    }
    story = run_agent(tmp_path, files)
    subtests = [report for report in story.reports("test_sub") if report.subtest is not None]
    assert [report.outcome for report in subtests] == ["passed", "failed", "passed"]
    assert subtests[1].subtest == wire.Subtest(msg="even", kwargs={"i": "1"})
    assert story.report("test_sub").outcome == "failed"
    failed = [report for report in story.reports("test_case") if report.subtest is not None]
    assert [report.outcome for report in failed if report.outcome == "failed"] == ["failed"]


def test_reruns_are_sections_of_the_last_attempt(tmp_path: Path) -> None:
    files = {
        "test_flaky.py": """
            attempts = []
            def test_flaky():
                attempts.append(1)
                assert len(attempts) == 3
            def test_never():
                assert 0
        """
    }
    pair = ("3.11", ("pytest>=9,<10", "pytest-rerunfailures", "pytest-xdist"))
    story = run_agent(tmp_path, files, "--reruns=2", pair=pair)
    assert story.outcomes == {"test_flaky": "...", "test_never": ".F."}
    names = [name for report in story.reports("test_flaky") for name, _ in report.sections]
    assert names == ["Attempt 1 failed in call", "Attempt 2 failed in call"]


def test_unknown_outcome_is_a_failure(tmp_path: Path) -> None:
    files = {
        "conftest.py": """
            import pytest
            @pytest.hookimpl(hookwrapper=True)
            def pytest_runtest_makereport(item, call):
                outcome = yield
                if call.when == "call":
                    outcome.get_result().outcome = "vanished"
            def pytest_report_teststatus(report):
                if report.outcome == "vanished":
                    return "vanished", "v", "VANISHED"
        """,
        "test_it.py": "def test_it(): pass\n",
    }
    story = run_agent(tmp_path, files)
    assert story.outcomes == {"test_it": ".F."}
    longrepr = story.report("test_it").longrepr
    assert longrepr is not None
    assert "'vanished'" in longrepr.text


def test_long_texts_are_cut_with_a_note(tmp_path: Path) -> None:
    files = {
        "test_long.py": """
            def test_long():
                print("é" * 5_000_000)
                assert 0, "x" * 3_000_000
        """
    }
    story = run_agent(tmp_path, files, text_limit=20_000)
    report = story.report("test_long")
    assert report.longrepr is not None
    assert len(report.longrepr.text) < 21_000
    assert "characters cut" in report.longrepr.text
    assert "characters cut" in report.sections[0][1]
    assert len(report.sections[0][1]) < 21_000
