"""Structured results: the schema the server is told to keep to, and the reading of what comes back.

The server's strict mode guarantees the shape, but takes only part of JSON Schema: every property required, no open
objects, few keywords. A type beyond that is asked for without strict. Either way the answer is decoded and
checked here, in full, because the mode is a vendor's promise and not every vendor makes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import field, frozen

from scheduler.tools.schema import JsonSchema, arguments_type, decoder_of, schema_of, walk

# What OpenAI's structured outputs guide lists as supported in strict mode; the rest is refused there.
_KEYWORDS = frozenset(
    {
        "type",
        "properties",
        "required",
        "additionalProperties",
        "items",
        "anyOf",
        "enum",
        "$ref",
        "$defs",
        "description",
    }
    | {"pattern", "format", "multipleOf", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}
    | {"minItems", "maxItems"}
)
_FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"})


class NotStrict(Exception):
    """The type cannot be said in strict mode's part of JSON Schema."""


@frozen
class OutputFormat:
    """How the last answer of a run is asked for (`text`, a field of the request) and read (`parse`)."""

    text: Mapping[str, Any]
    parse: Callable[[str], Any] = field(repr=False)


def output_format(output_type: Any) -> OutputFormat:
    """Prepare a type as the form of an answer. Raises `TypeError` for a type without a JSON form."""
    schema = schema_of(output_type)
    decode = decoder_of(output_type)
    if "properties" not in schema:
        # The root must be an object: anything else travels in one field.
        wrapper = arguments_type("Answer", [("result", output_type, True)])
        schema, unwrap = schema_of(wrapper), decoder_of(wrapper)

        def decode(text: str | bytes) -> Any:
            return unwrap(text).result

    try:
        schema, strict = strict_schema(schema), True
    except NotStrict:
        strict = False
    name = "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "_" for c in _name_of(output_type))[
        :64
    ]
    return OutputFormat({"type": "json_schema", "name": name, "schema": schema, "strict": strict}, decode)


def strict_schema(schema: JsonSchema) -> JsonSchema:
    """Say a schema in strict mode's terms. Raises `NotStrict` where that would change its meaning."""
    return walk(schema, _strict_node)


def _strict_node(node: JsonSchema) -> JsonSchema:
    if "$ref" in node and "$defs" not in node:
        return {"$ref": node["$ref"]}  # a reference takes no siblings
    if "oneOf" in node:
        node = {**node, "anyOf": node["oneOf"]}
    if "allOf" in node or not node.keys() & {"type", "anyOf", "enum", "$ref"}:
        raise NotStrict
    if node.get("type") == "object":
        if node.get("additionalProperties") is not False:
            raise NotStrict
        node["required"] = list(node.get("properties", {}))
    if node.get("format", "date") not in _FORMATS:
        del node["format"]
    return {key: value for key, value in node.items() if key in _KEYWORDS}


def _name_of(kind: Any) -> str:
    return str(getattr(kind, "__name__", "answer"))
