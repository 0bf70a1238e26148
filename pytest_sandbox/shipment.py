"""The agent as one file: a zip of its package that Python runs. Knows nothing of sandboxes."""

from __future__ import annotations

import io
import zipfile
from functools import cache
from importlib.resources import files

_MAIN = """\
import sys
from pytest_sandbox_agent.commands import main
sys.exit(main(sys.argv[0], sys.argv[1:]))
"""


@cache
def agent() -> bytes:
    """The same bytes for the same sources. Not compressed: a Python may lack zlib."""
    sources = {"__main__.py": _MAIN.encode()}
    for file in files("pytest_sandbox.agent").iterdir():
        if file.name.endswith(".py"):
            sources[f"pytest_sandbox_agent/{file.name}"] = file.read_bytes()
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(sources):
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, sources[name])
    return data.getvalue()
