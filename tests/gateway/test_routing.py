"""A request's target is parsed once: what has two meanings is refused, and what goes upstream is written anew."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool.web import Head
from pool.wire.refusal import Refused
from scheduler.gateway.routing import encoded_body, route_of


def head(target: str, method: str = "POST") -> Head:
    return Head(method=method, target=target)


@pytest.mark.parametrize(
    "target",
    [
        *("/v1/responses", "/v1/responses/", "/v1/responses?", "/v1/responses?x=1", "/v1/responses/?x=1"),
        *("/v1/%72esponses", "/%76%31/responses"),
    ],
)
def test_every_spelling_of_a_create_is_a_create(target: str) -> None:
    assert route_of(head(target)).create


@pytest.mark.parametrize(
    "target",
    [
        *("/v1//responses", "//v1/responses", "/v1/responses//", "/v1/./responses", "/v1/x/../responses"),
        *("/v1/%2e/responses", "/v1/x/%2E%2e/responses", "/v1/responses%2Fresp_1", "/v1/responses%5cresp_1"),
        *("/v1/responses\\resp_1", "/v1/responses%3Fx", "/v1/responses%23", "/v1/responses%25%32%46x"),
        *("/v1/responses%00", "/v1/responses%0d%0a", "/v1/responses%", "/v1/responses%zz", "/v1/%ff"),
        *("/v1/responses#x", "/v1/responses?x#y", "v1/responses", "http://host/v1/responses", "*", ""),
    ],
)
def test_what_has_two_meanings_is_refused(target: str) -> None:
    with pytest.raises(Refused) as refused:
        route_of(head(target))
    assert refused.value.status == 404


@pytest.mark.parametrize(
    "target", ["/v2/responses", "/V1/responses", "/responses", "/v1/\u00e9", "/v1/%e2%80%ae"]
)
def test_what_is_not_below_the_api_is_refused(target: str) -> None:
    with pytest.raises(Refused):
        route_of(head(target))


@given(st.lists(st.text(min_size=1), min_size=1, max_size=4), st.sampled_from(["", "a=1&b=%20"]))
def test_what_goes_upstream_is_what_was_parsed(segments: list[str], query: str) -> None:
    target = "/v1" + "".join("/" + quote(one, safe="") for one in segments) + (f"?{query}" if query else "")
    try:
        route = route_of(head(target))
    except Refused:
        return
    assert route.segments == tuple(segments)
    assert route_of(head("/v1" + route.upstream_path)) == route


@pytest.mark.parametrize(
    ("value", "coding"),
    [
        *((None, None), ("", None), ("identity", None), ("identity, identity", None), (" Identity ,", None)),
        *(("gzip", "gzip"), ("identity, gzip", "gzip"), ("GZIP, identity", "gzip"), ("br", "br"), ("x", "x")),
    ],
)
def test_a_body_is_packed_or_it_is_not(value: str | None, coding: str | None) -> None:
    assert encoded_body({} if value is None else {"content-encoding": value}) == coding
