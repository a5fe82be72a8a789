"""Strategies for what a client sends on a WebSocket: frames, right, wrong, spoilt or noise, cut into pieces."""

from __future__ import annotations

import zlib

from attrs import frozen
from hypothesis import strategies as st

from tests.fuzz.json_texts import creates
from tests.fuzz.requests import AUTHORITY, UPGRADE, plain
from tests.fuzz.spoiling import pieces, spoilt

CREATE = b'{"type":"response.create","model":"m","input":"hello","store":false}'
_EXTENSIONS = b"sec-websocket-extensions: "
DEFLATING = (
    _EXTENSIONS + b"permessage-deflate\r\n",
    _EXTENSIONS + b"permessage-deflate; client_max_window_bits\r\n",
    _EXTENSIONS + b"permessage-deflate; client_max_window_bits=10; server_no_context_takeover\r\n",
    _EXTENSIONS + b'permessage-deflate; client_max_window_bits="10"\r\n',
    _EXTENSIONS + b"x-other; a=b, permessage-deflate; server_max_window_bits=10\r\n",
)
PLAIN = (b"", b"sec-websocket-protocol: a, b\r\n", _EXTENSIONS + b"x-other; a=b\r\n")
MALFORMED = (
    _EXTENSIONS + b"permessage-deflate; server_max_window_bits=99\r\n",
    _EXTENSIONS + b"permessage-deflate; server_max_window_bits\r\n",
    _EXTENSIONS + b"permessage-deflate; =; ;, x-other\r\n",
    _EXTENSIONS + b"permessage-deflate=1; client_max_window_bits=\r\n",
    _EXTENSIONS + b"permessage-deflatex\r\n",
)
OFFERS = (*DEFLATING, *PLAIN, *MALFORMED)


@frozen
class Sent:
    """Some frames, and how many creates that are right are in them; None where something is wrong."""

    data: bytes
    creates: int | None = None


def frame(
    first: int, payload: bytes, *, mask: bytes = b"\x01\x02\x03\x04", declared: int | None = None
) -> bytes:
    """Return a frame with this first byte, as a client sends it; `declared`: it says that it is so long."""
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
    """Return a message's content as permessage-deflate has it."""
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
DEFLATED = (
    Sent(frame(0xC1, deflated(CREATE)), 1),
    Sent(frame(0x41, deflated(CREATE)[:9]) + frame(0x80, deflated(CREATE)[9:]), 1),
    Sent(frame(0x41, deflated(CREATE)[:9]) + frame(0x89, b"x") + frame(0x80, deflated(CREATE)[9:]), 1),
    Sent(frame(0x41, b"") + frame(0x00, deflated(CREATE)) + frame(0x80, b""), 1),
)
MESSAGES = (
    b"",
    b"{",
    b"[]",
    b"null",
    b"\xff\xfe",
    b'{"type":"x"}',
    b'{"type":["x"]}',
    b'{"type":"response.create"}',
    b'{"type":"response.create","stream_id":{}}',
    b'{"type":"response.create","stream_id":"\\ud800"}',
    b'{"type":"response.steer"}',
    b'{"type":"response.steer","previous_response_id":["x"],"input":1}',
    b"a" * 65_600,
)
WRONG = (
    *(frame(0x81, message) for message in MESSAGES),
    *(frame(first, b"x") for first in (0x01, 0x00, 0x80, 0x82, 0x83, 0x8B, 0x09, 0xA1, 0x91)),
    frame(0x89, b"a" * 126),
    *(frame(0x88, code) for code in (b"", b"\x03", b"\x03\xe8", b"\x03\xe8\xff", b"\x03\xed", b"\x00\x00")),
    frame(0x88, b"\xff\xff" * 9),
    frame(0x81, b"x", declared=1 << 40),
    frame(0x81, b"x", declared=70_000),
    b"\x81\x05hello",  # not masked
    b"\x81\xfe\x00\x05" + bytes(9),  # a length that is longer than it needs to be
    b"\x81\xff" + b"\xff" * 8 + bytes(4),
    b"\x81",
    frame(0xC1, b"\xff\xff"),
    frame(0x41, deflated(CREATE)[:5]),
    frame(0xC0, deflated(CREATE)),
    frame(0xC9, b""),
    frame(0xC1, deflated(b"a" * 200_000)),
)
_any = st.one_of(
    st.sampled_from([one.data for one in (*RIGHT, *DEFLATED)]),
    st.sampled_from(WRONG),
)


def steps(*, deflate: bool) -> st.SearchStrategy[Sent]:
    """Return frames, right or wrong; `deflate`: compressed ones are right."""
    right = (*RIGHT, *DEFLATED) if deflate else RIGHT
    return st.one_of(
        st.sampled_from(right),
        st.sampled_from(right),
        _any.map(Sent),
        creates().map(lambda text: Sent(frame(0x81, text))),
        _any.flatmap(lambda data: spoilt(data, at_most=2)).map(Sent),
        st.binary(max_size=40).map(Sent),
    )


@st.composite
def sessions(draw: st.DrawFn) -> tuple[bytes, list[Sent], list[bytes], bool]:
    """Return an offer, frames, the pieces that all of it is sent in, and whether the client hangs up after them."""
    offer = draw(st.sampled_from(OFFERS))
    steps_taken = draw(st.lists(steps(deflate=offer in DEFLATING), min_size=1, max_size=5))
    data = plain(b"GET /v1/responses", AUTHORITY + UPGRADE + offer) + b"".join(
        one.data for one in steps_taken
    )
    return offer, steps_taken, list(draw(pieces(data))), draw(st.booleans())
