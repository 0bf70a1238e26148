"""Compares versions."""

from ._version import version as __version__

__all__ = ["__version__", "newer", "parse"]


def parse(text):
    """The release numbers: ``"1.10.0"`` is ``(1, 10, 0)``; what follows them is left out."""
    release = text.lstrip("v").split("+")[0].split(".dev")[0]
    return tuple(part for part in release.split("."))


def newer(one, other):
    return parse(one) > parse(other)
