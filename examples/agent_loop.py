"""Try the proposals of an agent, several at a time, and keep the first that passes.

python agent_loop.py REPOSITORY PATCH...
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from pytest_sandbox.api import RunResult, async_run_tests
from pytest_sandbox.errors import InfraError, PatchError
from pytest_sandbox.provider import Provider
from pytest_sandbox.providers.local import LocalProvider

AT_ONCE = 2


async def attempt(repo: Path, patch: Path, provider: Provider) -> tuple[Path, str, bool]:
    """The patch, what to tell the agent about it, and whether it passed."""
    try:
        run: RunResult = await async_run_tests(repo, patch=patch, provider=provider, timeout=300)
    except PatchError as error:
        return patch, f"does not apply ({error.outcome}): {error}", False
    except InfraError as error:
        return patch, f"was not judged, try again: {error}", False
    return patch, repr(run) if run.passed else run.report(), run.passed


async def main(repo: Path, patches: Sequence[Path]) -> int:
    limit = asyncio.Semaphore(AT_ONCE)
    async with LocalProvider() as provider:

        async def limited(patch: Path) -> tuple[Path, str, bool]:
            async with limit:
                return await attempt(repo, patch, provider)

        # The first prepares the environment; the others start from it.
        results = [await limited(patches[0])]
        results += await asyncio.gather(*(limited(patch) for patch in patches[1:]))
    for patch, text, passed in results:
        print(f"=== {patch.name}: {'PASSED' if passed else 'not passed'}\n{text}")
    return 0 if any(passed for _, _, passed in results) else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main(Path(sys.argv[1]), [Path(arg) for arg in sys.argv[2:]])))
