"""Runs one script under the witness, in the Python to be tested; prints what the windows told.

Called with the compiled file, the folder under test, the key, and the script. The script finds
``run(function, call=None)`` among its globals, and what that is made of.
"""

import importlib.machinery
import importlib.util
import json
import os
import sys
from typing import Any


def load(path: str) -> Any:
    loader = importlib.machinery.ExtensionFileLoader("_witness", path)
    spec = importlib.util.spec_from_loader("_witness", loader)
    assert spec is not None
    return importlib.util.module_from_spec(spec)


def main(library: str, root: str, key: str, script: str) -> None:
    module = load(library)
    read, write = os.pipe()
    os.write(write, bytes.fromhex(key))
    begin, end = module.start(read, (os.path.dirname(os.__file__),), root)
    del module
    told: list[str] = []

    def run(function: Any, call: Any = None, *args: Any, outer: Any = None) -> None:
        begin(len(told), function.__code__, function.__globals__, outer and outer.__code__)
        try:
            (call or function)(*args)
        except Exception:  # noqa: BLE001 - as a test may fail
            pass
        told.append(end())

    sys.path.insert(0, root)
    scope = {"run": run, "begin": begin, "end": end, "told": told, "__name__": "script"}
    with open(script) as file:
        code = compile(file.read(), script, "exec")
    exec(code, scope)
    print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
