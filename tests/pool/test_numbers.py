"""Only ASCII digits are a number, and no text of whatever length raises."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from pool.numbers import whole_number


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-1",
        "+1",
        "1_0",
        " 1",
        "1 ",
        "1.0",
        "1e3",
        "\u00b2",
        "\u0661",
        "\uff11",
        "x",
        "9" * 19,
        "9" * 5000,
        "0x1",
    ],
)
def test_anything_else_is_none(text: str) -> None:
    assert whole_number(text) is None


def test_zeros_before_it_do_not_count() -> None:
    assert whole_number("0" * 5000 + "7") == 7
    assert whole_number("0" * 5000) == 0


@given(st.integers(0, 10**18 - 1), st.integers(0, 10**18))
def test_a_number_is_read(number: int, most: int) -> None:
    assert whole_number(str(number), most=most) == (number if number <= most else None)


@given(st.text())
def test_no_text_raises(text: str) -> None:
    found = whole_number(text)
    assert found is None or int(text) == found
