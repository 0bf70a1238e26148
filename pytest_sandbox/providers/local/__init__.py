"""The embedded engine: Linux namespaces, bubblewrap, a system-call filter and limits.

Can be imported everywhere; whether it works here is what ``LocalProvider.check`` finds out.
"""

from pytest_sandbox.providers.local.provider import LocalProvider

__all__ = ["LocalProvider"]
