"""The layers of ``--sandbox-integrity=full``: more runs of the same tests, each telling less.

They say whether a verdict can be believed. Knows no provider, no session and no verdict rules.
"""
