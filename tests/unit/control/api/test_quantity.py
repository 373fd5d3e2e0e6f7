"""Quantities: exact values and Kubernetes' canonical text."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.api import quantity


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("0", "0"),
        ("1000m", "1"),
        ("1.5", "1500m"),
        ("0.1", "100m"),
        ("1024Ki", "1Mi"),
        ("1.5Ki", "1536"),
        ("0.5Gi", "512Mi"),
        ("1000k", "1M"),
        ("12e6", "12e6"),
        ("1E3", "1e3"),
        ("1E", "1E"),
        ("100u", "100u"),
        ("0.0000000001", "1n"),
        ("+3", "3"),
        ("-1.5Gi", "-1536Mi"),
        (".5", "500m"),
        ("5.", "5"),
    ],
)
def test_canonical_text(text: str, canonical: str) -> None:
    assert quantity.canonical(text) == canonical


@pytest.mark.parametrize("text", ["", "1.2.3", "1KB", "m", "1e", "abc", "1 Gi", "--1", "1Mib", "1e1.5"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(quantity.QuantityError, match="is not a quantity"):
        quantity.parse(text)


def test_values_are_exact_and_bounded() -> None:
    assert quantity.parse("0.1") == Fraction(1, 10)
    assert quantity.milli("0.0001") == 1 and quantity.milli("1.5") == 1500
    assert quantity.whole("1Ki") == 1024 and quantity.whole("0.5") == 1
    assert quantity.parse("1e999999999") == 2**63 - 1 and quantity.parse("100E") == 2**63 - 1


@given(st.integers(-(10**18), 10**18), st.sampled_from([*quantity.DECIMAL, *quantity.BINARY, "e3", "e-2"]))
def test_canonical_text_keeps_the_value_and_is_stable(number: int, suffix: str) -> None:
    text = f"{number}{suffix}"
    value = quantity.parse(text)
    canonical = quantity.canonical(text)
    assert quantity.parse(canonical) == value
    assert quantity.canonical(canonical) == canonical
    assert "." not in canonical


@given(st.integers(0, 10**15))
def test_thousandths_round_trip(value: int) -> None:
    assert quantity.milli(quantity.format_milli(value)) == value
