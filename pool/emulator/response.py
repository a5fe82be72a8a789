"""The response object: every field that the official SDK and the Open Responses schema require."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

from pool.emulator.request import Request

_ECHOED: Mapping[str, Any] = {
    "background": False,
    "frequency_penalty": 0.0,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "parallel_tool_calls": True,
    "presence_penalty": 0.0,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "prompt_cache_retention": None,
    "safety_identifier": None,
    "temperature": 1.0,
    "tool_choice": "auto",
    "top_logprobs": 0,
    "top_p": 0.98,
    "truncation": "disabled",
    "user": None,
}


@frozen(kw_only=True)
class Tokens:
    """What a response used."""

    input: int = 0
    cached: int = 0
    output: int = 0
    reasoning: int = 0

    def usage(self) -> dict[str, Any]:
        """Return the `usage` object."""
        return {
            "input_tokens": self.input,
            "input_tokens_details": {"cached_tokens": self.cached, "cache_write_tokens": 0},
            "output_tokens": self.output,
            "output_tokens_details": {"reasoning_tokens": self.reasoning},
            "total_tokens": self.input + self.output,
        }


def response_object(request: Request, *, response_id: str, created_at: int, context: str) -> dict[str, Any]:
    """Return the response as it is when it starts; the later states are copies with a few fields changed."""
    raw = request.raw
    text = raw.get("text", {})
    reasoning = raw.get("reasoning", {})
    tier = raw.get("service_tier") or "auto"
    return {
        "id": response_id,
        "object": "response",
        "created_at": created_at,
        "status": "in_progress",
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "instructions": request.instructions,
        "model": request.model,
        "output": [],
        **{name: raw.get(name, default) for name, default in _ECHOED.items()},
        "reasoning": {"effort": None, "summary": None, **reasoning},
        "service_tier": "default" if tier == "auto" else "priority" if tier == "fast" else tier,
        "store": request.store,
        "text": {"verbosity": "medium", **text, "format": text.get("format") or {"type": "text"}},
        "tools": [_echoed_tool(tool) for tool in request.tools],
        "usage": None,
        "metadata": {**request.metadata, "context": context},
    }


def _echoed_tool(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    if tool.get("type") != "function":
        return tool
    return {"description": None, "parameters": None, "strict": True, **tool}


def completed(
    base: Mapping[str, Any], *, output: Sequence[Mapping[str, Any]], tokens: Tokens, now: int
) -> dict[str, Any]:
    """Return the terminal snapshot of a response that ended well."""
    return {**base, "status": "completed", "completed_at": now, "output": output, "usage": tokens.usage()}


def incomplete(
    base: Mapping[str, Any], *, output: Sequence[Mapping[str, Any]], tokens: Tokens, reason: str
) -> dict[str, Any]:
    """Return the terminal snapshot of a response that stopped early, with its reason."""
    details = {"reason": reason}
    return {
        **base,
        "status": "incomplete",
        "incomplete_details": details,
        "output": output,
        "usage": tokens.usage(),
    }


def failed(
    base: Mapping[str, Any], *, output: Sequence[Mapping[str, Any]], code: str, message: str
) -> dict[str, Any]:
    """Return the terminal snapshot of a response that began and then failed."""
    return {**base, "status": "failed", "error": {"code": code, "message": message}, "output": output}
