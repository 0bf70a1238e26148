"""What pytest and the tests hand over, in the shapes and limits of frames."""

from __future__ import annotations

import io
from typing import Any, Callable

from .texts import NAME_LIMIT, short


class Values:
    """Turns objects into what a frame may hold.

    Args:
        text: makes text of anything, not longer than may be sent.
        columns: width that failures are rendered in.
    """

    def __init__(self, text: Callable[[Any], str], columns: int) -> None:
        self.text = text
        self._columns = columns
        #: The root folder of the tests and a slash; empty before it is known.
        self.root = ""

    def render(self, longrepr: Any) -> str:
        try:
            if not hasattr(longrepr, "toterminal"):
                return self.text(longrepr)
            from _pytest._io import TerminalWriter

            file = io.StringIO()
            writer = TerminalWriter(file)
            writer.hasmarkup = False
            writer.fullwidth = self._columns
            longrepr.toterminal(writer)
            rendered = file.getvalue()
            return self.text(rendered[:-1] if rendered.endswith("\n") else rendered)
        except Exception as error:  # noqa: BLE001 - a representation made by the tests
            return f"<a report that cannot be shown: {type(error).__name__}: {self.text(error)}>"

    def longrepr(self, longrepr: Any) -> dict[str, Any] | None:
        if longrepr is None:
            return None
        if isinstance(longrepr, tuple) and len(longrepr) == 3:
            path, lineno, reason = longrepr
            return {
                "text": self.text(reason), "path": self.relative(path),
                "lineno": line_number(lineno), "message": self.text(reason),
            }  # fmt: skip
        found: dict[str, Any] = {"text": self.render(longrepr)}
        crash = getattr(longrepr, "reprcrash", None)
        if crash is not None:
            found["path"] = short(getattr(crash, "path", ""), NAME_LIMIT)
            found["lineno"] = line_number(getattr(crash, "lineno", 0))
            found["message"] = self.text(getattr(crash, "message", ""))
        return found

    def sections(self, sections: Any) -> list[list[str]]:
        return [[short(name), self.text(content)] for name, content in list(sections)[:256]]

    def scalar(self, value: Any) -> Any:
        if value is None or type(value) is bool:
            return value
        if type(value) is int and abs(value) < 2**53:
            return value
        if type(value) is float and value - value == 0:
            return value
        return self.text(value)

    def relative(self, path: Any) -> str:
        """Paths below rootdir as seen from there, for the host to show as its own."""
        name = short(path, NAME_LIMIT)
        return name[len(self.root) :] if self.root and name.startswith(self.root) else name

    def subtest(self, context: Any) -> dict[str, Any]:
        # pytest 9.1 keeps representations there, 9.0 objects that it shortens when it shows
        # them, and pytest-subtests objects that it shows whole.
        kept = hasattr(type(context), "__post_init__")
        represent = repr
        if type(context).__module__.startswith("_pytest."):
            from _pytest._io.saferepr import saferepr as represent
        kwargs = {}
        for key, value in list(context.kwargs.items())[:64]:
            try:
                kwargs[short(key)] = self.text(value if kept else represent(value))
            except Exception as error:  # noqa: BLE001 - a test's object
                kwargs[short(key)] = f"<repr() raised {type(error).__name__}>"
        return {"msg": None if context.msg is None else self.text(context.msg), "kwargs": kwargs}


def line_number(value: Any) -> int:
    return max(-1, min(value, 2**31)) if type(value) is int else 0


def seconds(value: Any) -> float:
    return max(0.0, min(float(value), 1e9)) if isinstance(value, (int, float)) else 0.0
