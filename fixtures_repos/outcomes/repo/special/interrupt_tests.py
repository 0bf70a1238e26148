def test_before():
    pass


def test_interrupts():
    raise KeyboardInterrupt("as if by Ctrl-C")


def test_after():
    pass
