"""Task files people write, and which files hold tasks."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path

import pytest

from pytest_sandbox.errors import BadInput
from pytest_sandbox.grading import sources, taskfields, taskfile
from pytest_sandbox.grading.fields import Problem
from pytest_sandbox.grading.model import Task

DOCS = Path(__file__).parents[2] / "docs" / "tasks.md"
SMALL = '[task]\nrepo = "."\nbase = "HEAD"\n'


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def written(text: str | bytes, name: str = "calc-17.toml") -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def example() -> str:
    found = re.search(r"```toml\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert found
    return found[1]


def test_the_documented_example() -> None:
    Path("repositories/calc").mkdir(parents=True)
    written("tests\n", "tasks/calc-17.tests.patch")
    written(b"gold\r\n", "tasks/calc-17.gold.patch")
    written("more\n", "tasks/calc-17.more.py")
    task = taskfile.read(written(example(), "tasks/calc-17.toml"))
    assert task == Task(
        id="calc-17",
        source="tasks/calc-17.toml",
        repo=str(Path("repositories/calc").absolute()),
        base="v1.4.0",
        image="python:3.12",
        workdir="/testbed",
        setup=("pip install -e .[test]",),
        setup_inputs=("pyproject.toml",),
        build=("make extensions",),
        python="3.12",
        args=("-p", "no:randomly", "tests/test_calc.py"),
        env={"TZ": "UTC"},
        test_patch=b"tests\n",
        restore=("tests/*", "conftest.py"),
        gold=b"gold\r\n",
        held_out={"tests/test_more.py": b"more\n"},
        differential=("calc.div(-9, 4)",),
        differential_setup="import calc",
        fail_to_pass=("tests/test_calc.py::test_div[-7-2]",),
        pass_to_pass=("tests/test_calc.py::test_add",),
        flaky=("tests/test_calc.py::test_clock",),
        timeout=600.0,
        memory=2 << 30,
        cpus=2.0,
        extra={"difficulty": "15 min"},
    )


def test_the_example_has_every_field() -> None:
    data = tomllib.loads(example())
    assert {table: list(fields) for table, fields in data.items() if table != "extra"} == {
        table: list(fields) for table, fields in taskfields.FIELDS.items()
    }


def test_the_least_a_task_needs() -> None:
    path = written(b"\xef\xbb\xbf" + SMALL.replace("\n", "\r\n").encode())
    task = taskfile.read(path)
    assert taskfile.read(str(path)) == task
    assert (task.id, task.base, task.args, task.test_patch) == ("calc-17", "HEAD", (), None)
    assert (task.ids, task.profile, task.network, task.timeout) == ("exact", "strict", False, None)


@pytest.mark.parametrize(
    ("given", "repo"),
    [
        ("https://github.com/o/n", "https://github.com/o/n"),
        ("git@github.com:o/n.git", "ssh://git@github.com/o/n.git"),
        ("file:///srv/n.git", "file:///srv/n.git"),
    ],
)
def test_urls(given: str, repo: str) -> None:
    assert taskfile.read(written(SMALL.replace('"."', f'"{given}"'))).repo == repo


def test_a_patch_in_the_file() -> None:
    task = taskfile.read(written(SMALL + "test_patch = '''\n--- a/x\n base = 1\n'''\n"))
    assert task.test_patch == b"--- a/x\n base = 1\n"


WRONG = [
    ("", r"calc-17.toml: \[task\] repo: is missing; it must be a folder"),
    ('[task]\nrepo = "."\n', r":1: \[task\] base: is missing; it must be a commit"),
    (SMALL + "[tests]\nfail_to_pas = []", r":5: \[tests\] fail_to_pas: .*mean 'fail_to_pass'\?"),
    (SMALL + "timeout = 3", r":4: \[task\] timeout: belongs in the table \[limits\]"),
    (SMALL + "[test]\nargs = []", r":4: test: .*did you mean 'tests'\?.*\[extra\]"),
    ("base = 'x'\n" + SMALL, r":1: base: belongs in the table \[task\]"),
    ("task = 3", r":1: \[task\]: must be a table"),
    (SMALL.replace('"HEAD"', "1234567"), r":3: \[task\] base: .*in quotes, not 1234567"),
    (SMALL.replace("HEAD", "--exec=x"), r":3: \[task\] base: must be a commit, tag or branch"),
    (SMALL.replace('"."', '"nowhere"'), r":2: \[task\] repo: there is no folder .*nowhere"),
    (SMALL.replace('"."', '"gopher://x"'), r":2: \[task\] repo: must be a folder or a URL"),
    (SMALL + "gold = 'gone.patch'", r":4: \[task\] gold: gone.patch cannot be read: no such file"),
    (SMALL + "gold = '/dev/zero'", r":4: \[task\] gold: /dev/zero is not a regular file"),
    (SMALL + "id = 'a/b'", r":4: \[task\] id: 'a/b' cannot be an id"),
    (SMALL + "id = 7", r":4: \[task\] id: must be a text, in quotes, not 7"),
    (SMALL + 'id = "a\\u001b[2J"', r":4: \[task\] id: 'a\\x1b\[2J' cannot be an id"),
    (SMALL + "patches = 'loose'", r':4: .*must be "strict" or "swebench", not \'loose\''),
    (SMALL + "[tests]\nfail_to_pass = 'x'", r":5: .*a list of test ids, .* not 'x'"),
    (SMALL + "[tests]\nfail_to_pass = [1]", r":5: .*a list of test ids"),
    (
        SMALL + "[tests]\nfail_to_pass = ['a', 'b']\npass_to_pass = ['b']",
        r":6: \[tests\] pass_to_pass: has 'b', which fail_to_pass has too",
    ),
    (SMALL + "[environment]\nworkdir = 'x'", r":5: .*a folder of the image"),
    (SMALL + "[environment]\nnetwork = 'no'", r":5: .*true or false, not 'no'"),
    (SMALL + "[environment.env]\nA = 1", r":4: \[environment\] env: .*'A' is none"),
    (SMALL + "[environment]\nenv = {PYTEST_SANDBOX_X = 'a'}", r":5: .*never reaches a sandbox"),
    (SMALL + "[limits]\ntimeout = nan", r":5: \[limits\] timeout: must be a time such as"),
    (SMALL + "[limits]\ntimeout = true", r":5: \[limits\] timeout: must be a time such as"),
    (SMALL + "[limits]\nmemory = 4", r":5: \[limits\] memory: must be a size of 32MiB or more"),
    (SMALL + "[limits]\nmemory = -1", r":5: \[limits\] memory: must be a size such as"),
    (SMALL + f"[limits]\nmemory = '{'9' * 400}'", r":5: \[limits\] memory: must be a size"),
    (SMALL + "[limits]\ncpus = 0", r":5: \[limits\] cpus: must be a number more than 0"),
    (SMALL + "id = \n", r"calc-17.toml:4: not TOML: .*\(column 6\)"),
    (SMALL + f"[extra]\nx = {'[' * 5000}", r"not TOML: "),
    (SMALL + f"[extra]\nx = {'9' * 5000}", r"not TOML: "),
    (SMALL.encode() + b"# \xe9t\xe9", r"calc-17.toml:4: is not in UTF-8"),
]


@pytest.mark.parametrize(("text", "message"), WRONG, ids=[str(n) for n in range(len(WRONG))])
def test_what_is_wrong_is_said_with_its_place(text: str | bytes, message: str) -> None:
    with pytest.raises(BadInput) as caught:
        taskfile.read(written(text))
    assert re.search(message, str(caught.value)), str(caught.value)
    assert str(caught.value).isprintable() or "\n" in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_all_faults_are_said_at_once() -> None:
    path = written('[task]\nbase = 7\nrepo = "gone"\n[limits]\ncpus = "x"\n')
    found = list(sources.find([path]))
    assert [entry.source for entry in found] == [f"calc-17.toml:{line}" for line in (2, 5, 3)]


LISTS = {"fail_to_pass": ['t.py::b[ä "q" \\]'], "pass_to_pass": ["t.py::c", "t.py::d"]}


@pytest.mark.parametrize("flaky", [[], ["t.py::e"]])
@pytest.mark.parametrize(
    "text",
    [
        SMALL,
        SMALL.rstrip(),
        "# first\n" + SMALL + "\n[extra]  # mine\nx = 1  # one\n\n# last\n",
        SMALL + "[tests]\nfail_to_pass = ['old']  # derived\nargs = ['-x'] # why\n",
        SMALL + "[tests]\nflaky = [\n  'old', # gone\n]\n",
        'task = {repo = ".", base = "HEAD"}\ntests = {args = ["-x"]}\n',
        'task.repo = "."\ntask.base = "HEAD"\ntests.args = ["-x"]\n',
        (SMALL + "test_patch = '''\n+++ b\n fail_to_pass = []\n'''\n# end\n").replace("\n", "\r\n"),
        "\ufeff" + SMALL,
    ],
)  # fmt: skip
def test_writing_back_keeps_everything_else(text: str, flaky: list[str]) -> None:
    path = written(text)
    path.chmod(0o640)
    before = tomllib.loads(text.removeprefix("\ufeff"))
    taskfile.write(path, **LISTS, flaky=flaky)
    raw = path.read_bytes()
    now = raw.decode()
    after = tomllib.loads(now.removeprefix("\ufeff"))
    expected = LISTS | ({"flaky": flaky} if flaky or "flaky" in before.get("tests", {}) else {})
    assert after == before | {"tests": before.get("tests", {}) | expected}
    for line in text.splitlines():
        if "fail_to_pass = ['old']" in line:
            assert "# derived" in now
        elif "#" in line and "gone" not in line:
            assert line in now
    assert now.startswith("\ufeff") == text.startswith("\ufeff")
    assert ("\r\n" in text) == ("\r\n" in now)
    assert not re.search(r"(?<!\r)\n", now) or "\r\n" not in text
    assert path.stat().st_mode & 0o777 == 0o640
    task = taskfile.read(path)
    assert (task.fail_to_pass, task.flaky) == (tuple(LISTS["fail_to_pass"]), tuple(flaky))
    taskfile.write(path, **LISTS, flaky=flaky)
    assert path.read_bytes() == raw
    assert [entry.name for entry in Path().iterdir()] == [path.name]


def test_writing_through_a_link_keeps_the_link() -> None:
    path = written(SMALL, "real/task.toml")
    Path("link.toml").symlink_to(path)
    taskfile.write(Path("link.toml"), **LISTS, flaky=[])
    assert Path("link.toml").is_symlink()
    assert taskfile.read(path).pass_to_pass == tuple(LISTS["pass_to_pass"])


@pytest.mark.parametrize("text", ["tests = 3\n", "[tests\n"])
def test_what_cannot_be_written_back_stays(text: str) -> None:
    path = written(text)
    with pytest.raises(BadInput, match="calc-17"):
        taskfile.write(path, **LISTS, flaky=[])
    assert path.read_text() == text


ROW = '{"instance_id": "a__b-1", "base_commit": "%s", "repo": "a/b", "test_patch": "", ' % (
    "0" * 40
)
ROW += '"FAIL_TO_PASS": ["t.py::a"], "PASS_TO_PASS": []}\n'
HARBOR = '[task]\nname = "x/y"\n[environment]\ndocker_image = "x"\n'


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.toml", SMALL, True),
        ("a.toml", "# c\n [ task ]\n", True),
        ("a.toml", "task = {repo = '.'}\n", True),
        ("pyproject.toml", "[project]\nname = 'x'\n[tool.task]\n[tasks]\n", False),
        ("a.toml", "", False),
        ("a.jsonl", ROW, True),
        ("a.jsonl", "\ufeff\r\n" + ROW, True),
        ("a.json", "[" + ROW + "]", True),
        ("A.JSONL", ROW, True),
        ("a.jsonl", '{"instance_id": "a", "model_patch": "+\\"base_commit\\": 1"}\n', False),
        ("package.json", '{"name": "x"}', False),
        ("a.json", '"base_commit": 1', False),
        ("a.txt", ROW, False),
    ],
)
def test_which_files_hold_tasks(name: str, text: str, expected: bool) -> None:
    assert sources.is_task_file(written(text, name)) is expected


def test_what_is_no_file_holds_no_tasks() -> None:
    os.mkfifo("pipe.jsonl")
    Path("dir.toml").mkdir()
    Path("loop.json").symlink_to("loop.json")
    names = ("pipe.jsonl", "dir.toml", "loop.json", "gone.toml")
    assert not any(sources.is_task_file(Path(name)) for name in names)
    found = list(sources.find([Path(name) for name in ("pipe.jsonl", "loop.json", "gone.toml")]))
    assert [type(entry) for entry in found] == [Problem] * 3


def test_tasks_below_a_folder() -> None:
    written(SMALL, "tasks/b.toml")
    written(SMALL, "tasks/a/c.toml")
    written(ROW + "{\n" + ROW.replace("-1", "-2"), "tasks/rows.jsonl")
    written(SMALL, "tasks/.git/no.toml")
    written("[project]\n", "tasks/pyproject.toml")
    written(SMALL, "tasks/z/b.toml")
    Path("tasks/a/up").symlink_to(Path("tasks").absolute())
    found = list(sources.find([Path("tasks")]))
    assert [getattr(entry, "id", entry.source) for entry in found] == [
        "c", "b", "a__b-1", "tasks/rows.jsonl:2", "a__b-2", "tasks/z/b.toml",
    ]  # fmt: skip
    assert isinstance(found[-1], Problem)
    assert found[-1].message == "the task 'b' is in tasks/b.toml already; ids are unique"


def test_folders_without_tasks_and_too_deep() -> None:
    Path("empty").mkdir()
    written(SMALL, "deep/" + "d/" * 20 + "a.toml")
    found = list(sources.find([Path("empty"), Path("deep"), written("x", "notes.txt")]))
    messages = [entry.message for entry in found if isinstance(entry, Problem)]
    assert [message.split()[0] for message in messages] == ["has", "lies", "is"]


def test_harbor_folders() -> None:
    written(HARBOR, "h/one/task.toml")
    written("do it", "h/one/instruction.md")
    written("exit 0", "h/one/tests/test.sh")
    limits = "cpus = 2\nmemory_mb = 2048\n[verifier]\ntimeout_sec = 90.0\n"
    written(HARBOR + limits, "h/two/task.toml")
    written("exit 0", "h/two/tests/test.sh")
    written(ROW, "h/two/tests/config.json")
    written("[task\n", "h/bad/task.toml")
    written("exit 0", "h/bad/tests/test.sh")
    written(HARBOR + "memory_mb = 'x'", "h/odd/task.toml")
    written("do it", "h/odd/instruction.md")
    # An own task may be called task.toml, whatever is beside it.
    written(SMALL, "h/own/task.toml")
    written("read me", "h/own/instruction.md")
    found = {entry.source.split("/")[1]: entry for entry in sources.find([Path("h")])}
    one, two, own = found["one"], found["two"], found["own"]
    assert isinstance(one, Task)
    assert isinstance(two, Task)
    assert isinstance(own, Task)
    assert (one.id, one.image, one.repo) == ("one", "x", "")
    assert one.unsupported == "a Harbor task is graded by its own tests/test.sh, not by pytest"
    assert (two.id, two.unsupported, two.ids) == ("a__b-1", None, "swebench")
    assert (two.image, two.memory, two.cpus, two.timeout) == ("x", 2 << 30, 2.0, 90.0)
    assert (own.id, own.base) == ("task", "HEAD")
    assert isinstance(found["bad"], Problem)
    assert isinstance(found["odd"], Problem)
    assert found["odd"].message == "memory_mb must be a number, not 'x'"
    assert sources.is_task_file(Path("h/one/task.toml"))
    assert [entry.source for entry in sources.find([Path("h/two/task.toml")])] == [two.source]
