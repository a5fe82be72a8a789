"""Types <-> JSON: what the model is shown accepts exactly what the decoder takes."""

import dataclasses
import datetime
import enum
import json
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, TypedDict

import attrs
import jsonschema
import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.tools.schema import (
    arguments_type,
    decoder_of,
    default_in_schema,
    described,
    encode_text,
    keyword_decoder,
    schema_of,
)


class Mode(enum.Enum):
    """How to look."""

    FAST = "fast"
    DEEP = "deep"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Options(TypedDict):
    depth: int
    follow: NotRequired[Annotated[bool, "also through links"]]


@dataclasses.dataclass
class Place:
    """Where something stands.

    Attributes:
        path: the file
        line: from 1
    """

    path: Path
    line: int = 1


@attrs.define
class Node:
    name: str
    children: list["Node"] = attrs.field(factory=list)


class Range(msgspec.Struct, forbid_unknown_fields=True):
    start: Annotated[int, msgspec.Meta(ge=0, description="first line")]
    end: int | None = None


class Pair(NamedTuple):
    key: str
    value: int


class Author(pydantic.BaseModel):
    name: str


class Book(pydantic.BaseModel):
    """A book."""

    title: str
    authors: list[Author] = []
    year: int = pydantic.Field(default=2000, ge=1450)


class Circle(msgspec.Struct, tag="circle"):
    radius: float


class Square(msgspec.Struct, tag="square"):
    side: float


def of(generic: Any, *kinds: Any) -> Any:
    """Subscript a generic with types that only exist at run time."""
    return generic[kinds if len(kinds) > 1 else kinds[0]]


@pytest.mark.parametrize(
    ("kind", "schema"),
    [
        (str, {"type": "string"}),
        (int, {"type": "integer"}),
        (float, {"type": "number"}),
        (bool, {"type": "boolean"}),
        (Any, {}),
        (list, {"type": "array", "items": {}}),
        (dict, {"type": "object"}),
        (list[str], {"type": "array", "items": {"type": "string"}}),
        (Sequence[int], {"type": "array", "items": {"type": "integer"}}),
        (set[int], {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}),
        (dict[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}),
        (Mapping[str, str], {"type": "object", "additionalProperties": {"type": "string"}}),
        (int | None, {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
        (Literal["a", "b"], {"type": "string", "enum": ["a", "b"]}),
        (Literal["a", 1, None], {"type": ["null", "integer", "string"], "enum": [None, 1, "a"]}),
        (Level, {"type": "integer", "enum": [1, 2]}),
        (datetime.date, {"type": "string", "format": "date"}),
        (uuid.UUID, {"type": "string", "format": "uuid"}),
        (Path, {"type": "string", "format": "path"}),
        (
            tuple[int, int],
            {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2},
        ),
        (
            tuple[int, str],
            {
                "type": "array",
                "prefixItems": [{"type": "integer"}, {"type": "string"}],
                "items": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
                "minItems": 2,
                "maxItems": 2,
            },
        ),
    ],
    ids=str,
)
def test_schema_of_plain_types(kind: Any, schema: dict[str, Any]) -> None:
    found = schema_of(kind)
    found.pop("description", None)  # Python 3.11 gives IntEnum a docstring of its own
    assert found == schema


def test_a_class_at_the_root_is_written_out() -> None:
    assert schema_of(Place) == {
        "type": "object",
        "description": "Where something stands.",
        "properties": {
            "path": {"type": "string", "format": "path", "description": "the file"},
            "line": {"type": "integer", "default": 1, "description": "from 1"},
        },
        "required": ["path"],
        "additionalProperties": False,
    }


def test_annotations_of_fields_become_descriptions() -> None:
    assert schema_of(Options)["properties"]["follow"] == {
        "type": "boolean",
        "description": "also through links",
    }
    assert schema_of(Range)["properties"]["start"] == {
        "type": "integer",
        "minimum": 0,
        "description": "first line",
    }


def test_a_recursive_class_keeps_its_definition() -> None:
    schema = schema_of(Node)
    assert schema["type"] == "object"
    assert schema["properties"]["children"]["items"] == {"$ref": "#/$defs/Node"}
    assert schema["$defs"]["Node"]["additionalProperties"] is False


def test_definitions_of_pydantic_models_move_to_the_root() -> None:
    schema = schema_of(list[Book])
    assert set(schema["$defs"]) == {"Author", "Book"} or set(schema["$defs"]) == {"Author"}
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    assert validator.is_valid([{"title": "T", "authors": [{"name": "A"}]}])
    assert not validator.is_valid([{"title": "T", "authors": [{"nom": "A"}]}])


def test_classes_of_one_name_stay_apart() -> None:
    first = dataclasses.make_dataclass("Same", [("a", Annotated[int, "of the first"])])
    second = dataclasses.make_dataclass("Same", [("b", Annotated[int, "of the second"])])
    second.__module__ = "elsewhere"
    schema = schema_of(of(tuple, first, second))
    texts = {part["description"] for cls in schema["$defs"].values() for part in cls["properties"].values()}
    assert texts == {"of the first", "of the second"}


def test_a_tagged_union_is_told_without_openapis_discriminator() -> None:
    schema = schema_of(list[Circle | Square])
    assert schema["items"] == {"anyOf": [{"$ref": "#/$defs/Circle"}, {"$ref": "#/$defs/Square"}]}
    assert schema["$defs"]["Circle"]["properties"]["type"] == {"enum": ["circle"], "type": "string"}


def test_a_property_called_title_survives_the_removal_of_titles() -> None:
    assert schema_of(Book)["properties"] == {
        "title": {"type": "string"},
        "authors": {"type": "array", "items": {"$ref": "#/$defs/Author"}, "default": []},
        "year": {"type": "integer", "default": 2000, "minimum": 1450},
    }


@pytest.mark.parametrize("kind", [complex, object, int | Path, Ellipsis])
def test_types_without_a_json_form_are_refused(kind: Any) -> None:
    with pytest.raises((TypeError, NotImplementedError)):
        schema_of(kind)


@pytest.mark.parametrize(
    ("kind", "text", "problem"),
    [
        (int, '"1"', "Expected `int`, got `str`"),
        (Place, '{"path": 5}', r"not int - at `\$\.path`"),
        (Range, '{"start": -1}', r"Expected `int` >= 0 - at `\$\.start`"),
        (Range, '{"start": 1, "stop": 2}', "unknown field `stop`"),
        (Mode, '"slow"', "Invalid enum value 'slow'"),
        (list[Book], '[{"title": 5, "year": 1}]', r"title: Input should be .*; year: .* - at `\$\[0\]`"),
        (list[int], "[1,", "truncated"),
        (list[int], "[1}", "malformed"),
    ],
)
def test_the_decoder_says_what_is_wrong_and_where(kind: Any, text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        decoder_of(kind)(text)


def test_a_constructor_that_refuses_is_a_value_error() -> None:
    class Odd:
        @classmethod
        def model_json_schema(cls) -> dict[str, Any]:
            return {"type": "integer"}

        @classmethod
        def model_validate(cls, value: Any) -> "Odd":
            raise ValueError("not odd")

    with pytest.raises(ValueError, match="not odd"):
        decoder_of(Odd)("2")


def test_the_first_word_on_a_type_is_the_annotations() -> None:
    assert described(int, None) is int
    for kind in (
        int,
        Annotated[int, "of its own"],
        Annotated[int, msgspec.Meta(description="of its own", ge=1)],
    ):
        text = "from the docstring" if kind is int else "of its own"
        assert schema_of(described(kind, "from the docstring"))["description"] == text
    assert schema_of(described(Annotated[int, msgspec.Meta(ge=1)], "text")) == {
        "type": "integer",
        "minimum": 1,
        "description": "text",
    }


def test_what_is_left_out_is_left_to_the_function() -> None:
    shape = arguments_type("A", [("path", str, True), ("limit", int, False)])
    decode = keyword_decoder(shape, ["path", "limit"], complete=False)
    assert decode('{"path": "x"}') == {"path": "x"}
    assert decode('{"limit": 3, "path": "x"}') == {"path": "x", "limit": 3}
    assert keyword_decoder(arguments_type("A", []), [], complete=True)("") == {}


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (5, {"default": 5}),
        (None, {}),
        (Mode.FAST, {"default": "fast"}),
        (Path("a"), {"default": "a"}),
        (object(), {}),
    ],
)
def test_defaults_are_shown_where_json_can(value: object, shown: dict[str, Any]) -> None:
    assert default_in_schema(value) == shown


def test_return_values_of_every_kind_encode() -> None:
    value = {
        "path": Path("a/b"),
        "book": Book(title="T"),
        "place": Place(Path("c")),
        "node": Node("n"),
        "mode": Mode.DEEP,
        "day": datetime.date(2026, 1, 2),
    }
    assert json.loads(encode_text(value)) == {
        "path": "a/b",
        "book": {"title": "T", "authors": [], "year": 2000},
        "place": {"path": "c", "line": 1},
        "node": {"name": "n", "children": []},
        "mode": "deep",
        "day": "2026-01-02",
    }
    with pytest.raises(TypeError, match="object has no JSON form"):
        encode_text(object())


names = st.text(st.characters(codec="utf-8"), max_size=20)
leaves: st.SearchStrategy[tuple[Any, st.SearchStrategy[Any]]] = st.sampled_from(
    [
        (str, names),
        (int, st.integers(-(2**53), 2**53)),
        (bool, st.booleans()),
        (float, st.floats(allow_nan=False, allow_infinity=False)),
        (Literal["a", "b", 3], st.sampled_from(["a", "b", 3])),
        (Mode, st.sampled_from(Mode)),
        (uuid.UUID, st.uuids()),
        (datetime.date, st.dates()),
        (Options, st.fixed_dictionaries({"depth": st.integers(0, 9)}, optional={"follow": st.booleans()})),
        (Place, st.builds(Place, st.just(Path("a/b")), st.integers(0, 9))),
        (Range, st.builds(Range, st.integers(0, 9), st.none() | st.integers(0, 9))),
        (Pair, st.builds(Pair, names, st.integers(0, 9))),
        (Book, st.builds(Book, title=names, authors=st.lists(st.builds(Author, name=names), max_size=2))),
        (Node, st.builds(Node, names, st.lists(st.builds(Node, names), max_size=2))),
    ]
)
typed = st.recursive(
    leaves,
    lambda inner: (
        inner.map(lambda pair: (of(list, pair[0]), st.lists(pair[1], max_size=3)))
        | inner.map(lambda pair: (of(dict, str, pair[0]), st.dictionaries(names, pair[1], max_size=3)))
        | inner.map(lambda pair: (pair[0] | None, st.none() | pair[1]))
        | st.tuples(inner, inner).map(
            lambda two: (of(tuple, two[0][0], two[1][0]), st.tuples(two[0][1], two[1][1]))
        )
    ),
    max_leaves=4,
)


@given(st.data())
def test_a_value_passes_its_schema_and_comes_back(data: st.DataObject) -> None:
    kind, values = data.draw(typed)
    value = data.draw(values)
    schema = schema_of(kind)
    jsonschema.Draft202012Validator.check_schema(schema)
    text = encode_text(value)
    jsonschema.Draft202012Validator(schema).validate(json.loads(text))
    assert decoder_of(kind)(text) == value


junk = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-9, 9) | names,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            names | st.sampled_from(["path", "line", "name", "title", "start"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)


@given(st.data(), junk)
def test_what_the_decoder_takes_the_schema_allows(data: st.DataObject, value: Any) -> None:
    """The other way round the decoder may be the stricter one (formats), and lenient only about unknown fields."""
    kind, _ = data.draw(leaves.filter(lambda pair: pair[0] in (str, int, bool, float, Mode, Range, Pair)))
    try:
        decoder_of(kind)(json.dumps(value))
    except ValueError:
        return
    jsonschema.Draft202012Validator(schema_of(kind)).validate(value)
