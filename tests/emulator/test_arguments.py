"""Arguments are valid against their schema, plausible, and the same for the same seed."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from pool.emulator.arguments import arguments_for
from pool.emulator.context import Context
from pool.emulator.patterns import matching
from pool.emulator.words import Words


def made(schema: Any, seed: int = 0, context: Context | None = None) -> Any:
    return arguments_for(schema, Words(context or Context(), random.Random(seed)))


def wrap(inner: Any, **more: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"x": inner},
        "required": ["x"],
        "additionalProperties": False,
        **more,
    }


SCHEMAS: list[Any] = [
    {"type": "object", "properties": {}},
    {"type": "object", "required": ["unnamed"]},
    {"type": "object", "minProperties": 2},
    {
        "type": "object",
        "minProperties": 2,
        "properties": {"a": {"type": "string"}, "b": {}, "c": {"type": "null"}},
    },
    {"type": "object", "required": ["k"], "additionalProperties": {"type": "integer"}},
    wrap({"enum": ["a", "b", 3]}),
    wrap({"const": {"deep": [1]}}),
    wrap({"type": "string", "default": "given"}),
    wrap({"type": "string", "examples": ["one", "two"]}),
    wrap({"type": ["string", "null"]}),
    wrap({"type": ["null"]}),
    wrap({"type": "null"}),
    wrap({"type": "boolean"}),
    wrap({"type": "integer", "minimum": 3, "maximum": 5}),
    wrap({"type": "integer", "exclusiveMinimum": 3, "exclusiveMaximum": 5}),
    wrap({"type": "integer", "maximum": -2}),
    wrap({"type": "integer", "minimum": 1, "multipleOf": 7}),
    wrap({"type": "integer", "minimum": 2.5}),
    wrap({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.001}),
    wrap({"type": "number", "multipleOf": 0.5, "minimum": 0.2}),
    wrap({"type": "number", "minimum": -1.5, "maximum": -1}),
    wrap({"minimum": 4}),
    wrap({"type": "string", "minLength": 30}),
    wrap({"type": "string", "maxLength": 2}),
    wrap({"type": "string", "pattern": "^[a-z]{3}-\\d{4}$"}),
    wrap({"type": "string", "pattern": "^(GET|POST) /[^ ]+$", "minLength": 20}),
    wrap({"type": "string", "format": "date-time"}),
    wrap({"type": "string", "format": "uuid"}),
    wrap({"type": "array", "items": {"type": "integer"}, "minItems": 3, "uniqueItems": True}),
    wrap({"type": "array", "items": {"type": "string"}, "minItems": 3, "uniqueItems": True}),
    wrap({"type": "array", "items": {"enum": ["a", "b", "c"]}, "maxItems": 0}),
    wrap({"type": "array"}),
    wrap({"type": "array", "items": True, "minItems": 1}),
    wrap({"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "items": False}),
    wrap({"items": {"type": "boolean"}, "minItems": 2}),
    wrap({"anyOf": [{"type": "null"}, {"type": "string", "minLength": 3}]}),
    wrap({"oneOf": [{"type": "integer"}, {"type": "string"}]}),
    wrap({"anyOf": [{"type": "null"}]}),
    wrap({"allOf": [wrap({"type": "integer"}, additionalProperties=True), {"required": ["y"]}]}),
    wrap({"allOf": [True, {"$defs": {}, "type": "integer"}], "$defs": {}}),
    wrap({"allOf": [wrap({}, additionalProperties=True), {"properties": {"y": {"type": "integer"}}}]}),
    wrap({"type": "string", "not": {"maxLength": 3}, "enum": ["abc", "abcd"]}),
    wrap({"$ref": "#/$defs/leaf"}, **{"$defs": {"leaf": {"type": "object", "required": ["n"]}}}),
    wrap({"$ref": "#/$defs/a~1b"}, **{"$defs": {"a/b": {"type": "integer"}}}),
    {
        "type": "object",
        "properties": {"tree": {"$ref": "#/$defs/node"}},
        "required": ["tree"],
        "$defs": {
            "node": {
                "type": "object",
                "properties": {
                    "name": {"type": "string"},
                    "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
                    "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
                },
                "required": ["name", "children", "next"],
                "additionalProperties": False,
            }
        },
    },
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=str)
@pytest.mark.parametrize("seed", range(4))
def test_arguments_are_valid(schema: dict[str, Any], seed: int) -> None:
    value = made(schema, seed)
    Draft202012Validator(schema).validate(value)
    assert isinstance(value, dict)
    assert made(schema, seed) == value


def leaves() -> st.SearchStrategy[dict[str, Any]]:
    bounds = st.integers(-20, 20)
    return st.one_of(
        st.builds(
            lambda low, span: {"type": "integer", "minimum": low, "maximum": low + span},
            bounds,
            st.integers(0, 9),
        ),
        st.builds(lambda low: {"type": "number", "exclusiveMinimum": low}, bounds),
        st.builds(
            lambda low, more: {"type": "string", "minLength": low, "maxLength": low + more},
            st.integers(0, 9),
            st.integers(0, 9),
        ),
        st.lists(st.text(max_size=5) | st.integers() | st.none(), min_size=1, max_size=4).map(
            lambda some: {"enum": some}
        ),
        st.sampled_from(["^[A-Z]{2}\\d+$", "^\\w+@\\w+\\.com$", "a|b"]).map(
            lambda text: {"type": "string", "pattern": text}
        ),
        st.sampled_from(["boolean", "null"]).map(lambda kind: {"type": kind}),
    )


def nested(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    names = st.sampled_from(["path", "query", "limit", "deep", "flag"])
    objects = st.dictionaries(names, inner, max_size=4).flatmap(
        lambda properties: st.lists(
            st.sampled_from(sorted(properties)) if properties else st.nothing(), unique=True
        ).map(
            lambda required: {
                "type": "object",
                "properties": properties,
                "required": required,
                "additionalProperties": False,
            }
        )
    )
    arrays = st.builds(
        lambda items, least: {"type": "array", "items": items, "minItems": least}, inner, st.integers(0, 3)
    )
    return objects | arrays | st.lists(inner, min_size=1, max_size=3).map(lambda some: {"anyOf": some})


@settings(max_examples=150, deadline=None)
@given(st.recursive(leaves(), nested, max_leaves=12), st.integers(0, 1000))
def test_generated_schemas_are_satisfied(schema: dict[str, Any], seed: int) -> None:
    whole = wrap(schema)
    Draft202012Validator(whole).validate(made(whole, seed))


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"x": {"$ref": "#"}}, "required": ["x"]},
        {"anyOf": [{"$ref": "#"}]},
        {"$ref": "#"},
        wrap({"$ref": "https://elsewhere.example/schema"}),
        wrap({"$ref": "#/nowhere/9"}),
        wrap({"anyOf": [{"$ref": "#/$defs/x/0"}]}, **{"$defs": {"x": [{"type": "integer"}]}}),
        {"type": "wrong", "properties": 7},
        wrap({"type": "string", "minLength": 9, "maxLength": 3}),
        wrap({"type": "string", "pattern": "["}),
        wrap({"type": "array", "items": {"const": 1}, "uniqueItems": True, "minItems": 4}),
        wrap({"type": "array", "items": {"const": None}, "uniqueItems": True, "minItems": 4}),
        {"type": "object", "properties": ["no"], "required": 3 and ["a"]},
    ],
    ids=str,
)
def test_impossible_schemas_do_no_harm(schema: dict[str, Any]) -> None:
    made(schema)


def test_no_schema_is_no_arguments() -> None:
    assert made(None) == {}
    assert made({}) == {}


def listing(text: str, question: str = "read the docs please") -> Context:
    return Context().extended(
        [
            {"role": "user", "content": question},
            {"type": "function_call", "call_id": "a", "name": "list", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "a", "output": text},
        ]
    )


def test_paths_come_from_what_was_listed() -> None:
    names = ["README.md", "docs/one.md", "Makefile"]
    schema = {"type": "object", "properties": {"file_path": {"type": "string"}}, "required": ["file_path"]}
    context = listing("\n".join(names))
    assert {made(schema, seed, context)["file_path"] for seed in range(40)} == set(names)
    later = context.extended(
        [
            {"type": "function_call", "call_id": "b", "name": "read", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "b", "output": "a long line of plain prose"},
        ]
    )
    assert {made(schema, seed, later)["file_path"] for seed in range(40)} == set(names)


def test_words_come_from_what_was_said() -> None:
    schema = {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]}
    assert made(schema, 1, listing(""))["query"] in {"read", "the", "docs", "please"}
    assert made(schema, 1, listing("find \u00fcber words"))["query"] in {"find", "\u00fcber", "words"}
    assert made(schema, 1) == {"query": "text"}


def test_paths_without_a_listing() -> None:
    schema = {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}
    assert made(schema) == {"path": "."}
    assert made(schema, 0, listing("no names", "see src/main.py, please.")) == {"path": "src/main.py"}
    assert made(schema, 0, listing("it is in lib/x.c: look", "hm")) == {"path": "lib/x.c"}


@pytest.mark.parametrize(
    "pattern",
    [
        "^a+b*?c{2,3}$",
        "^(?:x|yy)(z)\\1$",
        "^[^a-c]$",
        "^[^\\w]+$",
        "^\\s\\S\\D\\W$",
        "^.[^x]$",
        "^(?>ab)c++$",
        "\\bword\\b",
        "^(?=a)a$",
        "[\\u4e00-\\u9fff]+",
        "^[^a]$",
    ],
)
def test_patterns(pattern: str) -> None:
    for seed in range(5):
        assert re.search(pattern, matching(pattern, random.Random(seed)))


def test_patterns_with_lengths() -> None:
    assert len(matching("^[ab]+$", random.Random(0), 40, 60)) >= 40
    assert len(matching("a", random.Random(0), 10)) == 10
    assert matching("^a$", random.Random(0), 5) == "xxxxx"
