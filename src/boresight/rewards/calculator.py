"""Exact arithmetic on text that nobody has checked: a parser and rational numbers, no eval."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable
from fractions import Fraction

MOST_CHARACTERS, MOST_BITS, MOST_EXPONENT = 500, 4096, 1000
_BINARY: dict[type, Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: lambda a, b: Fraction(a // b),
    ast.Mod: operator.mod,
}
_WRITTEN = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-", "^": "**", "$": " ", "€": " "})
_DECIMAL = re.compile(r"(\d+\.?\d*|\.\d+)([eE][-+]?\d{1,3})?")
_THOUSANDS = re.compile(r"(?<![\d.])\d{1,3}(,\d{3})+(?![\d,])")


def calculate(expression: str) -> Fraction:
    """The value of + - * / // % ** (or ^) over decimal numbers and parentheses, exactly: 0.1 + 0.2 is 3/10.

    Commas between thousands, signs of currencies, and the written signs for times and divided are understood.
    Raises ValueError with what is wrong: no such expression, a division by zero, a power that is no whole number or
    beyond 1000, numbers beyond 4096 bits, more than 500 characters.
    """
    if len(expression) > MOST_CHARACTERS:
        raise ValueError(f"longer than {MOST_CHARACTERS} characters")
    text = _THOUSANDS.sub(lambda found: found[0].replace(",", ""), expression.translate(_WRITTEN)).strip()
    if not text.isascii():
        raise ValueError("not an arithmetic expression")
    try:
        tree = ast.parse(text, mode="eval").body
        return _value(tree, text)
    except ZeroDivisionError:
        raise ValueError("division by zero") from None
    except (SyntaxError, RecursionError, MemoryError):
        raise ValueError("not an arithmetic expression") from None


def shown(value: Fraction) -> str:
    """A number as people write it: 12, 0.125, or 1/3 (about 0.333333)."""
    if value.denominator == 1:
        return str(value.numerator)
    rest, twos, fives = value.denominator, 0, 0
    while rest % 2 == 0:
        rest, twos = rest // 2, twos + 1
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    places = max(twos, fives)
    if rest == 1 and places <= 12:
        whole, part = divmod(abs(value.numerator) * 10**places // value.denominator, 10**places)
        return f"{'-' if value < 0 else ''}{whole}.{part:0{places}d}"
    try:
        return f"{value} (about {float(value):.6g})"
    except OverflowError:
        return str(value)


def _value(node: ast.expr, text: str) -> Fraction:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        written = ast.get_source_segment(text, node) or ""
        if not _DECIMAL.fullmatch(written):
            raise ValueError(f"{written[:40]} is no decimal number, or one of more than three digits in its exponent")
        found = Fraction(written)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.UAdd, ast.USub)):
        inner = _value(node.operand, text)
        found = -inner if isinstance(node.op, ast.USub) else inner
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
        base, power = _value(node.left, text), _value(node.right, text)
        if power.denominator != 1 or abs(power) > MOST_EXPONENT:
            raise ValueError(
                f"the power {shown(power)[:40]} is no whole number from -{MOST_EXPONENT} to {MOST_EXPONENT}"
            )
        if abs(power) * max(base.numerator.bit_length(), base.denominator.bit_length()) > 2 * MOST_BITS:
            raise ValueError("too large a number")
        found = Fraction(base ** int(power))
    elif isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        found = _BINARY[type(node.op)](_value(node.left, text), _value(node.right, text))
    else:
        raise ValueError("not an arithmetic expression")
    if max(found.numerator.bit_length(), found.denominator.bit_length()) > MOST_BITS:
        raise ValueError("too large a number")
    return found
