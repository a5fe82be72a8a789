"""Take out what must never be written down: the keys in use (`pool.redaction`), and whatever looks like a key.

Contents are long, and hold hardly ever anything to take out. So this looks for a few short words first, which is as
fast as memory, and only where one stands at what follows it.
"""

from __future__ import annotations

import re

from attrs import define, field

from pool.auth import Secret
from pool.redaction import HIDDEN as WORD
from pool.redaction import Secrets, known_taken_out, redacted_json
from pool.wire.codec import from_json, to_json

HIDDEN = WORD.encode()
ESCAPES = (b"u00", b"%", b"&")  # what stands in a key every letter of which is written as an escape
SOUGHT = 64 * 1024  # bytes of a line that is looked through for those
REMEMBERED = 64  # secrets, beyond those of pools that are open
_KEY = re.compile(rb"[A-Za-z0-9_\-]{8,}")
_BEARER = re.compile(rb"\s*[A-Za-z0-9._~+/\-]{8,}=*")
_TOKEN = re.compile(rb"[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]*")  # a JSON Web Token
_QUERY = re.compile(rb"[^&\s\"\\]+")
_WORD = re.compile(rb"[A-Za-z0-9_]")
# How what the known vendors give out begins, or what it stands behind, and what follows.
_LOOKS: tuple[tuple[bytes, re.Pattern[bytes]], ...] = (
    *((start, _KEY) for start in (b"sk-", b"sk_", b"xai-", b"gsk_", b"rk_", b"pk_", b"vck_")),
    (b"Bearer ", _BEARER),
    (b"bearer ", _BEARER),
    (b"eyJ", _TOKEN),
    (b"api-key=", _QUERY),
    (b"api_key=", _QUERY),
    (b"access_token=", _QUERY),
)


@define(eq=False)
class Scrubber:
    """Knows the secrets in use, and those that were when it was told. Works on encoded text."""

    # Lines may still be written when their pool has closed
    _secrets: Secrets = field(factory=lambda: Secrets(limit=REMEMBERED), init=False, repr=False)

    def hide(self, secret: Secret) -> None:
        """Never let this through."""
        self._secrets.keep(secret.reveal())

    def __call__(self, text: bytes) -> bytes:
        """Return the text without any."""
        text = _without_escapes(known_taken_out(text))
        for start, rest in _LOOKS:
            at = text.find(start)
            while at >= 0:
                end = rest.match(text, at + len(start))
                if end is None or (at and _WORD.match(text, at - 1)):
                    at = text.find(start, at + 1)
                else:
                    text = text[:at] + HIDDEN + text[end.end() :]
                    at = text.find(start, at + len(HIDDEN))
        return text


def _without_escapes(line: bytes) -> bytes:
    """Return a line without keys that are written in escapes."""
    if len(line) > SOUGHT or not any(sign in line for sign in ESCAPES):
        return line
    try:
        value = from_json(line)
    except (ValueError, RecursionError):
        return line
    clean = redacted_json(value)
    return line if clean is value else to_json(clean)
