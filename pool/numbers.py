"""Numbers in text that somebody else wrote. Pure.

`int` takes more than digits (underscores, signs, blanks, the digits of every script) and raises for more than 4300 of
them; so what comes from a peer, or from a command line, is read here.
"""

from __future__ import annotations

_MOST_DIGITS = 18


def whole_number(text: str, *, most: int = 10**_MOST_DIGITS - 1) -> int | None:
    """Return the number that ASCII digits mean; None for anything else, and for one above `most`."""
    if not text.isascii() or not text.isdigit() or len(text.lstrip("0")) > _MOST_DIGITS:
        return None
    number = int(text.lstrip("0") or "0")
    return number if number <= most else None
