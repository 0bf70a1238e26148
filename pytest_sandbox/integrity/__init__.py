"""The layers of ``--sandbox-integrity=full``: more runs of the same tests, each telling less.

They say whether a verdict can be believed. Knows no provider, no session and no verdict rules.
"""

from pytest_sandbox.integrity.full import Confirmation, Confirmer, Passed
from pytest_sandbox.integrity.passes import confirmed, execute, with_confirmation
from pytest_sandbox.integrity.unseen import Unseen

__all__ = [
    "Confirmation",
    "Confirmer",
    "Passed",
    "Unseen",
    "confirmed",
    "execute",
    "with_confirmation",
]
