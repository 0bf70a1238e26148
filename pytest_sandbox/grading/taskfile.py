"""One task as a TOML file people write: docs/tasks.md has the format. Read, checked, written back.

The file is its owner's: what it says is done, but a slip of the pen must not pass unseen.
Knows neither sandboxes nor pytest.
"""

from __future__ import annotations

import difflib
import os
import re
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from pytest_sandbox.errors import BadInput
from pytest_sandbox.grading.fields import Problem, checked_id, place, plain, why_not_regular
from pytest_sandbox.grading.jsonvalues import shown
from pytest_sandbox.grading.model import Task
from pytest_sandbox.grading.taskfields import EXTRA, FIELDS
from pytest_sandbox.wire import printable
from pytest_sandbox.workspace import patchtext

MAX_FILE: Final = 64 << 20
_BOM: Final = b"\xef\xbb\xbf"
_URL: Final = re.compile(r"(https?|ssh|git|file)://[^\s'\"]+")
_SCP: Final = re.compile(r"([A-Za-z0-9._-]+@[A-Za-z0-9.-]+):(?!/)([^\s'\"]+)")


class TaskFileError(BadInput):
    """A task file that cannot be used: everything that is wrong with it."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(f"{one.source}: {one.message}" for one in problems))
        self.problems = tuple(problems)


class _Fault(NamedTuple):
    table: str
    field: str
    message: str


class _Reading:
    """The fields of one file, and what is wrong with them."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.faults: list[_Fault] = []
        self.extra: dict[str, Any] = {}
        self._values: dict[tuple[str, str], Any] = {}
        for table, fields in data.items():
            if table == EXTRA and isinstance(fields, dict):
                self.extra = plain(fields)
            elif table not in FIELDS:
                self._unknown(table)
            elif not isinstance(fields, dict):
                self.faults.append(_Fault(table, "", f"must be a table: [{table}]"))
            else:
                for field, value in fields.items():
                    self._read(table, field, value)

    def _unknown(self, name: str) -> None:
        known = [*FIELDS, EXTRA]
        homes = [table for table, fields in FIELDS.items() if name in fields]
        if homes:
            message = f"belongs in the table [{homes[0]}]"
        else:
            tables = ", ".join(f"[{table}]" for table in known)
            message = f"is no table of a task{_similar(name, known)}; there are {tables}"
        self.faults.append(_Fault("", name, message))

    def _read(self, table: str, field: str, value: object) -> None:
        known = FIELDS[table]
        if field in known:
            try:
                self._values[table, field] = known[field](value)
            except ValueError as error:
                self.fault(table, field, f"must be {error}, not {shown(value)}")
            return
        homes = [other for other, fields in FIELDS.items() if field in fields]
        if homes:
            self.fault(table, field, f"belongs in the table [{homes[0]}]")
        else:
            message = f"is no field of it{_similar(field, known)}; it has {', '.join(known)}"
            self.fault(table, field, message)

    def fault(self, table: str, field: str, message: str) -> None:
        self.faults.append(_Fault(table, field, message))

    def get(self, table: str, field: str, default: Any = None) -> Any:
        return self._values.get((table, field), default)

    def need(self, field: str, what: str) -> str:
        """A field of [task] that must be there."""
        value = self.get("task", field)
        if value is None and not any(f[:2] == ("task", field) for f in self.faults):
            self.fault("task", field, f"is missing; it must be {what}")
        return value or ""


def _similar(name: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(name, list(known), 1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def read(path: str | Path) -> Task:
    """The task in a TOML file.

    Raises:
        TaskFileError: it cannot be used; all faults at once, each with its line and field.
    """
    path = Path(path)
    text, data = _load(path)
    reading = _Reading(data)
    get = reading.get
    try:
        task_id = checked_id(get("task", "id", path.stem))
    except ValueError as error:
        task_id = ""
        reading.fault("task", "id", str(error))
    repo = _repo(reading, path)
    base = reading.need("base", "a commit, tag or branch, in quotes")
    patches = {name: _patch(reading, path, name) for name in ("test_patch", "gold")}
    lists = ("fail_to_pass", "pass_to_pass", "flaky")
    for index, one in enumerate(lists):
        for other in lists[index + 1 :]:
            both = set(get("tests", one, ())) & set(get("tests", other, ()))
            if both:
                reading.fault("tests", other, f"has {shown(min(both))}, which {one} has too")
    held_out = _held_out(reading, path)
    if reading.faults:
        raise TaskFileError(_report(path, text, reading.faults))
    memory = get("limits", "memory")
    return Task(
        id=task_id,
        source=place(path),
        repo=repo,
        base=base,
        image=get("environment", "image"),
        workdir=get("environment", "workdir"),
        setup=get("environment", "setup", ()),
        setup_inputs=get("environment", "setup_inputs", ()),
        build=get("environment", "build", ()),
        python=get("environment", "python"),
        args=(*get("tests", "args", ()), *get("tests", "files", ())),
        env=get("environment", "env", {}),
        network=get("environment", "network", False),
        test_patch=patches["test_patch"],
        restore=get("tests", "restore", ()),
        gold=patches["gold"],
        held_out=held_out,
        differential=get("unseen", "calls", ()),
        differential_setup=get("unseen", "setup", ""),
        fail_to_pass=get("tests", "fail_to_pass", ()),
        pass_to_pass=get("tests", "pass_to_pass", ()),
        flaky=get("tests", "flaky", ()),
        timeout=get("limits", "timeout"),
        memory=None if memory is None else int(memory),
        cpus=get("limits", "cpus"),
        ids=get("tests", "ids", "exact"),
        profile=get("task", "patches", "strict"),
        extra=reading.extra,
    )


def _broken(source: str, message: str) -> TaskFileError:
    return TaskFileError([Problem(source, message)])


def _load(path: Path) -> tuple[str, dict[str, Any]]:
    where = place(path)
    problem = why_not_regular(path, MAX_FILE)
    if problem:
        raise _broken(where, problem)
    try:
        raw = path.read_bytes().removeprefix(_BOM)
        text = raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise _broken(place(path, line), "is not in UTF-8; save it as UTF-8") from None
    except OSError as error:
        raise _broken(where, f"cannot be read: {error.strerror}") from None
    try:
        return text, tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        said = printable(str(error), line=True)
        at = re.search(r" \(at line (\d+), column (\d+)\)$", said)
        if at:
            said = f"{said[: at.start()]} (column {at[2]})"
        line = int(at[1]) if at else 0
        raise _broken(place(path, line), f"not TOML: {said}") from None
    except RecursionError:
        raise _broken(where, "not TOML: it is nested too deeply") from None
    except ValueError as error:
        # A number of thousands of digits, a date that is none.
        raise _broken(where, f"not TOML: {printable(str(error), line=True)}") from None


def _repo(reading: _Reading, path: Path) -> str:
    repo = reading.need("repo", "a folder, relative to this file, or a URL")
    scp = _SCP.fullmatch(repo)
    if scp:
        return f"ssh://{scp[1]}/{scp[2]}"
    if not repo or _URL.fullmatch(repo):
        return repo
    folder = Path(path.absolute().parent, Path(repo).expanduser())
    if "://" in repo or "\0" in repo:
        reading.fault("task", "repo", f"must be a folder or a URL, not {shown(repo)}")
    elif not folder.is_dir():
        where = printable(str(folder), line=True)
        reading.fault("task", "repo", f"there is no folder {where} (relative to this file)")
    return os.path.normpath(folder)


def _patch(reading: _Reading, path: Path, field: str) -> bytes | None:
    """A patch in the file itself, or in another."""
    value: str | None = reading.get("task", field)
    if value is None:
        return None
    if "\n" in value:
        return value.encode()
    other = Path(path.parent, Path(value).expanduser())
    problem = why_not_regular(other, patchtext.MAX_PATCH)
    if problem:
        reading.fault("task", field, f"{printable(str(other), line=True)} {problem}")
        return None
    return other.read_bytes()


def _held_out(reading: _Reading, path: Path) -> dict[str, bytes]:
    """The files of tests that no candidate has seen."""
    found = {}
    for name, file in reading.get("unseen", "held_out", {}).items():
        other = Path(path.parent, Path(file).expanduser())
        problem = why_not_regular(other, patchtext.MAX_PATCH)
        if problem:
            shown_path = printable(str(other), line=True)
            reading.fault("unseen", "held_out", f"{shown_path} {problem}")
        else:
            found[name] = other.read_bytes()
    if reading.get("unseen", "calls") and reading.get("task", "gold") is None:
        reading.fault("unseen", "calls", "are compared with what they give with a gold patch")
    return found


def _report(path: Path, text: str, faults: Sequence[_Fault]) -> list[Problem]:
    lines = _lines(text)
    found = []
    for table, field, message in faults:
        line = lines.get((table, field)) or lines.get((table, "")) or lines.get(("", table))
        line = line or lines.get((field, ""))
        name = " ".join(filter(None, (f"[{table}]" if table else "", field)))
        found.append(Problem(place(path, line), f"{printable(name, line=True)}: {message}"))
    return found


def _lines(text: str) -> dict[tuple[str, str], int]:
    """Where each table and field of the top two levels begins. tomllib does not say."""
    found: dict[tuple[str, str], int] = {}
    table, quoted = "", ""
    for number, line in enumerate(text.split("\n"), 1):
        if not quoted:
            header = re.match(r"\s*\[\s*([\w-]+)\s*(?:\.\s*([\w-]+)\s*)?\]", line)
            key = re.match(r"\s*[\"']?([\w-]+)[\"']?\s*(?:\.\s*([\w-]+)\s*[.=]|=)", line)
            if header:
                table = header[1]
                found.setdefault((table, header[2] or ""), number)
            elif key and table:
                found.setdefault((table, key[1]), number)
            elif key:
                found.setdefault((key[1] if key[2] else "", key[2] or key[1]), number)
        for mark in re.findall(r"\"\"\"|'''", line):
            quoted = mark if not quoted else "" if quoted == mark else quoted
    return found


def write(
    path: Path, *, fail_to_pass: Sequence[str], pass_to_pass: Sequence[str], flaky: Sequence[str]
) -> None:
    """Put what was derived in the file, and leave all else in it as its owner wrote it.

    The file is replaced in one step: it is never half written.

    Raises:
        BadInput: the file cannot be read or written, or not without changing something else.
    """
    import tomlkit  # Only here: most runs write nothing.
    from tomlkit.exceptions import TOMLKitError

    text, before = _load(path)
    lists = {"fail_to_pass": fail_to_pass, "pass_to_pass": pass_to_pass, "flaky": flaky}
    tests = before.setdefault("tests", {})
    if not isinstance(tests, dict):
        raise BadInput(f"{place(path)}: tests must be a table: [tests]")
    lists = {name: ids for name, ids in lists.items() if ids or name in tests or name != "flaky"}
    crlf = "\r\n" in text and not re.search(r"(?<!\r)\n", text)
    try:
        document = tomlkit.parse(text.replace("\r\n", "\n") if crlf else text)
        if "tests" not in document:
            document["tests"] = tomlkit.table()
        for name, ids in lists.items():
            array = tomlkit.array()
            array.extend(ids)
            document["tests"][name] = array.multiline(bool(ids))
        result = tomlkit.dumps(document)
        tests.update({name: list(ids) for name, ids in lists.items()})
        changed = tomllib.loads(result) != before
    except (TOMLKitError, ValueError) as error:
        said = printable(str(error), line=True)
        raise BadInput(f"{place(path)}: cannot be written back: {said}") from error
    if changed:
        raise BadInput(
            f"{place(path)}: cannot be written back without changing more than the test ids; "
            "put [tests] in a place of its own, with one field in a line"
        )
    _replace(path, result.replace("\n", "\r\n") if crlf else result)


def _replace(path: Path, text: str) -> None:
    target = Path(os.path.realpath(path))
    raw = text.encode()
    try:
        with target.open("rb") as old:
            raw = (_BOM if old.read(3) == _BOM else b"") + raw
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        try:
            with os.fdopen(handle, "wb") as new:
                new.write(raw)
            os.chmod(name, target.stat().st_mode & 0o7777)
            os.replace(name, target)
        except BaseException:
            os.unlink(name)
            raise
    except OSError as error:
        raise BadInput(f"{place(path)}: cannot be written: {error.strerror}") from error
