"""Instances of SWE-bench and its relatives as tasks; those that are not pytest's say so.

Formats as of SWE-bench 5.0.2 (PyPI), with the fields that its older releases and Verified have.
Knows the data sets' published shape, no sandbox and no pytest.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pytest_sandbox.grading.fields import (
    FieldError,
    Problem,
    as_bytes,
    checked_id,
    plain,
    text_field,
    texts_field,
)
from pytest_sandbox.grading.jsonvalues import decoded, shown
from pytest_sandbox.grading.model import Log, Task
from pytest_sandbox.grading.records import Record, records
from pytest_sandbox.workspace import patchtext

#: Where SWE-bench's images hold the repository, and the interpreter it is installed for:
#: the Dockerfiles of swebench 4.1.0, harness/dockerfiles/python.py.
WORKDIR: Final = "/testbed"
PYTHON: Final = "/opt/miniconda3/envs/testbed/bin/python"

#: The newer one that the images are made with.
CONDA: Final = "/opt/miniconda3/bin/python"

#: Versions of projects whose images have a Python before 3.8:
#: MAP_REPO_VERSION_TO_SPECS_PY of swebench 4.1.0, harness/constants/python.py.
_OLD_PYTHON: Final[Mapping[str, Mapping[str, str]]] = {
    "astropy/astropy": dict.fromkeys(("0.1", "0.2", "0.3", "0.4", "1.1", "1.2", "1.3"), "3.6"),
    "matplotlib/matplotlib": {"3.0": "3.7"}
    | dict.fromkeys(("1.0", "1.1", "1.2", "1.3", "1.4", "1.5", "2.0", "2.1", "2.2"), "3.5"),
    "pydicom/pydicom": dict.fromkeys(("1.0", "1.1", "1.2", "1.3"), "3.6"),
    "scikit-learn/scikit-learn": dict.fromkeys(("0.20", "0.21", "0.22"), "3.6"),
}
#: Projects of SWE-bench whose test command is not pytest.
_OWN_RUNNERS: Final[Mapping[str, str]] = {
    "django/django": "tests/runtests.py",
    "sympy/sympy": "bin/test",
    "swe-bench/humaneval": "plain python",
}
#: Log parsers (5.x) that read what pytest prints, as PARSER_REGISTRY of swebench 5.0.2 has them.
_PYTEST_LOGS: Final = frozenset(
    f"parse_log_{name}"
    for name in (
        "pytest", "pytest_options", "pytest_v2", "seaborn", "matplotlib", "astroid", "flask",
        "marshmallow", "pvlib", "pyvista", "sqlfluff", "xarray", "pydicom", "requests", "pylint",
        "astropy", "scikit", "sphinx",
    )
)  # fmt: skip
#: NON_TEST_EXTS: what the official command does not name of the files in a test patch.
_NO_TESTS: Final = (
    ".json", ".png", "csv", ".txt", ".md", ".jpg", ".jpeg", ".pkl", ".yml", ".yaml", ".toml",
)  # fmt: skip
_REPO: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*/[A-Za-z0-9_.-]*[A-Za-z0-9_-]")
_COMMIT: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_IMAGE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@+-]{0,400}")
#: Fields of the row that are kept for reports and for the official log parsers.
_KEPT: Final = (
    "version", "difficulty", "created_at", "environment_setup_commit",
    "log_parser", "eval_type", "eval_script",
)  # fmt: skip


def read(path: Path) -> Iterator[Task | Problem]:
    """Tasks of a JSON or JSONL file, in its order; each bad record is a Problem in its place."""
    for record in records(path):
        yield record if isinstance(record, Problem) else from_record(record)


def from_record(record: Record) -> Task | Problem:
    """The task of one instance, whichever of the known data sets it is from."""
    try:
        return _task(record.fields, record.source, record.key)
    except FieldError as error:
        return Problem(record.source, str(error))


def image_name(instance_id: str) -> str:
    """The image that SWE-bench publishes for an instance.

    As ``ImageSpec.name`` in swebench 5.0.2 (image_builder/image_spec.py) makes it: Docker Hub
    allows no "__" in names. The published images are for x86_64.
    """
    return f"swebench/sweb.eval.x86_64.{instance_id}:latest".replace("__", "_1776_").lower()


def instance_id(fields: Mapping[str, Any], key: str | None = None) -> str:
    """The id of an instance or of a prediction for one.

    Raises:
        FieldError: there is none, or the record disagrees with the key it is under.
    """
    if "instance_id" in fields:
        found = checked_id(fields["instance_id"], "field 'instance_id'")
        if key is not None and key != found:
            raise FieldError(f"field 'instance_id' is {shown(found)}, under the key {shown(key)}")
        return found
    if "org" in fields and "number" in fields:  # Multi-SWE-bench
        number = fields["number"]
        if isinstance(number, bool) or not re.fullmatch(r"\d{1,12}", str(number)):
            raise FieldError(f"field 'number' must be a pull request's, not {shown(number)}")
        name = f"{text_field(fields, 'org')}__{text_field(fields, 'repo')}-{number}"
        return checked_id(name, "fields 'org', 'repo' and 'number'")
    if key is not None:
        return checked_id(key, "the key")
    raise FieldError("field 'instance_id' is missing; it must be a text")


def _task(fields: Mapping[str, Any], source: str, key: str | None) -> Task:
    name = instance_id(fields, key)
    if "model_patch" in fields and "base_commit" not in fields:
        raise FieldError("this is a prediction; it goes with --sandbox-predictions")
    foreign = _foreign(fields)
    if foreign:
        return _not_ours(fields, name, source, foreign)
    repo = text_field(fields, "repo")
    if not _REPO.fullmatch(repo) or ".." in repo:
        raise FieldError(f"field 'repo' must be OWNER/NAME, not {shown(repo)}")
    base = text_field(fields, "base_commit").lower()
    if not _COMMIT.fullmatch(base):
        raise FieldError(f"field 'base_commit' must be a commit's 40 digits, not {shown(base)}")
    test_patch = as_bytes(text_field(fields, "test_patch"))
    fail_to_pass = texts_field(fields, "FAIL_TO_PASS")
    pass_to_pass = texts_field(fields, "PASS_TO_PASS")
    both = set(fail_to_pass) & set(pass_to_pass)
    if both:
        raise FieldError(f"FAIL_TO_PASS and PASS_TO_PASS both have {shown(min(both))}")
    given = text_field(fields, "docker_image", "") or text_field(fields, "image", "")
    if given and not _IMAGE.fullmatch(given):
        raise FieldError(f"the name of the image is {shown(given)}, which is none")
    image = given or image_name(name)
    official = "docker_image" not in fields and image.startswith("swebench/sweb.eval.")
    touched = _touched(test_patch)
    expected = (*fail_to_pass, *pass_to_pass)
    unsupported = _unsupported(fields, repo, expected)
    args, other_command = _args(fields, touched, expected)
    return Task(
        id=name,
        source=source,
        repo=f"https://github.com/{repo}",
        base=base,
        image=image,
        workdir=WORKDIR,
        build=_commands(fields, "rebuild_cmds"),
        # Of what pytest does not run, only our own programs need one, and a newer.
        python=(CONDA if unsupported else PYTHON) if official else None,
        args=args,
        test_patch=test_patch,
        restore=tuple(literal_glob(path) for path in touched),
        gold=as_bytes(text_field(fields, "patch", "")) or None,
        fail_to_pass=fail_to_pass,
        pass_to_pass=pass_to_pass,
        ids="swebench",
        profile="swebench",
        unsupported=unsupported or other_command,
        log=_log(fields, repo, touched, expected) if unsupported else None,
        extra={"format": "swebench"} | _extra(fields),
    )


def _extra(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: plain(fields[name]) for name in _KEPT if plain(fields.get(name)) is not None}


def _foreign(fields: Mapping[str, Any]) -> str | None:
    """Why an instance of a relative of SWE-bench has another way to be graded."""
    if "org" in fields and "number" in fields:
        return "an instance of Multi-SWE-bench is built, run and read by that project's own harness"
    if "before_repo_set_cmd" in fields or "selected_test_files_to_run" in fields:
        return "an instance of SWE-bench Pro is run by a script of its own, outside this file"
    return None


def _not_ours(fields: Mapping[str, Any], name: str, source: str, reason: str) -> Task:
    """What is certain of it, so that it stays in the denominator under its id."""
    repo, org = fields.get("repo"), fields.get("org")
    owner = f"{org}/{repo}" if isinstance(org, str) else repo
    known = isinstance(owner, str) and _REPO.fullmatch(owner) and ".." not in owner
    base = fields.get("base_commit")
    return Task(
        id=name,
        source=source,
        repo=f"https://github.com/{owner}" if known else "",
        base=base if isinstance(base, str) and _COMMIT.fullmatch(base) else "",
        ids="swebench",
        profile="swebench",
        unsupported=reason,
        extra={"format": "swebench"} | _extra(fields),
    )


def _unsupported(fields: Mapping[str, Any], repo: str, expected: Sequence[str]) -> str | None:
    """Why its tests are no matter for pytest 6 or newer on Python 3.8 or newer."""
    version = text_field(fields, "version", "")
    if repo in _OWN_RUNNERS:
        return f"the tests of {repo} are run by {_OWN_RUNNERS[repo]}, not by pytest"
    if repo == "pytest-dev/pytest":
        # Whatever its version: nothing that the patched program says of itself is evidence.
        return (
            f"what is patched is pytest itself (version {shown(version)}), which would be the judge"
        )
    if version in _OLD_PYTHON.get(repo, {}):
        python = _OLD_PYTHON[repo][version]
        return f"its image (version {version}) has Python {python}; 3.8 is the oldest that works"
    parser = text_field(fields, "log_parser", "")
    # SWE-bench-Live calls it "pytest".
    if parser and parser not in _PYTEST_LOGS and parser != "pytest":
        return f"its results are read from a log by {shown(parser)}, not from pytest"
    if text_field(fields, "eval_type", "pass_and_fail") != "pass_and_fail":
        return f"its eval_type is {shown(fields['eval_type'])}: only failures are reported"
    if _assets(fields.get("image_assets")):
        return "its tests need binary files that its harness downloads (image_assets)"
    if not expected:
        return "FAIL_TO_PASS and PASS_TO_PASS are empty: nothing says what a good patch does"
    if not parser and not any("::" in test for test in expected):
        return f"its tests have no ids of pytest's kind: {shown(expected[0])}"
    return None


def _log(
    fields: Mapping[str, Any], repo: str, touched: Mapping[str, bool], expected: Sequence[str]
) -> Log | None:
    """The official way to run and read an instance, where a log says what passed."""
    fails_only = text_field(fields, "eval_type", "pass_and_fail") != "pass_and_fail"
    if fails_only or _assets(fields.get("image_assets")) or not expected:
        return None
    files = [path for path, stays in touched.items() if stays and not path.endswith(_NO_TESTS)]
    if repo == "django/django":
        # Its runner takes modules: get_test_directives of swebench 4.1.0.
        bare = (path.removesuffix(".py").removeprefix("tests/") for path in files)
        files = [path.replace("/", ".") for path in bare]
    return Log(
        repo=repo,
        version=text_field(fields, "version", ""),
        files=tuple(files),
        parser=text_field(fields, "log_parser", "") or None,
        script=text_field(fields, "eval_script", "") or None,
    )


def _assets(value: object) -> bool:
    if isinstance(value, str):
        try:
            value = decoded(value) if value.strip() else None
        except ValueError:
            return True
    return any(value.values()) if isinstance(value, dict) else bool(value)


def _commands(fields: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = fields.get(name)
    value = [value] if isinstance(value, str) else value
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise FieldError(f"field {name!r} must be a list of commands, not {shown(value)}")
    return tuple(item for item in value if item.strip())


def _args(
    fields: Mapping[str, Any], touched: Mapping[str, bool], expected: Sequence[str]
) -> tuple[tuple[str, ...], str | None]:
    """What pytest is given; and why the official command cannot be put so."""
    commands = _commands(fields, "test_cmds")
    if not commands:
        return _files(touched, expected), None
    reason = f"its test command is more than a call of pytest: {shown(' && '.join(commands))}"
    try:
        words = shlex.split(commands[0]) if len(commands) == 1 else []
    except ValueError:
        return (), reason
    if words[:3] in (["python", "-m", "pytest"], ["python3", "-m", "pytest"]):
        words = words[2:]
    if words[:1] != ["pytest"] or re.search(r"[;&|<>`$\n]", commands[0]):
        return (), reason
    quiet = re.compile(r"-r[A-Za-z]+|-v+|-q+|--verbose|--quiet|--color=\w+|--no-header|--tb=\w+")
    return tuple(word for word in words[1:] if not quiet.fullmatch(word)), None


def _files(touched: Mapping[str, bool], expected: Sequence[str]) -> tuple[str, ...]:
    """The files the official command names, without those that no expected id is in.

    The official command has every file of the test patch but for some suffixes. Resources among
    them ("tests/roots/x/conf.py") hold no tests, but to pytest a named file is a test file.
    """
    official = [path for path, stays in touched.items() if stays and not path.endswith(_NO_TESTS)]
    named = {test.partition("::")[0] for test in expected if "::" in test}
    # Some ids are relative to a folder, or hold the path of the checkout.
    chosen = [
        path
        for path in official
        if any(path == n or path.endswith("/" + n) or n.endswith("/" + path) for n in named)
    ]
    chosen = chosen or [path for path in official if path.endswith(".py")]
    return tuple(f"./{path}" if path.startswith("-") else path for path in chosen)


def _touched(patch: bytes) -> dict[str, bool]:
    """Paths that a patch names, in its order, and whether each is there after it."""
    found: dict[str, bool] = {}

    def note(raw: bytes, prefix: bytes, stays: bool) -> None:
        path = patchtext.unquote(raw.split(b"\t")[0].rstrip(b"\r\n"))
        if path == b"/dev/null" or not path.startswith(prefix):
            return
        text = path[len(prefix) :].decode("utf-8", "surrogateescape")
        if text and text == posixpath.normpath(text) and not text.startswith(("/", "../")):
            found[text] = stays or found.get(text, False)

    for line in patchtext.scan(patch):
        if line.kind != "header":
            continue
        word, _, rest = line.text.partition(b" ")
        if word == b"diff":  # For files without hunks: new and empty, or binary.
            both = rest.rstrip(b"\r\n").removeprefix(b"--git ")
            old, new = both[: len(both) // 2], both[len(both) // 2 + 1 :]
            if old[2:] == new[2:]:
                note(new, b"b/", False)
        elif word == b"---":
            note(rest, b"a/", False)
        elif word == b"+++":
            note(rest, b"b/", True)
        elif word in (b"rename", b"copy"):
            direction, _, path = rest.partition(b" ")
            note(path, b"", direction == b"to")
    return found


def literal_glob(path: str) -> str:
    """A glob that matches this path only."""
    return "".join(f"[{char}]" if char in "*?[" else char for char in path)
