"""Who may read the page, and who may not."""

from __future__ import annotations

import pytest

from pool.auth import Secret
from pool.web import Head
from scheduler.dashboard.access import Access, Refusal, Welcome, local_host

OPEN = Access(port=9100)
CLOSED = Access(token=Secret("s3cret+/="), port=9100)


def head(target: str = "/", method: str = "GET", **headers: str) -> Head:
    """Return a request's head; `_` in a name is a hyphen."""
    given = {"host": "127.0.0.1:9100", **headers}
    fields = tuple((name.replace("_", "-").encode(), value.encode()) for name, value in given.items())
    return Head(method=method, target=target, fields=fields)


def refused(verdict: Refusal | Welcome | None) -> int:
    """Return with which status."""
    assert isinstance(verdict, Refusal), verdict
    return verdict.status


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:9100", "localhost", "LOCALHOST:80", "localhost.:9", "[::1]:9100", "[::1]", "127.9.9.9:1"],
)
def test_loopback_names(host: str) -> None:
    assert local_host(host)
    assert OPEN.check(head(host=host)) is None


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:9100",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "10.0.0.1",
        "",
        "[::2]",
    ],
)
def test_a_name_that_was_pointed_here_is_refused(host: str) -> None:
    assert not local_host(host)
    assert refused(OPEN.check(head(host=host))) == 421


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize("target", ["/events", "/state.json", "/dashboard.js"])
def test_other_sites_read_nothing(site: str, target: str) -> None:
    assert refused(OPEN.check(head(target, sec_fetch_site=site, sec_fetch_mode="cors"))) == 403
    assert refused(OPEN.check(head(target, sec_fetch_site=site, sec_fetch_mode="navigate"))) == 403


def test_a_link_on_another_site_may_open_the_page() -> None:
    assert OPEN.check(head(sec_fetch_site="cross-site", sec_fetch_mode="navigate")) is None
    assert refused(OPEN.check(head(sec_fetch_site="cross-site", sec_fetch_mode="no-cors"))) == 403


def test_an_origin_must_be_ours() -> None:
    assert OPEN.check(head("/events", origin="http://127.0.0.1:9100")) is None
    for origin in ("http://evil.example", "null", "http://127.0.0.1:9101"):
        assert refused(OPEN.check(head("/events", origin=origin))) == 403


@pytest.mark.parametrize("method", ["POST", "OPTIONS", "PUT", "DELETE"])
def test_nothing_can_be_changed(method: str) -> None:
    assert refused(OPEN.check(head(method=method))) == 405


def test_without_the_token_nothing_is_shown() -> None:
    for target in ("/", "/events", "/state.json", "/?token=", "/?token=wrong"):
        assert refused(CLOSED.check(head(target))) == 401
    assert refused(CLOSED.check(head(cookie="warmline-9100=wrong"))) == 401
    assert refused(CLOSED.check(head(cookie="warmline-9101=s3cret%2B/%3D"))) == 401
    assert refused(CLOSED.check(head(authorization="Bearer wrong"))) == 401
    assert refused(CLOSED.check(head(authorization="Basic s3cret+/="))) == 401


def test_the_token_becomes_a_cookie_and_leaves_the_url() -> None:
    welcome = CLOSED.check(head("/?token=s3cret%2B%2F%3D&source=a"))
    assert isinstance(welcome, Welcome)
    assert welcome.location == "/?source=a"
    name, _, rest = welcome.cookie.partition("=")
    value, *options = rest.split("; ")
    assert name == "warmline-9100"
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} == set(options)
    assert CLOSED.check(head("/events", cookie=f"other=1; {name}={value}")) is None


def test_a_program_brings_the_token_in_a_header() -> None:
    assert CLOSED.check(head("/state.json", authorization="bearer s3cret+/=")) is None


def test_with_a_token_the_machine_may_have_any_name() -> None:
    assert CLOSED.check(head(host="build-7.example:9100", authorization="Bearer s3cret+/=")) is None


def test_another_site_gets_nothing_even_with_the_cookie() -> None:
    cookie = "warmline-9100=s3cret%2B%2F%3D"
    assert refused(CLOSED.check(head("/events", cookie=cookie, sec_fetch_site="cross-site"))) == 403


def test_the_token_is_not_shown() -> None:
    assert "s3cret" not in repr(CLOSED)
    refusal = CLOSED.check(head("/?token=guess"))
    assert "guess" not in repr(refusal)
    assert "s3cret" not in repr(refusal)
