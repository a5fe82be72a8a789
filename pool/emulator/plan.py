"""The scripted model: what it does on one turn, decided by context, request and seed alone."""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

from pool.emulator.arguments import arguments_for
from pool.emulator.context import Context
from pool.emulator.request import Request
from pool.emulator.words import Words
from pool.wire.codec import to_json

_WORDS = """
    the a this one other file line name part value list answer reads shows holds keeps finds means says gives
    first next last small plain whole clear old new and then so but with from into over under after before
"""
_LEXICON = tuple(_WORDS.split())
_DEFAULT_TOKENS = 24


@frozen(kw_only=True)
class Call:
    """One function call of a tool turn."""

    call_id: str
    name: str
    pieces: Sequence[str]  # the arguments, cut as they are streamed

    @property
    def arguments(self) -> str:
        """The arguments, whole."""
        return "".join(self.pieces)


@frozen(kw_only=True)
class Plan:
    """What the model will say: calls, or else a text; and what it costs."""

    calls: Sequence[Call] = ()
    text: Sequence[str] = ()  # pieces
    reasoning: int = 0
    reasoning_tokens: int = 0
    output_tokens: int = 0  # reasoning included

    @property
    def deltas(self) -> int:
        """Pieces in all."""
        return len(self.text) + sum(len(call.pieces) for call in self.calls)


def plan_turn(context: Context, request: Request, *, seed: int, least_bytes: int = 0) -> Plan:
    """Decide the turn. `least_bytes` makes an answer at least so long."""
    digest = context.digest
    rng = random.Random(f"{seed}:{digest}")
    script = request.script
    thinking = script.reasoning * script.reasoning_tokens
    tools = _chosen_tools(context, request)
    if tools:
        calls = _calls(context, request, tools, rng=rng, seed=seed)
        spoken = script.output_tokens or sum(-(-len(call.arguments) // 4) for call in calls)
        return Plan(
            calls=calls,
            reasoning=script.reasoning,
            reasoning_tokens=thinking,
            output_tokens=spoken + thinking,
        )
    schema = _text_schema(request)
    if schema is not None:
        value = arguments_for(schema, Words(context, rng))
        pieces = cut(to_json(value).decode(), script.deltas, padding=True)
    else:
        pieces = _prose(request, rng, ending=f"context:{digest}", least_bytes=least_bytes)
    spoken = script.output_tokens or len(pieces)
    return Plan(
        text=pieces, reasoning=script.reasoning, reasoning_tokens=thinking, output_tokens=spoken + thinking
    )


def _chosen_tools(context: Context, request: Request) -> list[Mapping[str, Any]]:
    """Return the function tools to call from now; none when the model is to answer."""
    tools = [tool for tool in request.tools if tool.get("type") == "function"]
    choice = request.raw.get("tool_choice", "auto")
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        named = {tool.get("name") for tool in choice.get("tools") or () if isinstance(tool, dict)}
        tools = [tool for tool in tools if tool["name"] in named]
        choice = choice.get("mode", "auto")
    elif isinstance(choice, dict):
        return [tool for tool in tools if tool["name"] == choice.get("name")]
    if choice == "none":
        return []
    if choice == "required":
        return tools
    if request.script.calls is not None:
        return tools if context.tool_turns < request.script.calls else []
    return tools if not context.answered else []


def _calls(
    context: Context, request: Request, tools: Sequence[Mapping[str, Any]], *, rng: random.Random, seed: int
) -> list[Call]:
    """Call one tool after the other in their order, so that every tool has its turn."""
    script = request.script
    parallel = script.parallel if request.raw.get("parallel_tool_calls", True) else 1
    words = Words(context, rng)
    each = None if script.deltas is None else _shares(script.deltas, parallel)
    calls = []
    for index in range(parallel):
        tool = tools[(context.tool_turns + index) % len(tools)]
        text = to_json(arguments_for(tool.get("parameters"), words)).decode()
        mark = hashlib.sha256(f"{seed}:{context.digest}:{index}".encode()).hexdigest()[:24]
        pieces = cut(text, each[index] if each else None, padding=True)
        calls.append(Call(call_id=f"call_{mark}", name=tool["name"], pieces=pieces))
    return calls


def _shares(total: int, parts: int) -> list[int]:
    """Share `total` deltas among the calls, at least one each."""
    return [max(1, total // parts + (index < total % parts)) for index in range(parts)]


def cut(text: str, pieces: int | None, *, padding: bool = False) -> list[str]:
    """Cut `text` in about four letters a piece, or in exactly `pieces`.

    JSON that is too short for so many pieces is padded with spaces, which change nothing (`padding`).
    """
    if pieces is None:
        return [text[start : start + 4] for start in range(0, len(text), 4)]
    if padding:
        text = text.ljust(pieces)
    size, longer = divmod(len(text), pieces)
    ends = [0]
    for index in range(pieces):
        ends.append(ends[-1] + size + (index < longer))
    return [text[start:end] for start, end in itertools.pairwise(ends)]


def _prose(request: Request, rng: random.Random, *, ending: str, least_bytes: int) -> list[str]:
    script = request.script
    count = script.deltas or min(script.output_tokens or _DEFAULT_TOKENS, 100_000)
    words = [f"{word} " for word in rng.choices(_LEXICON, k=count - 1)]
    wanted = max(script.text_bytes or 0, least_bytes)
    missing = wanted - sum(map(len, words)) - len(ending)
    if missing > 0:
        if not words:
            return ["so " * (missing // 3) + " " * (missing % 3) + ending]
        share, rest = divmod(missing, len(words))
        words = [
            word.rstrip().ljust(len(word) + share + (index < rest) - 1, "o") + " "
            for index, word in enumerate(words)
        ]
    return [*words, ending]


def _text_schema(request: Request) -> Mapping[str, Any] | None:
    """Return the schema that the answer must satisfy, when the request wants JSON."""
    form = request.raw.get("text", {}).get("format") or {}
    if not isinstance(form, dict):
        return None
    if form.get("type") == "json_object":
        return {"type": "object"}
    schema = form.get("schema")
    return schema if form.get("type") == "json_schema" and isinstance(schema, dict) else None
