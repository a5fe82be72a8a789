"""Take out what must never be written down: the keys in use, and whatever looks like a key."""

from __future__ import annotations

import re

from attrs import define, field

from pool.auth import Secret

HIDDEN = b"[hidden]"
SHORTEST = 6  # bytes; replacing anything shorter would garble innocent text
# What the known vendors' keys look like, and what an Authorization header or a URL may carry.
_KEYS = re.compile(
    rb"\b(?:sk|xai|gsk|rk|pk|vck)[-_][A-Za-z0-9_\-]{8,}"
    rb"|\bBearer\s+[A-Za-z0-9._~+/\-]{8,}=*"
    rb"|\beyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]*"
    rb"|(?<=[?&])(?:api[-_]key|key|token|access_token)=[^&\s\"\\]+",
    re.IGNORECASE,
)


@define(eq=False)
class Scrubber:
    """Knows the secrets in use. Works on encoded text."""

    _known: set[bytes] = field(factory=set, init=False, repr=False)
    _exact: re.Pattern[bytes] | None = field(default=None, init=False, repr=False)

    def hide(self, secret: Secret) -> None:
        """Never let this through."""
        value = secret.reveal().encode()
        if len(value) >= SHORTEST and value not in self._known:
            self._known.add(value)
            # Longest first: a key may begin with another one.
            self._exact = re.compile(b"|".join(map(re.escape, sorted(self._known, key=len, reverse=True))))

    def __call__(self, text: bytes) -> bytes:
        """Return the text without any."""
        if self._exact is not None:
            text = self._exact.sub(HIDDEN, text)
        return _KEYS.sub(HIDDEN, text)
