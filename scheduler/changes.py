"""What a turn says differently from the one before it. Pure.

The server takes the same delta, but its model finds nothing of the context in its prompt cache: measured by others,
0 % of it after a change of tools or of the reasoning's effort. So such changes are counted, and a conversation whose
prefix keeps changing has less to lose with its lane.
"""

from __future__ import annotations

from scheduler.turns import TurnRequest

WATCHED = ("model", "instructions", "tools", "reasoning")


def changed(before: TurnRequest | None, after: TurnRequest) -> tuple[str, ...]:
    """Return which of the watched parts differ; nothing for a first turn."""
    if before is None or before is after:
        return ()
    return tuple(what for what in WATCHED if _said(before, what) != _said(after, what))


def _said(request: TurnRequest, what: str) -> object:
    """Return a part of a request, wherever it is said."""
    if what in request.options:
        return request.options[what]
    return list(request.tools) if what == "tools" else getattr(request, what, None)
