import pytest

from parcels import format_money, parse_money


@pytest.mark.parametrize(
    "cents, text",
    [(0, "0.00 EUR"), (5, "0.05 EUR"), (1250, "12.50 EUR"), (-199, "-1.99 EUR")],
)
def test_format(cents, text):
    assert format_money(cents) == text


@pytest.mark.parametrize("cents", [0, 7, 99, 100, -12345])
def test_there_and_back(cents):
    assert parse_money(format_money(cents)) == cents


@pytest.mark.parametrize("text", ["", "12.5 EUR", "1,000.00 EUR"])
def test_no_amount(text):
    with pytest.raises(ValueError, match="no amount"):
        parse_money(text)


def test_another_currency(monkeypatch):
    monkeypatch.setenv("PARCELS_CURRENCY", "CHF")
    assert format_money(250) == "2.50 CHF"
