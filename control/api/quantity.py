"""Quantities: ``500m``, ``1.5Gi``, ``12e6``. Values are exact fractions; text is Kubernetes' canonical form.

The canonical form keeps the notation (decimal SI, binary SI or exponent) and the value, has no fraction, and the
largest suffix that allows it: ``1.5`` is ``1500m``, ``1024Ki`` is ``1Mi``. Source: apimachinery, api/resource.
"""

import math
import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Protocol

SYNTAX = re.compile(r"([+-]?)(\d+\.?\d*|\.\d+)([numkMGTPE]|[KMGTPE]i|[eE][+-]?\d+)?")
DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
BINARY = {"": 0, "Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
MAX = Fraction(2**63 - 1)
NANO = Fraction(1, 10**9)


class QuantityError(ValueError):
    """Not a quantity; the message says what one looks like."""


class Stringy(Protocol):
    """The Quantity message."""

    string: str


def parse(value: str | int | float) -> Fraction:
    """The exact value, finer than nano rounded away from zero, capped at 2**63-1. Raises QuantityError."""
    return _split(value)[0]


def milli(value: str | int | float) -> int:
    """The value in thousandths, rounded up: millicores of a CPU quantity. Raises QuantityError."""
    return math.ceil(parse(value) * 1000)


def whole(value: str | int | float) -> int:
    """The value in units, rounded up: bytes of a memory quantity. Raises QuantityError."""
    return math.ceil(parse(value))


def canonical(value: str | int | float) -> str:
    """The canonical text of a quantity given as text or number. Raises QuantityError."""
    return format_value(*_split(value))


def format_value(value: Fraction | int, notation: str = "decimal") -> str:
    """Canonical text in ``notation``: decimal, binary or exponent. Small or fractional binary values turn decimal."""
    exact = Fraction(value)
    if exact == 0:
        return "0"
    if notation == "binary" and abs(exact) >= 1024 and exact.denominator == 1:
        return _format_binary(int(exact))
    return _format_decimal(exact, notation)


def format_milli(value: int) -> str:
    """Canonical text of thousandths: 1500 is ``1500m``, 2000 is ``2``."""
    return format_value(Fraction(value, 1000))


def resource_value(resources: Mapping[str, Stringy], name: str) -> Fraction:
    """The value of one entry of a resource list (requests, limits, capacity), 0 when absent."""
    return parse(resources[name].string or "0") if name in resources else Fraction(0)


def _split(value: str | int | float) -> tuple[Fraction, str]:
    text = value if isinstance(value, str) else repr(value)
    found = SYNTAX.fullmatch(text)
    if found is None:
        raise QuantityError(f"{text!r} is not a quantity: write a number with an optional suffix, as in 500m, 2, 1.5Gi")
    sign, number, suffix = found[1], found[2], found[3] or ""
    scale, notation = _scale(suffix)
    exact = Fraction(number) * scale
    capped = min(Fraction(math.ceil(exact / NANO)) * NANO, MAX)
    return (-capped if sign == "-" else capped), notation


def _scale(suffix: str) -> tuple[Fraction, str]:
    if suffix in DECIMAL:
        return Fraction(10) ** DECIMAL[suffix], "decimal"
    if suffix in BINARY:
        return Fraction(2) ** BINARY[suffix], "binary"
    # Past these bounds every value is the cap or one nano; do not raise ten to the billionth.
    return Fraction(10) ** max(-40, min(40, int(suffix[1:]))), "exponent"


def _format_binary(value: int) -> str:
    shift = 0
    while value % 1024 == 0 and shift < 60:
        value, shift = value // 1024, shift + 10
    return f"{value}{next(suffix for suffix, bits in BINARY.items() if bits == shift)}"


def _format_decimal(value: Fraction, notation: str) -> str:
    exponent = -9
    mantissa = int(value / NANO)
    while mantissa % 1000 == 0:
        mantissa, exponent = mantissa // 1000, exponent + 3
    if notation == "exponent":
        return f"{mantissa}e{exponent}" if exponent else str(mantissa)
    return f"{mantissa}{next(suffix for suffix, power in DECIMAL.items() if power == exponent)}"
