"""`POST /v1/responses/compact`: a long window in, a short one out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pool.emulator.digest import item_kind
from pool.emulator.request import checked_request
from pool.emulator.response import Tokens
from pool.emulator.service import Service
from pool.wire.refusal import unknown_parameter

_NAMES = """
    model image input instructions previous_response_id prompt_cache_key prompt_cache_options
    prompt_cache_retention service_tier metadata tools
"""
_FIELDS = frozenset(_NAMES.split())


def compact(service: Service, body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the compacted window: the user's messages, then one item that stands for everything."""
    for name in body:
        if name not in _FIELDS:
            raise unknown_parameter(name)
    request = checked_request(body, socket=False)
    context, items = service.assembled(request)
    response_id = service.new_id("resp")
    mark = response_id.removeprefix("resp_")[:40]
    output: list[dict[str, Any]] = [
        {
            "id": item.get("id") or f"msg_{mark}{index:04x}",
            "type": "message",
            "status": "completed",
            "role": "user",
            "content": _parts(item["content"]),
        }
        for index, item in enumerate(items)
        if item_kind(item) == "message" and item.get("role") == "user"
    ]
    summary = context.sealed(response_id)
    output.append({"id": f"cmp_{mark}", "type": "compaction", "encrypted_content": summary})
    return {
        "id": response_id,
        "object": "response.compaction",
        "created_at": service.unix_time(),
        "output": output,
        "usage": Tokens(input=context.tokens, output=-(-len(summary) // 4)).usage(),
    }


def _parts(content: str | list[Any]) -> list[Any]:
    return [{"type": "input_text", "text": content}] if isinstance(content, str) else content
