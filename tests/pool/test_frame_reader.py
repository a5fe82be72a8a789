"""The reader of frames says of any bytes of a client what wsproto says, however they are cut, pass by pass."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from wsproto import ConnectionType
from wsproto.connection import Connection
from wsproto.events import BytesMessage, CloseConnection, TextMessage

from pool.wire.deflate import Agreed, Deflate
from pool.wire.frame_reader import PASS_BYTES, PASS_STEPS, FrameReader
from tests.support.frame_cases import BINARY, CLOSE, CONT, PING, PONG, TEXT, Deflater, F

LIMIT = 1 << 20

FRAMES = st.one_of(
    st.builds(F, st.just(TEXT), st.text(max_size=200).map(str.encode)),
    st.builds(F, st.sampled_from([PING, PONG]), st.binary(max_size=125)),
    st.builds(F, st.sampled_from([TEXT, CONT]), st.text(max_size=9).map(str.encode), fin=st.booleans()),
    st.builds(
        F,
        st.sampled_from([CONT, TEXT, BINARY, CLOSE, PING, 3, 11]),
        st.one_of(st.binary(max_size=130), st.sampled_from([b"x" * 20_000, "ü".encode() * 40_000])),
        fin=st.booleans(),
        rsv=st.sampled_from([0, 0, 0, 0, 4, 2]),
        wide=st.sampled_from([0, 0, 0, 2, 8]),
        wrong_mask=st.sampled_from([False, False, False, True]),
    ),
)


def by_wsproto(data: bytes) -> tuple[list[str | bytes], int | None]:
    connection = Connection(ConnectionType.SERVER)
    connection.receive_data(data)
    messages: list[str | bytes] = []
    parts: list[str] = []
    for event in connection.events():
        if isinstance(event, TextMessage):
            parts.append(event.data)
        if isinstance(event, TextMessage | BytesMessage) and event.message_finished:
            messages.append("".join(parts) if isinstance(event, TextMessage) else b"")
            parts = []
        if isinstance(event, CloseConnection):
            # The one code that it does not know.
            known = event.code != 1002 or "unknown reserved code" not in (event.reason or "")
            return messages, event.code if known else None
    return messages, None


@given(frames=st.lists(FRAMES, max_size=8), cuts=st.lists(st.integers(0, 1000), max_size=12))
def test_it_reads_what_wsproto_reads(frames: Sequence[F], cuts: Sequence[int]) -> None:
    data = b"".join(F.made(frame, by_client=True) for frame in frames)
    reader = FrameReader(LIMIT, masked=True)
    messages: list[str | bytes] = []
    edges = sorted({0, len(data), *(cut * len(data) // 1000 for cut in cuts)})
    for start, end in itertools.pairwise(edges):
        messages += reader.read(data[start:end], 0.0)
        while reader.more:
            messages += reader.read(b"", 0.0)
    expected, code = by_wsproto(data)
    assert messages == expected
    if code is not None:
        assert reader.end is not None
        assert reader.end.code == code


@given(st.binary(max_size=400), st.booleans(), st.booleans())
def test_no_bytes_are_too_odd(data: bytes, masked: bool, compressed: bool) -> None:
    reader = FrameReader(1000, masked=masked, deflate=Deflate(Agreed()) if compressed else None)
    for byte in data:
        reader.read(bytes((byte,)), 0.0)
    reader.closed_by(data)


def test_a_bomb_is_taken_in_passes() -> None:
    reader = FrameReader(1 << 26, masked=True, deflate=Deflate(Agreed()))
    text = b"x" * (8 << 20)
    data = F(TEXT, Deflater()(text), rsv=4).made(by_client=True)
    messages = reader.read(data, 0.0)
    passes = 1
    while reader.more:
        before = reader._size
        messages += reader.read(b"", 0.0)
        assert reader._size - before <= 2 * PASS_BYTES
        passes += 1
    assert messages == [text.decode()]
    assert passes >= len(text) // (2 * PASS_BYTES)


def test_a_pass_has_so_many_messages() -> None:
    reader = FrameReader(100, masked=True)
    data = F(TEXT, b"a").made(by_client=True) * (2 * PASS_STEPS + 1)
    assert [len(reader.read(data, 0.0)), len(reader.read(b"", 0.0)), len(reader.read(b"", 0.0))] == [
        PASS_STEPS,
        PASS_STEPS,
        1,
    ]
    assert not reader.more


def test_after_the_end_only_the_close_is_looked_for() -> None:
    reader = FrameReader(100, masked=True)
    long = F(TEXT, b"x" * 200).made(by_client=True)
    assert reader.read(long[:50], 0.0) == []
    assert reader.end is not None
    assert reader.end.code == 1009
    assert not reader.closed_by(long[50:] + F(BINARY, b"\x88" * 70_000).made(by_client=True)[:100])
    assert not reader.closed_by(F(BINARY, b"\x88" * 70_000).made(by_client=True)[100:])
    assert not reader.closed_by(F(CLOSE, b"\x03\xe8").made(by_client=True)[:1])
    assert reader.closed_by(F(CLOSE, b"\x03\xe8").made(by_client=True)[1:])
