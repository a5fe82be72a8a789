"""What an endpoint is and how the pool behaves: presets, and errors that say what would do."""

from __future__ import annotations

import math
from typing import Any

import attrs
import pytest

from pool import Endpoint, Lanes, PoolSettings, SettingsError
from pool.auth import KeyFromEnv, NoAuth, StaticKey

MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        (
            Endpoint.openai(),
            ("openai", "wss://api.openai.com/v1/responses", "OPENAI_API_KEY", 3600, 16 * MIB, 16, 32),
        ),
        (
            Endpoint.azure("my-resource"),
            (
                "azure",
                "wss://my-resource.openai.azure.com/openai/v1/responses",
                "AZURE_OPENAI_API_KEY",
                3600,
                16 * MIB,
                1,
                0,
            ),
        ),
        (Endpoint.xai(), ("xai", "wss://api.x.ai/v1/responses", "XAI_API_KEY", 1500, 16 * MIB, 1, 0)),
        (
            Endpoint.vercel(),
            (
                "vercel",
                "wss://ai-gateway.vercel.sh/v1/responses",
                "AI_GATEWAY_API_KEY",
                780,
                4 * MIB,
                1,
                0,
            ),
        ),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_presets(endpoint: Endpoint, expected: tuple[object, ...]) -> None:
    auth = endpoint.auth
    assert isinstance(auth, KeyFromEnv)
    assert (
        endpoint.name,
        endpoint.url,
        auth.variable,
        endpoint.max_age,
        endpoint.frame_cap,
        endpoint.lanes.in_flight,
        endpoint.lanes.named,
    ) == expected
    assert endpoint.http_url == endpoint.url.replace("wss://", "https://").removesuffix("/responses")


def test_vercel_serves_one_model_a_connection_and_closes_idle_ones() -> None:
    assert (Endpoint.vercel().one_model, Endpoint.vercel().idle_limit) == (True, 300.0)
    assert (Endpoint.openai().one_model, Endpoint.openai().idle_limit) == (False, None)


@pytest.mark.parametrize(
    ("given", "socket", "base"),
    [
        ("http://host:8080/v1", "ws://host:8080/v1/responses", "http://host:8080/v1"),
        ("https://host/v1/", "wss://host/v1/responses", "https://host/v1"),
        ("ws://host/v1/responses", "ws://host/v1/responses", "http://host/v1"),
        ("wss://host/a/b/responses", "wss://host/a/b/responses", "https://host/a/b"),
        ("host", "wss://host/v1/responses", "https://host/v1"),
        ("http://[::1]:99", "ws://[::1]:99/v1/responses", "http://[::1]:99/v1"),
        ("https://host/v1?api=2", "wss://host/v1/responses?api=2", "https://host/v1"),
    ],
)
def test_either_url_will_do(given: str, socket: str, base: str) -> None:
    endpoint = Endpoint.open_responses(given)
    assert (endpoint.url, endpoint.http_url) == (socket, base)
    assert endpoint.auth == NoAuth()
    assert endpoint.lanes == Lanes.single()


def test_the_emulator_has_lanes_and_needs_no_key() -> None:
    endpoint = Endpoint.emulator("http://127.0.0.1:8080/v1")
    assert (endpoint.name, endpoint.lanes, endpoint.auth) == ("emulator", Lanes.multi(), NoAuth())
    assert isinstance(Endpoint.emulator("http://h", key="k").auth, StaticKey)


def test_a_copy_with_changes_is_checked_as_well() -> None:
    endpoint = Endpoint.openai(lanes=Lanes.single())
    assert endpoint.with_(max_age=60).max_age == 60
    with pytest.raises(SettingsError, match="max_age = 0"):
        endpoint.with_(max_age=0)
    with pytest.raises(SettingsError, match="max_connections = 0"):
        PoolSettings().with_(max_connections=0)


# Values that cannot be used: the error names field, value and remedy.


@pytest.mark.parametrize(
    "url",
    ["", "host", "http://host/", "wss://", "ws:///path", "wss://host:99999/", "wss://host:x/", "wss://[::1/"],
)
def test_a_url_that_is_none(url: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Endpoint(name="x", url=url)
    assert caught.value.field == "url"
    assert repr(url) in str(caught.value)


@pytest.mark.parametrize("url", ["wss://hö.st/", "wss://host/a b", "wss://host/\n", None, 7])
def test_a_url_that_would_have_to_be_encoded_first(url: Any) -> None:
    with pytest.raises(SettingsError, match="in ASCII without spaces"):
        Endpoint(name="x", url=url)
    with pytest.raises(SettingsError, match="url = "):
        Endpoint.open_responses(url)


@pytest.mark.parametrize("url", ["", "ftp://host/v1", "http://", "http://[::1/v1", "host:x"])
def test_a_base_url_that_is_none(url: str) -> None:
    with pytest.raises(SettingsError, match="url = "):
        Endpoint.open_responses(url)


@pytest.mark.parametrize(
    "url",
    [
        "wss://ann:hunter2@host/v1",
        "wss://ann:hunter2@[::1/v1",
        "ftp://ann:hunter2@host/v1",
        "wss://ann:hunter2@hö.st/",
        "wss://ann:hunter2@host:port/",
        "wss://h ost/v1?key=hunter2",
    ],
)
def test_a_password_in_a_url_is_refused_and_not_repeated(url: str) -> None:
    for make in (Endpoint.open_responses, lambda url: Endpoint(name="x", url=url)):
        with pytest.raises(SettingsError) as caught:
            make(url)
        assert "hunter2" not in str(caught.value) + repr(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("X-Bad", "hunter2\r\nX-Other: 1"),
        ("X-Bad", "hunter2\0"),
        ("X-Bad", " hunter2"),
        ("X-Bad", "hunter2\n"),
        ("X-Bad", b"hunter2"),
        ("X Bad", "hunter2"),
        ("", "hunter2"),
        ("X-Bäd", "hunter2"),
        ("X:Bad", "hunter2"),
        (7, "hunter2"),
    ],
)
def test_a_header_that_cannot_be_sent(name: Any, content: Any) -> None:
    with pytest.raises(SettingsError, match="header") as caught:
        Endpoint(name="x", url="wss://host/", headers={name: content})
    assert "hunter2" not in str(caught.value)


def test_ordinary_headers_are_well() -> None:
    headers = {"X-Title": "käse\tund brot", "OpenAI-Beta": "responses_websockets=2026-02-06", "X-Empty": ""}
    assert Endpoint(name="x", url="wss://host/", headers=headers).headers == headers


@pytest.mark.parametrize("resource", ["", "a.b", "a/b", "a b"])
def test_an_azure_resource_is_a_name_alone(resource: str) -> None:
    with pytest.raises(SettingsError, match="my-resource"):
        Endpoint.azure(resource)


NUMBERS = [field.name for field in attrs.fields(PoolSettings) if field.validator is not None]


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [math.nan, True, -1, "5", None, [1]], ids=repr)
def test_a_number_out_of_range_is_named_with_its_remedy(name: str, value: object) -> None:
    with pytest.raises(SettingsError) as caught:
        PoolSettings(**{name: value})  # type: ignore[arg-type]
    assert caught.value.field == name
    assert str(caught.value).startswith(f"{name} = {value!r}: must be a ")


def test_every_number_is_checked() -> None:
    numbers = [field.name for field in attrs.fields(PoolSettings) if str(field.type) in ("int", "float")]
    assert numbers == NUMBERS


@pytest.mark.parametrize("name", ["max_connections", "dial_burst", "lane_events", "max_message"])
def test_what_is_counted_must_be_whole(name: str) -> None:
    with pytest.raises(SettingsError, match="whole number"):
        PoolSettings(**{name: 2.5e6})  # type: ignore[arg-type]


def test_a_dial_rate_must_be_finite_and_a_timeout_need_not_be() -> None:
    with pytest.raises(SettingsError, match="dial_rate = inf: must be finite"):
        PoolSettings(dial_rate=math.inf)
    assert PoolSettings(idle_timeout=math.inf).idle_timeout == math.inf


def test_a_keepalive_that_waits_far_longer_than_it_asks_is_a_mistake() -> None:
    with pytest.raises(SettingsError, match=r"keepalive_timeout = 60.*keepalive_interval \(5 s\)"):
        PoolSettings(keepalive_interval=5, keepalive_timeout=60)


@pytest.mark.parametrize(
    "fields",
    [{"in_flight": 0}, {"in_flight": 2}, {"in_flight": 4, "named": 3}, {"named": -1}, {"named": 1.5}],
)
def test_lanes_that_cannot_be(fields: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        Lanes(**fields)


def test_lanes_are_one_without_a_name_or_so_many_with() -> None:
    assert (Lanes.single().count, Lanes.single().stream_id(0)) == (1, None)
    assert (Lanes.multi().count, Lanes.multi().stream_id(31)) == (32, "lane-32")


def test_a_settings_error_is_a_value_error_too() -> None:
    assert issubclass(SettingsError, ValueError)
