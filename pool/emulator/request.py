"""A create, checked: what the real service would refuse is refused here in its words."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

from pool.emulator.script import Script, parse_script
from pool.wire.refusal import (
    Refused,
    invalid_type,
    invalid_value,
    missing_parameter,
    unknown_parameter,
)

_NAMES = """
    access_programs background background_options client_metadata context_management conversation image include input
    instructions max_output_tokens max_tool_calls metadata model moderation parallel_tool_calls previous_response_id
    prompt prompt_cache_key prompt_cache_options prompt_cache_retention reasoning safety_identifier service_tier store
    stream stream_options temperature text tool_choice tools top_logprobs top_p truncation user
    presence_penalty frequency_penalty
"""
FIELDS = frozenset(_NAMES.split())
SOCKET_FIELDS = FIELDS | {"type", "generate", "stream_id"}
_TYPES: Mapping[str, tuple[type | tuple[type, ...], str]] = {
    "model": (str, "a string"),
    "instructions": (str, "a string"),
    "input": ((str, list), "one of a string or array of input items"),
    "tools": (list, "an array of objects"),
    "include": (list, "an array of strings"),
    "metadata": (dict, "an object"),
    "store": (bool, "a boolean"),
    "stream": (bool, "a boolean"),
    "background": (bool, "a boolean"),
    "generate": (bool, "a boolean"),
    "parallel_tool_calls": (bool, "a boolean"),
    "previous_response_id": (str, "a string"),
    "max_output_tokens": (int, "an integer"),
    "max_tool_calls": (int, "an integer"),
    "temperature": ((int, float), "a number"),
    "top_p": ((int, float), "a number"),
    "text": (dict, "an object"),
    "reasoning": (dict, "an object"),
    "tool_choice": ((str, dict), "one of a string or an object"),
    "context_management": (list, "an array of objects"),
    "prompt_cache_options": (dict, "an object"),
    "prompt_cache_key": (str, "a string"),
}


@frozen(kw_only=True)
class Request:
    """A create whose fields have the right shapes. `raw` is the whole body as it came."""

    raw: Mapping[str, Any]
    model: str
    input: Sequence[Mapping[str, Any]]
    script: Script
    tools: Sequence[Mapping[str, Any]] = ()
    instructions: str | None = None
    previous_response_id: str | None = None
    store: bool = True
    generate: bool = True
    include: Sequence[str] = ()
    metadata: Mapping[str, str] = {}
    max_output_tokens: int | None = None
    compact_threshold: int | None = None


def checked_request(body: Mapping[str, Any], *, socket: bool) -> Request:
    """Check a create's body. `socket`: it came as a client event and may use that event's own fields."""
    known = SOCKET_FIELDS if socket else FIELDS
    for name in body:
        if name not in known:
            raise unknown_parameter(name)
    body = {name: value for name, value in body.items() if value is not None}
    for name, (types, expected) in _TYPES.items():
        value = body.get(name)
        wrong_bool = isinstance(value, bool) and types is not bool
        if name in body and (wrong_bool or not isinstance(value, types)):
            raise invalid_type(name, expected, value)
    if not body.get("model"):
        raise missing_parameter("model")
    if "conversation" in body and "previous_response_id" in body:
        raise Refused(
            "Mutually exclusive parameters: 'previous_response_id' and 'conversation'. "
            "Ensure you are only providing one of them.",
            code="mutually_exclusive_parameters",
        )
    if "conversation" in body:
        raise Refused(
            "The emulator keeps no conversations; use 'previous_response_id'.", param="conversation"
        )
    if body.get("background"):
        where = "over WebSocket" if socket else "by the emulator"
        raise Refused(
            f"'background' is not supported {where}.", code="unsupported_parameter", param="background"
        )
    items = _checked_items(body.get("input"))
    generate = body.get("generate", True) and not body.get("prompt_cache_options", {}).get("prewarm", False)
    if not items and generate and "previous_response_id" not in body:
        raise Refused(
            "One of \"input\" or \"previous_response_id\" or 'prompt' or 'conversation' must be provided.",
            code="missing_required_parameter",
            param="input",
        )
    if body.get("max_output_tokens", 16) < 1:
        raise invalid_value("max_output_tokens", "Invalid 'max_output_tokens': must be at least 1.")
    metadata = _checked_metadata(body.get("metadata", {}))
    return Request(
        raw=body,
        model=body["model"],
        input=items,
        script=parse_script(metadata.get("emulator", "")),
        tools=_checked_tools(body.get("tools", [])),
        instructions=body.get("instructions"),
        previous_response_id=body.get("previous_response_id"),
        store=body.get("store", True),
        generate=generate,
        include=body.get("include", []),
        metadata=metadata,
        max_output_tokens=body.get("max_output_tokens"),
        compact_threshold=_compact_threshold(body.get("context_management", [])),
    )


def _checked_items(value: str | list[Any] | None) -> list[Mapping[str, Any]]:
    if value is None:
        return []
    if isinstance(value, str):
        return [{"type": "message", "role": "user", "content": value}]
    for index, item in enumerate(value):
        if not isinstance(item, dict):
            raise invalid_type(f"input[{index}]", "an object", item)
        kind = item.get("type", "message")
        if kind == "message":
            _check_message(item, f"input[{index}]")
        elif kind in ("function_call", "function_call_output"):
            needed = ("call_id", "name", "arguments") if kind == "function_call" else ("call_id", "output")
            for name in needed:
                if item.get(name) is None:
                    raise missing_parameter(f"input[{index}].{name}")
                wanted: tuple[type, ...] = (str, list) if name == "output" else (str,)
                if not isinstance(item[name], wanted):
                    raise invalid_type(f"input[{index}].{name}", "a string", item[name])
        elif not isinstance(kind, str):
            raise invalid_type(f"input[{index}].type", "a string", kind)
        elif "call_id" in item and not isinstance(item["call_id"], str):
            raise invalid_type(f"input[{index}].call_id", "a string", item["call_id"])
    return value


def _check_message(item: Mapping[str, Any], where: str) -> None:
    role = item.get("role")
    if role is None:
        raise missing_parameter(f"{where}.role" if "type" in item or "content" in item else f"{where}.type")
    if role not in ("user", "assistant", "system", "developer"):
        raise invalid_value(
            f"{where}.role",
            f"Invalid value: {role!r}. Supported values are: 'assistant', 'system', 'developer', and 'user'.",
        )
    if not isinstance(item.get("content"), str | list):
        raise invalid_type(
            f"{where}.content", "one of a string or array of content parts", item.get("content")
        )


def _checked_tools(tools: list[Any]) -> list[Mapping[str, Any]]:
    for index, tool in enumerate(tools):
        if not isinstance(tool, dict):
            raise invalid_type(f"tools[{index}]", "an object", tool)
        if not isinstance(tool.get("type"), str):
            raise missing_parameter(f"tools[{index}].type")
        if tool["type"] != "function":
            continue
        if not isinstance(tool.get("name"), str) or not re.fullmatch(r"[A-Za-z0-9_-]{1,128}", tool["name"]):
            raise (
                missing_parameter(f"tools[{index}].name")
                if not tool.get("name")
                else invalid_value(
                    f"tools[{index}].name",
                    f"Invalid 'tools[{index}].name': string does not match pattern '^[a-zA-Z0-9_-]+$'.",
                )
            )
        if not isinstance(tool.get("parameters") or {}, dict):
            raise invalid_type(f"tools[{index}].parameters", "an object", tool["parameters"])
    return tools


def _checked_metadata(metadata: dict[str, Any]) -> dict[str, str]:
    if len(metadata) > 16:
        raise invalid_value(
            "metadata", f"Invalid 'metadata': too many properties ({len(metadata)}, at most 16)."
        )
    for key, value in metadata.items():
        if not isinstance(value, str):
            raise invalid_type(f"metadata.{key}", "a string", value)
        if len(key) > 64 or len(value) > 512:
            raise invalid_value(
                f"metadata.{key}", "Invalid 'metadata': keys have at most 64 characters, values at most 512."
            )
    return metadata


def _compact_threshold(entries: list[Any]) -> int | None:
    for index, entry in enumerate(entries):
        where = f"context_management[{index}]"
        if not isinstance(entry, dict):
            raise invalid_type(where, "an object", entry)
        if entry.get("type") != "compaction":
            raise invalid_value(f"{where}.type", "Invalid value. Supported values are: 'compaction'.")
        threshold = entry.get("compact_threshold")
        if threshold is not None:
            if isinstance(threshold, bool) or not isinstance(threshold, int) or threshold < 1:
                raise invalid_type(f"{where}.compact_threshold", "a positive integer", threshold)
            return threshold
    return None
