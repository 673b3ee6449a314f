"""Figures for people: one formatter, one spelling of each unit, three or four significant digits."""

from __future__ import annotations

import re
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagc.base.units import (
    BYTES,
    MONEY_RATE,
    REQUEST_RATE,
    REQUESTS,
    TIME,
    TOKEN_RATE,
    TOKENS,
    UNITS,
    Dim,
    number,
    show,
)


@pytest.mark.parametrize(
    ("value", "dim", "text"),
    [
        (0.0098, TIME, "9.8 ms"), (1.0, TIME, "1 s"), (5.369e9, BYTES, "5.369 GB"), (134_312.0, TOKEN_RATE, "134,300 tok/s"),
        (12_180_321.0, TOKEN_RATE, "12,180,000 tok/s"), (860.42, TOKEN_RATE, "860.4 tok/s"), (47.987, REQUEST_RATE, "47.99 req/s"),
        (2 / 3600, MONEY_RATE, "2 $/h"), (124_400_577.0, TOKENS, "124,400,577 tok"), (1500.0, REQUESTS, "1,500 req"),
    ],
)  # fmt: skip
def test_as_people_write_it(value: float, dim: Dim, text: str) -> None:
    assert show(value, dim) == text


@given(st.floats(1e-3, 1e12), st.sampled_from((3, 4)), st.booleans())
def test_a_number_keeps_its_first_digits(value: float, digits: int, zeros: bool) -> None:
    text = number(value, digits, zeros=zeros)
    assert not re.search(r"e[+-]?\d", text) and abs(float(text.replace(",", "")) - value) <= 0.5001 * 10 ** (
        Decimal(value).adjusted() - digits + 1
    )
    assert len(text.replace(",", "").replace(".", "").strip("0")) <= digits


@given(st.floats(1e-6, 1e9), st.sampled_from((TIME, BYTES, TOKEN_RATE, REQUEST_RATE, MONEY_RATE)))
def test_what_is_shown_can_be_written_in_a_spec(value: float, dim: Dim) -> None:
    words, unit = show(value, dim).split(" ")
    factor, known = UNITS[unit]
    assert known == dim and float(words.replace(",", "")) * factor == pytest.approx(value, rel=5e-4 * 1.001)


def test_parameters_are_counted_as_people_do() -> None:
    from dagc.base.units import parameters

    counts = (452_346_368, 999_999_999, 1e9, 46_702_792_704, 235.1e9, 1.026e12)
    assert [parameters(n) for n in counts] == ["452.3M", "1000M", "1B", "46.7B", "235.1B", "1.026T"]
