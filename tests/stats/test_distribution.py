"""Distributions: what HdrHistogram says, without its 23,000 counters; an algebra; a lossless encoding."""

from __future__ import annotations

import base64
import struct
import time
import zlib

import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given, settings
from hypothesis import strategies as st

from pool.stats.buckets import HOUR, bounds_of, bucket_of
from pool.stats.distribution import Distribution
from pool.stats.recorder import Histogram

SECONDS = st.lists(st.floats(0, 5000), max_size=50)
DISTRIBUTIONS = SECONDS.map(Distribution.of_seconds)


def library(durations: list[float]) -> HdrHistogram:
    histogram = HdrHistogram(1, HOUR, 3)
    for seconds in durations:
        assert histogram.record_value(min(HOUR, max(1, round(seconds * 1e6))))
    return histogram


@settings(max_examples=10, deadline=None)
@given(SECONDS.filter(bool), st.floats(0.1, 100))
def test_it_is_what_the_library_says(durations: list[float], percent: float) -> None:
    expected, found = library(durations), Distribution.of_seconds(durations)
    assert found.count == expected.get_total_count() == len(durations)
    assert found.mean == pytest.approx(expected.get_mean_value() / 1e6)
    assert found.max == expected.get_max_value() / 1e6
    assert found.min == expected.get_min_value() / 1e6
    for percentile in (50.0, 90.0, 99.0, percent):
        assert found.percentile(percentile) == expected.get_value_at_percentile(percentile) / 1e6
    assert (found.p50, found.p90, found.p99) == tuple(map(found.percentile, (50.0, 90.0, 99.0)))
    assert found.encode() == expected.encode().decode()
    assert Distribution.decode(expected.encode()) == found


@given(st.integers(0, 10 * HOUR))
def test_every_value_has_a_bucket_that_holds_it_closely(micros: int) -> None:
    low, high = bounds_of(bucket_of(micros))
    inside = min(HOUR, max(1, micros))
    assert low <= inside <= high
    assert high - low <= inside / 1000


def test_nothing_was_recorded() -> None:
    nothing = Distribution()
    assert not nothing
    assert (nothing.count, nothing.sum, nothing.mean, nothing.min, nothing.max, nothing.p99) == (0,) * 6
    assert nothing.within(1) == 0
    assert Distribution.decode(nothing.encode()) == nothing
    assert repr(Distribution.of_seconds([1])).startswith("<Distribution count=1 p50=1")


@given(DISTRIBUTIONS, DISTRIBUTIONS, DISTRIBUTIONS)
def test_the_algebra(a: Distribution, b: Distribution, c: Distribution) -> None:
    assert a + b == b + a
    assert (a + b) + c == a + (b + c)
    assert a + Distribution() == a == a - Distribution()
    assert (a + b) - b == a
    assert a - a == Distribution()
    assert (a + b).count == a.count + b.count
    assert (a + b).max == max(a.max, b.max)


def test_only_an_earlier_state_can_be_subtracted() -> None:
    with pytest.raises(ValueError, match=r"2 of about 0.999936 s, the newer only 1: .* no earlier state"):
        Distribution.of_seconds([1]) - Distribution.of_seconds([1, 1])
    with pytest.raises(TypeError):
        Distribution() + 1  # type: ignore[operator]
    with pytest.raises(TypeError):
        Distribution() - 1  # type: ignore[operator]


@given(SECONDS, st.floats(0, 5000))
def test_within_counts_what_took_no_longer(durations: list[float], limit: float) -> None:
    found = Distribution.of_seconds(durations).within(limit)
    assert sum(seconds <= limit / 1.001 for seconds in durations) <= found
    assert found <= sum(seconds <= limit * 1.001 + 1e-6 or limit >= 3599 for seconds in durations)


@given(DISTRIBUTIONS, st.lists(st.floats(0, 5000)).map(sorted))
def test_cumulative_counts_are_those_of_each_boundary(found: Distribution, boundaries: list[float]) -> None:
    assert found.cumulative(boundaries) == [found.within(boundary) for boundary in boundaries]


@given(SECONDS)
def test_recording_is_the_same_as_making_it_of_all(durations: list[float]) -> None:
    histogram = Histogram()
    for seconds in durations:
        histogram.record(seconds)
    found = histogram.snapshot()
    assert found.count == sum(count for _, count in found.values()) == len(durations)
    assert found.max == pytest.approx(Distribution.of_seconds(durations).max, rel=2e-3, abs=1.1e-6)


@given(st.lists(st.integers(1, HOUR), min_size=1, max_size=30), st.integers(1, 5), st.integers(1, 8))
def test_histograms_of_another_precision_are_read_too(values: list[int], digits: int, lowest: int) -> None:
    foreign = HdrHistogram(lowest, 100 * HOUR, digits)
    for value in values:
        foreign.record_value(value)
    found = Distribution.decode(foreign.encode())
    assert found.count == len(values)
    assert found.max == pytest.approx(max(values) / 1e6, rel=2 * 10**-digits + 2e-3, abs=8e-6)


GOOD = Distribution.of_seconds([0.001, 1.0, 3000.0]).encode()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not an encoded histogram"),
        ("not base64!", "not an encoded histogram"),
        ("é", "not an encoded histogram"),
        (GOOD[:-8], "it says that it has"),
        (base64.b64encode(b"\0" * 30).decode(), "cookie is 0x0"),
        (
            base64.b64encode(bytes.fromhex("1c84931400000004") + b"\x78\x9c\0\0").decode(),
            "not an encoded histogram",
        ),
    ],
)
def test_what_is_no_histogram_is_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Distribution.decode(text)


def packed(
    *, cookie: int = 0x1C849313, length: int = 3, offset: int = 0, digits: int = 3, counts: bytes = b"\2\2\2"
) -> str:
    """Return a histogram that is well-formed but for what is said."""
    inner = struct.pack(">IIIIQQd", cookie, length, offset, digits, 1, HOUR, 1.0) + counts
    data = zlib.compress(inner)
    return base64.b64encode(struct.pack(">II", 0x1C849314, len(data)) + data).decode()


def test_a_histogram_packed_by_hand() -> None:
    assert Distribution.decode(packed()).buckets == ((0, 1), (1, 1), (2, 1))
    assert Distribution.decode(packed(counts=b"\5\2", length=2)).buckets == (
        (3, 1),
    )  # three empty ones first
    assert HdrHistogram.decode(packed()).get_total_count() == 3


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (packed(cookie=7), "its inner header is not that of a histogram"),
        (packed(length=4), "its inner header is not that of a histogram"),
        (packed(offset=1), "it has offset 1"),
        (packed(digits=9), "it has offset 0, 9 digits"),
        (packed(counts=b"\2\2\x80"), "its last count is cut off"),
        (packed(counts=b"\2\2\2" + bytes(5_000_000)), "cut off, or too big"),
    ],
)
def test_what_is_packed_wrong_is_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Distribution.decode(text)


@given(st.binary(max_size=120))
def test_no_bytes_get_past_the_decoder(data: bytes) -> None:
    for text in (data, base64.b64encode(data), base64.b64encode(base64.b64decode(GOOD)[:8] + data)):
        with pytest.raises(ValueError):  # and nothing else
            Distribution.decode(text)


def test_a_snapshot_does_not_hold_up_the_event_loop() -> None:
    histogram = Histogram()
    for value in range(1, 500):
        histogram.record(value / 3)
    began = time.process_time()
    for _ in range(20):
        snapshot = histogram.snapshot()
        assert snapshot.p99
    assert time.process_time() - began < 0.4  # the library's own percentiles need two seconds for this
