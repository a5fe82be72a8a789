"""How long a server asks us to wait. Pure: what time it is, is an argument."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

LONGEST = 86_400.0  # s; who asks for more means "not today", and gets that
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]*)?|\.[0-9]+", re.ASCII)
_DIGITS = 12  # more than these are over any bound
_DATE = re.compile(r"[A-Z][a-z]{2,8},? [0-9A-Za-z][0-9A-Za-z :-]{10,40}", re.ASCII)  # RFC 9110, 5.6.7


def retry_after(headers: Mapping[str, object], now: float | None) -> float | None:
    """Return the seconds that an answer asks to wait, 0 to `LONGEST`; None when it says none, or makes no sense.

    A date is counted from the answer's own `date`, since clocks differ.

    Args:
        headers: of the answer, by lower-case names.
        now: in seconds since 1970, for a date in an answer that has none itself; None: then it is not understood.
    """
    milliseconds = seconds(_said(headers, "retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    text = _said(headers, "retry-after")
    told = seconds(text)
    if told is not None:
        return told
    until, sent = _moment(text), _moment(_said(headers, "date"))
    since = now if sent is None else sent
    # One that has passed says nothing but that clocks differ; to try at once would be the opposite of waiting.
    return None if until is None or since is None or until <= since else min(until - since, LONGEST)


def seconds(text: str) -> float | None:
    """Read a number of seconds as a header has it, at most `LONGEST`; None when it is none, or negative."""
    text = text.strip(" \t")
    if not _NUMBER.fullmatch(text):
        return None
    whole, _, part = text.partition(".")
    whole = whole.lstrip("0")
    return LONGEST if len(whole) > _DIGITS else min(float(f"{whole or 0}.{part[:_DIGITS] or 0}"), LONGEST)


def is_date(text: str) -> bool:
    """Whether this is a date as HTTP has it."""
    return _moment(text) is not None


def _said(headers: Mapping[str, object], name: str) -> str:
    value = headers.get(name)
    return value if isinstance(value, str) else str(value) if isinstance(value, int | float) else ""


def _moment(text: str) -> float | None:
    """Read a date; seconds since 1970."""
    text = text.strip(" \t")
    if not _DATE.fullmatch(text):
        return None
    try:
        moment = parsedate_to_datetime(text)
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError, IndexError, TypeError):
        return None
