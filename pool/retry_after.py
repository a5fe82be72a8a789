"""How long a server asks us to wait. Pure."""

from __future__ import annotations

import math


def seconds(text: str) -> float | None:
    """Read a Retry-After header's seconds; None when there are none (a date is not worth the trouble)."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None
