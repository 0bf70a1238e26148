"""Whoever makes failures pass makes the sentinels pass, and the supervisor hears of it."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from pytest_sandbox import wire
from tests.agent.support import EDGES, run_agent

#: Made by a module that the tests import.
EXPLOITS = {
    "reports": """
        from _pytest import reports
        genuine = reports.TestReport.from_item_and_call.__func__
        def made(cls, item, call):
            report = genuine(cls, item, call)
            report.outcome, report.longrepr = "passed", None
            return report
        reports.TestReport.from_item_and_call = classmethod(made)
    """,
    "calls": """
        from _pytest import runner
        genuine = runner.CallInfo.from_call.__func__
        def made(cls, func, when, *args, **kwargs):
            call = genuine(cls, func, when, *args, **kwargs)
            call.excinfo = None
            return call
        runner.CallInfo.from_call = classmethod(made)
    """,
    "functions": """
        from _pytest import python
        python.Function.runtest = lambda self: None
    """,
    "assertions": """
        from _pytest.assertion import rewrite
        import builtins
        class Never(Exception):
            pass
        def made(self):
            try:
                self.ihook.pytest_pyfunc_call(pyfuncitem=self)
            except Exception:
                pass
        from _pytest import python
        python.Function.runtest = made
    """,
}
TESTS = """
    import pytest
    import product

    @pytest.mark.parametrize("number", range(4))
    def test_it(number):
        assert product.VALUE == number

    class TestIn:
        def test_passes(self):
            assert True

    @pytest.fixture(autouse=True)
    def counted():
        COUNT.append(1)
        yield

    COUNT = []

    def test_fixtures_ran_for_tests_only():
        assert len(COUNT) == 6
"""


@pytest.mark.parametrize("pair", EDGES, ids=str)
@pytest.mark.parametrize("exploit", EXPLOITS)
def test_what_makes_failures_pass_is_seen(
    tmp_path: Path, exploit: str, pair: tuple[str, tuple[str, ...]]
) -> None:
    product = dedent(EXPLOITS[exploit]) + "VALUE = 9\n"
    files = {"product.py": product, "test_it.py": TESTS}
    story = run_agent(tmp_path, files, pair=pair, hardened=True)
    deaths = [frame for frame in story.frames if isinstance(frame, wire.Died)]
    assert {death.cause for death in deaths} == {"protocol"}
    assert "a test that fails was reported as passed" in deaths[0].message
    assert deaths[0].item is not None


@pytest.mark.parametrize("pair", EDGES, ids=str)
def test_honest_sessions_do_not_notice(tmp_path: Path, pair: tuple[str, tuple[str, ...]]) -> None:
    files = {"product.py": "VALUE = 2\n", "test_it.py": TESTS}
    plain = run_agent(tmp_path, files, pair=pair)
    hardened = run_agent(tmp_path, files, pair=pair, hardened=True)
    assert not [frame for frame in hardened.frames if isinstance(frame, wire.Died)]
    assert plain.outcomes == hardened.outcomes
