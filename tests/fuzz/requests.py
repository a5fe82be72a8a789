"""Strategies for requests over HTTP: right ones, odd ones and spoilt ones, on one connection and cut into pieces."""

from __future__ import annotations

from attrs import frozen
from hypothesis import strategies as st

from tests.fuzz.running import KEY
from tests.fuzz.spoiling import pieces, spoilt

CREATE = b'{"model":"m","input":"hello","store":false}'
AUTHORITY = b"authorization: Bearer " + KEY.encode() + b"\r\n"
UPGRADE = (
    b"connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
    b"sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)


@frozen
class Request:
    """A request and the status of its answer; None where anything sensible will do."""

    data: bytes
    status: int | None = None

    @property
    def method(self) -> str:
        """Its method."""
        return self.data.partition(b" ")[0].decode("latin-1")


def plain(first: bytes, fields: bytes = b"", body: bytes = b"") -> bytes:
    """Return a request that begins with this method and target."""
    length = b"content-length: %d\r\n" % len(body) if body else b""
    return first + b" HTTP/1.1\r\nhost: localhost\r\n" + fields + length + b"\r\n" + body


GOOD = (
    Request(plain(b"GET /healthz"), 200),
    Request(plain(b"HEAD /healthz"), 200),
    Request(plain(b"GET /readyz?x=1"), 200),
    Request(plain(b"POST /healthz", b"", b"hello"), 200),
    Request(plain(b"GET /v1/models"), 401),
    Request(plain(b"GET /v1/models", AUTHORITY), 200),
    Request(plain(b"GET /v1/models", b"authorization: Bearer wl-wrong\r\n"), 401),
    Request(plain(b"GET /v1/responses/resp_0", AUTHORITY), 404),
    Request(plain(b"GET /nowhere", AUTHORITY), 404),
    Request(plain(b"POST /v1/responses", AUTHORITY, CREATE), 200),
    Request(plain(b"POST /v1/responses", AUTHORITY, b'{"model":"m","input":"hello","stream":true}'), 200),
    Request(plain(b"POST /v1/responses", AUTHORITY, b"{"), 400),
    Request(plain(b"POST /v1/responses", b"", CREATE), 401),
    Request(
        plain(b"POST /v1/responses", AUTHORITY + b"transfer-encoding: chunked\r\n")
        + b"5;x=y\r\n"
        + CREATE[:5]
        + b"\r\n%x\r\n" % len(CREATE[5:])
        + CREATE[5:]
        + b"\r\n0\r\nx: y\r\n\r\n",
        200,
    ),
    Request(plain(b"POST /v1/responses", AUTHORITY + b"expect: 100-continue\r\n", CREATE), 200),
)
ODD = (
    *(
        plain(method + b" /v1/responses", AUTHORITY)
        for method in (b"get", b"PATCH", b"OPTIONS", b"CONNECT", b"X" * 300)
    ),
    *(
        plain(b"GET " + target, AUTHORITY)
        for target in (
            *(
                b"*",
                b"http://localhost/v1/models",
                b"//v1/models",
                b"/v1//responses",
                b"/v1/responses/",
                b"/v1/%ff",
            ),
            *(
                b"/v1/responses/%2e%2e/x",
                b"/v1/responses/" + b"9" * 3000,
                b"/v1/responses/resp_%00",
                b"/v1/responses?",
            ),
        )
    ),
    plain(b"GET /v1/responses", AUTHORITY + UPGRADE),
    plain(b"GET /v1/responses", AUTHORITY + UPGRADE + b"sec-websocket-extensions: permessage-deflate\r\n"),
    plain(b"POST /v1/responses", AUTHORITY + b"content-encoding: gzip\r\n", b"\x1f\x8b"),
    plain(b"POST /v1/files", AUTHORITY, b"hello"),
    plain(b"POST /v1/files", AUTHORITY + b"transfer-encoding: chunked\r\n") + b"2\r\nab\r\n",
    plain(b"DELETE /v1/responses/resp_0", AUTHORITY),
    plain(b"GET /v1/models", AUTHORITY + b"api-key: x\r\nauthorization: Bearer y\r\n"),
    plain(b"GET /v1/models", AUTHORITY).replace(b"HTTP/1.1", b"HTTP/1.0"),
)
_requests = st.one_of(
    st.sampled_from(GOOD),
    st.sampled_from(ODD).map(Request),
    st.sampled_from([*(one.data for one in GOOD), *ODD]).flatmap(spoilt).map(Request),
    st.sampled_from([*(one.data for one in GOOD), *ODD])
    .flatmap(lambda whole: spoilt(whole, at_most=1))
    .map(Request),
)


@st.composite
def conversations(draw: st.DrawFn) -> tuple[list[Request], list[bytes], bool]:
    """Return requests, the pieces that they are sent in, and whether the client hangs up after them."""
    asked = draw(st.lists(_requests, min_size=1, max_size=4))
    data = b"".join(one.data for one in asked)
    return asked, list(draw(pieces(data))), draw(st.booleans())
