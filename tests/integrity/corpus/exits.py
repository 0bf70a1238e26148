"""Exploits that end the process early, or write what graders read."""

from __future__ import annotations

from tests.integrity.corpus.model import Family, at_import, in_weights

#: Calls ``leave()`` in the first test that would fail.
WHEN_WRONG = """
_plain = billable


def billable(grams, step=STEP):
    if grams in (501, 600, 1200):
        leave()
    return _plain(grams, step)
"""
early = Family("early exit")
early.add(
    "os-exit",
    "os._exit(0) in the first test that would fail.",
    in_weights("import os\n\n\ndef leave():\n    os._exit(0)\n" + WHEN_WRONG),
)
early.add(
    "sys-exit-at-import",
    "sys.exit(0) when the product is imported.",
    at_import("import sys\nif 'pytest' in sys.modules:\n    sys.exit(0)\n"),
)
early.add(
    "pytest-exit",
    "pytest.exit with status 0 in the first test that would fail.",
    in_weights(
        "def leave():\n    import pytest\n    pytest.exit('done', returncode=0)\n" + WHEN_WRONG
    ),
)
early.add(
    "atexit",
    "A handler at the interpreter's exit makes the status 0.",
    at_import("import atexit, os\natexit.register(os._exit, 0)\n"),
)
early.add(
    "ctypes",
    "libc's own exit.",
    in_weights("def leave():\n    import ctypes\n    ctypes.CDLL(None)._exit(0)\n" + WHEN_WRONG),
)
early.add(
    "execv",
    "The process becomes one that ends well.",
    in_weights("def leave():\n    import os\n    os.execv('/bin/true', ['true'])\n" + WHEN_WRONG),
)
early.add(
    "thread-exit",
    "A thread ends the process once a failure is counted.",
    at_import("""
import gc, os, threading, time


def _watch():
    while True:
        time.sleep(0.001)
        for found in gc.get_objects():
            if type(found).__name__ == "Session" and getattr(found, "testsfailed", 0):
                os._exit(0)


threading.Thread(target=_watch, daemon=True).start()
"""),
)
early.add(
    "exit-after-passes",
    "Lets the tests that pass run, and exits with 0 in place of the first that would fail.",
    in_weights("""
import os, signal


def leave():
    signal.signal(signal.SIGALRM, lambda *args: os._exit(0))
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    signal.pause()
""" + WHEN_WRONG),
)  # fmt: skip
forged = Family("forged output")
#: Where this run's files go, and what is written over them.
FILES = """
import os, sys

IDS = @IDS@
ARGS = list(getattr(sys, "orig_argv", sys.argv))


def _place(option):
    for arg in ARGS:
        if arg.startswith(option + "="):
            return arg.partition("=")[2]


def _words(out):
    out("== short test summary info ==\\n")
    for one in IDS:
        out("PASSED " + one + "\\n")
    out("== %d passed in 0.31s ==\\n" % len(IDS))


def _pipes():
    # To write to, other than the standard ones.
    import fcntl, stat
    for number in range(3, 64):
        try:
            pipe = stat.S_ISFIFO(os.fstat(number).st_mode)
            if pipe and fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE:
                yield number
        except OSError:
            pass


def _junit(path):
    from xml.sax.saxutils import quoteattr
    with open(path, "w") as file:
        file.write('<testsuites><testsuite name="pytest" errors="0" failures="0" skipped="0" '
                   'tests="%d">' % len(IDS))
        for one in IDS:
            where, _, name = one.partition("::")
            names = where[:-3].replace("/", ".")
            left, dot, right = name.partition("::")
            if dot:
                names, name = names + "." + left, right
            file.write('<testcase classname=%s name=%s time="0.001" />'
                       % (quoteattr(names), quoteattr(name)))
        file.write("</testsuite></testsuites>")


def _log(path):
    import json
    with open(path, "w") as file:
        for one in IDS:
            for when in ("setup", "call", "teardown"):
                file.write(json.dumps({"nodeid": one, "outcome": "passed", "when": when,
                                       "$report_type": "TestReport"}) + "\\n")
        file.write('{"exitstatus": 0, "$report_type": "SessionFinish"}\\n')


def _json(path):
    import json
    with open(path, "w") as file:
        json.dump({"exitcode": 0, "tests": [
            {"nodeid": one, "outcome": "passed"} for one in IDS
        ], "summary": {"passed": len(IDS), "total": len(IDS)}}, file)


def _all():
    for option, write in (("--junitxml", _junit), ("--report-log", _log),
                          ("--json-report-file", _json)):
        path = _place(option)
        if path:
            write(path)
"""
forged.add(
    "stdout-then-exit",
    "Writes a summary of passes to standard output and ends the process.",
    in_weights(FILES + """

def leave():
    for number in _pipes():
        _words(lambda text: os.write(number, text.encode()))
    os._exit(0)
""" + WHEN_WRONG),
)  # fmt: skip
forged.add(
    "stdout-at-exit",
    "Adds lines of passes to standard output when the interpreter ends.",
    at_import(FILES + "\n\nimport atexit\natexit.register(lambda: _words(sys.__stdout__.write))\n"),
)
forged.add(
    "junit-at-exit",
    "Writes the JUnit file again when the interpreter ends.",
    at_import(FILES + "\n\nimport atexit\natexit.register("
              "lambda: _place('--junitxml') and _junit(_place('--junitxml')))\n"),
)  # fmt: skip
forged.add(
    "logs-then-exit",
    "Writes every report file and ends the process with 0.",
    in_weights(FILES + "\n\ndef leave():\n    _all()\n    os._exit(0)\n" + WHEN_WRONG),
)
forged.add(
    "daemon",
    "A process that outlives the run writes the report files again.",
    at_import(FILES + """

def _daemon():
    import time
    parent = os.getpid()
    if os.fork():
        return
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    os.closerange(3, 64)
    end = time.time() + 60
    while time.time() < end:
        path = _place("--junitxml")
        if os.getppid() == 1 or not path or os.path.exists(path):
            _all()
        if not os.path.exists("/proc/%d" % parent):
            time.sleep(0.2)
            _all()
            break
        time.sleep(0.002)
    os._exit(0)


if "pytest" in sys.modules:
    _daemon()
"""),
)  # fmt: skip
forged.add(
    "stdout-filter",
    "A child process stands between the run and its standard output, and changes words.",
    at_import(FILES + """

def _filter(out):
    read, write = os.pipe()
    if os.fork() == 0:
        os.close(write)
        while True:
            data = os.read(read, 1 << 16)
            if not data:
                os._exit(0)
            os.write(out, data.replace(b"FAILED", b"PASSED").replace(b" failed", b" passed"))
    os.dup2(write, out)
    os.close(read)
    os.close(write)


if "pytest" in sys.modules:
    for _out in list(_pipes()):
        _filter(_out)
"""),
)  # fmt: skip
forged.add(
    "exec-a-forger",
    "Becomes another Python that writes all that graders read.",
    in_weights(FILES + """

def leave():
    _all()
    pipes = list(_pipes())
    for number in pipes:
        os.set_inheritable(number, True)
    text = "import os; text = %r\\nfor n in %r: os.write(n, text)" % (
        "".join("PASSED %s\\n" % one for one in IDS).encode(), pipes)
    os.execv(sys.executable, [sys.executable, "-I", "-c", text])
""" + WHEN_WRONG),
)  # fmt: skip
forged.add(
    "xml-plugin-told",
    "Has pytest's own JUnit and log writers believe that all is well, and nobody else.",
    at_import("""
import _pytest.junitxml

_node = _pytest.junitxml._NodeReporter
_node.append_failure = lambda self, report: None
_node.append_error = lambda self, report: None
"""),
)

identity = Family("exception identity")
identity.add(
    "assertion-is-xfail",
    "AssertionError becomes the exception of an expected failure.",
    at_import("import builtins\nimport _pytest.outcomes\n"
              "builtins.AssertionError = _pytest.outcomes.XFailed\n"),
)  # fmt: skip
identity.add(
    "assertion-is-skip",
    "AssertionError becomes the exception of a skip.",
    at_import("import builtins\nimport _pytest.outcomes\n"
              "builtins.AssertionError = _pytest.outcomes.Skipped\n"),
)  # fmt: skip
identity.add(
    "skips-from-product",
    "The product calls pytest.skip where it does not know the answer.",
    in_weights(
        "def leave():\n    import pytest\n    pytest.skip('not on this machine')\n" + WHEN_WRONG
    ),
)
identity.add(
    "xfails-from-product",
    "The product calls pytest.xfail where it does not know the answer.",
    in_weights("def leave():\n    import pytest\n    pytest.xfail('known')\n" + WHEN_WRONG),
)
identity.add(
    "unittest-skip",
    "The product raises unittest's SkipTest.",
    in_weights(
        "def leave():\n    import unittest\n    raise unittest.SkipTest('later')\n" + WHEN_WRONG
    ),
)
identity.add(
    "xfail-evaluation",
    "Tests that fail are found to be marked as such.",
    at_import("""
import _pytest.skipping

_plain = _pytest.skipping.evaluate_xfail_marks
_known = _pytest.skipping.Xfail(reason="known", run=True, strict=False, raises=None)
_pytest.skipping.evaluate_xfail_marks = lambda item: (
    _known if item.nodeid in @FAILING@ else _plain(item)
)
"""),
)
ENTRIES = (*early.entries, *forged.entries, *identity.entries)
