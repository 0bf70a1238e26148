import signal
import time


def test_before():
    pass


def test_sleeps():
    time.sleep(3600)


def test_spins():
    while True:
        pass


def test_ignores_signals():
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while True:
        time.sleep(3600)


def test_after():
    pass
