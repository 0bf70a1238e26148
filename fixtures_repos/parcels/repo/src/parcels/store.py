"""Quotes in files."""

import csv
from pathlib import Path

from parcels.quote import Line, Quote


def save(quote: Quote, path) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        for line in quote.lines:
            writer.writerow([line.name, line.grams, line.price])


def load(path) -> Quote:
    with Path(path).open(newline="", encoding="utf-8") as file:
        return Quote([Line(name, int(grams), int(price)) for name, grams, price in csv.reader(file)])
