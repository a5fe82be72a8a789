"""Upgrade requests, right and wrong, and the status that each has to get."""

from __future__ import annotations

from tests.support.frame_peer import request

OFFERS = [
    "permessage-deflate; client_max_window_bits=abc",
    "permessage-deflate; server_max_window_bits=",
    'permessage-deflate; server_max_window_bits="10',
    "permessage-deflate; =",
    "permessage-deflate; server_max_window_bits=99999999999999999999",
    "permessage-deflate; client_max_window_bits=0x0f",
    "permessage-deflate;;;;",
    ";",
    "=",
    '"',
    "\\",
    "permessage-deflate; x=\u00e9",
]


def handshakes() -> dict[str, tuple[bytes, int]]:
    """Return requests by what there is to them, with the status of the answer."""
    cases = {
        "right": (request(), 101),
        "tokens in lists and other cases": (
            request(upgrade="WebSocket", connection="keep-alive, upGrade"),
            101,
        ),
        "HTTP/1.0": (request(version="1.0"), 400),
        "version 8": (request(sec_websocket_version="8"), 426),
        "version 014": (request(sec_websocket_version="014"), 426),
        "two versions": (request(sec_websocket_version="13, 8"), 426),
        "no version": (request(sec_websocket_version=None), 400),
        "no key": (request(sec_websocket_key=None), 400),
        "an empty key": (request(sec_websocket_key=""), 400),
        "a key that is no base64": (request(sec_websocket_key="!" * 24), 400),
        "a key of 15 bytes": (request(sec_websocket_key="c2l4dGVlbiBieXRlcyA="), 400),
        "a key of 17 bytes": (request(sec_websocket_key="c2l4dGVlbiBieXRlcyBvayE="), 400),
        "two keys": (
            request().replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Key: c2l4dGVlbiBieXRlcyBvaw==\r\n\r\n"),
            400,
        ),
        "no host": (request(host=None), 400),
    }
    return cases | {f"declines {offer}": (request(offer=offer), 101) for offer in OFFERS}
