"""Tries to get at repo/t/a.py, which is sealed; run in a sandbox by ``attacks``."""

import os

for attack in (
    lambda: open("repo/t/a.py", "w"),  # noqa: SIM115
    lambda: os.remove("repo/t/a.py"),
    lambda: os.rename("repo/t", "repo/u"),
    lambda: os.rename("repo", "r"),
    lambda: os.mkdir("repo/t/__pycache__/x"),
):
    try:
        attack()
    except OSError:
        continue
    raise SystemExit(1)
for path in ("repo/t/b", "repo/b"):
    with open(path, "w") as file:
        file.write("not sealed")
