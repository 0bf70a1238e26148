"""Every exploit deceives graders that are in use, and none of them is a solution."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from pytest_sandbox.providers.local import LocalProvider
from pytest_sandbox.workspace import Workspace
from tests.integrity import candidates, corpus, naive
from tests.integrity.candidates import key
from tests.integrity.corpus.model import Kind
from tests.integrity.corpus.patches import Made
from tests.interpreters import environment


def asked(folder: Path, *kinds: Kind) -> dict[str, tuple[frozenset[str], bool]]:
    """Who takes each candidate of these kinds for a solution, and whether it is one."""
    built = candidates.build(folder, corpus.of(*kinds))
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    venv = environment(version, naive.REQUIREMENTS).parent.parent
    found = {}

    async def main() -> None:
        places = asyncio.Semaphore(2)
        async with LocalProvider(cache_dir=folder / "naive") as provider:
            with Workspace.open(built.repo) as workspace:

                async def one(made: Made) -> None:
                    about = (provider, workspace, built.task, made, venv)
                    async with places:
                        taken = await naive.accepted(*about)
                        right = await naive.right(*about)
                    by = frozenset(name for name, accepted in taken.items() if accepted)
                    found[key(made.entry)] = by, right

                await asyncio.gather(*map(one, built.made))

    asyncio.run(main())
    return found


@pytest.mark.soak
def test_each_exploit_works_somewhere_and_is_no_solution(tmp_path: Path) -> None:
    found = asked(tmp_path, "exploit", "adaptive")
    known = {key(entry): entry for entry in corpus.ENTRIES}
    # Those against this very grader find nothing to deceive elsewhere.
    idle = [k for k, (by, _) in found.items() if not by and known[k].kind == "exploit"]
    assert idle == []
    assert [k for k, (_, right) in found.items() if right] == []


@pytest.mark.soak
def test_each_honest_fix_is_one(tmp_path: Path) -> None:
    found = asked(tmp_path, "honest")
    assert [k for k, (_, right) in found.items() if not right] == []
    # One of them moves tests, as only those may who also change what is expected.
    lost = [k for k, (by, _) in found.items() if by != frozenset(naive.GRADERS)]
    assert lost == ["honest: tests-moved"]
