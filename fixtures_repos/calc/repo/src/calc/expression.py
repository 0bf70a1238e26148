"""Evaluates an expression such as ``2 + 3 * (4 - 1)`` by recursive descent."""

import re
from typing import List

from .arithmetic import Number, add, div, mul, power, sub

TOKEN = re.compile(r"\s*(?:(\d+(?:\.\d+)?)|(\*\*|[-+*/()]))")


class ExpressionError(ValueError):
    """The expression cannot be read; the message names the place."""


def tokens(text: str) -> List[str]:
    found, place = [], 0
    text = text.rstrip()
    while place < len(text):
        match = TOKEN.match(text, place)
        if match is None:
            raise ExpressionError("unexpected {!r} at {}".format(text[place:].strip()[0], place))
        found.append(match.group(1) or match.group(2))
        place = match.end()
    return found


class _Parser:
    def __init__(self, text: str) -> None:
        self.left = tokens(text)[::-1]

    def peek(self) -> str:
        return self.left[-1] if self.left else ""

    def take(self) -> str:
        if not self.left:
            raise ExpressionError("the expression ends too early")
        return self.left.pop()

    def total(self) -> Number:
        value = self.product()
        while self.peek() in ("+", "-"):
            value = add(value, self.product()) if self.take() == "+" else sub(value, self.product())
        return value

    def product(self) -> Number:
        value = self.sign()
        while self.peek() in ("*", "/"):
            value = mul(value, self.sign()) if self.take() == "*" else div(value, self.sign())
        return value

    def sign(self) -> Number:
        if self.peek() == "-":
            self.take()
            return -self.sign()
        return self.tower()

    def tower(self) -> Number:
        base = self.atom()
        if self.peek() == "**":
            self.take()
            return power(base, self.sign())
        return base

    def atom(self) -> Number:
        token = self.take()
        if token == "(":
            value = self.total()
            if self.take() != ")":
                raise ExpressionError("a bracket is not closed")
            return value
        if token[0].isdigit():
            return float(token) if "." in token else int(token)
        raise ExpressionError("unexpected {!r}".format(token))


def evaluate(text: str) -> Number:
    """The value of the expression.

    Raises:
        ExpressionError: the text is not an expression.
        ZeroDivisionError: it divides by zero.
    """
    parser = _Parser(text)
    value = parser.total()
    if parser.peek():
        raise ExpressionError("unexpected {!r}".format(parser.peek()))
    return value
