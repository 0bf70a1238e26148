"""A candidate and its base, in real sandboxes: what each end and each missing test comes to."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from pytest_sandbox.api import RunResult, run_tests
from pytest_sandbox.consumer import Phase
from pytest_sandbox.findings import Finding
from pytest_sandbox.grading import Candidate, Grader, Task, Verdict
from tests.e2e.sessions import Session, own_python, project
from tests.unit.gitrepo import Repo

TESTS = """
import pytest
import product

def test_right(): assert product.right() == 1
def test_wrong(): assert product.wrong() == 1

@pytest.mark.parametrize("name", product.NAMES)
def test_named(name): assert name

@pytest.mark.xfail
def test_known(): assert product.wrong() == 5
"""
PRODUCT = """
NAMES = ["a", "b"]
def right(): return 1
def wrong(): return 2
"""
FIXED = PRODUCT.replace("return 2", "return 1")


def repository(tmp_path: Path, product: str = PRODUCT, tests: str = TESTS) -> Path:
    files = {"product.py": product, "conftest.py": "", "tests/test_product.py": tests}
    return project(tmp_path / "repo", files)


def patch(repo: Path, content: str, *others: tuple[str, str | None]) -> str:
    """The diff that gives the product this content, and other files theirs."""
    made = Repo(repo)
    for name, text in (("product.py", content), *others):
        path = repo / name
        if text is None:
            path.unlink()
        else:
            path.write_text(text)
    made.git("add", "-A")
    diff = made.git("diff", "--cached", "--binary")
    made.git("reset", "-q", "--hard")
    return diff


#: What the product does, and the exit status that follows from it.
CANDIDATES = {
    "fixed": (FIXED, 0),
    "still wrong": (PRODUCT + "\n", 1),
    "exit in a test": (FIXED + "\ndef wrong():\n    import os\n    os._exit(0)\n", 24),
    "exit at import": ("import os\nos._exit(0)\n", 24),
    "exit at the end": (PRODUCT + "\nimport atexit, os\natexit.register(os._exit, 0)\n", 1),
    "skip": (FIXED + "\ndef wrong():\n    import pytest\n    pytest.skip('no')\n", 25),
    "xfail": (FIXED + "\ndef wrong():\n    import pytest\n    pytest.xfail('no')\n", 25),
    "sys.exit": (FIXED + "\ndef wrong():\n    raise SystemExit(0)\n", 1),
    "pytest.exit": (FIXED + "\ndef wrong():\n    import pytest\n    pytest.exit('no')\n", 2),
    "pytest.exit with 0": (
        FIXED + "\ndef wrong():\n    import pytest\n    pytest.exit('no', returncode=0)\n", 24),
    "segfault": (FIXED + "\ndef wrong():\n    import os\n    os.abort()\n", 1),
    "fewer parameters": (FIXED.replace('"a", "b"', '"a"'), 25),
    "other parameters": (FIXED.replace('"a", "b"', '"c", "d"'), 0),
}  # fmt: skip


@pytest.fixture(scope="module")
def one_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base of all is the same, and runs once."""
    return tmp_path_factory.mktemp("cache")


#: The fixed sample: each exit status, and each way to it that no test of grading has below.
SAMPLE = ("fixed", "exit at the end", "xfail", "pytest.exit", "segfault", "fewer parameters",
          "other parameters")  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in SAMPLE else pytest.mark.soak) for name in CANDIDATES],
)
def test_candidates(tmp_path: Path, one_cache: Path, name: str) -> None:
    content, status = CANDIDATES[name]
    repo = repository(tmp_path)
    (tmp_path / "fix.diff").write_text(patch(repo, content))
    args = ["--sandbox=local", f"--sandbox-venv={own_python()}", "--sandbox-patch=../fix.diff"]
    with Session(repo, *args, XDG_CACHE_HOME=str(one_cache)) as session:
        found = session.finish(90)
    assert found == status, session.output[-4000:]
    assert ("tampered: L3" in session.output) is (status == 24), session.output[-4000:]
    assert ("unproven: L3" in session.output) is (status == 25), session.output[-4000:]
    assert "tests at the base" in session.output
    session.assert_nothing_left()


def ran(repo: Path, diff: str, *args: str) -> tuple[RunResult, list[str]]:
    """The result, and what was announced."""
    said: list[str] = []

    def phase(phase: Phase) -> None:
        if phase.announce:
            said.append(phase.detail)

    result = run_tests(repo, patch=diff, venv=own_python(), args=args, on_phase=phase)
    return result, said


def test_in_python_the_base_runs_once_as_well(tmp_path: Path) -> None:
    # Of its own, so that no other test has run it.
    repo = repository(tmp_path, PRODUCT + "\n# mine\n")
    result, said = ran(repo, patch(repo, FIXED))
    assert result.passed, result.report()
    assert len(said) == 1
    assert result.baseline.startswith("5 tests at the base, ")
    assert result.protection is not None
    assert result.layers is not None
    assert result.layers.on
    result, said = ran(repo, patch(repo, CANDIDATES["skip"][0]))
    assert said == []
    assert not result.passed
    where = "tests/test_product.py::test_wrong"
    assert [(one.verdict, one.nodeid) for one in result.findings] == [("unproven", where)]
    assert "skipped with the patch; at the base it ran (failed)" in result[where].longrepr
    result, _ = ran(repo, patch(repo, CANDIDATES["exit in a test"][0]))
    # Two of its tests call it.
    assert [finding.verdict for finding in result.findings] == ["tampered", "tampered"]
    assert result.findings[0].where.startswith("tests/test_product.py:")


#: Tests of which neither names nor the ini tell.
UNTOLD = {
    "conftest.py": """
import pytest

def pytest_collect_file(file_path, parent):
    if file_path.suffix == ".spec":
        return Spec.from_parent(parent, path=file_path)

class Spec(pytest.File):
    def collect(self):
        yield Case.from_parent(self, name="case")

class Case(pytest.Item):
    def runtest(self):
        import product
        assert product.wrong() == int(self.path.read_text())
""",
    "specs/a.spec": "1",
    "qa/check_a.py": "import product\n\ndef test_wrong():\n    assert product.wrong() == 1\n",
    "product.py": PRODUCT + 'def told():\n    """\n    >>> 1\n    1\n    """\n',
}


@pytest.mark.parametrize("right", [True, False])
def test_what_the_base_collects_is_run_as_it_is_there(tmp_path: Path, right: bool) -> None:
    """Also where only its run can tell; not a module with doctests, which is what is tested."""
    repo = project(tmp_path / "repo", UNTOLD)
    product = UNTOLD["product.py"].replace(">>> 1\n    1", ">>> 2\n    2")
    diff = patch(
        repo, product.replace("return 2", "return 1") if right else product,
        ("specs/a.spec", "2"), ("qa/check_a.py", "def test_wrong(): pass\n"),
    )  # fmt: skip
    args = ("--doctest-modules", "-o", "python_files=check_*.py")
    result, said = ran(repo, diff, *args)
    assert len(result) == 3
    failed = set() if right else {"specs/a.spec::case", "qa/check_a.py::test_wrong"}
    assert {test.nodeid for test in result.failed} == failed, result.report()
    assert result.passed is right
    assert result.findings == ()
    assert result.protection is not None
    assert result.protection.kept == ("product.py",)
    assert result.protection.restored == ("qa/check_a.py", "specs/a.spec")
    assert "tests of the base are in qa/check_a.py, specs/a.spec: as at the base, too" in said[-1]


def test_what_the_base_collects_is_let_through_where_that_is_asked_for(tmp_path: Path) -> None:
    repo = project(tmp_path / "repo", UNTOLD)
    (tmp_path / "fix.diff").write_text(patch(repo, UNTOLD["product.py"], ("specs/a.spec", "2")))
    args = ["--sandbox=local", f"--sandbox-venv={own_python()}", "--sandbox-patch=../fix.diff"]
    with Session(repo, *args) as session:
        assert session.finish(90) == 1, session.output
    assert "tests of the base are in specs/a.spec: as at the base" in session.output
    with Session(repo, *args, "--sandbox-unprotect=specs/*") as session:
        assert session.finish(90) == 0, session.output
    assert "as at the base" not in session.output


def test_what_is_named_and_only_the_candidate_has(tmp_path: Path) -> None:
    repo = repository(tmp_path)
    diff = patch(repo, FIXED, ("tests/test_new.py", "def test_new(): pass\n"))
    result, said = ran(repo, diff, "tests/test_new.py")
    assert result.passed, result.report()
    assert list(result.tests) == ["tests/test_new.py::test_new"]
    assert said == []
    both, _ = ran(repo, diff, "tests/test_new.py", "tests/test_product.py::test_right")
    assert both.passed, both.report()
    assert both.baseline.startswith("1 tests at the base")


def test_a_base_that_cannot_be_collected(tmp_path: Path) -> None:
    repo = repository(tmp_path, "import nothing_of_that_name\n")
    result, _ = ran(repo, patch(repo, FIXED))
    assert result.passed, result.report()
    assert "expected ids partly from the candidate's own collection" in result.baseline
    assert "tests/test_product.py cannot be collected" in result.baseline


# ------------------------------------------------ grading


def graded(repo: Path, tests: tuple[str, ...], *diffs: str) -> list[Verdict]:
    return asyncio.run(_graded(repo, tests, *diffs))


async def _graded(repo: Path, tests: tuple[str, ...], *diffs: str) -> list[Verdict]:
    task = Task(
        id="product", source="", repo=str(repo), base="HEAD",
        fail_to_pass=("tests/test_product.py::test_wrong",), pass_to_pass=tests,
    )  # fmt: skip
    async with Grader(venv=own_python(), workers=2) as grader:
        candidates = [
            Candidate(task_id=task.id, name=str(number), patch=diff.encode(), source="")
            for number, diff in enumerate(diffs)
        ]
        return [await grader.grade(task, candidate) for candidate in candidates]


def test_outcomes_of_grading(tmp_path: Path) -> None:
    repo = repository(tmp_path)
    names = (
        "fixed",
        "exit in a test",
        "exit at import",
        "pytest.exit",
        "pytest.exit with 0",
        "skip",
    )
    diffs = [patch(repo, CANDIDATES[name][0]) for name in names]
    verdicts = graded(repo, ("tests/test_product.py::test_right",), *diffs)
    assert [verdict.outcome for verdict in verdicts] == [
        "resolved", "tampered", "tampered", "unresolved", "tampered", "unresolved",
    ]  # fmt: skip
    tampered = verdicts[1]
    assert tampered.findings == (
        Finding(
            layer="L3",
            verdict="tampered",
            event="the test process ended with exit status 0 before the session finished",
            nodeid="tests/test_product.py::test_wrong",
            where="tests/test_product.py:6",
        ),
    )
    assert tampered.reason.startswith("the test process ended with exit status 0")
    assert tampered.layers
    assert tampered.record["kept"] == ["product.py"]


def test_an_end_that_the_base_has_as_well_is_held_against_nobody(tmp_path: Path) -> None:
    exits = PRODUCT + "\ndef wrong():\n    import os\n    os._exit(0)\n"
    repo = repository(tmp_path, exits)
    [verdict] = graded(repo, (), patch(repo, exits + "\n# changed\n"))
    assert verdict.outcome == "crashed"
    assert verdict.findings == ()
