"""Server-sent events, however they are cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool.errors import RemoteProtocolError
from pool.sse import EventReader

STREAM = (
    b"\xef\xbb\xbfevent: response.created\ndata: {\"a\":1}\n\n"
    b": keepalive\n\n"
    b"data:one\ndata: two\r\n\r\n"
    b"id: 7\rretry: 5\rdata: three\r\r"
    b"data\n\n"
    b"dataset: no\n\n"
    b"data: [DONE]\n\n"
    b"data: cut off"
)  # fmt: skip
EVENTS = [b'{"a":1}', b"one\ntwo", b"three", b"[DONE]"]


def test_one_piece() -> None:
    events = EventReader(1000).feed(STREAM)
    assert [event for event in events if event] == EVENTS


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_any_pieces(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(STREAM)]
    reader = EventReader(1000)
    events = [event for start, end in pairwise(places) for event in reader.feed(STREAM[start:end])]
    assert [event for event in events if event] == EVENTS


@pytest.mark.parametrize("piece", [1, 7, 100])
def test_an_event_without_end_is_refused(piece: int) -> None:
    reader = EventReader(100)
    for _ in range(100 // piece):
        reader.feed(b"x" * piece)
    with pytest.raises(RemoteProtocolError, match="over 100 bytes"):
        reader.feed(b"x" * 7)


def test_many_lines_without_end_are_refused() -> None:
    reader = EventReader(100)
    for _ in range(50):
        reader.feed(b"data: xy\n")
    with pytest.raises(RemoteProtocolError, match="over 100 bytes"):
        reader.feed(b"data: z\n")


def test_the_limit_is_for_one_event() -> None:
    reader = EventReader(100)
    for _ in range(50):
        assert reader.feed(b"data: " + b"x" * 50 + b"\n\n") == [b"x" * 50]
