"""Packages of ours as one file each: a zip that Python runs. Knows nothing of sandboxes."""

from __future__ import annotations

import importlib.util
import io
import marshal
import zipfile
from functools import cache
from importlib.machinery import SourceFileLoader
from importlib.resources import files
from types import CodeType
from typing import Final

_MAIN = """\
import sys
from {name}.commands import main
sys.exit(main(sys.argv[0], sys.argv[1:]))
"""
#: Of compiled code that is not compared with a source: the flags, and a hash nobody looks at.
_UNCHECKED: Final = b"\1\0\0\0" + bytes(8)


def agent(*, compiled: bool = False) -> bytes:
    """What runs the tests and tells of them.

    Args:
        compiled: for a Python of this version, too, which then need not compile it at each start.
            Any other takes no notice.
    """
    return zipped("pytest_sandbox.agent", "pytest_sandbox_agent", compiled=compiled)


@cache
def zipped(package: str, name: str, *, compiled: bool = False) -> bytes:
    """A package whose ``commands.main(program, argv)`` is the program, under another ``name``.

    The same bytes for the same sources. Not compressed: a Python may lack zlib.
    """
    content = {"__main__.py": _MAIN.format(name=name).encode()}
    for file in files(package).iterdir():
        if file.name.endswith(".py"):
            content[f"{name}/{file.name}"] = file.read_bytes()
            if compiled:
                content[f"{name}/{file.name}c"] = _compiled(str(file), f"<{name}>")
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(content):
            entry = zipfile.ZipInfo(path, date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content[path])
    return data.getvalue()


def _compiled(path: str, shown: str) -> bytes:
    """A module as a .pyc, as Python has it here already; without any path of this machine."""
    # By its own loader: pytest's would rewrite assertions, and gives no code.
    code = SourceFileLoader(shown, path).get_code(shown)
    assert code is not None
    data = marshal.dumps(_renamed(code, shown))
    return importlib.util.MAGIC_NUMBER + _UNCHECKED + data


def _renamed(code: CodeType, name: str) -> CodeType:
    consts = (_renamed(c, name) if isinstance(c, CodeType) else c for c in code.co_consts)
    return code.replace(co_filename=name, co_consts=tuple(consts))
