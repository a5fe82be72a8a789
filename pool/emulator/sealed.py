"""`encrypted_content`: opaque to clients, and checked when it comes back.

It hides nothing (the emulator has no secret); it is sealed with a checksum so that a client which alters or
cuts it is found out, as it would be by the real service.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from pool.wire.codec import from_json, to_json

_MARK = "gAAAAAB"


def seal(value: Any) -> str:
    """Return `value` as an opaque string."""
    body = to_json(value)
    check = hashlib.sha256(body).digest()[:8]
    return _MARK + base64.urlsafe_b64encode(check + body).decode()


def unseal(text: str) -> Any | None:
    """Return what was sealed, or None when the string is not whole or not ours."""
    if not text.startswith(_MARK):
        return None
    try:
        raw = base64.b64decode(text[len(_MARK) :], altchars=b"-_", validate=True)
        value = from_json(raw[8:])
    except ValueError:
        return None
    return value if hashlib.sha256(raw[8:]).digest()[:8] == raw[:8] else None
