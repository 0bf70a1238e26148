"""The operations. A result that is a whole number is an int, exactly."""

from typing import Union

Number = Union[int, float]


def add(a: Number, b: Number) -> Number:
    return a + b


def sub(a: Number, b: Number) -> Number:
    return a - b


def mul(a: Number, b: Number) -> Number:
    return a * b


def div(a: Number, b: Number) -> Number:
    """The quotient: an int where the division leaves no remainder, else a float."""
    result = a / b
    if result == int(result):
        return int(result)
    return result


def power(base: Number, exponent: Number) -> Number:
    if isinstance(exponent, int) and exponent < 0:
        return div(1, power(base, -exponent))
    return base**exponent
