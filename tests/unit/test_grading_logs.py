"""SWE-bench's own tables and parsers, asked in a process of their own."""

from __future__ import annotations

import asyncio
import functools
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pytest_sandbox.errors import Unsupported
from pytest_sandbox.grading import find_tasks, logs
from pytest_sandbox.grading.model import Log, Task
from tests.interpreters import CACHE


@functools.cache
def package(version: str) -> Path:
    """A folder to import ``swebench`` from, without what it requires."""
    home = CACHE / f"swebench-bare-{version}"
    if not home.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.mkdtemp(dir=CACHE, prefix=".new-")
        try:
            command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target"]
            subprocess.run(
                [*command, f"{scratch}/it", f"swebench=={version}"], check=True, timeout=300
            )
            Path(scratch, "it").rename(home)
        except OSError:
            if not home.exists():  # else somebody else was faster
                raise
        finally:
            shutil.rmtree(scratch)
    return home


@pytest.fixture(params=["4.1.0", "5.0.2"])
def release(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.syspath_prepend(str(package(request.param)))
    return str(request.param)


def log(repo: str = "django/django", version: str = "3.0", **more: object) -> Log:
    return Log(repo=repo, version=version, **more)  # type: ignore[arg-type]


DJANGO = """\
test_a (forms.tests.FormsTests) ... ok
test_b (forms.tests.FormsTests) ... FAIL
test_c (forms.tests.FormsTests) ... skipped 'no'
test_\x1b[31md (forms.tests.FormsTests) ... ERROR
"""


def test_what_is_printed_is_read_officially(release: str) -> None:
    parser = None if release.startswith("4") else "parse_log_django"
    found = asyncio.run(logs._read(log(parser=parser), DJANGO))
    assert found == {
        "test_a (forms.tests.FormsTests)": "passed",
        "test_b (forms.tests.FormsTests)": "failed",
        "test_c (forms.tests.FormsTests)": "skipped",
        r"test_\x1b[31md (forms.tests.FormsTests)": "error",
    }


def test_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(package("4.1.0")))
    django = asyncio.run(logs.script(log(files=("forms_tests.tests", "a b"))))
    assert django.splitlines()[:2] == [
        "source /opt/miniconda3/bin/activate",
        "conda activate testbed",
    ]
    assert "export LANG=en_US.UTF-8" in django
    last = django.splitlines()[-1]
    assert last.startswith("./tests/runtests.py --verbosity 2")
    assert last.endswith(" forms_tests.tests 'a b'")
    sympy = asyncio.run(logs.script(log("sympy/sympy", "1.5", files=("sympy/a.py",))))
    assert sympy.splitlines()[-1].endswith("bin/test -C --verbose sympy/a.py")


SCRIPT = """\
#!/bin/bash
set -uxo pipefail
source /opt/miniconda3/bin/activate
conda activate testbed
cd /testbed
export LC_ALL=C
git checkout abc tests/a.py
git apply -v - <<'EOF_1'
diff --git a/tests/a.py b/tests/a.py
EOF_1
: '>>>>> Start Test Output'
./tests/runtests.py a
: '>>>>> End Test Output'
git checkout abc tests/a.py
"""


def test_a_script_of_the_data_set() -> None:
    assert asyncio.run(logs.script(log(script=SCRIPT))).splitlines() == [
        "source /opt/miniconda3/bin/activate",
        "conda activate testbed",
        "export LC_ALL=C",
        "./tests/runtests.py a",
    ]
    with pytest.raises(Unsupported, match="does not say where"):
        asyncio.run(logs.script(log(script="pytest")))


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        (log("who/knows"), "has no log parser"),
        (log(parser="parse_log_nobody"), "has no log parser"),
        (log(version="99"), "does not know how tests of version '99' are run"),
    ],
)
def test_what_it_does_not_know(asked: Log, problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(package("4.1.0")))
    with pytest.raises(Unsupported, match=problem):
        asyncio.run(logs.script(asked))


def test_without_the_package() -> None:
    task = Task(id="t", source="t", repo=".", base="HEAD", unsupported="its tests are its own")
    assert logs.unsupported(task) == "its tests are its own"
    assert logs.installed() is None
    more = Task(id="t", source="t", repo=".", base="HEAD", unsupported="own", log=log())
    assert "pytest-sandbox[swebench]" in (logs.unsupported(more) or "")
    with pytest.raises(Unsupported, match="not installed"):
        asyncio.run(logs.script(log()))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"repo": "django/django", "version": "3.0"},
            Log(repo="django/django", version="3.0", files=("forms_tests.tests",)),
        ),
        (
            {"repo": "sympy/sympy", "log_parser": "parse_log_sympy", "eval_script": SCRIPT},
            Log(
                repo="sympy/sympy",
                version="",
                files=("tests/forms_tests/tests.py",),
                parser="parse_log_sympy",
                script=SCRIPT,
            ),
        ),
        ({"repo": "django/django", "eval_type": "fail_only"}, None),
        ({"repo": "django/django", "FAIL_TO_PASS": []}, None),
        ({"repo": "psf/requests", "version": "2.0"}, None),
    ],
)
def test_which_rows_have_an_official_way(
    changes: dict[str, object], expected: Log | None, tmp_path: Path
) -> None:
    row = {
        "instance_id": "a__b-1",
        "base_commit": "0" * 40,
        "test_patch": "diff --git a/tests/forms_tests/tests.py b/tests/forms_tests/tests.py\n"
        "--- a/tests/forms_tests/tests.py\n+++ b/tests/forms_tests/tests.py\n@@ -1 +1 @@\n-a\n+b\n",
        "FAIL_TO_PASS": ["tests/forms_tests/tests.py::test_a"],
        "PASS_TO_PASS": [],
        **changes,
    }
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n")
    [task] = find_tasks([path])
    assert isinstance(task, Task)
    assert task.log == expected
    assert (task.unsupported is None) == (changes["repo"] == "psf/requests")
