"""Arguments for a tool call: a value that is valid against the tool's JSON Schema, the same for the same seed.

Theory of operation. `Maker.value` walks the schema and makes the plainest value that satisfies it: `const`,
`enum`, `default` and `examples` win, then `allOf` is merged, one branch of `anyOf`/`oneOf` is chosen, then the
type decides. What the walk cannot know to satisfy (exotic patterns, `not`, dependent schemas) is checked at
the end by jsonschema, and other draws are tried before the plainest one is given back.

A schema is whatever a client writes, so all of this is bounded by steps (see `Effort`): a schema that takes more is
answered with an empty object, or with a value that is not checked.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import Any

from attrs import define, field

from pool.emulator.effort import Effort, Exhausted
from pool.emulator.patterns import MOST_LETTERS, matching
from pool.emulator.validating import holds, validator
from pool.emulator.words import Words
from pool.numbers import whole_number
from pool.wire.codec import to_json

_DEPTH = 12  # below this only what is required is made
_DEEPEST = 48  # a schema that requires itself ends here
_DRAWS = 8
_MAKING = 20_000  # steps to make one value
_CHECKING = 100_000  # and to check all of them
_MADE = frozenset({"object", "array", "string", "integer", "number", "boolean", "null"})
_FORMATS: Mapping[str, str] = {
    "date-time": "2026-11-21T12:00:00Z",
    "date": "2026-11-21",
    "time": "12:00:00Z",
    "duration": "PT1H",
    "email": "reader@example.com",
    "idn-email": "reader@example.com",
    "hostname": "example.com",
    "idn-hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/a",
    "uri-reference": "https://example.com/a",
    "iri": "https://example.com/a",
    "iri-reference": "https://example.com/a",
    "uuid": "123e4567-e89b-42d3-a456-426614174000",
    "json-pointer": "/a",
    "relative-json-pointer": "0",
    "regex": "a",
}
_TYPE_KEYS = (
    ("object", ("properties", "required", "additionalProperties", "minProperties", "patternProperties")),
    ("array", ("items", "prefixItems", "minItems", "maxItems", "uniqueItems")),
    ("string", ("pattern", "minLength", "maxLength", "format")),
    ("number", ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")),
)


def arguments_for(schema: Mapping[str, Any] | None, words: Words) -> Any:
    """Return arguments for one call of a tool with this parameter schema."""
    root = schema or {"type": "object", "properties": {}}
    checking = Effort(_CHECKING)
    first: Any = {}
    try:
        valid = validator(to_json(root))
        for draw in range(_DRAWS):
            effort = Effort(_MAKING)
            value = Maker(root=root, rng=words.rng, words=words, effort=effort, plain=draw < 1).value(
                root, ""
            )
            if not isinstance(value, dict) and root.get("type", "object") == "object":
                value = {}
            if draw == 0:
                first = value
            if valid is None or holds(valid, value, checking):
                return value
    except (Exhausted, RecursionError, OverflowError):
        pass
    return first


@define(eq=False)
class Maker:
    """Makes one value. `plain` leaves out whatever is optional and has no default."""

    root: Mapping[str, Any]
    rng: random.Random
    words: Words
    effort: Effort
    plain: bool = False
    _depth: int = field(default=0, init=False)

    def value(self, schema: Any, name: str) -> Any:
        """Return a value for `schema`; `name` is the property it is for."""
        return self._value(self._resolved(schema), name) if isinstance(schema, dict) else {}

    def _value(self, schema: Mapping[str, Any], name: str) -> Any:
        self.effort.spend(1 + len(schema))
        if self._depth > _DEEPEST:
            return {}
        self._depth += 1
        try:
            return self._chosen(schema, name)
        finally:
            self._depth -= 1

    def _chosen(self, schema: Mapping[str, Any], name: str) -> Any:
        if "const" in schema:
            return schema["const"]
        for key in ("enum", "examples"):
            if isinstance(schema.get(key), list) and schema[key]:
                return schema[key][0] if self._depth > _DEPTH else self.rng.choice(schema[key])
        if schema.get("default") is not None:
            return schema["default"]
        for key in ("anyOf", "oneOf"):
            branches = schema.get(key)
            if isinstance(branches, list) and branches:
                rest = {name: value for name, value in schema.items() if name != key}
                return self._value(self._merged(rest, self._branch(branches)), name)
        kind = _type_of(schema)
        return getattr(self, f"_{kind}")(schema, name) if kind in _MADE else {}

    def _resolved(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        """Follow `$ref` and merge `allOf`."""
        for _ in range(32):
            self.effort.spend(1 + len(schema))
            reference = schema.get("$ref")
            if isinstance(reference, str):
                rest = {name: value for name, value in schema.items() if name != "$ref"}
                self.effort.spend(len(reference) // 16)
                schema = {**_at(self.root, reference), **rest}
                continue
            parts = schema.get("allOf")
            if isinstance(parts, list):
                schema = {name: value for name, value in schema.items() if name != "allOf"}
                for part in parts:
                    schema = self._merged(schema, part)
                continue
            break
        return schema

    def _merged(self, left: Mapping[str, Any], right: Any) -> Mapping[str, Any]:
        if not isinstance(right, dict):
            return left
        right = self._resolved(right)
        merged = {**left, **right}
        for key in ("properties", "$defs"):
            if isinstance(left.get(key), dict) and isinstance(right.get(key), dict):
                merged[key] = {**left[key], **right[key]}
                self.effort.spend(len(merged[key]))
        if isinstance(left.get("required"), list) and isinstance(right.get("required"), list):
            merged["required"] = [*left["required"], *right["required"]]
            self.effort.spend(len(merged["required"]))
        return merged

    def _branch(self, branches: list[Any]) -> Any:
        """Choose a branch: not null when there is another, and the least nested one when already deep."""
        self.effort.spend(len(branches))
        useful = [one for one in branches if not (isinstance(one, dict) and one.get("type") == "null")]
        if not useful or self._depth > _DEPTH:
            simple = [one for one in branches if isinstance(one, dict) and _is_simple(one)]
            return (simple or branches)[0]
        return useful[0] if self.plain else self.rng.choice(useful)

    def _object(self, schema: Mapping[str, Any], _name: str) -> dict[str, Any]:
        properties = schema.get("properties")
        properties = properties if isinstance(properties, dict) else {}
        listed = schema.get("required")
        required = (
            dict.fromkeys(name for name in listed or () if isinstance(name, str))
            if isinstance(listed, list)
            else {}
        )
        self.effort.spend(len(properties) + len(required))
        made = {
            name: self.value(inner, name)
            for name, inner in properties.items()
            if name in required or self._wants(inner)
        }
        extra = schema.get("additionalProperties", True)
        for name in self._missing_names(schema, required, made):
            made[name] = self.value(properties.get(name, extra if isinstance(extra, dict) else {}), name)
        return made

    def _missing_names(
        self, schema: Mapping[str, Any], required: Mapping[str, None], made: Mapping[str, Any]
    ) -> Iterator[str]:
        yield from (name for name in required if name not in made)
        have = len({*made, *required})
        properties = schema.get("properties")
        optional = [
            name
            for name in (properties if isinstance(properties, dict) else {})
            if name not in made and name not in required
        ]
        for index in range(int(_number(schema.get("minProperties"), 0)) - have):
            self.effort.spend()
            yield optional[index] if index < len(optional) else f"key_{index}"

    def _wants(self, inner: Any) -> bool:
        """Whether an optional property is made: those with a default are, the others now and then."""
        return not self.plain and self._depth < 3 and isinstance(inner, dict) and self.rng.random() < 0.5

    def _array(self, schema: Mapping[str, Any], name: str) -> list[Any]:
        fewest = int(_number(schema.get("minItems"), 0))
        most = int(_number(schema.get("maxItems"), max(fewest, 2)))
        length = fewest if self._depth > _DEPTH else max(fewest, min(most, 1))
        prefix = schema.get("prefixItems")
        made = [self.value(inner, name) for inner in prefix[:most]] if isinstance(prefix, list) else []
        items = schema.get("items", {"type": "string"})
        tries = 0
        while len(made) < length and items is not False and tries < 20 * length:
            tries += 1
            self.effort.spend()
            item = self.value(items if items is not True else {"type": "string"}, name)
            if schema.get("uniqueItems"):
                self.effort.spend(len(made) // 8)
                if item in made:
                    item = _other(item, tries)
            made.append(item)
        return made

    def _string(self, schema: Mapping[str, Any], name: str) -> str:
        fewest, most = (
            int(_number(schema.get("minLength"), 0)),
            int(_number(schema.get("maxLength"), 1 << 20)),
        )
        fewest = min(max(fewest, 0), MOST_LETTERS)
        self.effort.spend(fewest // 64)  # so many of them are not long
        pattern = schema.get("pattern")
        if isinstance(pattern, str):
            return matching(pattern, self.rng, fewest, most, self.effort)
        if schema.get("format") in _FORMATS:
            return _FORMATS[schema["format"]]
        word = self.words.pick(name)
        return word.ljust(fewest, "x")[: max(most, 0)]

    def _integer(self, schema: Mapping[str, Any], _name: str) -> int:
        low, high, step = _range(schema, 1)
        if step is None:
            return self.rng.randint(low, high) if low <= high else low
        return int(self._multiple(low, high, step))

    def _number(self, schema: Mapping[str, Any], _name: str) -> float:
        low, high, step = _range(schema, 0)
        if step is not None:
            return self._multiple(low, high, step)
        if isinstance(schema.get("exclusiveMinimum"), int | float) or isinstance(
            schema.get("exclusiveMaximum"), int | float
        ):
            return float(low + high) / 2
        return float(low) if self.plain else float(low + (high - low) * self.rng.randint(0, 4) / 4)

    def _multiple(self, low: float, high: float, step: float) -> float:
        first = -(-low // step)
        last = max(first, high // step)
        return step * self.rng.randint(int(first), int(min(last, first + 9)))

    def _boolean(self, _schema: Mapping[str, Any], _name: str) -> bool:
        return self.rng.random() < 0.5

    def _null(self, _schema: Mapping[str, Any], _name: str) -> None:
        return None


def _type_of(schema: Mapping[str, Any]) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        useful = [one for one in kind if one != "null"]
        kind = (useful or kind or ["null"])[0]
    if isinstance(kind, str):
        return kind
    return next((name for name, keys in _TYPE_KEYS if any(key in schema for key in keys)), "string")


def _is_simple(schema: Mapping[str, Any]) -> bool:
    return "$ref" not in schema and schema.get("type") not in ("object", "array")


def _number(value: Any, default: float) -> float:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else default


def _range(schema: Mapping[str, Any], unit: int) -> tuple[Any, Any, Any]:
    """Return low, high and step; `unit` is 1 for integers, whose exclusive bounds are a whole step away."""
    low, high = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    if isinstance(above, int | float) and not isinstance(above, bool):
        floor = (above // 1) + 1 if unit else above
        low = floor if low is None else max(low, floor)
    if isinstance(below, int | float) and not isinstance(below, bool):
        ceiling = -((-below // 1) + 1) if unit else below
        high = ceiling if high is None else min(high, ceiling)
    if low is None:
        low = 1 if high is None or high >= 1 else high - 9
    if high is None:
        high = low + 9
    step = schema.get("multipleOf")
    step = step if isinstance(step, int | float) and not isinstance(step, bool) and step > 0 else None
    if unit:
        low, high = -int(-low // 1), int(high // 1)
    return low, high, step


def _at(root: Mapping[str, Any], reference: str) -> Mapping[str, Any]:
    """Return the part of the schema that a local reference points to; anything else is taken as open."""
    if not reference.startswith("#"):
        return {}
    node: Any = root
    for part in reference[1:].split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        index = whole_number(key)
        if isinstance(node, list) and index is not None and index < len(node):
            node = node[index]
        elif isinstance(node, dict) and key in node:
            node = node[key]
        else:
            return {}
    return node if isinstance(node, dict) else {}


def _other(item: Any, index: int) -> Any:
    """Return a value of the same type that differs from `item`, for arrays without repetition."""
    if isinstance(item, str):
        return f"{item}{index}"
    if isinstance(item, int | float) and not isinstance(item, bool):
        return item + index
    return item
