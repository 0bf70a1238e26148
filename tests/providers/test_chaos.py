"""Many runs at a vendor where one call in twenty goes wrong, in any way there is."""

from __future__ import annotations

import asyncio
import gc
import os
from collections import Counter
from pathlib import Path

import pytest

from tests.providers import faults
from tests.providers.known import BAD, BOUND, GOOD, Site, Told, site, summed

#: Of all calls.
PROBABILITY = 0.05
AT_A_TIME = 4
#: Bytes that a run may leave in this process's memory, on average.
PER_RUN = 40_000
#: Runs after which memory is as full as it gets.
WARM = 100


@pytest.mark.parametrize("vendor", faults.VENDORS)
@pytest.mark.parametrize("runs", [25, pytest.param(500, marks=pytest.mark.soak)])
def test_results_are_right_whatever_goes_wrong(vendor: str, runs: int, tmp_path: Path) -> None:
    with site(vendor, tmp_path) as here:
        told, struck, reaped, growth = asyncio.run(_runs(here, runs))
        assert here.running.live() == []
        assert here.running.unknown() == []
    counted = Counter(one.verdict for one in told)
    lost = sum(one.lost for one in told)
    print(
        f"{vendor}: {struck} faults in {runs} runs: {dict(counted)}; {lost} sandboxes lost, "
        f"{reaped} ended afterwards; memory grew by {growth / 1e6:.1f} MB since warm"
    )
    for one in told:
        if one.verdict != "right":
            print(f"  {one.verdict} after {one.seconds:.0f} s: {one.text.splitlines()[:1]}")
    assert struck > runs / 4
    for one in told:
        assert one.allowed, summed(one)
    # A key that is refused is not asked with again: that is no failure of ours.
    assert counted["infra error"] <= 0.1 * runs + 1
    assert counted["right"] >= 0.6 * runs
    assert reaped <= 1 + runs / 50
    if runs > 2 * WARM:
        assert growth < PER_RUN * (runs - WARM)


async def _runs(here: Site, runs: int) -> tuple[list[Told], int, int, int]:
    """What was told of each, faults, sandboxes that were left, and how much memory grew."""
    here.retries = 3
    faults.calm(here)
    assert (await here.run(GOOD)).verdict == "right"
    told: list[Told] = []
    warm = _memory()
    turns = iter(range(runs))
    # A connection that falls silent is given up after a minute and a half, each time it does.
    bound = faults.PATIENT_BOUND if runs > WARM else BOUND
    async with here.provider() as provider:

        async def worker() -> None:
            nonlocal warm
            for turn in turns:
                patch = (GOOD, BAD)[turn % 2]
                told.append(await here.run(patch, provider=provider, bound=bound))
                if len(told) == WARM:
                    warm = _memory()

        faults.sprinkle(here, PROBABILITY, silent=runs > WARM)
        async with asyncio.TaskGroup() as workers:
            for _ in range(AT_A_TIME):
                workers.create_task(worker())
        growth = _memory() - warm
        struck = sum(rule["hits"] for rule in here.running.faults())
        faults.calm(here)
    reaped = await here.clean()
    await here.forget_snapshots()
    return told, struck, reaped, growth


def _memory() -> int:
    """Bytes of this process that are in memory."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE")
