"""Structured results: what the server is asked to keep to, and how the answer is read."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

import jsonschema
import msgspec
import pydantic
import pytest

from scheduler.tools.strict import output_format


@dataclasses.dataclass
class Finding:
    """One finding."""

    path: str
    line: Annotated[int, msgspec.Meta(ge=1)]
    severity: Literal["low", "high"] = "low"
    note: str | None = None


@dataclasses.dataclass
class Report:
    findings: list[Finding]
    worst: Finding | None = None
    where: tuple[int, str] = (1, "a")
    file: Path | None = None


@dataclasses.dataclass
class Tree:
    label: str
    children: list["Tree"]


class Shape(pydantic.BaseModel):
    kind: Literal["circle"]
    radius: float = pydantic.Field(gt=0, description="in cm")


def parts(schema: Any) -> list[dict[str, Any]]:
    if isinstance(schema, dict):
        return [schema, *(part for value in schema.values() for part in parts(value))]
    return [part for value in schema for part in parts(value)] if isinstance(schema, list) else []


@pytest.mark.parametrize(
    "kind", [Finding, Report, Tree, Shape, list[Finding], int | None, list[str]], ids=str
)
def test_the_strict_schema_keeps_to_the_rules_of_strict_mode(kind: Any) -> None:
    told = output_format(kind).text
    assert told["type"] == "json_schema"
    assert told["strict"] is True
    schema = told["schema"]
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["type"] == "object"
    for part in parts(schema):
        if isinstance(part.get("properties"), dict) and "type" in part:
            assert part["required"] == list(part["properties"])
            assert part["additionalProperties"] is False
        if "$ref" in part:
            assert list(part) == ["$ref"]
        assert part.get("format") != "path"
        assert not part.keys() & {"default", "prefixItems", "uniqueItems", "oneOf", "allOf", "const", "title"}


def test_an_answer_becomes_a_value() -> None:
    answer = output_format(Report).parse(
        '{"findings": [{"path": "a", "line": 2, "severity": "high", "note": null}]}'
    )
    assert answer == Report([Finding("a", 2, "high")])
    assert output_format(Shape).parse('{"kind": "circle", "radius": 2}') == Shape(kind="circle", radius=2)


def test_what_is_no_object_travels_in_one() -> None:
    form = output_format(list[Finding])
    assert list(form.text["schema"]["properties"]) == ["result"]
    assert form.parse('{"result": [{"path": "a", "line": 1}]}') == [Finding("a", 1)]
    with pytest.raises(ValueError, match=r"`\$\.result`"):
        form.parse('{"result": 5}')


@pytest.mark.parametrize("kind", [dict[str, int], list[Any], dict, dict[str, Finding]], ids=str)
def test_open_types_are_asked_for_without_strict(kind: Any) -> None:
    told = output_format(kind).text
    assert told["strict"] is False
    jsonschema.Draft202012Validator.check_schema(told["schema"])


def test_the_name_is_one_the_api_takes() -> None:
    odd = dataclasses.make_dataclass("Été", [("a", int)])
    assert output_format(odd).text["name"] == "_t_"
    assert output_format(Finding).text["name"] == "Finding"
    assert output_format(int | None).text["name"]


def test_a_constant_and_an_exclusive_choice_are_said_in_strict_words() -> None:
    class Choice:
        @classmethod
        def model_json_schema(cls) -> dict[str, Any]:
            return {
                "type": "object",
                "properties": {"a": {"const": 1}, "b": {"oneOf": [{"type": "string"}, {"type": "null"}]}},
            }

        @classmethod
        def model_validate(cls, value: Any) -> Any:
            return value

    schema = output_format(Choice).text["schema"]
    assert schema["properties"] == {
        "a": {"enum": [1], "type": "integer"},
        "b": {"anyOf": [{"type": "string"}, {"type": "null"}]},
    }


def test_a_type_without_a_json_form() -> None:
    with pytest.raises(TypeError):
        output_format(complex)
