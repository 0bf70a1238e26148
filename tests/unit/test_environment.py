"""How set-up is found from a project's files, and what its result depends on."""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_sandbox.environment import Setup, detect, setup_key
from pytest_sandbox.layout import top_level_packages


@dataclass(frozen=True)
class Tree:
    content: dict[str, bytes]

    def read(self, path: str) -> bytes | None:
        return self.content.get(path)

    def names(self) -> Collection[str]:
        return self.content.keys()


def files(content: dict[str, str]) -> Tree:
    return Tree({name: text.encode() for name, text in content.items()})


PIP = "python -I -m pip install -q --disable-pip-version-check --no-input "
PROJECT = '[project]\nname = "calc"\nversion = "1"\n'
HATCH = PROJECT + '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
#: name: (files, commands without pip's beginning and the last, words of the reason)
SHAPES: dict[str, tuple[dict[str, str], list[str], str]] = {
    "nothing": ({"a.py": ""}, [], "nothing to install but pytest"),
    "tools only": ({"pyproject.toml": "[tool.ruff]\nline-length = 100\n"}, [], "nothing"),
    "plain project": ({"pyproject.toml": PROJECT}, ["-e ."], "the project itself"),
    "extra": (
        {"pyproject.toml": HATCH + "[project.optional-dependencies]\ndocs = []\ntest = []\n"},
        ["-e '.[test]'"],
        "extra 'test'",
    ),
    "most telling extra": (
        {"pyproject.toml": PROJECT + "[project.optional-dependencies]\ndev = []\ntesting = []\n"},
        ["-e '.[testing]'"],
        "extra 'testing'",
    ),
    "extra in capitals": (
        {"pyproject.toml": PROJECT + "[project.optional-dependencies]\nTests = []\n"},
        ["-e '.[Tests]'"],
        "extra 'Tests'",
    ),
    "hostile extra": (
        {"pyproject.toml": PROJECT + "[project.optional-dependencies]\n\"test]'; rm -rf /\" = []"},
        ["-e ."],
        "the project itself",
    ),
    "group": (
        {"pyproject.toml": PROJECT + '[dependency-groups]\ntest = ["pytest>=7", "a ; b"]\n'},
        ["-e .", "'pytest>=7' 'a ; b'"],
        "dependency group 'test'",
    ),
    "group of groups": (
        {
            "pyproject.toml": "[dependency-groups]\n"
            'dev = [{include-group = "x"}, "black"]\nx = ["y", {include-group = "dev"}]\n'
        },
        ["y black"],
        "dependency group 'dev'",
    ),
    "options in a group": (
        {"pyproject.toml": '[dependency-groups]\ntest = ["--index-url=http://x", "-e /", "a"]\n'},
        ["a"],
        "dependency group 'test'",
    ),
    "setup.py": ({"setup.py": "from setuptools import setup; setup()"}, ["-e ."], "itself"),
    "setup.py with extras": (
        {"setup.py": "setup(\n  extras_require={'docs': ['x'], 'tests': ['y']},\n)"},
        ["-e '.[tests]'"],
        "extra 'tests'",
    ),
    "setup.cfg": (
        {"setup.cfg": "[metadata]\nname = a\n[options.extras_require]\ntest =\n  pytest\n"},
        ["-e '.[test]'"],
        "extra 'test'",
    ),
    "setup.cfg of tools": ({"setup.cfg": "[flake8]\nmax-line-length = 1\n"}, [], "nothing"),
    "flit": (
        {"pyproject.toml": '[build-system]\nrequires=["flit_core"]\n'
         '[tool.flit.metadata.requires-extra]\ntest = ["pytest"]\n'},
        ["-e '.[test]'"],
        "extra 'test'",
    ),
    "requirements": ({"requirements.txt": "x"}, ["-r requirements.txt"], "requirements.txt"),
    "both requirements": (
        {"requirements.txt": "x", "requirements-dev.txt": "y"},
        ["-r requirements.txt", "-r requirements-dev.txt"],
        "requirements-dev.txt",
    ),
    "project and requirements": (
        {"pyproject.toml": PROJECT, "requirements.txt": "x", "requirements/test.txt": "y"},
        ["-e .", "-r requirements/test.txt"],
        "requirements/test.txt",
    ),
    "group before requirements": (
        {"pyproject.toml": '[dependency-groups]\ntest = ["a"]\n', "requirements-test.txt": "y"},
        ["a"],
        "group 'test'",
    ),
    "broken pyproject": (
        {"pyproject.toml": "[[[", "uv.lock": "", "requirements-test.txt": "y"},
        ["-r requirements-test.txt"],
        "pyproject.toml cannot be read",
    ),
    "setup.py with extras in a variable": (
        {"setup.py": "extras = {'docs': []}\nextras['test'] = ['y']\nsetup(extras_require=extras)"},
        ["-e '.[test]'"],
        "extra 'test'",
    ),
    "locks without a project": (
        {"uv.lock": "", "poetry.lock": "", "requirements.txt": "x"},
        ["-r requirements.txt"],
        "requirements.txt",
    ),
    "group under another spelling": (
        {
            "pyproject.toml": "[dependency-groups]\n"
            'Test = [{include-group = "my.Typing_x"}]\nMY-typing-X = ["y"]\n'
        },
        ["y"],
        "dependency group 'Test'",
    ),
    "wrong types": (
        {"pyproject.toml": 'project = "x"\ndependency-groups = [1]\n[tool]\npoetry = 3\n'},
        ["-e ."],
        "itself",
    ),
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_installed(shape: str) -> None:
    content, expected, reason = SHAPES[shape]
    setup = detect(files(content))
    *commands, last = setup.commands
    assert commands == [PIP + command for command in expected]
    assert "import pytest" in last
    assert reason in setup.reason


def test_locks_are_installed_as_they_are() -> None:
    groups = '[dependency-groups]\ntest = ["pytest"]\n[project.optional-dependencies]\ndev = []\n'
    uv = detect(files({"pyproject.toml": PROJECT + groups, "uv.lock": ""}))
    assert any("sync -q --frozen --inexact --group test --extra dev" in c for c in uv.commands)
    group = '[tool.poetry.group.test.dependencies]\npytest = "*"\n'
    poetry = detect(files({"pyproject.toml": group, "poetry.lock": ""}))
    assert any(command.endswith("install -n --with test") for command in poetry.commands)
    extras = '[project.optional-dependencies]\ntests = ["pytest"]\n'
    both = detect(files({"pyproject.toml": PROJECT + extras + group, "poetry.lock": ""}))
    assert any(c.endswith("install -n --with test --extras tests") for c in both.commands)
    # Neither tool goes into the environment of the tests.
    for command in uv.commands[:1] + poetry.commands[:1]:
        assert "$TMPDIR" in command


def test_a_uv_group_is_named_even_if_it_is_the_default() -> None:
    """Projects change the default groups."""
    text = PROJECT + '[dependency-groups]\ndev = []\n[tool.uv]\ndefault-groups = ["lint"]\n'
    setup = detect(files({"pyproject.toml": text, "uv.lock": ""}))
    assert any(command.endswith(" --group dev") for command in setup.commands)


@pytest.mark.parametrize("where", ["group.dev.dependencies", "dev-dependencies"])
def test_what_only_poetry_can_read_is_left_to_it(where: str) -> None:
    text = f'[tool.poetry]\nname = "calc"\n[tool.poetry.{where}]\npytest = "*"\n'
    setup = detect(files({"pyproject.toml": text}))
    assert "without a lock" in setup.reason
    # The lock it makes is not the project's.
    assert any(command.endswith(" && rm -f poetry.lock") for command in setup.commands)
    plain = detect(files({"pyproject.toml": '[tool.poetry]\nname = "calc"\n'}))
    assert not any("poetry" in command for command in plain.commands)


def test_modules_of_the_project_are_not_taken_for_the_tools() -> None:
    """A logging.py at the top would break pip; a folder "pytest" would count as installed."""
    for shape in ({"requirements.txt": "x"}, {"pyproject.toml": PROJECT, "uv.lock": ""}):
        for command in detect(files(shape)).commands:
            for words in command.split("python")[1:]:
                assert words.startswith((" -I ", '" ')), command


def test_own_commands_replace_what_is_found() -> None:
    setup = detect(files({"pyproject.toml": PROJECT, "a/b.c": ""}), commands=["make env"])
    assert (setup.commands, setup.inputs) == (("make env",), ("*",))
    chosen = detect(
        files({"pyproject.toml": PROJECT, "a/b.c": "", "x": ""}),
        commands=["make env"],
        inputs=["a/*", "pyproject.toml"],
    )
    assert chosen.inputs == ("a/b.c", "pyproject.toml")
    # A glob that matches nothing must not keep the result forever.
    none = detect(files({"x": ""}), commands=["make env"], inputs=["y/*"])
    assert none.inputs == ("*",)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (["src/calc/__init__.py", "other/__init__.py"], ("calc",)),
        (["calc/__init__.py", "tests/__init__.py", "docs/__init__.py"], ("calc",)),
        (["calc.py", "setup.py", "conftest.py", "test_calc.py", "__main__.py"], ("calc",)),
        (["logging/__init__.py", "code.py", "calc.py"], ("calc",)),  # of the standard library
        (["not-a-name/__init__.py", "9.py", "a/b/__init__.py"], ()),
    ],
)
def test_packages(content: list[str], expected: tuple[str, ...]) -> None:
    assert top_level_packages(files(dict.fromkeys(content, ""))) == expected


def key(content: dict[str, str], **changed: Any) -> str:
    project = files(content)
    setup = changed.pop("setup", None) or detect(project)
    arguments: dict[str, Any] = {"interpreter": "3.12", "engine": "local", "extra": {}, **changed}
    return setup_key(setup, project, **arguments)


BASE = {
    "pyproject.toml": PROJECT + '[tool.setuptools.dynamic]\ndependencies = {file = ["deps.in"]}\n',
    "deps.in": "-r more/other.in\n",
    "more/other.in": "-c pins.txt\nx\n",
    "more/pins.txt": "x==1",
    "requirements-test.txt": "y",
    "src/calc/__init__.py": "__version__ = '1'",
    "src/calc/fast.c": "int x;",
    "src/calc/add.py": "",
    "tests/test_add.py": "",
    "README.md": "",
}


@pytest.mark.parametrize("name", sorted(BASE))
def test_the_key_follows_what_setup_reads_and_nothing_else(name: str) -> None:
    changed = key({**BASE, name: BASE[name] + "\n# changed\n"}) != key(BASE)
    assert changed == (name not in ("src/calc/add.py", "tests/test_add.py", "README.md"))


def test_the_key_depends_on_everything_else_that_matters() -> None:
    setup = detect(files(BASE))
    keys = {
        key(BASE),
        key(BASE, interpreter="3.13"),
        key(BASE, engine="other"),
        key(BASE, extra={"secrets": "TOKEN"}),
        key(BASE, setup=replace(setup, commands=(*setup.commands, "true"))),
        key(BASE, setup=replace(setup, packages=("calc", "more"))),
        key(BASE, setup=replace(setup, inputs=setup.inputs[1:])),
    }
    assert len(keys) == 7
    assert key(BASE) in keys


def test_the_key_does_not_confuse_its_parts() -> None:
    def of(commands: tuple[str, ...], packages: tuple[str, ...]) -> str:
        setup = Setup(commands=commands, inputs=(), reason="", packages=packages)
        return setup_key(setup, files({}), interpreter="", engine="", extra={})

    assert of(("a", "b"), ()) != of(("a",), ("b",))


#: Text that would do harm wherever it is not quoted.
MARK = "$(boom)`boom`;boom&&'boom"
hostile = st.lists(st.sampled_from([*"ab[]{}='\"\n#;.$`&|()-", MARK]), max_size=30).map("".join)
NAMES = [
    "pyproject.toml", "setup.cfg", "setup.py", "requirements.txt", "requirements-test.txt",
    "uv.lock", "poetry.lock", "src/a/__init__.py", f"{MARK}.py", f"requirements/{MARK}.txt",
]  # fmt: skip
PLACES = [
    lambda t: "[project]\nname='a'\n[project.optional-dependencies]\n" + json.dumps(t) + "=[]\n",
    lambda t: "[dependency-groups]\ntest = [" + json.dumps(t) + "]\n",
    lambda t: "[dependency-groups]\n" + json.dumps(t) + " = ['x']\n",
    lambda t: f"[tool.poetry.group.{json.dumps(t)}]\nx = 1\n",
    lambda t: "[metadata]\n[options.extras_require]\n" + t + " = x\n",
    lambda t: f"setup(extras_require={{'{t}': []}})",
]
contents = st.one_of(
    st.binary(max_size=80),
    hostile.map(str.encode),
    st.tuples(st.sampled_from(PLACES), hostile).map(lambda pair: pair[0](pair[1]).encode()),
)


@given(st.dictionaries(st.sampled_from(NAMES), contents))
def test_no_content_raises_or_reaches_a_shell(content: dict[str, bytes]) -> None:
    setup = detect(Tree(content))
    for command in setup.commands:
        # All that a shell would act on is ours.
        ours = command
        for word in shlex.split(command):
            if "boom" in word:
                assert shlex.quote(word) in command, command
                ours = ours.replace(shlex.quote(word), "")
        assert "boom" not in ours, command
    setup_key(setup, Tree(content), interpreter="", engine="", extra={})


def test_bombs_are_read_at_once() -> None:
    groups = "".join(
        f'g{n} = [{{include-group = "g{n + 1}"}}, {{include-group = "g{n + 1}"}}]\n'
        for n in range(200)
    )
    text = f'[dependency-groups]\ntest = [{{include-group = "g0"}}]\n{groups}g200 = ["x"]\n'
    assert detect(files({"pyproject.toml": text})).commands[0] == PIP + "x"
    detect(files({"pyproject.toml": "a = " + "[" * 100_000}))
    loop = {"requirements.txt": "-r a.txt\n", "a.txt": "-r requirements.txt\n-r ../../etc/x\n"}
    assert set(detect(files(loop)).inputs) == {"requirements.txt", "a.txt"}
