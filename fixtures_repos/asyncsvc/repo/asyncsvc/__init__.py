"""A key-value store that speaks lines over TCP."""

from .client import Client
from .server import Server

__all__ = ["Client", "Server"]
