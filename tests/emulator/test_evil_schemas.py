"""Whatever schema or pattern a client writes, arguments come after a bounded number of steps, and are not too large.

Steps are function calls, counted by the interpreter: a measure that is the same on every machine. And what says
whether a text matches says what `re` says, where that comes to an end.
"""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool.emulator.arguments import arguments_for
from pool.emulator.context import Context
from pool.emulator.effort import Effort, Exhausted
from pool.emulator.matcher import LONGEST, matches
from pool.emulator.patterns import MOST_LETTERS, matching
from pool.emulator.words import Words
from pool.wire.codec import to_json

MOST_STEPS = 3_000_000
MOST_BYTES = 4 * MOST_LETTERS

PATTERNS = [
    "^(a|a)*(?=x)$",
    "^(a|a)*$",
    "^(a|aa)+$",
    "^(a+)+$",
    "^(a+)+b$",
    "^(a*)*b$",
    "^((a*)*)*$",
    "^(a?){50}a{50}$",
    "(x+x+)+y",
    "^(.*)*(.*)*(.*)*x$",
    "^(([a-z])+.)+[A-Z]([a-z])+$",
    "^([a-zA-Z0-9])(([\\-.]|[_]+)?([a-zA-Z0-9]+))*(@){1}[a-z0-9]+[.]{1}(([a-z]{2,3})|([a-z]{2,3}[.]{1}[a-z]{2,3}))$",
    "a{4000000000}",
    "^a{4294967294}$",
    "^(a{1000}){1000}$",
    "^((a{100}){100}){100}$",
    "^(((((a{90}){90}){90}){90}){90})$",
    "^(|){4000000000}$",
    "^(a|){4000000000}$",
    "^(?:){1000000000}$",
    "(a*){9999}b",
    "^(\\w+\\s?)*$",
    "^(\\w+\\s?)*\\1\\1\\1\\1$",
    "^(a)(\\1\\1)(\\2\\2)(\\3\\3)(\\4\\4)(\\5\\5)(\\6\\6)(\\7\\7)(\\8\\8)(\\9\\9)$",
    "^(.+)+\\1(.+)+\\2$",
    "(?=(a+)+b)(?!(c+)+d)",
    "(?=(?=(?=(?=a*)*)*)*)*x",
    "(?<=a{4000})b",
    "(?i)^(\u017f|s|S)*(?=k)$",
    "(" * 900 + ")" * 900,
    "(?:" * 400 + "a" + ")*" * 400,
    "[" + "\\u0000-\\uffff" * 150 + "]",
    "a|" * 999,
    "x" * (LONGEST + 1),
    "(",
    "\\p{L}+",
    "(?(1)a|b)",
    "^(?>(a+)+)$",
    "^(a++)++b$",
]


def chain(levels: int, link: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    """Definitions of which each refers to the next."""
    defs: dict[str, Any] = {f"d{level}": link(f"#/$defs/d{level + 1}") for level in range(levels)}
    return {"$ref": "#/$defs/d0", "$defs": {**defs, f"d{levels}": {"type": "integer"}}}


def twice(*keywords: str) -> Callable[[str], dict[str, Any]]:
    """A link that refers twice to the next, for each keyword."""
    return lambda to: {name: [{"$ref": to}, {"$ref": to}] for name in keywords}


def wrap(inner: Any) -> dict[str, Any]:
    defs = inner.pop("$defs", {}) if isinstance(inner, dict) else {}
    return {"type": "object", "properties": {"x": inner}, "required": ["x"], "$defs": defs}


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    return schema


PAIR = {"type": "object", "properties": {"a": {"$ref": "#"}, "b": {"$ref": "#"}}, "required": ["a", "b"]}
SCHEMAS: dict[str, dict[str, Any]] = {
    "huge enum": wrap({"enum": [f"v{number}" for number in range(100_000)]}),
    "enum of objects": wrap({"enum": [{"a": number} for number in range(5_000)], "type": "string"}),
    "minLength": wrap({"type": "string", "minLength": 4_000_000_000}),
    "minLength as a float": wrap({"type": "string", "minLength": 1e300}),
    "minLength below zero": wrap({"type": "string", "minLength": -5, "maxLength": -9}),
    "minLength and a pattern": wrap({"type": "string", "minLength": 4_000_000_000, "pattern": "a"}),
    "minItems": wrap({"type": "array", "minItems": 1_000_000_000}),
    "minItems, unique": wrap({"type": "array", "minItems": 1_000_000_000, "uniqueItems": True}),
    "minItems, of one value": wrap(
        {"type": "array", "items": {"const": {}}, "minItems": 9_999, "uniqueItems": True}
    ),
    "many long texts": wrap(
        {"type": "array", "minItems": 10_000, "items": {"type": "string", "minLength": 60_000}}
    ),
    "minItems in minItems": wrap(
        {
            "type": "array",
            "minItems": 1000,
            "items": {"type": "array", "minItems": 1000, "items": {"minItems": 1000}},
        }
    ),
    "minProperties": {"type": "object", "minProperties": 1_000_000_000},
    "required": {"type": "object", "required": [f"r{number}" for number in range(100_000)]},
    "one name required many times": {"type": "object", "required": ["r"] * 100_000},
    "properties": {"type": "object", "properties": {f"p{number}": {} for number in range(50_000)}},
    "properties required": {
        "type": "object",
        "properties": {f"p{number}": {} for number in range(20_000)},
        "required": [f"p{number}" for number in range(20_000)],
    },
    "prefixItems": wrap({"type": "array", "prefixItems": [{"type": "integer"}] * 50_000}),
    "refers to itself": {"$ref": "#"},
    "allOf of itself": {"allOf": [{"$ref": "#"}]},
    "allOf of itself, twice": {"allOf": [{"$ref": "#"}, {"$ref": "#"}]},
    "anyOf of itself": {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]},
    "not itself": {"not": {"$ref": "#"}},
    "two of itself required": PAIR,
    "an array of two of itself": {"type": "array", "items": {"$ref": "#"}, "minItems": 2},
    "allOf, doubled": wrap(chain(40, twice("allOf"))),
    "anyOf, doubled": wrap(chain(40, twice("anyOf"))),
    "oneOf, doubled": wrap(chain(40, twice("oneOf"))),
    "all of them, doubled": wrap(chain(40, twice("allOf", "anyOf", "oneOf"))),
    "if, then, else": wrap(
        chain(40, lambda to: {"if": {"$ref": to}, "then": {"$ref": to}, "else": {"$ref": to}})
    ),
    "references in a row": wrap(chain(3_000, lambda to: {"$ref": to})),
    "a long reference": {"$ref": "#" + "/properties" * 5_000, "properties": {}},
    "allOf, wide": {"allOf": [{"properties": {f"p{n}-{m}": {} for m in range(20)}} for n in range(2_000)]},
    "anyOf, wide": wrap({"anyOf": [{"type": "integer"}] * 50_000}),
    "nested, 48 deep": nested(48),
    "nested, 300 deep": nested(300),
    "multipleOf, tiny": wrap({"type": "number", "multipleOf": 5e-324}),
    "multipleOf, tiny, for integers": wrap({"type": "integer", "multipleOf": 1e-300, "minimum": 1}),
    "multipleOf and far bounds": wrap({"type": "number", "multipleOf": 1e-9, "minimum": 1e308}),
    "far bounds": wrap({"type": "number", "minimum": -1.7e308, "maximum": 1.7e308}),
    "long numbers": wrap({"type": "integer", "minimum": 10**4000, "multipleOf": 7}),
    "unique and unsortable": {"type": "object", "required": [*range(1500), *"abc"]},
    "patternProperties": {
        "type": "object",
        "patternProperties": {"^(a|a)*(?=x)$": {}, "^(p+)+$": {"type": "integer"}},
        "additionalProperties": False,
        "required": ["a" * 60, "p" * 60 + "!"],
    },
    "patternProperties and what is unevaluated": {
        "type": "object",
        "patternProperties": {"^(a|a)*(?=x)$": {}},
        "unevaluatedProperties": False,
        "required": ["a" * 60],
    },
    "propertyNames": {
        "type": "object",
        "propertyNames": {"pattern": "^(a+)+$"},
        "required": ["a" * 60 + "!"],
    },
    "a const against a pattern": wrap({"const": "a" * 60 + "!", "pattern": "^(a+)+$"}),
    "dependentSchemas of itself": {"dependentSchemas": {"a": {"$ref": "#"}}, "required": ["a"]},
    "contains": wrap({"type": "array", "contains": {"$ref": "#"}, "minItems": 500}),
    "types that are none": {"type": "object", "properties": 5, "required": {"a": 1}, "minProperties": True},
}


def steps(work: Callable[[], Any]) -> tuple[int, Any]:
    """Return how many functions are called, and the result."""
    count = 0

    def called(_frame: object, event: str, _argument: object) -> None:
        nonlocal count
        if event in ("call", "c_call"):
            count += 1
            if count > MOST_STEPS:
                raise AssertionError("it goes on and on")

    before = sys.getprofile()
    sys.setprofile(called)
    try:
        result = work()
    finally:
        sys.setprofile(before)
    return count, result


def made(schema: dict[str, Any]) -> Any:
    return arguments_for(schema, Words(Context(), random.Random(1)))


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern[:40])
@pytest.mark.parametrize(("shortest", "longest"), [(0, 1 << 20), (3000, 1 << 40), (4_000_000_000, 1 << 40)])
def test_evil_patterns(pattern: str, shortest: int, longest: int) -> None:
    count, text = steps(lambda: matching(pattern, random.Random(1), shortest, longest))
    assert count < MOST_STEPS
    assert isinstance(text, str)
    assert len(text) <= MOST_BYTES


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern[:40])
def test_evil_patterns_in_a_schema(pattern: str) -> None:
    schema = {
        **wrap({"type": "string", "pattern": pattern, "minLength": 40}),
        "patternProperties": {pattern: {"type": "string", "pattern": pattern}},
    }
    count, value = steps(lambda: made(schema))
    assert count < MOST_STEPS
    assert set(value) <= {"x"}


@pytest.mark.parametrize("name", SCHEMAS)
def test_evil_schemas(name: str) -> None:
    count, value = steps(lambda: made(SCHEMAS[name]))
    assert count < MOST_STEPS
    assert len(to_json(value)) <= MOST_BYTES


LETTERS = st.sampled_from("ab1x \n")
LEAVES = st.sampled_from(
    ["a", "b", ".", "[ab]", "[^a]", r"\d", r"\w", r"\b", "(?=a)", "(?!b)", "(?<=a)", r"\Z"]
)
EXPRESSIONS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds("{}{}".format, inner, inner),
        st.builds("(?:{}|{})".format, inner, inner),
        st.builds("({}){}".format, inner, st.sampled_from(["", "*", "+", "?", "{2}", "{1,3}", "*?"])),
    ),
    max_leaves=8,
)


@given(
    st.sampled_from(["", "^", "(?i)", "(?s)^", "(?m)^"]),
    EXPRESSIONS,
    st.sampled_from(["", "$", r"\1", r"\1$"]),
    st.text(LETTERS, max_size=8),
)
def test_it_matches_what_re_matches(begin: str, middle: str, end: str, text: str) -> None:
    pattern = begin + middle + end
    try:
        expected = re.search(pattern, text) is not None
    except re.error:
        with pytest.raises(Exhausted):
            matches(pattern, text, Effort(100_000))
        return
    assert matches(pattern, text, Effort(1_000_000)) is expected


def test_the_work_grows_with_the_square_of_the_text() -> None:
    def work(length: int) -> int:
        effort = Effort(100_000_000)
        assert not matches("^(a|a)*(?=x)$", "a" * length, effort)
        return 100_000_000 - effort.left

    assert work(400) < 4.5 * work(200) < 20 * work(100)
    with pytest.raises(Exhausted):
        matches("^(a|a)*(?=x)$", "a" * 400, Effort(work(400) - 1))
