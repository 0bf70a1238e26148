"""The fixture in a test of one's own: does a patch mend the project, and nothing else?"""

from __future__ import annotations

import pytest

from pytest_sandbox.fixture import SandboxFixture

CALC = "../fixtures_repos/calc/repo"
PATCHES = "../fixtures_repos/calc/patches"


@pytest.mark.sandbox(timeout=120, memory="1GiB")
def test_the_patch_mends_it(sandbox: SandboxFixture) -> None:
    run = sandbox.run_tests(CALC, patch=f"{PATCHES}/good.patch", args=["tests/test_calc.py"])
    assert run.passed
    assert all(test.outcome == "passed" for test in run)


def test_without_it_something_fails(sandbox: SandboxFixture) -> None:
    run = sandbox.run_tests(CALC, args=["tests/test_expression.py"])
    assert [test.nodeid for test in run.failed] == [
        "tests/test_expression.py::test_large_quotients_are_exact"
    ]


@pytest.mark.sandbox(env={"GREETING": "hello"})
def test_the_plain_sandbox(sandbox: SandboxFixture) -> None:
    sandbox.write_file("say.py", "import os; print(os.environ['GREETING'])")
    process = sandbox.exec(["python3", "say.py"])
    assert (process.returncode, process.text) == (0, "hello\n")
