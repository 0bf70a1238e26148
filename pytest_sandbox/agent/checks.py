"""What a worker may say: the frames it sends to its supervisor, by kind."""

from __future__ import annotations

import json
from typing import Any, Callable

from .ends import Nonsense
from .texts import LINE_LIMIT, NAME_LIMIT, WORD_LIMIT

MAX_ITEMS = 1_000_000

Check = Callable[[Any], bool]


def _text(limit: int) -> Check:
    return lambda value: type(value) is str and len(value) <= limit


def _number(low: float, high: float) -> Check:
    return lambda value: type(value) in (int, float) and low <= value <= high


def _integer(low: int, high: int) -> Check:
    return lambda value: type(value) is int and low <= value <= high


def _list(check: Check, limit: int) -> Check:
    return lambda value: type(value) is list and len(value) <= limit and all(map(check, value))


def _pair(first: Check, second: Check) -> Check:
    return lambda value: (
        type(value) is list and len(value) == 2 and first(value[0]) and second(value[1])
    )


def _dict(check: Check, limit: int) -> Check:
    return lambda value: (
        type(value) is dict
        and len(value) <= limit
        and all(len(key) <= WORD_LIMIT for key in value)
        and all(map(check, value.values()))
    )


def _one_of(*allowed: str) -> Check:
    return lambda value: type(value) is str and value in allowed


def _optional(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _struct(required: dict[str, Check], optional: dict[str, Check]) -> Check:
    checks = {**required, **optional}
    names = frozenset(required)

    def check(value: Any) -> bool:
        if type(value) is not dict or not names <= value.keys():
            return False
        for key, part in value.items():
            known = checks.get(key)
            if known is None or not known(part):
                return False
        return True

    return check


def _schema() -> dict[str, Check]:
    """The frames a worker may send, by kind; the host's own gate is in wire.py."""
    word, name, text = _text(WORD_LIMIT), _text(NAME_LIMIT), _text(2_000_000)
    count, index = _integer(0, 2**53), _integer(0, MAX_ITEMS - 1)
    parent, line = _integer(-1, MAX_ITEMS - 1), _integer(-1, 2**31)
    seconds, moment = _number(0, 1e9), _number(0, 1e11)

    def scalar(value: Any) -> bool:
        return value is None or type(value) in (int, float, bool) or text(value)

    longrepr = _struct({"text": text}, {"path": name, "lineno": line, "message": text})
    sections = _list(_pair(word, text), 256)
    mark = _struct({"name": word}, {"kwargs": _dict(scalar, 64)})
    node = _struct({"parent": parent, "type": word, "name": name, "nodeid": name}, {})
    item = _struct(
        {"parent": parent, "type": word, "name": name, "nodeid": name, "path": name,
         "lineno": _optional(line), "domain": name},
        {"marks": _list(mark, 256), "keywords": _list(name, 1024)},
    )  # fmt: skip
    subtest = _struct({}, {"msg": _optional(text), "kwargs": _dict(text, 64)})
    return {
        "launched": _struct({"tree": _list(word, 16), "pid": count}, {}),
        "hello": _struct(
            {"protocol": count, "python": word, "pytest": word, "platform": word,
             "rootdir": name, "pid": count, "dump": _optional(count)},
            {"plugins": _list(word, 512), "packages": _list(word, 2048)},
        ),
        "collectreport": _struct(
            {"nodeid": name, "outcome": _one_of("failed", "skipped"), "longrepr": longrepr},
            {"sections": sections},
        ),
        "collected": _struct({"nodes": _list(node, 10_000), "items": _list(item, 10_000)}, {}),
        "ready": _struct(
            {"total": count, "deselected": count, "seconds": seconds, "maxfail": count}, {}
        ),
        "imports": _struct({"paths": _dict(_list(name, 64), 256)}, {}),
        "start": _struct({"item": index}, {}),
        "foreign": _struct({"name": name}, {}),
        "sentinel": _struct(
            {"item": index, "outcome": _one_of("passed", "failed", "other")}, {}
        ),
        "phase": _struct({"item": index, "when": _one_of("setup", "call", "teardown")}, {}),
        "report": _struct(
            {"item": index, "when": _one_of("setup", "call", "teardown"),
             "outcome": _one_of("passed", "failed", "skipped"),
             "duration": seconds, "start": moment, "stop": moment},
            {"longrepr": _optional(longrepr), "sections": sections,
             "properties": _list(_pair(word, scalar), 256),
             "wasxfail": _optional(text), "subtest": _optional(subtest)},
        ),
        "finish": _struct({"item": index}, {"witness": text}),
        "warning": _struct(
            {"message": text, "category": word, "path": name, "lineno": _integer(0, 2**31),
             "when": _one_of("config", "collect", "runtest"), "nodeid": name},
            {},
        ),
        "internalerror": _struct({"text": text}, {}),
        "session": _struct(
            {"exitstatus": _integer(-255, 2**31), "exit": _optional(text), "refused": text}, {}
        ),
    }  # fmt: skip


def _constant(name: str) -> Any:
    raise ValueError(name)


# json.loads() would make a decoder for every line, and decode() looks for blanks around.
_decode = json.JSONDecoder(parse_constant=_constant).raw_decode


def _encodable(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


class Gate:
    """Makes frames of a worker's lines."""

    def __init__(self) -> None:
        self._schema = _schema()

    def frame(self, line: bytes) -> tuple[str, dict[str, Any]]:
        """Kind and fields of the frame in a line.

        Raises:
            Nonsense: no worker sends that.
        """
        if len(line) > LINE_LIMIT:
            raise Nonsense("a line that is too long")
        try:
            frame, end = _decode(line.decode("ascii"))
            kind = frame.pop("kind")
            check = self._schema[kind]
        except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
            raise Nonsense(f"{line[:200]!r}") from None
        if end != len(line) or not check(frame) or (b"\\ud" in line and not _encodable(frame)):
            raise Nonsense(f"a wrong {kind} frame, {line[:200]!r}")
        return kind, frame
