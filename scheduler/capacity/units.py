"""Durations, shares and amounts as people write them. Pure."""

from __future__ import annotations

import math
import re

from pool.errors import SettingsError

_NUMBER = r"[+-]?(?:\d+(?:_\d+)*\.?\d*|\.\d+)(?:e[+-]?\d+)?"
_QUANTITY = re.compile(rf"\s*({_NUMBER})\s*([a-zµ%]*)\s*", re.IGNORECASE)
SECONDS = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
THOUSANDS = {"k": 1e3, "m": 1e6, "g": 1e9}


def split_quantity(text: str) -> tuple[float, str] | None:
    """Return a number and its unit (perhaps empty), or None when it is no number."""
    found = _QUANTITY.fullmatch(text)
    if found is None:
        return None
    return float(found[1]), found[2].lower()


def seconds(name: str, text: str) -> float:
    """Parse `50ms`, `1.5s`, `2min`, or a plain number of seconds.

    Raises:
        SettingsError: it is none, or negative, or infinite.
    """
    parts = split_quantity(text)
    if parts is not None and (parts[1] in SECONDS or not parts[1]):
        value = parts[0] * SECONDS.get(parts[1], 1.0)
        if 0 <= value < math.inf:
            return value
    raise SettingsError(name, text, "must be a time from 0 on, such as 50ms, 1.5s or 2min")


def share(name: str, text: str) -> float:
    """Parse `95%` or `0.95`.

    Raises:
        SettingsError: it is none.
    """
    parts = split_quantity(text)
    if parts is not None and parts[1] in ("", "%"):
        value = parts[0] / 100 if parts[1] else parts[0]
        if 0 <= value <= 1:
            return value
    raise SettingsError(name, text, "must be a share, such as 95% or 0.95")


def amount(name: str, text: str) -> float:
    """Parse `250000`, `250k` or `2M`: of tokens, or of runs.

    Raises:
        SettingsError: it is none, or not above 0.
    """
    parts = split_quantity(text)
    if parts is not None and (parts[1] in THOUSANDS or not parts[1]):
        value = parts[0] * THOUSANDS.get(parts[1], 1.0)
        if 0 < value < math.inf:
            return value
    raise SettingsError(name, text, "must be a number above 0, such as 250000, 250k or 2M")


def show_seconds(value: float) -> str:
    """Show a time in the unit that fits it, to two or three digits."""
    if math.isinf(value):
        return "for ever"
    if value < 0.0005:
        return "0 ms" if value < 0.00005 else f"{value * 1000:.1f} ms"
    if value < 1:
        return f"{value * 1000:.3g} ms" if value < 0.9995 else "1 s"
    if value < 100:
        return f"{value:.3g} s"
    return f"{value:,.0f} s" if value < 600 else f"{value / 60:,.0f} min"


def show_amount(value: float) -> str:
    """Show an amount in thousands or millions, to three digits."""
    for limit, unit in ((999.5e6, "G"), (999.5e3, "M"), (9999.5, "k")):
        if abs(value) >= limit:
            scale = {"G": 1e9, "M": 1e6, "k": 1e3}[unit]
            return f"{value / scale:.3g}{unit}"
    return f"{value:,.0f}" if abs(value) >= 100 or value == round(value) else f"{value:.3g}"


def show_share(value: float) -> str:
    """Show a share in per cent, with as many digits as it needs near 1."""
    if value in (0.0, 1.0) or round(value, 2) == value:
        return f"{value * 100:.0f} %"
    digits = next(digits for digits in (1, 2, 3, 9) if round(value * 100, digits) < 100)
    return f"{value * 100:.{digits}f} %"
