"""Whatever comes on a WebSocket: what is right is answered, what is wrong ends the connection by the rules.

A handshake, with or without compression, then frames that are right, wrong, spoilt or noise, cut into any pieces.
What the server says is checked frame by frame.
"""

from __future__ import annotations

import zlib

import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from pool.wire.codec import from_json
from tests.emulator.client import TERMINAL
from tests.fuzz.answers import answers, frames
from tests.fuzz.json_texts import creates
from tests.fuzz.running import said, tried
from tests.fuzz.spoiling import pieces, spoilt
from tests.fuzz.test_heads import AUTHORITY, UPGRADE, plain
from tests.gateway.stage import Stage
from tests.support.tier import fuzzed

pytestmark = pytest.mark.long
CREATE = b'{"type":"response.create","model":"m","input":"hello","store":false}'
OFFERS = (
    b"",
    b"sec-websocket-extensions: permessage-deflate\r\n",
    b"sec-websocket-extensions: permessage-deflate; client_max_window_bits=10; server_no_context_takeover\r\n",
    b'sec-websocket-extensions: permessage-deflate; client_max_window_bits="10"\r\n',
    b"sec-websocket-extensions: permessage-deflate; server_max_window_bits=99\r\n",
    b"sec-websocket-extensions: permessage-deflate; server_max_window_bits\r\n",
    b"sec-websocket-extensions: permessage-deflate; =; ;, x-other\r\n",
    b"sec-websocket-extensions: permessage-deflate=1; client_max_window_bits=\r\n",
    b"sec-websocket-protocol: a, b\r\n",
)


@frozen
class Sent:
    """Some frames, and how many creates that are right are in them; None where something is wrong."""

    data: bytes
    creates: int | None = None


def frame(
    first: int, payload: bytes, *, mask: bytes = b"\x01\x02\x03\x04", declared: int | None = None
) -> bytes:
    size = len(payload) if declared is None else declared
    head = bytes((first,))
    if size < 126:
        head += bytes((0x80 | size,))
    elif size < 65536:
        head += b"\xfe" + size.to_bytes(2, "big")
    else:
        head += b"\xff" + size.to_bytes(8, "big")
    return head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


def deflated(data: bytes) -> bytes:
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (deflater.compress(data) + deflater.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\x00\x00\xff\xff")


RIGHT = (
    Sent(frame(0x81, CREATE), 1),
    Sent(frame(0x01, CREATE[:9]) + frame(0x80, CREATE[9:]), 1),
    Sent(frame(0x01, CREATE[:9]) + frame(0x89, b"x") + frame(0x00, b"") + frame(0x80, CREATE[9:]), 1),
    Sent(frame(0x81, CREATE, mask=bytes(4)), 1),
    Sent(frame(0x89, b""), 0),
    Sent(frame(0x89, b"a" * 125), 0),
    Sent(frame(0x8A, b"nobody asked"), 0),
)
WRONG = (
    *(
        frame(0x81, b"{"),
        frame(0x81, b""),
        frame(0x81, b"[]"),
        frame(0x81, b"null"),
        frame(0x82, b"\x00\xff"),
    ),
    *(
        frame(0x81, b'{"type":"response.steer"}'),
        frame(0x81, b'{"type":["x"]}'),
        frame(0x81, b'{"type":"x"}'),
    ),
    *(frame(0x81, b'{"type":"response.create"}'), frame(0x81, b'{"type":"response.create","stream_id":{}}')),
    *(frame(0x81, b'{"type":"response.create","stream_id":"\\ud800"}'), frame(0x81, b"\xff\xfe")),
    *(frame(0x81, b'{"type":"response.steer","previous_response_id":["x"],"input":1}'), frame(0x80, b"x")),
    *(
        frame(0x01, b"x"),
        frame(0x00, b"x"),
        frame(0x83, b"x"),
        frame(0x8B, b"x"),
        frame(0xC1, deflated(CREATE)),
    ),
    *(frame(0xC1, b"\xff\xff"), frame(0x41, deflated(CREATE)[:5]), frame(0xA1, b"x"), frame(0x91, b"x")),
    *(
        frame(0x09, b"x"),
        frame(0x89, b"a" * 126),
        frame(0x88, b""),
        frame(0x88, b"\x03"),
        frame(0x88, b"\x03\xe8"),
    ),
    *(
        frame(0x88, b"\x03\xe8\xff"),
        frame(0x88, b"\x03\xed"),
        frame(0x88, b"\x00\x00"),
        frame(0x88, b"\xff\xff" * 9),
    ),
    *(frame(0x81, b"x", declared=1 << 40), frame(0x81, b"x", declared=70_000), frame(0x81, b"a" * 65_600)),
    *(b"\x81\x05hello", b"\x81\xfe\x00\x05" + bytes(9), b"\x81\xff" + b"\xff" * 8 + bytes(4), b"\x81"),
    frame(0xC1, deflated(b"a" * 200_000)),
)
steps = st.one_of(
    st.sampled_from(RIGHT),
    st.sampled_from(RIGHT),
    st.sampled_from(WRONG).map(Sent),
    creates().map(lambda text: Sent(frame(0x81, text))),
    st.sampled_from([*(one.data for one in RIGHT), *WRONG])
    .flatmap(lambda data: spoilt(data, at_most=2))
    .map(Sent),
    st.binary(max_size=40).map(Sent),
)


@st.composite
def sessions(draw: st.DrawFn) -> tuple[bytes, list[Sent], list[bytes], bool]:
    offer = draw(st.sampled_from(OFFERS))
    said_steps = draw(st.lists(steps, min_size=1, max_size=5))
    shake = plain(b"GET /v1/responses", AUTHORITY + UPGRADE + offer)
    data = shake + b"".join(one.data for one in said_steps)
    return offer, said_steps, list(draw(pieces(data))), draw(st.booleans())


@given(sessions())
@fuzzed(400)
def test_what_is_right_is_answered_and_what_is_wrong_ends_it(
    session: tuple[bytes, list[Sent], list[bytes], bool],
) -> None:
    offer, said_steps, sent, hangs_up = session

    async def scenario(stage: Stage) -> bytes:
        return await said(stage.gateway.handle, sent, hangs_up=hangs_up)

    (answer, *more), rest = answers(tried(scenario))
    if answer.status != 101:  # what follows is no HTTP either
        assert {one.status for one in (answer, *more)} <= {400, 431}, (answer, more)
        assert b"=" in offer, "a good handshake"
        return
    if "sec-websocket-extensions" in answer.headers:  # what it says is compressed: see test_compressed_frames
        return
    heard = frames(rest)
    events = [from_json(one.payload) for one in heard if one.opcode == 1]
    assert all(one.fin for one in heard)
    assert all(isinstance(event["type"], str) for event in events)
    ends = [event for event in events if event["type"] in TERMINAL]
    for event in ends:
        assert event["type"] != "error" or event["status"] < 500, event
    known = [one.creates for one in said_steps]
    if None not in known and not hangs_up:
        assert len(ends) == sum(count or 0 for count in known)
        assert all(event["type"] == "response.completed" for event in ends)
