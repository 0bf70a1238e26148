"""The book: entries of transactions, each adding up to nothing."""

import sqlite3

from .money import Money


class Unbalanced(ValueError):
    """The entries of a transaction do not add up to nothing."""


class Book:
    def __init__(self, path=":memory:"):
        self._db = sqlite3.connect(str(path))
        self._db.execute("create table if not exists entry (note text, account text, cents integer)")

    def post(self, note, entries):
        if sum(amount.cents for amount in entries.values()):
            raise Unbalanced("{!r} is out of balance: {!r}".format(note, entries))
        with self._db:
            self._db.executemany(
                "insert into entry values (?, ?, ?)",
                [(note, account, amount.cents) for account, amount in entries.items()],
            )

    def balance(self, account):
        row = self._db.execute("select sum(cents) from entry where account = ?", (account,)).fetchone()
        return Money(row[0] or 0)

    def close(self):
        self._db.close()
