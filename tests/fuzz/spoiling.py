"""Strategies for what is sent in any way but the usual: spoilt at some places, and cut into any pieces."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

TOKENS = (
    *(b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"\x00", b" ", b"\t", b":", b"\r\n ", b"\r\n\t", b"\xff", b"\x7f"),
    *(
        b"\x80",
        b"\xc0\x80",
        b"\xed\xa0\x80",
        b"0",
        b"-1",
        b"+1",
        b"9" * 30,
        b"a" * 5000,
        b",",
        b";",
        b"=",
        b"?",
    ),
    *(b"%00", b"%2e%2e/", b"//", b"#", b"\\", b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"chunked", b"identity"),
    *(
        b"GET / HTTP/1.1\r\n",
        b"content-length: 5\r\n",
        b"content-length: 0\r\n",
        b"transfer-encoding: chunked\r\n",
    ),
    *(b"transfer-encoding: gzip, chunked\r\n", b"expect: 100-continue\r\n", b"connection: close\r\n"),
    *(b"connection: keep-alive, upgrade\r\n", b"upgrade: websocket\r\n", b"upgrade: h2c\r\n", b"host: x\r\n"),
    *(b"content-encoding: gzip\r\n", b"trailer: x\r\n", b"te: trailers\r\n", b"x: " + b"b" * 3000 + b"\r\n"),
    *(b"{", b"}", b"[", b"]", b'"', b"\\u0000", b"\\ud800", b"NaN", b"-Infinity", b"1e999", b"null", b"true"),
)


@st.composite
def spoilt(draw: st.DrawFn, whole: bytes, *, at_most: int = 4) -> bytes:
    """Return bytes with something put in, taken out, replaced or repeated, at some places."""
    for _ in range(draw(st.integers(1, at_most))):
        at = draw(st.integers(0, len(whole)))
        size = draw(st.integers(0, 8))
        put = draw(st.one_of(st.sampled_from(TOKENS), st.binary(max_size=4)))
        match draw(st.sampled_from(["insert", "replace", "remove", "repeat", "cut"])):
            case "insert":
                whole = whole[:at] + put + whole[at:]
            case "replace":
                whole = whole[:at] + put + whole[at + size :]
            case "remove":
                whole = whole[:at] + whole[at + size :]
            case "repeat":
                whole = whole[: at + size] + whole[at:]
            case "cut":
                whole = whole[:at]
    return whole


@st.composite
def pieces(draw: st.DrawFn, whole: bytes, *, at_most: int = 5) -> Sequence[bytes]:
    """Return bytes in pieces."""
    cuts = sorted(draw(st.sets(st.integers(0, len(whole)), max_size=at_most - 1)))
    return [
        whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True) if start < end
    ]
