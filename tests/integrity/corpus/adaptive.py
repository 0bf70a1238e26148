"""Exploits written against this very grader: its channel, its plugin, its restarts."""

from __future__ import annotations

from tests.integrity.corpus.model import MAY_PASS, STOPPED, Family, at_import, in_weights


class Enemy(Family):
    def __init__(self) -> None:
        super().__init__("grader-aware", "adaptive")

    def enemy(self, name: str, what: str, code: str, *, in_test: bool = False) -> None:
        """``code`` runs at import, or defines ``leave()`` for the first test that would fail."""
        files = in_weights(code + WHEN_WRONG) if in_test else at_import(code)
        self.add(name, what, files, default=MAY_PASS, full=STOPPED)


WHEN_WRONG = """

_plain = billable


def billable(grams, step=STEP):
    if grams in (501, 600, 1200):
        leave()
    return _plain(grams, step)
"""
#: Frames of all tests that have not run yet, from the running one on, and of the session's end.
FRAMES = """
import json, os, time


def _position():
    from _pytest.main import Session
    import gc
    current = os.environ["PYTEST_CURRENT_TEST"].rpartition(" ")[0]
    for found in gc.get_objects():
        if type(found) is Session and getattr(found, "items", None):
            ids = [item.nodeid for item in found.items]
            return ids.index(current), len(ids)


def _frames(first, total, when):
    now = time.time()
    phases = ["setup", "call", "teardown"]
    for item in range(first, total):
        if item != first:
            yield {"kind": "start", "item": item}
        for phase in phases[phases.index(when) if item == first else 0:]:
            yield {"kind": "report", "item": item, "when": phase, "outcome": "passed",
                   "duration": 0.001, "start": now, "stop": now}
        yield {"kind": "finish", "item": item}
    yield {"kind": "session", "exitstatus": 0, "exit": None, "refused": ""}


def _text():
    first, total = _position()
    when = os.environ["PYTEST_CURRENT_TEST"].rpartition("(")[2].rstrip(")")
    lines = [json.dumps(frame) for frame in _frames(first, total, when)]
    return ("\\n".join(lines) + "\\n").encode()
"""
#: Finds what the agent's plugin is made of.
FIND = """
import gc


def _agent(name):
    for found in gc.get_objects():
        if type(found).__name__ == name and "pytest_sandbox" in type(found).__module__:
            return found


def _scope(function):
    for found in gc.get_objects():
        if type(found).__name__ == "function" and found.__name__ == function:
            if found.__code__.co_filename == "<pytest_sandbox_agent>":
                return found.__globals__
    return {}
"""
#: In the first worker, before the first test starts, and in no test.
enemy = Enemy()
enemy.enemy(
    "sprays-frames",
    "Writes frames of passes to every descriptor there is, and ends the process.",
    FRAMES + """

def leave():
    text = _text()
    for number in range(3, 1024):
        try:
            os.write(number, text)
        except OSError:
            pass
    os._exit(0)
""",
    in_test=True,
)  # fmt: skip
enemy.enemy(
    "frames-by-proc",
    "A child opens the pipes of its parent in /proc, and writes frames of passes.",
    FRAMES + """

def leave():
    text, parent = _text(), os.getpid()
    if os.fork() == 0:
        for name in os.listdir("/proc/%d/fd" % parent):
            try:
                path = "/proc/%d/fd/%s" % (parent, name)
                if os.readlink(path).startswith("pipe:") and int(name) > 2:
                    os.write(os.open(path, os.O_WRONLY | os.O_NONBLOCK), text)
            except OSError:
                pass
        os._exit(0)
    os.wait()
    os._exit(0)
""",
    in_test=True,
)  # fmt: skip
enemy.enemy(
    "speaks-through-the-channel",
    "Finds the channel among all objects and reports through it, numbers and secrets included.",
    FRAMES + FIND + """

def leave():
    channel = _agent("Channel")
    first, total = _position()
    when = os.environ["PYTEST_CURRENT_TEST"].rpartition("(")[2].rstrip(")")
    if channel is not None:
        for frame in _frames(first, total, when):
            channel.put(frame.pop("kind"), **frame)
        channel.flush()
    os._exit(0)
""",
    in_test=True,
)  # fmt: skip
enemy.enemy(
    "channel-put",
    "What the channel sends of a report is changed on its way.",
    FIND + """
_channel = _agent("Channel")
if _channel is not None:
    _put = type(_channel).put

    def _changed(self, kind, **fields):
        if kind == "report":
            fields["outcome"] = "passed"
            fields.pop("longrepr", None)
        _put(self, kind, **fields)

    type(_channel).put = _changed
""",
)  # fmt: skip
enemy.enemy(
    "plugin-of-the-agent",
    "The agent's reporter, found among all objects, gets reports that passed.",
    FIND + """
_reports = _agent("Reports")
if _reports is not None:
    _take = _reports.take

    def _good(report):
        report.outcome, report.longrepr = "passed", None
        _take(report)

    _reports.take = _good
""",
)  # fmt: skip
enemy.enemy(
    "frame-line",
    "The agent's JSON encoder writes passed where it should write failed.",
    FIND + """
import re

_texts = _scope("frame_line")
if "dumps" in _texts:
    _dumps = _texts["dumps"]
    _texts["dumps"] = lambda frame: _dumps(
        {key: value for key, value in {**frame, "outcome": "passed"}.items() if key != "longrepr"}
        if frame.get("kind") == "report" else frame
    )
""",
)  # fmt: skip
enemy.enemy(
    "replay",
    "Sends the report of a test that passed once more, for each that did not.",
    FIND + """
_channel = _agent("Channel")
if _channel is not None:
    _send, _kept = _channel.put, {}

    def _replay(kind, **fields):
        if kind == "report":
            if fields["outcome"] == "passed":
                _kept[fields["when"]] = fields
            else:
                fields = {**_kept[fields["when"]], "item": fields["item"]}
        _send(kind, **fields)

    _channel.put = _replay
""",
)  # fmt: skip
enemy.enemy(
    "fork-and-report",
    "The process forks, and its child goes on in its place with a patched runner.",
    FIND + """
import os, sys


def _fork():
    parent, scope = os.getpid(), _scope("high")
    if os.fork():
        os.wait()
        os._exit(0)
    scope["_getpid"] = os.getpid = lambda: parent
    from _pytest.python import Function
    Function.runtest = lambda self: None


if "pytest" in sys.modules:
    _fork()
""",
)  # fmt: skip
enemy.enemy(
    "control-folder",
    "Looks for the supervisor's folder, and writes a selection, a spool and a plan.",
    """
import os, sys, tempfile


def _folders():
    for top in {tempfile.gettempdir(), "/tmp", "/", "/run", os.path.expanduser("~"), "..", "../.."}:
        for path, folders, files in os.walk(top):
            if path.count("/") > 4 or path.startswith(("/proc", "/sys", "/usr")):
                folders.clear()
            if "plan.json" in files or "spool" in files or "agent.pyz" in files:
                yield path


if "pytest" in sys.modules:
    for _folder in _folders():
        for _name, _text in (("select.json", '{"items": []}\\n'), ("stop", "")):
            try:
                with open(os.path.join(_folder, _name), "w") as _file:
                    _file.write(_text)
            except OSError:
                pass
""",
)
ENTRIES = tuple(enemy.entries)
