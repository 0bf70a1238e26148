"""The agent's command line. Each command imports what it needs: most start often."""

from __future__ import annotations

import sys

USAGE = """\
usage: agent.pyz unpack DEST OWNER|- ARCHIVE... | run CONTROL | follow CONTROL OFFSET | \
strays WORKSPACE CONTROL | \
collect CONTROL [--limit BYTES] [--count FILES] GLOB...
"""


def main(program: str, argv: list[str]) -> int:
    """Carry out a command.

    Args:
        program: path of the file that all of the agent is in.
        argv: the command and its arguments.
    """
    command, args = (argv[0], argv[1:]) if argv else ("", [])
    if command == "unpack" and len(args) > 2:
        from .archive import unpack
        from .folders import Unsafe

        try:
            unpack(args[2:], args[0], None if args[1] == "-" else int(args[1]))
        except Unsafe as error:
            from .texts import plain

            sys.stderr.write(f"{plain(error)}\n")
            return 1
        return 0
    if command == "strays" and len(args) == 2:
        from .strays import note_or_remove

        note_or_remove(args[0], args[1])
        return 0
    if command == "run" and len(args) == 1:
        from .launch import run

        return run(args[0], program)
    if command == "supervise" and len(args) == 1:
        from .supervise import supervise

        supervise(args[0])
        return 0
    if command == "follow" and len(args) == 2:
        from .follow import follow

        try:
            return follow(args[0], int(args[1]))
        except BrokenPipeError:
            return 1  # whoever reads will come again
    if command == "collect" and args:
        from .collect import collect

        limits = {"--limit": 1 << 28, "--count": 10_000}
        globs = args[1:]
        while len(globs) > 1 and globs[0] in limits:
            limits[globs[0]] = int(globs[1])
            del globs[:2]
        for line in collect(args[0], globs, limits["--limit"], limits["--count"]):
            sys.stderr.write(f"left out: {line}\n")
        return 0
    sys.stderr.write(USAGE)
    return 2
