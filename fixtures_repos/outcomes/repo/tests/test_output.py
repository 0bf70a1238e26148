import logging
import os
import sys

LOG = logging.getLogger("shop")


def test_captured(record_property):
    print("to stdout")
    print("to stderr", file=sys.stderr)
    os.write(1, b"to descriptor 1 \xff\n")
    LOG.debug("a debug message")
    LOG.warning("a warning with %s", "arguments")
    record_property("weight", 12)


def test_captured_and_failed():
    print("to stdout \u2603 \x1b[32mgreen\x1b[0m")
    print("::error file=shop::to stderr", file=sys.stderr)
    LOG.error("an error message")
    assert not "shown with its output"


def test_capsys(capsys, caplog):
    print("seen")
    LOG.info("logged")
    assert capsys.readouterr().out == "seen\n"
    assert caplog.messages == ["logged"]
