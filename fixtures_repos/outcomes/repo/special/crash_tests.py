import os
import signal

import pytest


def test_before():
    print("about to crash")


def test_segfault():
    os.kill(os.getpid(), signal.SIGSEGV)


def test_after():
    pass


def test_hard_exit():
    os._exit(7)


@pytest.fixture
def killed_in_setup():
    os.kill(os.getpid(), signal.SIGKILL)


def test_killed_in_setup(killed_in_setup):
    pass


def test_last():
    pass
