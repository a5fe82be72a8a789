"""Types <-> JSON: the schema that a model is shown for a type, and the decoder and encoder that go with it.

msgspec does the work: one pass over the JSON text parses it, checks it against the type and builds the values,
several times cheaper than parsing first and validating after. What it does not know (paths, pydantic models) is
taught by hooks. Its schemas are then tidied for the Responses API, which is pickier than JSON Schema.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import PurePath
from typing import Annotated, Any

import docstring_parser
import msgspec
from msgspec import inspect as type_inspect

JsonSchema = dict[str, Any]


def schema_of(annotation: Any) -> JsonSchema:
    """Derive a self-contained JSON Schema (its own `$defs`). Raises `TypeError` for a type without one."""
    (schema,), shared = msgspec.json.schema_components([annotation], schema_hook=_schema_hook)
    for name, cls in _named_classes(annotation):
        _describe_fields(shared[name], cls)
    if shared:
        schema["$defs"] = shared
    return inline_root(tidy(hoist_definitions(schema)))


def decoder_of(annotation: Any) -> Callable[[str | bytes], Any]:
    """Build the function from JSON text to values of the type. It raises `ValueError` saying what and where."""
    return msgspec.json.Decoder(annotation, dec_hook=_decode_hook).decode


_encoder = msgspec.json.Encoder(enc_hook=lambda value: _encode_hook(value))


def encode_text(value: object) -> str:
    """Encode a tool's return value as JSON text. Raises `TypeError` for what has no JSON form."""
    return _encoder.encode(value).decode()


def arguments_type(name: str, fields: Iterable[tuple[str, Any, bool]]) -> type[msgspec.Struct]:
    """Make the type of a function's arguments from (name, annotation, required).

    What the caller leaves out decodes as `UNSET`, so that the function's own default applies.
    """
    return msgspec.defstruct(
        name,
        [(field, kind) if required else (field, kind, msgspec.UNSET) for field, kind, required in fields],
        kw_only=True,
        forbid_unknown_fields=True,
    )


def keyword_decoder(
    shape: type[msgspec.Struct], names: list[str], *, complete: bool
) -> Callable[[str], dict[str, Any]]:
    """Build the function from a call's JSON text to keyword arguments; `complete`: none of them has a default."""
    decode = decoder_of(shape)

    def keywords(text: str) -> dict[str, Any]:
        # Some servers send nothing at all for a call without arguments.
        values = decode(text or "{}")
        if complete:
            return {name: getattr(values, name) for name in names}
        return {name: value for name in names if (value := getattr(values, name)) is not msgspec.UNSET}

    return keywords


def described(annotation: Any, text: str | None) -> Any:
    """Attach a description for the schema. One in the annotation (`Annotated[T, "text"]`) goes before `text`."""
    for note in getattr(annotation, "__metadata__", ()):
        if isinstance(note, msgspec.Meta) and note.description:
            return annotation
        if isinstance(note, str):
            text = note
    if text is None:
        return annotation
    return Annotated[annotation, msgspec.Meta(description=text)]


def default_in_schema(value: object) -> JsonSchema:
    """Give `{"default": ...}` for a default that JSON can show, else nothing: a schema must not lie."""
    try:
        plain = msgspec.json.decode(encode_text(value))
    except (TypeError, ValueError, RecursionError):
        return {}
    return {} if plain is None else {"default": plain}


def hoist_definitions(schema: JsonSchema) -> JsonSchema:
    """Move every nested `$defs` (pydantic brings its own) to the root, where `#/$defs/...` looks for them."""
    shared: dict[str, JsonSchema] = {}

    def lift(node: Any) -> Any:
        if isinstance(node, dict):
            for name, definition in node.pop("$defs", {}).items():
                shared[name] = lift(definition)
            return {key: lift(value) for key, value in node.items()}
        return [lift(value) for value in node] if isinstance(node, list) else node

    root: JsonSchema = lift(schema)
    return {**root, "$defs": shared} if shared else root


def inline_root(schema: JsonSchema) -> JsonSchema:
    """Replace a root that is only a reference by what it refers to: the API wants an object at the root."""
    reference = schema.get("$ref")
    if reference is None:
        return schema
    shared: dict[str, JsonSchema] = schema["$defs"]
    name = reference.removeprefix("#/$defs/")
    root = {**shared[name], **{key: value for key, value in schema.items() if key not in ("$ref", "$defs")}}
    kept = {key: value for key, value in shared.items() if key != name or _mentions(shared, reference)}
    return {**root, "$defs": kept} if kept else root


def walk(schema: JsonSchema, change: Callable[[JsonSchema], JsonSchema]) -> JsonSchema:
    """Rebuild a schema bottom-up, passing each subschema (never a map of properties) through `change`."""
    node: JsonSchema = {}
    for key, value in schema.items():
        if key in ("properties", "$defs"):
            node[key] = {name: walk(part, change) for name, part in value.items()}
        elif key in ("anyOf", "allOf", "oneOf", "prefixItems"):
            node[key] = [walk(part, change) for part in value]
        elif key in ("items", "additionalProperties", "not") and isinstance(value, dict):
            node[key] = walk(value, change)
        else:
            node[key] = value
    return change(node)


def tidy(schema: JsonSchema) -> JsonSchema:
    """Make a schema that the API takes, and no longer than it must be: it is sent on every turn."""
    return walk(schema, _tidy_node)


_JSON_TYPES: Mapping[type, str] = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    type(None): "null",
}


def _tidy_node(node: JsonSchema) -> JsonSchema:
    # Titles repeat names; `discriminator` is OpenAPI's, and strict mode refuses it.
    node = {key: value for key, value in node.items() if key not in ("title", "discriminator")}
    if "properties" in node:
        node.setdefault("additionalProperties", False)
    if node.get("type") == "array":
        if "prefixItems" in node:
            # Read by few; `items` with the alternatives says nearly the same to every reader.
            kinds = [
                kind for n, kind in enumerate(node["prefixItems"]) if kind not in node["prefixItems"][:n]
            ]
            node["items"] = kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
            if len(kinds) == 1:
                del node["prefixItems"]
        node.setdefault("items", {})  # "array schema missing items" is an error there
    if "const" in node:
        node["enum"] = [node.pop("const")]
    if "enum" in node and "type" not in node:
        kinds = list(dict.fromkeys(_JSON_TYPES[type(value)] for value in node["enum"]))
        node["type"] = kinds[0] if len(kinds) == 1 else kinds
    if "default" in node and node["default"] is None:
        del node["default"]
    return node


def _mentions(node: Any, reference: str) -> bool:
    if isinstance(node, dict):
        return node.get("$ref") == reference or any(_mentions(value, reference) for value in node.values())
    return isinstance(node, list) and any(_mentions(value, reference) for value in node)


def _named_classes(annotation: Any) -> Iterator[tuple[str, type]]:
    """Find the classes with fields behind an annotation, with the names msgspec gives their definitions."""
    found: dict[type, None] = {}
    waiting: list[Any] = [type_inspect.type_info(annotation)]
    while waiting:
        info = waiting.pop()
        if isinstance(info, tuple):
            waiting.extend(info)
        elif isinstance(info, type_inspect.Type | type_inspect.Field):
            cls = getattr(info, "cls", None)
            fields = getattr(info, "fields", ())
            if fields and cls is not None:
                if cls in found:
                    continue
                found[cls] = None
            waiting.extend(getattr(info, name) for name in info.__struct_fields__)
    names = [_plain(cls.__name__) for cls in found]
    for cls, name in zip(found, names, strict=True):
        yield (name if names.count(name) == 1 else _plain(f"{cls.__module__}.{cls.__qualname__}")), cls


def _plain(name: str) -> str:
    return re.sub(r"[^a-zA-Z0-9.\-_]", "_", name)


def _describe_fields(schema: JsonSchema, cls: type) -> None:
    """Add what the class itself says about its fields: `Annotated[T, "text"]`, or its docstring."""
    written = docstring_parser.parse(cls.__doc__ or "")
    texts = {entry.arg_name: entry.description for entry in written.params if entry.description}
    if written.description and "description" in schema:
        schema["description"] = written.description.strip()
    for name, hint in typing.get_type_hints(cls, include_extras=True).items():
        if typing.get_origin(hint) in (typing.Required, typing.NotRequired):
            (hint,) = typing.get_args(hint)
        texts.update((name, note) for note in getattr(hint, "__metadata__", ()) if isinstance(note, str))
    for name, part in schema.get("properties", {}).items():
        if name in texts:
            part.setdefault("description", texts[name])


def _schema_hook(cls: type) -> JsonSchema:
    if issubclass(cls, PurePath):
        return {"type": "string", "format": "path"}
    # Pydantic models are known by their shape, so that pydantic stays the user's choice and not a dependency.
    if hasattr(cls, "model_json_schema") and hasattr(cls, "model_validate"):
        model: JsonSchema = cls.model_json_schema()
        return model
    raise NotImplementedError(f"{cls.__name__} has no JSON Schema")


def _decode_hook(cls: type, value: Any) -> Any:
    if not hasattr(cls, "model_validate"):
        return cls(value)
    try:
        return cls.model_validate(value)
    except ValueError as exc:
        raise ValueError(_one_line(exc)) from None


def _one_line(exc: ValueError) -> str:
    """Pydantic's report runs over many lines with links; the model needs the place and the problem."""
    if not hasattr(exc, "errors"):
        return str(exc)
    return "; ".join(f"{'.'.join(map(str, part['loc']))}: {part['msg']}" for part in exc.errors())


def _encode_hook(value: Any) -> Any:
    if isinstance(value, PurePath):
        return str(value)
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} has no JSON form; return a str, or something JSON can hold")
