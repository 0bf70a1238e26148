"""The tree that is prepared, in its place in a sandbox: sent whole, or found in the image.

An image that holds the repository holds what was built there, too, which no tree has. So it is
moved to where trees are, its old place leads there, and it is compared with the base: what differs
in it is put right. Knows nothing of candidates.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from pytest_sandbox import inside, plan
from pytest_sandbox.errors import SetupFailed
from pytest_sandbox.provider import Command, Sandbox, Stream

#: Moves the repository, and writes the files git knows of it unless it is the tree asked for.
#: Arguments: where it is, where it shall be, the tree, who shall own it.
_ADOPT: Final = r"""
set -e
cd "$1"
git() { command git -c safe.directory=* -c core.fileMode=false "$@"; }
git rev-parse --git-dir > /dev/null
if [ "$(git rev-parse 'HEAD^{tree}')" = "$3" ] && git diff --quiet HEAD --; then same=1; fi
[ -n "$same" ] || git ls-files -z
cd /
mkdir -p "${2%/*}"
rm -rf "$2"
mv "$1" "$2"
ln -s "$2" "$1"
[ -n "$same" ] || rm -rf "$2/.git"
[ -z "$4" ] || chown -R -h "$4" "$2"
[ -z "$same" ] || exit 0
exit 10
"""
#: Of a sandbox that was made from a snapshot, which has only what is below its root.
_LINK: Final = 'rm -rf "$1" && ln -s "$2" "$1"'
#: Bytes of names that are read.
_MOST: Final = 64 * plan.MiB


async def base(run: plan.Run, sandbox: Sandbox) -> list[inside.Archive]:
    """What makes the base of what is where trees are; nothing, where the image has that very tree.

    Raises:
        SetupFailed: the image does not hold the repository as it is said to.
        SandboxLost, InfraError: as the sandbox.
    """
    old: list[bytes] = []
    if run.workdir is not None:
        places = inside.Places.of(sandbox)
        owner = "" if sandbox.owner is None else f"{sandbox.owner}:{sandbox.owner}"
        status, names, said = await _shell(
            run, sandbox, _ADOPT, run.workdir, places.workspace, run.base.id, owner
        )
        if status == 0:
            return []
        if status != 10:
            raise SetupFailed(
                f"{run.name}: the image has no repository in {run.workdir} that could be used "
                f"(status {status}). {inside.quote(said)}"
            )
        old = [name for name in names.split(b"\0") if name]
    return [partial(run.workspace.archive, run.base, history=run.history, replacing=old)]


async def link(run: plan.Run, sandbox: Sandbox) -> None:
    """Let the image's place of the repository lead to the workspace of a snapshot."""
    if run.workdir is None:
        return
    status, _, said = await _shell(
        run, sandbox, _LINK, run.workdir, inside.Places.of(sandbox).workspace
    )
    if status != 0:
        raise SetupFailed(f"{run.name}: {run.workdir} cannot be replaced. {inside.quote(said)}")


async def _shell(
    run: plan.Run, sandbox: Sandbox, script: str, *args: str
) -> tuple[int, bytes, bytes]:
    """Exit status, output, and the beginning of what went wrong."""
    said = {"stdout": bytearray(), "stderr": bytearray()}

    async def sink(stream: Stream, data: bytes) -> None:
        most = _MOST if stream == "stdout" else 4096
        said[stream].extend(data[: max(0, most - len(said[stream]))])

    argv = ("/bin/sh", "-c", script, "sh", *args)
    command = Command(argv=argv, cwd="/", timeout=run.limits.setup)
    status = await sandbox.exec(command, sink)
    return status, bytes(said["stdout"]), bytes(said["stderr"])
