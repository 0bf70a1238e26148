"""Each fault at each stage of a run at each vendor's: a right result, or none, and nothing left."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.providers import fault_page, faults
from tests.providers.faults import Cell
from tests.providers.known import Site, site, summed

#: Vendor-neutral: the same cells everywhere, one of each kind of stage.
SAMPLE = (
    ("504 after", "create"),
    ("reset before", "upload"),
    ("cut", "run"),
    ("lost", "run"),
)


@pytest.fixture(scope="module", params=faults.VENDORS)
def here(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    with site(request.param, tmp_path_factory.mktemp(request.param)) as made, faults.hasty():
        yield made
        faults.calm(made)
        asyncio.run(made.forget_snapshots())
        assert made.running.unknown() == []
        assert made.running.endless() == []


@pytest.mark.parametrize(("fault", "stage"), SAMPLE)
def test_a_sample_once(here: Site, fault: str, stage: str) -> None:
    told = asyncio.run(faults.strike(here, Cell(here.vendor, fault, stage), always=False))
    assert told.verdict == "right", summed(told)
    assert told.reaped == 0
    assert (told.lost > 0) == (fault == "lost")


@pytest.mark.soak
@pytest.mark.parametrize("vendor", faults.VENDORS)
def test_the_table(vendor: str, tmp_path: Path) -> None:
    """And the page says what becomes of it."""
    seen: dict[Cell, str] = {}
    wrong: list[str] = []

    def report(cell: Cell, words: str, problems: list[str]) -> None:
        seen[cell] = words
        wrong.extend(problems)

    with site(vendor, tmp_path) as made, faults.hasty():
        asyncio.run(faults.examine(made, faults.cells(vendor), report))
    assert not wrong, "\n\n".join(wrong)
    written = fault_page.read(fault_page.PATH.read_text())
    differ = {str(cell): (written[cell], words) for cell, words in seen.items()
              if _coarse(written[cell]) != _coarse(words)}  # fmt: skip
    assert not differ, "python -m tests.providers.faults writes the page anew"


def _coarse(words: str) -> str:
    """Without what may depend on the moment."""
    return words.replace("*", "").replace("†", "")


def test_the_page_has_the_table() -> None:
    text = fault_page.PATH.read_text()
    written = fault_page.read(text)
    assert set(written) == {cell for vendor in faults.VENDORS for cell in faults.cells(vendor)}
    assert fault_page.page(written) == text
    marked = str.maketrans("", "", "*†")
    for cell, words in written.items():
        parts = words.translate(marked).split(" / ")
        fine = {"right", "infra"} | ({"killed"} if cell.fault == "out of memory" else set())
        assert set(parts) <= fine, f"{cell}: {words}"
        assert len(parts) == 1 + (cell.fault in faults.ALWAYS), f"{cell}: {words}"
