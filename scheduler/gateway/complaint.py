"""A refusal of the server's that is passed on over HTTP, without the keys in use: it may quote the gateway's. Pure.

A body is looked through as it is, and as JSON where it is some. Compressed with gzip or deflate it is decompressed
first. What cannot be looked through (another compression, a body over the bound) is not passed on: its status is,
with a message of ours.
"""

from __future__ import annotations

import zlib

from pool.answer import MOST_OF_A_REFUSAL
from pool.redaction import HIDDEN, redacted_bytes, redacted_json
from pool.wire.codec import from_json, to_json

Fields = list[tuple[bytes, bytes]]
_PACKED = frozenset({b"gzip", b"x-gzip", b"deflate"})
_OF_THE_BODY = frozenset({b"content-length", b"content-encoding"})


def clean_fields(fields: Fields) -> Fields:
    """Return header fields without secrets. A value that holds one is hidden whole."""
    return [(name, value if redacted_bytes(value) == value else HIDDEN.encode()) for name, value in fields]


def clean_refusal(status: int, fields: Fields, body: bytes) -> tuple[Fields, bytes]:
    """Return the header fields and the body of a refusal as they may be passed on; `body` may have been cut off."""
    clean = _clean(fields, body) if len(body) < MOST_OF_A_REFUSAL else None
    if clean is None:
        message = f"The API refused the request with HTTP {status}; what it said cannot be passed on."
        error = {"message": message, "type": "server_error", "param": None, "code": "upstream_refused"}
        clean = to_json({"error": error})
        fields = [(name, value) for name, value in fields if name.lower() != b"content-type"]
        fields.append((b"content-type", b"application/json"))
    dropped = _OF_THE_BODY if clean is not body else {b"content-length"}
    kept = [(name, value) for name, value in clean_fields(fields) if name.lower() not in dropped]
    return [*kept, (b"content-length", b"%d" % len(clean))], clean


def _clean(fields: Fields, body: bytes) -> bytes | None:
    """Return the body without secrets, the same object if there are none; None if that cannot be told."""
    plain = _unpacked(fields, body)
    if plain is None:
        return None
    clean = redacted_bytes(plain)
    if clean == plain:
        return body
    try:
        return to_json(redacted_json(from_json(plain)))
    except (ValueError, RecursionError):
        return clean


def _unpacked(fields: Fields, body: bytes) -> bytes | None:
    codings = [
        coding.strip().lower()
        for name, value in fields
        if name.lower() == b"content-encoding"
        for coding in value.split(b",")
    ]
    codings = [coding for coding in codings if coding not in (b"", b"identity")]
    if not codings or not body:
        return body
    if len(codings) > 1 or codings[0] not in _PACKED:
        return None
    for window in (47, -15):  # with a head of either kind, or, as some say deflate, without one
        unpacking = zlib.decompressobj(window)
        try:
            plain = unpacking.decompress(body, MOST_OF_A_REFUSAL)
        except zlib.error:
            continue
        return plain if unpacking.eof and len(plain) < MOST_OF_A_REFUSAL else None
    return None
