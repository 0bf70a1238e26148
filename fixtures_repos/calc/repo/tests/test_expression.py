import pytest

from calc import ExpressionError, evaluate


@pytest.mark.parametrize(
    "text, value",
    [
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("2 ** 3 ** 2", 512),
        ("-2 ** 2", -4),
        ("7 / 2", 3.5),
    ],
)
def test_evaluate(text, value):
    assert evaluate(text) == value


def test_large_quotients_are_exact():
    assert evaluate("(10 ** 20 + 2) / 2 - 10 ** 20 / 2") == 1


@pytest.mark.parametrize("text", ["", "1 +", "(1", "2 $ 3", "1 2"])
def test_not_an_expression(text):
    with pytest.raises(ExpressionError):
        evaluate(text)
