"""Callers, virtual keys and what a key may use."""

from __future__ import annotations

from typing import Any

import pytest

from pool.auth import Secret
from pool.errors import SettingsError
from pool.wire.refusal import Refused
from scheduler.admission.tenant import Tenant
from scheduler.gateway.keys import Caller, KeyRing, Policy, VirtualKey, digest_of


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def virtual(name: str = "batch", key: str = "wl-batch", **fields: Any) -> VirtualKey:
    return VirtualKey(name=name, digest=digest_of(key), **fields)


def refused(ring: KeyRing, headers: dict[str, str]) -> Refused:
    with pytest.raises(Refused) as caught:
        ring.identify(headers)
    return caught.value


def test_a_forwarded_key_travels_upstream_and_names_nobody() -> None:
    ring = KeyRing("forward")
    caller = ring.identify(bearer("sk-one"))
    assert caller.secret == Secret("sk-one")
    assert caller.id == digest_of("sk-one")
    assert caller.name == f"key-{digest_of('sk-one')[:8]}"
    assert "sk-one" not in repr(caller)
    assert ring.identify(bearer("sk-two")).id != caller.id
    assert ring.identify({"api-key": "sk-one"}) == caller
    assert ring.identify({"authorization": "bearer   sk-one"}) == caller


def test_what_says_whose_account_it_is_travels_and_keeps_callers_apart() -> None:
    ring = KeyRing("forward")
    plain, project = ring.identify(bearer("sk")), ring.identify({**bearer("sk"), "openai-project": "p1"})
    assert project.headers == {"OpenAI-Project": "p1"}
    assert len({plain.id, project.id, ring.identify({**bearer("sk"), "openai-project": "p2"}).id}) == 3
    socket = ring.identify({**bearer("sk"), "openai-beta": "responses_websockets=2026-02-06"})
    assert socket == plain
    beta = ring.identify({**bearer("sk"), "openai-beta": "responses_websockets=2026-02-06, other=v1"})
    assert beta.headers == {"OpenAI-Beta": "other=v1"}


@pytest.mark.parametrize("policy", ["forward", "virtual"])
@pytest.mark.parametrize("headers", [{}, {"authorization": "Basic dTpw"}, {"authorization": "Bearer "}])
def test_without_a_key_nobody_comes_in(policy: Policy, headers: dict[str, str]) -> None:
    error = refused(KeyRing(policy, [virtual()]), headers)
    assert (error.status, error.code) == (401, None)
    assert "You didn't provide an API key" in error.message


def test_a_virtual_key_stands_for_its_tenant() -> None:
    ring = KeyRing("virtual", [virtual(), virtual("web", "wl-web", tenant="shop", priority=2)])
    caller = ring.identify(bearer("wl-web"))
    assert (caller.name, caller.tenant, caller.priority, caller.secret) == ("web", "shop", 2, None)
    assert ring.identify(bearer("wl-batch")).tenant == "batch"
    for wrong in ("wl-webb", "wl-we", digest_of("wl-web"), "sk-upstream"):
        error = refused(ring, bearer(wrong))
        assert (error.status, error.code) == (401, "invalid_api_key")
        assert wrong not in str(error.body())


def test_an_open_gateway_asks_nobody() -> None:
    assert KeyRing("open").identify({}) == KeyRing("open").identify(bearer("anything"))


def test_tenants_for_the_scheduler() -> None:
    keys = [
        virtual("a", "1", tenant="team", weight=3, max_in_flight=5),
        virtual("b", "2", tenant="team", weight=3, max_in_flight=5),
        virtual("c", "3"),
    ]
    assert KeyRing("virtual", keys).tenants == (
        Tenant(name="team", weight=3, max_in_flight=5),
        Tenant(name="c"),
    )
    with pytest.raises(SettingsError, match="keys disagree"):
        _ = KeyRing("virtual", [keys[0], virtual("d", "4", tenant="team")]).tenants


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"name": ""}, "keys.name"),
        ({"digest": "wl-the-key-itself"}, "64 hexadecimal digits"),
        ({"weight": 0}, "weight"),
        ({"priority": float("nan")}, "priority"),
        ({"priority": "high"}, "priority"),
        ({"max_in_flight": 0}, "max_in_flight"),
        ({"requests_per_minute": 1.5}, "requests_per_minute"),
        ({"tokens_per_minute": True}, "tokens_per_minute"),
    ],
)
def test_what_a_key_cannot_be(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said) as caught:
        VirtualKey(**{"name": "n", "digest": digest_of("k"), **fields})
    assert "wl-the-key-itself" not in str(caught.value)


def test_names_and_digests_stand_once() -> None:
    for keys in ([virtual("a", "1"), virtual("a", "2")], [virtual("a", "1"), virtual("b", "1")]):
        with pytest.raises(SettingsError, match="is there twice"):
            KeyRing("virtual", keys)
    with pytest.raises(SettingsError, match="--new-key"):
        KeyRing("virtual", [])


def limited(ring: KeyRing, caller: Caller, now: float) -> float | None:
    try:
        ring.charge(caller, now)
    except Refused as error:
        return error.retry_after if error.code == "rate_limit_exceeded" else -1
    return None


def test_requests_of_a_minute() -> None:
    ring = KeyRing("virtual", [virtual(requests_per_minute=2), virtual("free", "wl-free")])
    caller, free = ring.identify(bearer("wl-batch")), ring.identify(bearer("wl-free"))
    assert [limited(ring, caller, at) for at in (0.0, 10.0, 20.0, 59.0)] == [None, None, 40.0, 1.0]
    assert [limited(ring, free, 20.0) for _ in range(9)] == [None] * 9
    assert [limited(ring, caller, at) for at in (60.0, 61.0)] == [None, 9.0]


def test_tokens_of_a_minute_are_known_afterwards() -> None:
    ring = KeyRing("virtual", [virtual(tokens_per_minute=1000)])
    caller = ring.identify(bearer("wl-batch"))
    assert limited(ring, caller, 0.0) is None
    ring.spent(caller, 999, 1.0)
    assert limited(ring, caller, 2.0) is None
    ring.spent(caller, 5000, 3.0)  # counts as the whole limit
    assert limited(ring, caller, 4.0) == pytest.approx(59.0)
    assert limited(ring, caller, 63.5) is None
    ring.spent(Caller(id="x", name="x"), 10, 0.0)  # nobody's limit


def test_other_keys_take_the_place_of_the_present_ones() -> None:
    ring = KeyRing("virtual", [virtual(requests_per_minute=1), virtual("old", "wl-old")])
    caller = ring.identify(bearer("wl-batch"))
    assert limited(ring, caller, 0.0) is None
    ring.replace([virtual(requests_per_minute=2), virtual("new", "wl-new")])
    assert refused(ring, bearer("wl-old")).status == 401
    assert ring.identify(bearer("wl-new")).name == "new"
    caller = ring.identify(bearer("wl-batch"))
    assert [limited(ring, caller, at) for at in (1.0, 2.0)] == [None, 58.0]  # what was used counts on
    with pytest.raises(SettingsError):
        ring.replace([])
    assert ring.identify(bearer("wl-new")).name == "new"
    ring.replace([virtual()])
    assert limited(ring, ring.identify(bearer("wl-batch")), 3.0) is None
