"""What `response.steer` may say: checked the same way by whoever serves it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_FIELDS = frozenset({"type", "previous_response_id", "input"})
_MESSAGE_FIELDS = frozenset({"type", "role", "content"})
_PARTS = frozenset({"input_text", "input_image", "input_file"})


class SteerRefused(Exception):
    """The steering input is not taken; `code` is one of the protocol's."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


def check_steer(event: Mapping[str, Any]) -> tuple[str, list[Mapping[str, Any]]]:
    """Return target and input items of a `response.steer`. Raises `SteerRefused`."""
    target, given = event.get("previous_response_id"), event.get("input")
    for name in event:
        if name not in _FIELDS:
            raise SteerRefused("invalid_input", f"Unknown parameter: '{name}'.")
    if not isinstance(target, str) or not target:
        raise SteerRefused("invalid_input", "Missing required parameter: 'previous_response_id'.")
    if isinstance(given, str) and given:
        return target, [{"type": "message", "role": "user", "content": given}]
    if not isinstance(given, list) or not given:
        raise SteerRefused("invalid_input", "'input' must be a string or a non-empty array of user messages.")
    for index, item in enumerate(given):
        if not _is_user_message(item):
            raise SteerRefused(
                "invalid_input",
                f"Invalid 'input[{index}]': steering takes messages of the user with text, images and files only.",
            )
    return target, [{"type": "message", **item} for item in given]


def _is_user_message(item: object) -> bool:
    if not isinstance(item, dict) or not set(item) <= _MESSAGE_FIELDS:
        return False
    content = item.get("content")
    parts = isinstance(content, list) and all(
        isinstance(part, dict) and part.get("type") in _PARTS for part in content
    )
    return (
        item.get("type", "message") == "message"
        and item.get("role") == "user"
        and (isinstance(content, str) or bool(content and parts))
    )
