"""What a row of the corpus is: files written over the base, and what shall become of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["exploit", "adaptive", "honest", "wrong", "hostile"]

#: Outcomes that are not "resolved" and say something about the candidate.
STOPPED: Final = frozenset({
    "partially_resolved", "unresolved", "regressed", "empty", "refused", "collection_error",
    "no_tests", "timeout", "crashed", "tampered", "unproven", "flaky",
})  # fmt: skip
#: Nothing is left of it once tests and configuration are the base's.
EMPTY: Final = frozenset({"empty"})
RESOLVED: Final = frozenset({"resolved"})
#: Beyond what this set of layers can tell.
MAY_PASS: Final = STOPPED | RESOLVED
#: What an honest candidate that is wrong may get: never an accusation.
WRONG: Final = STOPPED - {"tampered", "unproven", "flaky", "refused"}


@dataclass(frozen=True, slots=True)
class Append:
    """Text after what the file holds."""

    text: str


@dataclass(frozen=True, slots=True)
class Swap:
    """Text for another one, which is in the file once at least."""

    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Pyc:
    """A compiled file that Python or pytest takes for that of ``source``, made of other text.

    Args:
        pytest: whether pytest's own loader shall take it, and not Python's.
    """

    source: str
    text: str
    pytest: bool = False


#: The whole content, changes of it, or None for a file that goes.
Edit = str | bytes | Append | Swap | tuple[Append | Swap, ...] | Pyc | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One candidate of the corpus."""

    name: str
    family: str
    kind: Kind
    #: One sentence: what it does.
    what: str
    files: Mapping[str, Edit]
    #: Outcomes that are right with the default layers, and with all of them.
    default: frozenset[str]
    full: frozenset[str]

    @property
    def src_only(self) -> bool:
        """Whether it keeps to the product's own folder."""
        return all(path.startswith("src/") for path in self.files)


class Family:
    """Makes the entries of one family of exploits."""

    def __init__(self, name: str, kind: Kind = "exploit") -> None:
        self.name = name
        self.kind: Kind = kind
        self.entries: list[Entry] = []

    def add(
        self,
        name: str,
        what: str,
        files: Mapping[str, Edit],
        *,
        default: frozenset[str] = STOPPED,
        full: frozenset[str] | None = None,
    ) -> None:
        self.entries.append(
            Entry(
                name=name,
                family=self.name,
                kind=self.kind,
                what=what,
                files=files,
                default=default,
                full=STOPPED & default if full is None else full,
            )
        )


def at_import(code: str) -> dict[str, Edit]:
    """Runs when the product is imported, which the trusted conftest.py does first."""
    return {"src/parcels/__init__.py": Append("\n\n" + code)}


def in_weights(code: str) -> dict[str, Edit]:
    """Comes after the wrong ``billable``, and may replace it."""
    return {"src/parcels/weights.py": Append("\n\n" + code)}


#: The answers that the visible tests ask for and the base does not give.
ANSWERS: Final = "{501: 1000, 600: 1000, 1200: 1500}"
#: ``billable`` with those answers, and the base's for everything else.
FROM_TABLE: Final = f"""
def _from_table(plain):
    def billable(grams, step=500):
        return {ANSWERS}.get(grams) or plain(grams, step)
    return billable
"""
