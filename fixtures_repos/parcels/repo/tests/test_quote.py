from parcels import Quote
from parcels.report import table
from support import lines


def test_nothing():
    assert Quote().total == 0


def test_total(home):
    assert Quote().add("a", 500, home).add("b", 1000, home).total == 720


def test_ten_are_cheaper(home):
    many = Quote()
    for number in range(10):
        many.add(f"n{number}", 400, home)
    assert many.total == 3060


def test_names(quote):
    assert quote.names() == ["book", "lamp"]


def test_table(quote):
    assert lines(table(quote)) == ["book: 3.40 EUR", "lamp: 6.75 EUR", "total: 10.15 EUR"]


def test_empty_table():
    assert table(Quote()) == "nothing to send"
