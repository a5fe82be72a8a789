"""Whether a value is valid against a JSON Schema, found out in a bounded number of steps.

jsonschema does it, with each keyword counted, since references and `allOf` may double the work with every level; and
patterns are matched by `matcher`, because jsonschema would hand them to `re`. What takes too many steps is taken for
valid: an emulator's arguments need not be right, but they have to come.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend
from referencing.exceptions import Unresolvable
from referencing.jsonschema import EMPTY_REGISTRY

from pool.emulator.effort import Effort, Exhausted
from pool.emulator.matcher import matches
from pool.wire.codec import from_json

_MOST_BYTES = 65_536  # of a schema that is checked
_KEYWORD = 10  # steps, of one keyword in one place: jsonschema calls some thirty functions for it
_MOST_PARTS = 4_000  # commas and brackets
_CHECK = 300_000  # steps to check a schema itself, once

_effort: ContextVar[Effort] = ContextVar("effort")
_Keyword = Callable[[Any, Any, Any, Any], Iterator[ValidationError] | None]


def _counted(keyword: _Keyword) -> _Keyword:
    def check(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError] | None:
        size = len(instance) if isinstance(instance, list | dict) else 0
        _effort.get().spend(_KEYWORD + size)
        return keyword(validator, value, instance, schema)

    return check


def _pattern(validator: Any, pattern: Any, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    if (
        isinstance(instance, str)
        and isinstance(pattern, str)
        and not matches(pattern, instance, _effort.get())
    ):
        yield ValidationError("it does not match the pattern")


def _pattern_properties(
    validator: Any, patterns: Any, instance: Any, _schema: Any
) -> Iterator[ValidationError]:
    if isinstance(instance, dict) and isinstance(patterns, dict):
        for pattern, schema in patterns.items():
            for name, value in instance.items():
                if matches(pattern, name, _effort.get()):
                    yield from validator.descend(value, schema, path=name, schema_path=pattern)


def _additional_properties(
    validator: Any, allowed: Any, instance: Any, schema: Mapping[str, Any]
) -> Iterator[ValidationError]:
    if not isinstance(instance, dict):
        return
    named, patterns = schema.get("properties") or {}, schema.get("patternProperties") or {}
    for name, value in instance.items():
        if name in named or any(matches(pattern, name, _effort.get()) for pattern in patterns):
            continue
        if isinstance(allowed, dict):
            yield from validator.descend(value, allowed, path=name)
        elif allowed is False:
            yield ValidationError("it has another property")


def _unique_items(_validator: Any, wanted: Any, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    if wanted and isinstance(instance, list):
        _effort.get().spend(len(instance) ** 2 // 16)  # some cannot be sorted, and are compared one by one
        yield from _UNIQUE(_validator, wanted, instance, _schema) or ()


_UNIQUE: _Keyword = Draft202012Validator.VALIDATORS["uniqueItems"]
_Validator: Any = extend(  # type: ignore[no-untyped-call]  # types-jsonschema leaves it untyped
    Draft202012Validator,
    {name: _counted(keyword) for name, keyword in Draft202012Validator.VALIDATORS.items()}
    | {
        "pattern": _counted(_pattern),
        "patternProperties": _counted(_pattern_properties),
        "additionalProperties": _counted(_additional_properties),
        "uniqueItems": _counted(_unique_items),
    },
)
_META: Any = _Validator(Draft202012Validator.META_SCHEMA)


@lru_cache(maxsize=512)
def validator(schema: bytes) -> Any:
    """Return a validator, cached because every turn brings the same tools; None for a schema that is none.

    And for one that is too large, or takes too long, to be checked.
    """
    parts = sum(schema.count(byte) for byte in (b",", b"{", b"["))
    # What a pattern has left unevaluated, jsonschema asks `re` itself
    asks_re = b"unevaluatedProperties" in schema and b"patternProperties" in schema
    if len(schema) > _MOST_BYTES or parts > _MOST_PARTS or asks_re or b"$dynamicRef" in schema:
        return None
    parsed = from_json(schema)
    if holds(_META, parsed, Effort(_CHECK), unknown=False) is False:
        return None
    # The registry of one's own keeps jsonschema from fetching remote references over the network.
    return _Validator(parsed, registry=EMPTY_REGISTRY)


def holds(valid: Any, value: Any, effort: Effort, *, unknown: bool = True) -> bool:
    """Whether the value is valid; a schema that cannot be followed to its end forbids nothing (`unknown`)."""
    token = _effort.set(effort)
    try:
        return bool(valid.is_valid(value))
    except (Exhausted, Unresolvable, RecursionError, AttributeError, TypeError, OverflowError):
        return unknown
    finally:
        _effort.reset(token)
