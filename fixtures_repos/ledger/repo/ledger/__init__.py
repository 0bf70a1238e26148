"""A double-entry ledger in a SQLite file."""

from .book import Book, Unbalanced
from .money import Money

__all__ = ["Book", "Money", "Unbalanced"]
