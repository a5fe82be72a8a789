"""What a tool gave -> what the model reads. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scheduler.tools.schema import encode_text

# The content parts that a `function_call_output` may hold instead of text.
_PARTS = frozenset({"input_text", "input_image", "input_file"})

Output = str | Sequence[Mapping[str, Any]]


def present(value: object, limit: int) -> Output:
    """Give a tool's return value the form that the API takes.

    Text stays as it is, a list of content parts (`input_text`, `input_image`, `input_file`) too; anything else
    becomes JSON. Text over `limit` bytes is cut, with a note. Raises `TypeError` for what has no JSON form.
    """
    if isinstance(value, str):
        return clip(value, limit)
    text = encode_text(value)
    if isinstance(value, list | tuple) and value and all(_is_part(part) for part in value):
        return value  # encoded all the same: found out only when it is sent, a bad part would fail the run
    return clip(text, limit)


def clip(text: str, limit: int) -> str:
    """Cut text to `limit` bytes of UTF-8, saying so at its end."""
    if text.isascii():
        size = len(text)
        if size <= limit:
            return text
        head = text[:limit]
    else:
        # Half a surrogate pair (a file name that was not UTF-8) has no JSON form and would fail the whole turn.
        data = text.encode("utf-8", "replace")
        size = len(data)
        if size <= limit:
            return data.decode()
        head = data[:limit].decode("utf-8", "ignore")
    return f"{head}\n[cut: the first {limit} of {size} bytes]"


def describe_failure(exc: BaseException) -> str:
    """Say what went wrong in one line, without a traceback: `ValueError: no such file`."""
    if isinstance(exc, BaseExceptionGroup):
        return "; ".join(describe_failure(part) for part in exc.exceptions)
    message = str(exc)
    return f"{type(exc).__name__}: {message}" if message else type(exc).__name__


def _is_part(value: object) -> bool:
    return isinstance(value, Mapping) and value.get("type") in _PARTS
