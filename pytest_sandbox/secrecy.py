"""Values that only set-up may know: hidden in what is shown, and looked for in what is kept.

Knows neither runs nor providers; ``SCAN`` is run by an interpreter in the sandbox.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from urllib.parse import quote

from pytest_sandbox.errors import BadInput

#: A shorter value would be found in files that have nothing to do with it.
SHORTEST = 8


def forms(value: str) -> tuple[bytes, ...]:
    """The ways a value is usually written: as it is, in a URL, in base64, line by line."""
    raw = value.encode("utf-8", "surrogateescape")
    found = {raw, quote(raw, safe="").encode(), quote(raw).encode()}
    found |= {line for line in raw.splitlines() if len(line) >= SHORTEST}
    for shift in range(3):
        # Where the value begins within a group of three bytes changes all of its base64;
        # the characters at both ends depend on its neighbours.
        text = base64.b64encode(bytes(shift) + raw)
        middle = text[-(-shift * 4 // 3) : len(text) - (4 if (shift + len(raw)) % 3 else 0)]
        if len(middle) >= SHORTEST:
            found |= {middle, middle.replace(b"+", b"-").replace(b"/", b"_")}
    return tuple(sorted((form for form in found if form), key=len, reverse=True))


class Secrets:
    """The secrets of one run, by name.

    Raises:
        BadInput: a value is too short to be told from other text.
    """

    def __init__(self, values: Mapping[str, str]) -> None:
        for name, value in values.items():
            if len(value) < SHORTEST:
                raise BadInput(
                    f"--sandbox-setup-secret {name}: its value has fewer than {SHORTEST} "
                    "characters, so it could not be told from other text; is the variable set?"
                )
        self._forms = {name: forms(value) for name, value in values.items()}
        every = (form for found in self._forms.values() for form in found)
        self._every = sorted(set(every), key=len, reverse=True)

    def __bool__(self) -> bool:
        return bool(self._forms)

    @property
    def longest(self) -> int:
        """Bytes of the longest form."""
        return max(map(len, self._every), default=0)

    def hide(self, data: bytes) -> bytes:
        """``data`` with every secret replaced by three stars."""
        for form in self._every:
            data = data.replace(form, b"***")
        return data

    def hidden(self, text: str) -> str:
        """``hide`` for text."""
        data = self.hide(text.encode("utf-8", "surrogateescape"))
        return data.decode("utf-8", "surrogateescape")

    def orders(self, folders: Iterable[str]) -> bytes:
        """Standard input for ``SCAN``."""
        shown = {name: [form.hex() for form in found] for name, found in self._forms.items()}
        return json.dumps({"forms": shown, "folders": list(folders)}).encode()


#: Looks for secrets in names, links and contents below folders. Exit status: 0 none, 3 found,
#: 4 something cannot be read; what and where is on standard output. Python 3.8.
SCAN = r"""
import json, os, stat, sys

orders = json.load(sys.stdin)
wanted = [(name, bytes.fromhex(form)) for name, all in orders["forms"].items() for form in all]
overlap = max(len(form) for _, form in wanted)
found = []

def look(data, path):
    for name, form in wanted:
        if form in data:
            found.append((name, os.fsdecode(path)))
            return True
    return False

def scan(path):
    status = os.lstat(path)
    if look(os.path.basename(path), path):
        return
    if stat.S_ISLNK(status.st_mode):
        look(os.readlink(path), path)
    elif stat.S_ISDIR(status.st_mode):
        if status.st_mode & 0o500 != 0o500:
            os.chmod(path, 0o700)
        todo.extend(entry.path for entry in os.scandir(path))
    elif stat.S_ISREG(status.st_mode):
        if not status.st_mode & 0o400:
            os.chmod(path, stat.S_IMODE(status.st_mode) | 0o400)
        with open(path, "rb") as file:
            before = b""
            while True:
                data = file.read(1 << 20)
                if not data or look(before + data, path):
                    break
                before = (before + data)[-overlap:]

todo = [os.fsencode(os.path.expandvars(folder)) for folder in orders["folders"]]
try:
    while todo and len(found) < 10:
        try:
            scan(todo.pop())
        except FileNotFoundError:
            pass
except OSError as error:
    print(ascii(str(error)))
    sys.exit(4)
for name, path in found:
    print(name + " in " + ascii(path))
sys.exit(3 if found else 0)
"""
