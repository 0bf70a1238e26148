"""A small exact calculator."""

from .arithmetic import add, div, mul, power, sub
from .expression import ExpressionError, evaluate

__all__ = ["ExpressionError", "add", "div", "evaluate", "mul", "power", "sub"]
