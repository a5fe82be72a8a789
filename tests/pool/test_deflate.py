"""Offers of permessage-deflate: the first that can be served is, what is malformed or out of range is declined."""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool.wire.deflate import NAME, PIECE, Agreed, Deflate, NotDeflate, agree
from tests.support.frame_cases import Deflater

SERVED = {
    "permessage-deflate": "permessage-deflate",
    "PerMessage-Deflate": "permessage-deflate",
    "permessage-deflate; client_max_window_bits": "permessage-deflate; client_max_window_bits=15",
    "permessage-deflate;client_max_window_bits=8": "permessage-deflate; client_max_window_bits=8",
    'permessage-deflate; server_max_window_bits="10"': "permessage-deflate; server_max_window_bits=10",
    'permessage-deflate; server_max_window_bits = "1\\0"': "permessage-deflate; server_max_window_bits=10",
    "permessage-deflate; server_no_context_takeover": "permessage-deflate; server_no_context_takeover",
    "permessage-deflate; client_no_context_takeover": "permessage-deflate; client_no_context_takeover",
    "permessage-deflate; server_max_window_bits=9; client_max_window_bits=12; server_no_context_takeover; "
    "client_no_context_takeover": "permessage-deflate; server_no_context_takeover; client_no_context_takeover; "
    "server_max_window_bits=9; client_max_window_bits=12",
    "x-webkit-deflate-frame, permessage-deflate": "permessage-deflate",
    'x-other; a="b, permessage-deflate; c"; d, permessage-deflate': "permessage-deflate",
    "permessage-deflate; server_max_window_bits=8, permessage-deflate": "permessage-deflate",
    "permessage-deflate; unknown, permessage-deflate; client_max_window_bits": (
        "permessage-deflate; client_max_window_bits=15"
    ),
    ", ,permessage-deflate ,": "permessage-deflate",
}
DECLINED = [
    "",
    ",",
    "permessage-deflated",
    "permessage-bzip2; blocks=2",
    "permessage-deflate; unknown",
    "permessage-deflate; server_max_window_bits",
    "permessage-deflate; server_max_window_bits=",
    "permessage-deflate; server_max_window_bits=7",
    "permessage-deflate; server_max_window_bits=8",
    "permessage-deflate; server_max_window_bits=16",
    "permessage-deflate; server_max_window_bits=010",
    "permessage-deflate; server_max_window_bits=ten",
    "permessage-deflate; server_max_window_bits=-10",
    "permessage-deflate; server_max_window_bits=\u0661\u0660",
    'permessage-deflate; server_max_window_bits=" 10"',
    'permessage-deflate; server_max_window_bits="10',
    "permessage-deflate; client_max_window_bits=16",
    "permessage-deflate; client_max_window_bits=",
    "permessage-deflate; client_max_window_bits=" + "9" * 1000,
    "permessage-deflate; client_no_context_takeover=1",
    "permessage-deflate; server_no_context_takeover=true",
    "permessage-deflate; client_max_window_bits; client_max_window_bits",
    "permessage-deflate; client_no_context_takeover; client_no_context_takeover",
    "permessage-deflate; ;",
    "permessage-deflate;",
    "permessage-deflate client_max_window_bits",
    "=permessage-deflate",
    "permessage-deflate; =9",
    "\0",
    "permessage-deflate; " + "x; " * 2000,
]


@pytest.mark.parametrize("offer", SERVED)
def test_an_offer_that_is_served(offer: str) -> None:
    agreed = agree(offer)
    assert agreed is not None
    assert agreed.header == SERVED[offer]


@pytest.mark.parametrize("offer", DECLINED)
def test_an_offer_that_is_declined(offer: str) -> None:
    assert agree(offer) is None


@given(
    st.one_of(
        st.text(max_size=80),
        st.lists(
            st.sampled_from([*NAME.split("-"), *'-;=", \\', "10", "client_max_window_bits", NAME]),
            max_size=30,
        ).map("".join),
    )
)
def test_no_offer_is_too_odd(offer: str) -> None:
    agreed = agree(offer)
    assert agreed is None or agree(agreed.header) == agreed


@given(
    texts=st.lists(st.text(max_size=3000), max_size=5),
    bits=st.sampled_from([9, 12, 15]),
    forgets=st.booleans(),
)
def test_what_is_deflated_is_inflated(texts: list[str], bits: int, forgets: bool) -> None:
    ours = Deflate(Agreed(server_max_window_bits=bits, server_no_context_takeover=forgets))
    theirs = Deflate(Agreed(client_max_window_bits=bits, client_no_context_takeover=forgets))
    for text in texts:
        assert whole(theirs, ours.deflated(text.encode())) == text.encode()


def whole(deflate: Deflate, data: bytes) -> bytes:
    found = b""
    for feed in (partial(deflate.feed, data), deflate.finish):
        feed()
        while deflate.pending:
            piece = deflate.piece()
            assert len(piece) <= PIECE
            found += piece
    deflate.ended()
    return found


def test_a_bomb_unfolds_piece_by_piece() -> None:
    deflate = Deflate(Agreed())
    deflate.feed(Deflater()(bytes(50_000_000)))
    pieces = 0
    while deflate.pending and pieces < 10:
        assert len(deflate.piece()) == PIECE
        pieces += 1
    assert pieces == 10


def test_what_is_no_deflate_stream_is_told() -> None:
    deflate = Deflate(Agreed())
    deflate.feed(b"\xff\xff")
    with pytest.raises(NotDeflate):
        deflate.piece()
