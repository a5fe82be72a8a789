"""Frames of text messages, read back by wsproto: the bytes are masked, and long ones come in pieces."""

from __future__ import annotations

from collections.abc import Sequence

import hypothesis.strategies as st
import pytest
from hypothesis import given
from wsproto import ConnectionType
from wsproto.connection import Connection
from wsproto.events import TextMessage

from pool.wire.frame import PIECE, frame


def read_back(data: bytes) -> str:
    server = Connection(ConnectionType.SERVER)
    server.receive_data(data)
    events = [event for event in server.events() if isinstance(event, TextMessage)]
    assert events[-1].message_finished
    return "".join(event.data for event in events)


def framed(parts: Sequence[bytes], key: bytes) -> list[bytes]:
    return [bytes(piece) for piece in frame(parts, sum(map(len, parts)), key)]


@given(st.lists(st.text(max_size=200).map(str.encode), max_size=20), st.binary(min_size=4, max_size=4))
def test_a_server_reads_what_was_meant(parts: list[bytes], key: bytes) -> None:
    assert read_back(b"".join(framed(parts, key))).encode() == b"".join(parts)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, 65_537, 3 * PIECE, 3 * PIECE + 1])
@pytest.mark.parametrize("part", [1000, 10**9])
def test_every_length_has_its_header(size: int, part: int) -> None:
    text = bytes(97 + n % 26 for n in range(size))
    parts = [text[at : at + part] for at in range(0, size, part)]
    assert read_back(b"".join(framed(parts, b"\x01\xfe\x80\x33"))) == text.decode()


def test_a_long_message_comes_in_pieces() -> None:
    pieces = framed([b"x" * (PIECE + 1)] * 2, b"abcd")
    assert [len(piece) for piece in pieces] == [14, PIECE, PIECE, 2]


def test_a_short_one_is_one_piece() -> None:
    assert len(framed([b"{", b"}"], b"abcd")) == 1


@given(st.binary(min_size=4, max_size=4).filter(lambda key: 0 not in key))
def test_nothing_of_the_text_is_on_the_wire_as_it_is(key: bytes) -> None:
    assert b"secret" not in b"".join(framed([b"secret"] * 40_000, key))
