"""What is sent to those who look: first a whole frame, then only what has changed. Pure.

A message is a JSON object. Its members replace those of the frame, but for the keyed parts, of which only the members
that changed are in it, and `gone` names those that are no more. `merge` is what the page does with it.
"""

from __future__ import annotations

from typing import Any

from scheduler.dashboard.frame import Frame

KEYED = ("conns", "rows")


def whole(frame: Frame) -> Frame:
    """Return the message for somebody who has nothing yet."""
    return {"whole": True, **frame}


def changes(old: Frame, new: Frame) -> Frame:
    """Return the message that makes the old frame the new one."""
    message: Frame = {
        name: value for name, value in new.items() if name not in KEYED and old.get(name) != value
    }
    gone: dict[str, list[str]] = {}
    for part in KEYED:
        before, after = old[part], new[part]
        changed = {key: value for key, value in after.items() if before.get(key) != value}
        if changed:
            message[part] = changed
        left = [key for key in before if key not in after]
        if left:
            gone[part] = left
    if gone:
        message["gone"] = gone
    return message


def merge(frame: Frame | None, message: Frame) -> Frame:
    """Return the frame that a message makes of the one before."""
    rest: dict[str, Any] = {name: value for name, value in message.items() if name not in ("whole", "gone")}
    if frame is None or message.get("whole"):
        return rest
    gone = message.get("gone", {})
    keyed = {}
    for part in KEYED:
        left = set(gone.get(part, ()))
        kept = {key: value for key, value in frame[part].items() if key not in left}
        keyed[part] = {**kept, **rest.get(part, {})}
    return {**frame, **rest, **keyed}
