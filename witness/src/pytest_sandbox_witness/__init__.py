"""The compiled witness, as bytes to be sent: nothing here is loaded on this machine."""

from __future__ import annotations

from pathlib import Path

_STEM = "_witness."


def libraries() -> dict[str, bytes]:
    """What there is, by the suffix of the Python it is for: ".cpython-312-x86_64-linux-gnu.so"."""
    return {
        path.name[len(_STEM) - 1 :]: path.read_bytes()
        for path in sorted(Path(__file__).parent.glob(_STEM + "*.so"))
    }
