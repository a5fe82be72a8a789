"""What a Python function says about itself, as a model needs to hear it. Runs once, when a tool is defined."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import docstring_parser
from attrs import frozen

from scheduler.errors import ToolDefinitionError
from scheduler.tools.context import ToolContext
from scheduler.tools.schema import (
    JsonSchema,
    arguments_type,
    decoder_of,
    default_in_schema,
    described,
    keyword_decoder,
    schema_of,
)

_UNFIT = {
    inspect.Parameter.POSITIONAL_ONLY: ("is positional-only", "remove the `/`: arguments are passed by name"),
    inspect.Parameter.VAR_POSITIONAL: (
        "takes any number of values",
        "give it a name and a type: `items: list[str]`",
    ),
    inspect.Parameter.VAR_KEYWORD: ("takes any keyword", "name each parameter: the model must be told of it"),
}


@frozen(kw_only=True)
class Signature:
    """A function, ready to be offered and called.

    `decode` turns a call's JSON text into keyword arguments; `context` is the name of the parameter that takes
    the `ToolContext`, if there is one.
    """

    description: str
    parameters: JsonSchema
    decode: Callable[[str], dict[str, Any]]
    context: str | None


def read_signature(function: Callable[..., Any], name: str) -> Signature:
    """Read a function's parameters, types and docstring. Raises `ToolDefinitionError` where it can't be offered."""
    described_by = docstring_parser.parse(inspect.getdoc(_inner(function)) or "")
    texts = {entry.arg_name: entry.description for entry in described_by.params if entry.description}
    fields: list[tuple[str, Any, bool]] = []
    defaults: dict[str, JsonSchema] = {}
    context = None
    for parameter, hint in _hints(function, name):
        if hint is ToolContext:
            context = parameter.name
            continue
        annotation = described(hint, texts.get(parameter.name))
        _check_type(annotation, name, parameter.name)
        required = parameter.default is inspect.Parameter.empty
        fields.append((parameter.name, annotation, required))
        if not required:
            defaults[parameter.name] = default_in_schema(parameter.default)
    shape = arguments_type("Arguments", fields)
    schema = schema_of(shape)
    schema.pop("description", None)
    for key, default in defaults.items():
        schema["properties"][key].update(default)
    return Signature(
        description=(described_by.description or "").strip(),
        parameters=schema,
        decode=keyword_decoder(shape, [field for field, _, _ in fields], complete=not defaults),
        context=context,
    )


def _inner(function: Callable[..., Any]) -> Callable[..., Any]:
    """Find the function whose docstring and globals count."""
    while isinstance(function, functools.partial):
        function = function.func
    if not (inspect.isroutine(function) or inspect.isclass(function)):
        function = type(function).__call__
    inner: Callable[..., Any] = inspect.unwrap(function)
    return inner


def _hints(function: Callable[..., Any], name: str) -> list[tuple[inspect.Parameter, Any]]:
    scope = getattr(_inner(function), "__globals__", {})
    try:
        parameters = inspect.signature(function).parameters.values()
    except (ValueError, NameError) as exc:
        raise ToolDefinitionError(
            name, f"has no readable signature ({exc})", "wrap it in a plain function"
        ) from exc
    hints: list[tuple[inspect.Parameter, Any]] = []
    for parameter in parameters:
        if parameter.kind in _UNFIT:
            problem, remedy = _UNFIT[parameter.kind]
            raise ToolDefinitionError(name, problem, remedy, parameter=parameter.name)
        if parameter.annotation is inspect.Parameter.empty:
            raise ToolDefinitionError(
                name,
                "has no type hint",
                f"write `{parameter.name}: str` (or what it is)",
                parameter=parameter.name,
            )
        hints.append((parameter, _resolve(parameter, scope, name)))
    return hints


def _resolve(parameter: inspect.Parameter, scope: Mapping[str, Any], name: str) -> Any:
    # One at a time: a return type that only the type checker can see must not spoil the parameters, and the error
    # can say which one is at fault.
    holder = SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
    try:
        return typing.get_type_hints(holder, dict(scope), include_extras=True)[parameter.name]
    except Exception as exc:
        raise ToolDefinitionError(
            name,
            f"type hint {parameter.annotation!r} cannot be resolved ({exc})",
            "import or define the type at module level, outside `if TYPE_CHECKING`",
            parameter=parameter.name,
        ) from exc


def _check_type(annotation: Any, name: str, parameter: str) -> None:
    """Try one parameter's type alone, so that the error can name it."""
    try:
        schema_of(annotation)
        decoder_of(annotation)
    except Exception as exc:
        problem = " ".join(str(exc).split())
        raise ToolDefinitionError(
            name,
            f"its type cannot be told to a model ({problem})",
            "use primitives, Literal, Enum, lists, dicts, TypedDict, dataclass, attrs, msgspec or pydantic models",
            parameter=parameter,
        ) from exc
