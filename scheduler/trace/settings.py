"""How much a trace may take, as people write it."""

from __future__ import annotations

import re

from pool.errors import SettingsError

LIMIT = 100_000_000  # bytes
LEAST = 100_000  # less would hold hardly a turn
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmg]i?)?b?\s*", re.IGNORECASE | re.ASCII)


def parse_size(text: str) -> int:
    """Return the bytes that `100MB`, `64 MiB` or `5000000` means.

    Raises:
        SettingsError: it means nothing, or too little.
    """
    found = _SIZE.fullmatch(text)
    if found is None:
        raise SettingsError("trace limit", text, "must be a size, e.g. 100MB")
    return checked_limit(int(float(found[1]) * _UNITS[(found[2] or "").lower()]))


def checked_limit(size: int) -> int:
    """Return the limit. Raises `SettingsError` when it is too small."""
    if size < LEAST:
        raise SettingsError("trace limit", size, f"must be at least {LEAST} bytes")
    return size
