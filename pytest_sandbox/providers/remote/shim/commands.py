"""The command line. Each command imports what it needs: most start often."""

from __future__ import annotations

from .places import path_of


def main(program: str, argv: list[str]) -> None:
    """Carry out a command of ``RemoteSandbox``; ``program`` is the file that all of this is in."""
    command, args = argv[0], argv[1:]
    if command == "prepare":
        from .whole import prepare

        prepare(program, int(args[0]))
    elif command == "clean":
        from .whole import clean

        clean(int(args[0]))
    elif command == "demote":
        from .demotion import demote

        demote(tuple(None if a == "-" else int(a) for a in args[0].split(",")), args[1:])
    elif command == "seal":
        from .sealing import seal

        seal(path_of(args[0]), int(args[1]))
    elif command == "run":
        from .jobs import start
        from .reader import follow

        job, order, out, err, seconds, most, how = args
        start(job, order)
        follow(job, (int(out), int(err)), float(seconds), int(most), poll=how == "poll")
    elif command == "kill":
        from .jobs import kill

        kill(args[0])
    elif command == "place":
        from .files import place

        place(args[0], path_of(args[1]), int(args[2]), int(args[3]), args[4])
    elif command == "read":
        from .files import read

        read(path_of(args[0]), int(args[1]), int(args[2]), int(args[3]))
    else:
        raise SystemExit(f"no such command: {command}")
