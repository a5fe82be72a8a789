"""A frame as anybody may see it: names and reasons in it may be a client's or a server's words. Pure."""

from __future__ import annotations

from typing import TypeVar

from pool.printable import printable_json
from pool.redaction import redacted, redacted_json
from pool.wire.codec import to_json

T = TypeVar("T")


def shown(value: T) -> T:
    """Return JSON without the secrets in use and without what steers a terminal or a page's text.

    A frame hardly ever has any, so its text is looked at first, which takes a tenth of the time.
    """
    try:
        text = to_json(value).decode()
    except UnicodeEncodeError:  # half a surrogate pair
        text = "\\u00"
    if text.isprintable() and "\\u00" not in text and redacted(text) == text:
        return value
    clean: T = printable_json(redacted_json(printable_json(value)))
    return clean
