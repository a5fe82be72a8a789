"""What a caller to whom the gateway lends its key may reach: endpoints, methods, bodies and header fields. Pure.

Theory of operation
    The gateway's key opens the whole account. A virtual key opens what its configuration lists (`endpoints`), and
    of that only operations that are known here: what is not in the table is refused, so that an endpoint which
    the service adds tomorrow is not open today. `*` lifts that for a key: whoever has it may do what the account may.

    A request is described by its operation: whether it creates a resource, lists some, or names one. Who may name
    which is decided elsewhere (`ownership`), from the ids that are found here and in the body (`references`).

    Header fields that choose an account, a project or another method would be read upstream together with the
    gateway's key: only those that are known to be harmless are passed on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from attrs import frozen

from pool.wire.refusal import Refused
from scheduler.gateway.routing import Route, encoded_body

EVERYTHING = "*"
DEFAULT_ENDPOINTS = ("responses", "models")
Body = Literal["none", "json", "opaque"]
"""How a body is treated: there is none; it is parsed and searched; it is passed on as it comes."""


@frozen
class _Family:
    """The operations of one kind of resource. Paths are what follows `/v1/<name>`."""

    collection: tuple[str, ...] | None = ()  # where resources are created and listed; None: there are none
    owned: bool = True  # resources belong to who created them
    actions: frozenset[tuple[str, ...]] = frozenset()  # POSTs that create no resource
    listed: bool = True
    methods: frozenset[str] = frozenset({"GET", "POST", "DELETE"})
    opaque: frozenset[tuple[str, ...]] = frozenset()  # uploads, whose body is a form; `*` stands for one id


FAMILIES: Mapping[str, _Family] = {
    "responses": _Family(actions=frozenset({("compact",), ("input_tokens",)}), listed=False),
    "models": _Family(owned=False, methods=frozenset({"GET"})),
    "chat": _Family(collection=("completions",)),
    "completions": _Family(collection=None, actions=frozenset({()})),
    "embeddings": _Family(collection=None, actions=frozenset({()})),
    "moderations": _Family(collection=None, actions=frozenset({()})),
    "images": _Family(
        collection=None,
        actions=frozenset({("generations",), ("edits",), ("variations",)}),
        opaque=frozenset({("edits",), ("variations",)}),
    ),
    "audio": _Family(
        collection=None,
        actions=frozenset({("speech",), ("transcriptions",), ("translations",)}),
        opaque=frozenset({("transcriptions",), ("translations",)}),
    ),
    "files": _Family(opaque=frozenset({()})),
    "uploads": _Family(opaque=frozenset({("*", "parts")})),
    "batches": _Family(),
    "conversations": _Family(),
    "vector_stores": _Family(),
    "containers": _Family(),
}
ENDPOINTS = (*FAMILIES, EVERYTHING)
METERED = frozenset({"responses", "chat", "completions", "embeddings"})  # what is created there uses tokens
FREE = ("responses", "input_tokens")  # but for this, which only counts them

# Passed on with the gateway's key, beside `x-stainless-*`: what says nothing about whose request it is
_HARMLESS = frozenset(
    {
        *("accept", "accept-language", "content-length", "content-type", "idempotency-key", "if-match"),
        *(
            "if-modified-since",
            "if-none-match",
            "if-range",
            "openai-beta",
            "range",
            "traceparent",
            "tracestate",
        ),
        *("user-agent", "x-client-request-id"),
    }
)
_PREFIX_OF_SDKS = "x-stainless-"
# Of an answer: whose account it is, and what would be sent back to the server by a browser
_NOT_FOR_CALLERS = frozenset({b"openai-organization", b"openai-project", b"set-cookie"})

Fields = Iterable[tuple[bytes, bytes]]


@frozen(kw_only=True)
class Operation:
    """A request in the terms of the table above.

    `names`: the id of a resource in the path that must be the caller's. `creates`: the answer's `id` becomes the
    caller's. `lists`: only the caller's own stay in the answer. `metered`: its answer says how many tokens it used.
    """

    names: str | None = None
    creates: bool = False
    lists: bool = False
    metered: bool = False
    opaque: bool = False


def operation_of(route: Route) -> Operation | None:
    """Return what a request does; None when that is not known."""
    family = FAMILIES.get(route.family)
    if family is None or route.method not in family.methods:
        return None
    rest, post = route.segments[1:], route.method == "POST"
    metered = post and route.family in METERED and route.segments[:2] != FREE
    if rest in family.actions:
        return Operation(metered=metered, opaque=rest in family.opaque) if post else None
    start = family.collection
    if start is None or rest[: len(start)] != start:
        return None
    rest = rest[len(start) :]
    if not rest:
        if post:
            return Operation(creates=family.owned, metered=metered, opaque=() in family.opaque)
        lists = route.method == "GET" and family.listed
        return Operation(lists=family.owned) if lists else None
    opaque = ("*", *rest[1:]) in family.opaque
    return Operation(names=rest[0] if family.owned else None, opaque=opaque)


def check_endpoint(route: Route, endpoints: Iterable[str]) -> Operation:
    """Return what a request does, where a key with these endpoints may do that.

    Raises:
        Refused: (403) it may not; (404) the endpoint is not known here.
    """
    allowed = frozenset(endpoints)
    operation = operation_of(route)
    if EVERYTHING in allowed:
        return operation or Operation(opaque=True)
    if route.family not in allowed:
        known = route.family if route.family in FAMILIES else "*"
        raise Refused(
            f"This key may not use '{route.family[:40]}': its endpoints are {', '.join(sorted(allowed)) or 'none'}. "
            f"Whoever runs the gateway can add {known!r} to `endpoints` of the key.",
            status=403,
            code="endpoint_not_allowed",
        )
    if operation is None:
        raise Refused(
            f"Invalid URL ({route.method} /v1/{'/'.join(route.segments)[:200]}): no operation that this key may use.",
            status=404,
        )
    return operation


def check_body(operation: Operation, headers: Mapping[str, str], *, has_body: bool) -> Body:
    """Say how a body has to be treated when the key is lent.

    Raises:
        Refused: (415) it is in a form that could not be searched.
    """
    if not has_body:
        return "none"
    packed = encoded_body(headers)
    if packed is not None:
        raise Refused(
            f"Content-Encoding {packed[:40]!r} is not supported with a key of the gateway's: send the body as it is.",
            status=415,
            code="unsupported_content_encoding",
        )
    kind = headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind == "multipart/form-data" and operation.opaque:
        return "opaque"
    if kind == "application/json" or kind.endswith("+json"):
        return "json"
    raise Refused(
        f"Content-Type {kind[:60]!r} is not supported here with a key of the gateway's: send application/json.",
        status=415,
        code="unsupported_content_type",
    )


def lent_fields(fields: Fields) -> list[tuple[bytes, bytes]]:
    """Return the header fields of a request that go upstream with the gateway's own key."""
    found = []
    for name, value in fields:
        lower = name.decode("latin-1").lower()
        if lower in _HARMLESS or lower.startswith(_PREFIX_OF_SDKS):
            found.append((name, value))
    return found


def shown_fields(fields: Fields) -> list[tuple[bytes, bytes]]:
    """Return the header fields of an answer that a caller of the gateway's own key is shown."""
    return [(name, value) for name, value in fields if name.lower() not in _NOT_FOR_CALLERS]
