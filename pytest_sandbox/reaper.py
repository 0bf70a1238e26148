"""Ends the sandboxes of dead sessions, as this machine's ledger knows them.

Knows no pytest; whoever calls it says what is to be told, and to whom.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio
import anyio.to_thread

from pytest_sandbox import registry, scratch
from pytest_sandbox.errors import SandboxError
from pytest_sandbox.inside import Host
from pytest_sandbox.wire import printable

Say = Callable[[str], None]

#: Seconds that a session's start gives to what others left; the rest waits for the next one.
PATIENCE = 10.0


async def reap_orphans(
    host: Host, others: registry.Factories, say: Say, *, quiet: bool = False
) -> int:
    """End the sandboxes whose sessions are dead, as the ledger has them, and remove their files.

    Args:
        quiet: say nothing when there is nothing to end.

    Returns:
        0, or 1 when one could not be ended and may still run; ``say`` was told why.
    """
    await anyio.to_thread.run_sync(scratch.sweep)
    # Those that were kept for a look only go when a person asks.
    orphans = host.ledger.orphans(kept=not quiet)
    status = 0
    for entry in orphans:
        try:
            async with registry.factory(entry.provider, others)() as provider:
                await provider.reap(entry.name, entry.sandbox_id)
        except (SandboxError, OSError) as error:
            text = printable(str(error), line=True)
            told = f"{entry.name} ({entry.provider}) could not be ended: {text}"
            if entry.expired:
                # Or a provider that is no longer used is complained about for ever.
                entry.close()
                say(f"{told}; its own time limit is over, so this is said for the last time")
            else:
                status = 1
                say(told)
            continue
        entry.close()
        say(f"ended {entry.name} ({entry.provider}), which a dead session left behind")
    if not orphans and not quiet:
        say("nothing was left behind")
    return status


async def at_start(host: Host, others: registry.Factories, say: Say) -> None:
    """``reap_orphans`` before something else, which its failures do not keep from starting."""
    with anyio.move_on_after(PATIENCE):
        try:
            await reap_orphans(host, others, say, quiet=True)
        except (SandboxError, OSError) as error:
            say(f"what dead sessions left cannot be ended: {printable(str(error), line=True)}")
