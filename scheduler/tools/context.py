"""What a tool may know about the call it serves."""

from __future__ import annotations

from attrs import frozen


@frozen(kw_only=True)
class ToolContext:
    """Where a call comes from. A parameter annotated with it receives it and is not shown to the model.

    `run` is the conversation's name, `turn` counts from 1 within the run. `call_id` is the same when a turn is sent
    again, and when another process repeats the call because this one died: it can serve as an idempotency key.
    """

    run: str
    call_id: str
    turn: int
