"""Run a test suite, with a patch nobody trusts yet, in a throw-away sandbox."""

__version__ = "0.1.0"
