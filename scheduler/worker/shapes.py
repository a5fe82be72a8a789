"""What a step must look like before it is acted upon. Pure.

A step that was sealed, or has its checksum, is what was written. One from before there were checksums may be
anything, and a wrong type that slipped through would become a transcript that nobody has said.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from pool.errors import RemoteProtocolError
from pool.wire.codec import from_json
from scheduler.outcome import calls_of
from scheduler.worker.errors import CheckpointUnreadable

LONGEST_NAME = 40  # of a kind of step, in an error


def step_of(body: bytes, job_id: str, *, draft: bool = False) -> Mapping[str, Any]:
    """Return a step; `draft`: or what is told of a turn under way.

    Raises:
        CheckpointUnreadable: it is no step, or one of a newer version.
    """
    try:
        value = from_json(body)
    except (ValueError, RecursionError):
        raise CheckpointUnreadable(job_id, "is damaged: a step is no JSON") from None
    kind = value.get("step") if isinstance(value, dict) else None
    if not isinstance(kind, str):
        raise CheckpointUnreadable(job_id, "is damaged: a step does not say of what kind it is")
    fits = _SHAPES.get(kind)
    if fits is None:
        problem = f"has a step {kind[:LONGEST_NAME]!r}: a newer warmline wrote it"
        raise CheckpointUnreadable(job_id, problem, elsewhere=True)
    if (kind == "draft" and not draft) or not fits(value):
        raise CheckpointUnreadable(job_id, f"is damaged: a step {kind!r} is not as it was written")
    result: Mapping[str, Any] = value
    return result


def _turn(step: Mapping[str, Any]) -> bool:
    output, facts = step.get("output"), step.get("facts")
    if not (_objects(step.get("given")) and _objects(output) and isinstance(facts, dict)):
        return False
    try:
        calls_of(output or ())
    except RemoteProtocolError:
        return False
    way: Any = facts.get("way")
    return (
        isinstance(facts.get("id"), str)
        and facts.get("status") in ("completed", "incomplete")
        and isinstance(facts.get("why"), str | None)
        and _list_of(_count, facts.get("usage"), 5)
        and _list_of(_text, way, 4)
        and way[0] in ("delta", "replay")
        and _list_of(_count, facts.get("bytes"), 3)
        and _list_of(_number, facts.get("seconds"), 2)
        and _count(facts.get("attempts"))
    )


def _results(step: Mapping[str, Any]) -> bool:
    results: Any = step.get("results")
    return _objects(results) and all(
        isinstance(one.get("call_id"), str)
        and (isinstance(one.get("output"), str) or _objects(one.get("output")))
        and isinstance(one.get("executed"), bool)
        and isinstance(one.get("failed"), bool)
        and _number(one.get("seconds"))
        for one in results
    )


_SHAPES: Mapping[str, Callable[[Mapping[str, Any]], bool]] = {
    "turn": _turn,
    "begun": lambda step: isinstance(step.get("call_id"), str),
    "results": _results,
    "allowed": lambda step: True,
    "draft": lambda step: isinstance(step.get("text"), str),
}


def _objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, dict) for one in value)


def _list_of(fits: Callable[[Any], bool], value: Any, size: int) -> bool:
    return isinstance(value, list) and len(value) == size and all(map(fits, value))


def _count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _text(value: Any) -> bool:
    return isinstance(value, str)
