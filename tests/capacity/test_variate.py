"""Quantities as people write them, and the random ones."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool.errors import SettingsError
from scheduler.capacity.units import amount, seconds, share, show_amount, show_seconds, show_share
from scheduler.capacity.variate import (
    Exponential,
    Fixed,
    Lognormal,
    Recorded,
    Uniform,
    Variate,
    parse_variate,
)

VARIATES: list[Variate] = [
    Fixed(3.0),
    Exponential(2.0),
    Uniform(1.0, 5.0),
    Lognormal(1.2, 9.0),
    Recorded.of([(1.0, 3), (2.0, 5), (7.0, 2)]),
    Recorded.of([(1.0, 3), (4.0, 2)], whole=True),
]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("6", Fixed(6.0)),
        ("800ms", Fixed(0.8)),
        ("fixed(2min)", Fixed(120.0)),
        ("exp(3)", Exponential(3.0)),
        ("exp(mean=3s)", Exponential(3.0)),
        (" Uniform( 1 , 5 ) ", Uniform(1.0, 5.0)),
        ("lognormal(p50=1.2,p99=9)", Lognormal(1.2, 9.0)),
        ("lognormal(p99=9s,p50=1200ms)", Lognormal(1.2, 9.0)),
        ("lognormal(1.2,9)", Lognormal(1.2, 9.0)),
        ("uniform(0,5s)", Uniform(0.0, 5.0)),
    ],
)
def test_a_quantity_is_read(text: str, expected: Variate) -> None:
    assert parse_variate("--turn-seconds", text, time=True) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("often", "must be a number or a distribution"),
        ("gamma(3)", "knows no gamma"),
        ("exp()", "takes mean"),
        ("exp(1,2)", "takes mean"),
        ("exp(p50=1)", "takes mean"),
        ("uniform(low=1,low=2)", "takes low and high"),
        ("uniform(5,1)", "low bound first"),
        ("uniform(5ms,1)", "mixes numbers with a unit and without"),
        ("lognormal(p50=9,p99=1)", "0 < p50 <= p99"),
        ("lognormal(p50=0,p99=1)", "0 < p50 <= p99"),
        ("-3", "at least 0"),
        ("1e999", "finite"),
        ("nan", "must be a number"),
        ("3k", "must be a number"),
    ],
)
def test_what_is_no_quantity_is_refused_by_name(text: str, said: str) -> None:
    with pytest.raises(SettingsError, match="--turn-seconds") as caught:
        parse_variate("--turn-seconds", text, time=True)
    assert said in str(caught.value)


def test_tokens_have_thousands_and_not_seconds() -> None:
    assert parse_variate("--first-tokens", "2k", time=False) == Fixed(2000.0)
    with pytest.raises(SettingsError):
        parse_variate("--first-tokens", "2s", time=False)
    with pytest.raises(SettingsError, match="at least 1"):
        parse_variate("--turns", "0.5", time=False, least=1.0)


@pytest.mark.parametrize("variate", VARIATES, ids=str)
def test_draws_have_the_mean(variate: Variate) -> None:
    rng = random.Random(1)
    draws = [variate.at(rng.random()) for _ in range(40_000)]
    assert sum(draws) / len(draws) == pytest.approx(variate.mean, rel=0.05)
    assert variate.scaled(2.0).mean == pytest.approx(2 * variate.mean)


@given(variate=st.sampled_from(VARIATES), one=st.floats(0, 0.999999), other=st.floats(0, 0.999999))
def test_quantiles_rise(variate: Variate, one: float, other: float) -> None:
    assert 0 <= variate.at(min(one, other)) <= variate.at(max(one, other))


def test_what_was_recorded_comes_back() -> None:
    recorded = Recorded.of([(2.0, 1), (1.0, 98), (50.0, 1)])
    assert (recorded.at(0.5), recorded.at(0.985), recorded.at(0.999)) == (1.0, 2.0, 50.0)
    turns = Recorded.of([(7.0, 10), (8.0, 10)], whole=True)
    assert {turns.at(step / 100) for step in range(100)} == {7.0, 8.0}


def test_units() -> None:
    assert (seconds("--x", "50ms"), seconds("--x", "2 min"), seconds("--x", "3")) == (0.05, 120.0, 3.0)
    assert (share("--x", "95%"), share("--x", "0.95")) == (0.95, 0.95)
    assert (amount("--x", "250k"), amount("--x", "2M"), amount("--x", "7")) == (250_000, 2_000_000, 7)
    for parse, text in ((seconds, "-1"), (seconds, "5 apples"), (share, "150%"), (share, "x"), (amount, "0")):
        with pytest.raises(SettingsError, match="--x"):
            parse("--x", text)


def test_what_is_shown_fits_what_it_is() -> None:
    shown = [show_seconds(value) for value in (0.0, 0.0004, 0.05, 0.9996, 1.234, 250, 7200, float("inf"))]
    assert shown == ["0 ms", "0.4 ms", "50 ms", "1 s", "1.23 s", "250 s", "120 min", "for ever"]
    assert [show_amount(value) for value in (0, 3, 0.25, 1234, 20_000, 4.62e6)] == [
        *("0", "3", "0.25", "1,234", "20k", "4.62M")
    ]
    assert [show_share(value) for value in (0, 0.95, 0.9512, 0.99999, 1.0)] == [
        *("0 %", "95 %", "95.1 %", "99.999 %", "100 %")
    ]
