import pytest

from parcels import Quote
from parcels.store import load, save


def test_there_and_back(quote, tmp_path):
    save(quote, tmp_path / "quote.csv")
    assert load(tmp_path / "quote.csv").lines == quote.lines


def test_an_empty_quote(tmp_path):
    save(Quote(), tmp_path / "quote.csv")
    assert (tmp_path / "quote.csv").read_text() == ""


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none.csv")


def test_a_damaged_file(tmp_path):
    (tmp_path / "bad.csv").write_text("book,heavy,340\n")
    with pytest.raises(ValueError):
        load(tmp_path / "bad.csv")
