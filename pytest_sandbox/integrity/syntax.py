"""Python's text as a tree."""

from __future__ import annotations

import ast
from typing import Final

_TRIES: Final = 5


def parsed(text: str) -> ast.Module:
    """``ast.parse``, where it does not fail for a reason of its own.

    Up to Python 3.12 it counts recursion in a place that garbage collection disturbs: what is
    finalized meanwhile runs deeper or less deep (python/cpython#106905).

    Raises:
        SyntaxError, ValueError: as ``ast.parse``.
    """
    for _ in range(_TRIES):
        try:
            return ast.parse(text)
        except SystemError:
            continue
    return ast.parse(text)
