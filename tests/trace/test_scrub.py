"""What must never be written down."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool.auth import Secret
from scheduler.trace.scrub import HIDDEN, Scrubber

KEYS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=6, max_size=60)


@given(keys=st.lists(KEYS, min_size=1, max_size=4), around=st.lists(st.text(), min_size=5, max_size=5))
def test_a_key_in_use_never_gets_through(keys: list[str], around: list[str]) -> None:
    scrub = Scrubber()
    for key in keys:
        scrub.hide(Secret(key))
    scrubbed = scrub(around[0].join([*keys, *around]).encode())
    assert not [key for key in keys if key.encode() in scrubbed.replace(HIDDEN, b"")]


@pytest.mark.parametrize(
    "text",
    [
        b'{"error":"Incorrect API key provided: sk-proj-abcDEF123_456-789"}',
        b"Authorization: Bearer abcdef.ghijkl-123=",
        b"the token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl is bad",
        b"wss://host/v1?api-key=0123456789abcdef&x=1",
        b"xai-0123456789abcdef",
    ],
)
def test_what_looks_like_a_key_is_taken_out(text: bytes) -> None:
    scrubbed = Scrubber()(text)
    assert HIDDEN in scrubbed
    assert not [word for word in (b"abcDEF", b"abcdef", b"eyJ", b"01234567") if word in scrubbed]


@pytest.mark.parametrize(
    "text", [b"resp_0123456789abcdef", b"a task-17 and a risk-assessment", b"c1/lane-01"]
)
def test_the_rest_stays(text: bytes) -> None:
    assert Scrubber()(text) == text


def test_a_short_secret_garbles_nothing() -> None:
    scrub = Scrubber()
    scrub.hide(Secret("a"))
    assert scrub(b"banana") == b"banana"
