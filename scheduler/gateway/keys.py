"""Who a client is: by its own key, which travels upstream, or by a virtual key, which stands for ours. Pure.

Theory of operation
    A caller's `id` is all that the rest of the gateway goes by: upstreams and conversations are kept apart by it, so
    nothing ever crosses from one caller to another. It is a digest, and what people see of it is its beginning.

    A virtual key is 256 random bits, so one round of SHA-256 hides it as well as a slow hash would: there is nothing
    to guess. The configuration holds only the digests. A key that comes in is compared with all of them, each in
    constant time and without stopping at the right one.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from typing import Literal

from attrs import Attribute, define, field, frozen
from attrs.validators import optional

from pool.auth import Secret
from pool.errors import SettingsError
from pool.redaction import CLIENTS
from pool.settings import above, whole
from pool.wire.refusal import Refused, unauthorized
from scheduler.admission.tenant import Tenant, check_name
from scheduler.admission.window import Window
from scheduler.gateway.access import DEFAULT_ENDPOINTS, ENDPOINTS
from scheduler.gateway.loopback import check_local

PREFIX = "wl-"  # of a virtual key
SHOWN = 8  # characters of a digest that people see
_DIGEST = re.compile(r"[0-9a-f]{64}")
_BEARER = re.compile(r"Bearer +(\S+)", re.IGNORECASE)

# What says, beside the key, whose account a request is for, and what is asked of it
FORWARDED = {
    "openai-organization": "OpenAI-Organization",
    "openai-project": "OpenAI-Project",
    "openai-beta": "OpenAI-Beta",
}
_OURS = "responses_websockets="  # a feature that says no more than that a socket is used

Policy = Literal["forward", "virtual", "open"]
"""Whose key travels upstream: the client's own, ours for those with a virtual key, or ours for everybody."""


def _number(_instance: object, attribute: Attribute[float], value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise SettingsError(attribute.name, value, "must be a number; the higher goes first, 0 is usual")


def _names(value: object) -> object:
    """Return a TOML list as a tuple; anything else as it is, for the validator."""
    return tuple(value) if isinstance(value, list) else value


def _check_names(_instance: object, attribute: Attribute[tuple[str, ...]], value: object) -> None:
    if not isinstance(value, tuple) or not all(isinstance(one, str) and one for one in value):
        raise SettingsError(f"keys.{attribute.name}", value, "must be a list of texts")


def _check_endpoints(instance: object, attribute: Attribute[tuple[str, ...]], value: tuple[str, ...]) -> None:
    _check_names(instance, attribute, value)
    for one in value:
        if one not in ENDPOINTS:
            remedy = f"no such endpoint; there is {', '.join(ENDPOINTS)} (* is all that the account may do)"
            raise SettingsError("keys.endpoints", one, remedy)


def digest_of(key: str) -> str:
    """Return what the configuration holds of a virtual key."""
    return hashlib.sha256(key.encode()).hexdigest()


@frozen(kw_only=True)
class VirtualKey:
    """What the configuration says of one virtual key. The key itself was shown once, when it was made."""

    name: str = field()
    digest: str = field(repr=False)
    tenant: str = field(default="")  # its own name, if nothing else is said
    weight: float = field(default=1.0, validator=above(0))  # of the tenant; see docs/admission.md
    priority: float = field(default=0.0, validator=_number)
    max_in_flight: int | None = field(default=None, validator=optional(whole(1)))  # turns of the tenant
    requests_per_minute: int | None = field(default=None, validator=optional(whole(1)))
    tokens_per_minute: int | None = field(default=None, validator=optional(whole(1)))
    # What may be used of the account, and which of its resources beside those that the key has created
    endpoints: tuple[str, ...] = field(
        default=DEFAULT_ENDPOINTS, converter=_names, validator=_check_endpoints
    )
    resources: tuple[str, ...] = field(default=(), converter=_names, validator=_check_names)

    def __attrs_post_init__(self) -> None:
        if not self.tenant:
            object.__setattr__(self, "tenant", self.name)
        check_name(self.tenant, "keys.tenant")

    @name.validator
    def _check_name(self, _attribute: Attribute[str], value: str) -> None:
        check_name(value, "keys.name")

    @digest.validator
    def _check_digest(self, _attribute: Attribute[str], value: str) -> None:
        if not isinstance(value, str) or not _DIGEST.fullmatch(value):
            remedy = "must be the 64 hexadecimal digits that `warmline serve --new-key NAME` printed"
            raise SettingsError("keys.digest", "(hidden)", remedy)


@frozen(kw_only=True)
class Caller:
    """Whoever a request is from."""

    id: str  # upstreams and conversations of different ids never meet
    name: str  # for people
    tenant: str | None = None
    priority: float | None = None
    secret: Secret | None = field(default=None, repr=False)  # to send upstream; None: the gateway's own key
    headers: Mapping[str, str] = field(factory=dict, repr=False)  # that go upstream with it
    key: VirtualKey | None = None


@define(eq=False)
class _Allowance:
    """What one virtual key has used in the last minute."""

    requests: Window | None = None
    tokens: Window | None = None

    def limited(self, key: VirtualKey) -> None:
        """Hold it to the limits of this key; what was used counts on."""
        self.requests = _limited(self.requests, key.requests_per_minute)
        self.tokens = _limited(self.tokens, key.tokens_per_minute)


def _limited(window: Window | None, limit: int | None) -> Window | None:
    if limit is None:
        return None
    if window is None:
        return Window(limit)
    window.limit = limit
    return window


@define(eq=False)
class KeyRing:
    """Tells callers apart, and keeps what a virtual key may use."""

    policy: Policy
    keys: Sequence[VirtualKey] = ()
    _allowances: dict[str, _Allowance] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        for what, values in (
            ("keys.name", [key.name for key in self.keys]),
            ("keys.digest", [key.digest for key in self.keys]),
        ):
            twice = next((value for value in values if values.count(value) > 1), None)
            if twice is not None:
                shown = twice if what == "keys.name" else "(hidden)"
                raise SettingsError(what, shown, "is there twice; each key stands once")
        if self.policy == "virtual" and not self.keys:
            remedy = "needs a key: make one with `warmline serve --new-key NAME`, and put it into the configuration"
            raise SettingsError("client_keys", "virtual", remedy)

    @property
    def tenants(self) -> tuple[Tenant, ...]:
        """The tenants of all keys, for the scheduler. Raises `SettingsError` where two keys disagree about one."""
        found: dict[str, Tenant] = {}
        for key in self.keys:
            tenant = Tenant(name=key.tenant, weight=key.weight, max_in_flight=key.max_in_flight)
            if found.setdefault(key.tenant, tenant) != tenant:
                remedy = "its keys disagree about weight or max_in_flight; say the same in each"
                raise SettingsError("keys.tenant", key.tenant, remedy)
        return tuple(found.values())

    def replace(self, keys: Sequence[VirtualKey]) -> None:
        """Put other keys in place of the present ones, all or, when they cannot be used, none."""
        _ = KeyRing(self.policy, keys).tenants  # raises
        self.keys = keys
        named = {key.name: key for key in keys}
        self._allowances = {name: kept for name, kept in self._allowances.items() if name in named}
        for name, allowance in self._allowances.items():
            allowance.limited(named[name])

    def still_valid(self, caller: Caller) -> bool:
        """Whether the key of a caller is as it was when the caller was identified, but for its limits."""
        if caller.key is None:
            return True
        named = next((key for key in self.keys if key.name == caller.key.name), None)
        return named is not None and all(
            getattr(named, one) == getattr(caller.key, one)
            for one in ("digest", "tenant", "priority", "endpoints", "resources")
        )

    def identify(self, headers: Mapping[str, str]) -> Caller:
        """Return whom a request is from. `headers` have lower-case names.

        Raises:
            Refused: (401) there is no key, or it is not one of ours; (403) none is needed, but a browser's page asks.
        """
        if self.policy == "open":
            check_local(headers)
            return Caller(id="open", name="everybody")
        given = _given(headers)
        if self.policy == "forward":
            if given is None:
                raise no_key()
            forwarded = _forwarded(headers)
            digest = digest_of("\n".join([given, *(f"{name}: {value}" for name, value in forwarded.items())]))
            return Caller(id=digest, name=f"key-{digest[:SHOWN]}", secret=Secret(given), headers=forwarded)
        if given is None:
            raise no_key()
        digest = digest_of(given)
        found: VirtualKey | None = None
        for key in self.keys:
            if hmac.compare_digest(key.digest, digest):
                found = key
        if found is None:
            raise unauthorized()
        CLIENTS.keep(given)
        return Caller(
            id=found.digest, name=found.name, tenant=found.tenant, priority=found.priority, key=found
        )

    def charge(self, caller: Caller, now: float) -> None:
        """One more request of a caller. Raises `Refused` (429) when its key's minute is used up."""
        allowance = self._allowance(caller)
        if allowance is None:
            return
        for what, window in (("requests", allowance.requests), ("tokens", allowance.tokens)):
            if window is not None and not window.fits(1, now):
                wait = max(0.001, window.ready_at(1, now) - now)
                raise Refused(
                    f"Rate limit reached for key '{caller.name}' on {what} per min: Limit {window.limit}. "
                    f"Please try again in {wait:.3g}s.",
                    status=429,
                    kind=what,
                    code="rate_limit_exceeded",
                    retry_after=wait,
                )
        if allowance.requests is not None:
            allowance.requests.charge(1, now)

    def spent(self, caller: Caller, tokens: int, now: float) -> None:
        """A turn of a caller has used so many tokens."""
        allowance = self._allowance(caller)
        if allowance is not None and allowance.tokens is not None and tokens > 0:
            allowance.tokens.charge(tokens, now)

    def _allowance(self, caller: Caller) -> _Allowance | None:
        if caller.key is None:
            return None
        found = self._allowances.get(caller.key.name)
        if found is None:
            found = self._allowances[caller.key.name] = _Allowance()
            # Whoever is connected may have come with the key as it was before a reload
            found.limited(next((key for key in self.keys if key.name == caller.key.name), caller.key))
        return found


def _given(headers: Mapping[str, str]) -> str | None:
    """Return the key of a request: a bearer token, or Azure's header."""
    found = _BEARER.fullmatch(headers.get("authorization", "").strip())
    return found[1] if found else headers.get("api-key") or None


def _forwarded(headers: Mapping[str, str]) -> dict[str, str]:
    found = {shown: headers[name] for name, shown in FORWARDED.items() if headers.get(name)}
    features = [one.strip() for one in found.pop("OpenAI-Beta", "").split(",")]
    asked = [one for one in features if one and not one.startswith(_OURS)]
    return {**found, "OpenAI-Beta": ", ".join(asked)} if asked else found


def no_key() -> Refused:
    """Nobody says who is asking."""
    return Refused(
        "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer "
        "auth (i.e. Authorization: Bearer YOUR_KEY).",
        status=401,
    )
