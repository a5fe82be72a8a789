"""What an endpoint is, and how the pool behaves: frozen, validated, every unit and source named."""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import SplitResult, urlsplit, urlunsplit

from attrs import Attribute, evolve, field, frozen

from pool.auth import Auth, NoAuth, Secret, auth_from
from pool.errors import SettingsError

MIB = 1024 * 1024
_TOKEN = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+")  # RFC 9110, 5.6.2
_ONE_LINE = re.compile(r"(?!\s)[^\x00-\x08\x0a-\x1f\x7f]*(?<!\s)")
KeyLike = str | Secret | Auth | Callable[[], str | Awaitable[str]] | None


def at_least(low: float) -> Callable[[Any, Attribute[Any], Any], None]:
    def check(_instance: object, attribute: Attribute[Any], value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float) or not value >= low:
            raise SettingsError(attribute.name, value, f"must be a number of at least {low:g}")

    return check


def above(low: float) -> Callable[[Any, Attribute[Any], Any], None]:
    def check(_instance: object, attribute: Attribute[Any], value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > low:
            raise SettingsError(attribute.name, value, f"must be a number above {low:g}")

    return check


def finite(_instance: object, attribute: Attribute[Any], value: Any) -> None:
    if math.isinf(value):
        raise SettingsError(attribute.name, value, "must be finite")


def whole(low: int) -> Callable[[Any, Attribute[Any], Any], None]:
    def check(_instance: object, attribute: Attribute[Any], value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise SettingsError(attribute.name, value, f"must be a whole number of at least {low}")

    return check


@frozen(kw_only=True)
class Lanes:
    """How many responses one connection carries.

    `in_flight` at a time; `named` different lane names for the connection's whole life. `named == 0` is the
    classic protocol: one lane without a name.
    """

    in_flight: int = field(default=1, validator=whole(1))
    named: int = field(default=0, validator=whole(0))

    def __attrs_post_init__(self) -> None:
        if self.count < self.in_flight:
            raise SettingsError("lanes.named", self.named, f"must be at least in_flight ({self.in_flight})")

    @classmethod
    def single(cls) -> Lanes:
        """One lane: every endpoint understands it."""
        return cls()

    @classmethod
    def multi(cls, *, in_flight: int = 16, named: int = 32) -> Lanes:
        """Lanes by name; 16 in flight and 32 names are OpenAI's limits."""
        return cls(in_flight=in_flight, named=named)

    @property
    def count(self) -> int:
        """Lanes a connection has, in use or not."""
        return self.named or 1

    def stream_id(self, index: int) -> str | None:
        """Return the wire name of lane `index` (from 0); names are reused, because a connection has few."""
        return f"lane-{index + 1:02d}" if self.named else None


@frozen(kw_only=True)
class Endpoint:
    """One vendor's Responses API: where it is and in what it differs. Use a preset, then `with_(...)`.

    Times are in seconds, sizes in bytes.
    """

    name: str
    url: str = field(repr=lambda url: repr(without_query(url)))  # ws:// or wss://
    auth: Auth = field(factory=NoAuth)
    headers: Mapping[str, str] = field(factory=dict, repr=False)  # may carry a secret of the user's
    max_age: float = field(default=3600.0, validator=above(0))  # the server's cap on a connection's life
    # The server closes a silent connection after this; we ping three times as often
    idle_limit: float | None = None
    frame_cap: int = field(default=16 * MIB, validator=whole(1024))  # client to server, one message
    lanes: Lanes = field(factory=Lanes.single)
    one_model: bool = False  # a connection serves one model only
    http_url: str | None = None  # base URL of the same API over HTTP

    @url.validator
    def _check_url(self, _attribute: Attribute[str], value: str) -> None:
        parts = _split(value)
        if parts.scheme not in ("ws", "wss") or not parts.hostname:
            raise SettingsError("url", _shown(value), "must look like wss://host/v1/responses")
        if parts.username or parts.password:
            raise SettingsError(
                "url", "(hidden)", "must not hold a user name or password; give the key as `key`"
            )
        try:
            _ = parts.port
        except ValueError:
            raise SettingsError(
                "url", _shown(value), "has a port that is not a number from 0 to 65535"
            ) from None

    @headers.validator
    def _check_headers(self, _attribute: Attribute[Mapping[str, str]], value: Mapping[str, str]) -> None:
        for name, content in value.items():
            if not isinstance(name, str) or not _TOKEN.fullmatch(name):
                raise SettingsError("headers", name, "a header's name must be letters, digits and hyphens")
            if not isinstance(content, str) or not _ONE_LINE.fullmatch(content):
                raise SettingsError(f"headers[{name!r}]", "(hidden)", "must be one line of text")

    def with_(self, **changes: Any) -> Endpoint:
        """Return a copy with some fields changed."""
        return evolve(self, **changes)

    @classmethod
    def openai(cls, *, key: KeyLike = None, lanes: Lanes | None = None) -> Endpoint:
        """OpenAI: 60 minutes, 16 MiB, 16 in flight on 32 named lanes. Key: `OPENAI_API_KEY`."""
        return cls(
            name="openai",
            url="wss://api.openai.com/v1/responses",
            auth=auth_from(key, variable="OPENAI_API_KEY"),
            lanes=lanes or Lanes.multi(),
            http_url="https://api.openai.com/v1",
        )

    @classmethod
    def azure(cls, resource: str, *, key: KeyLike = None) -> Endpoint:
        """Azure AI Foundry, `resource` as in https://RESOURCE.openai.azure.com. Key: `AZURE_OPENAI_API_KEY`."""
        if not resource or not all(letter.isalnum() or letter == "-" for letter in resource):
            raise SettingsError("resource", resource, "must be the resource's name alone, e.g. my-resource")
        host = f"{resource}.openai.azure.com"
        return cls(
            name="azure",
            url=f"wss://{host}/openai/v1/responses",
            auth=auth_from(key, variable="AZURE_OPENAI_API_KEY"),
            http_url=f"https://{host}/openai/v1",
        )

    @classmethod
    def xai(cls, *, key: KeyLike = None) -> Endpoint:
        """xAI: 25 minutes, single lanes. Key: `XAI_API_KEY`."""
        return cls(
            name="xai",
            url="wss://api.x.ai/v1/responses",
            auth=auth_from(key, variable="XAI_API_KEY"),
            max_age=25 * 60.0,
            http_url="https://api.x.ai/v1",
        )

    @classmethod
    def vercel(cls, *, key: KeyLike = None) -> Endpoint:
        """Vercel AI Gateway: 13 minutes, idle 5 minutes, 4 MiB, one model a connection. Key: `AI_GATEWAY_API_KEY`."""
        return cls(
            name="vercel",
            url="wss://ai-gateway.vercel.sh/v1/responses",
            auth=auth_from(key, variable="AI_GATEWAY_API_KEY"),
            max_age=13 * 60.0,
            idle_limit=5 * 60.0,
            frame_cap=4 * MIB,
            one_model=True,
            http_url="https://ai-gateway.vercel.sh/v1",
        )

    @classmethod
    def open_responses(cls, url: str, *, key: KeyLike = None, lanes: Lanes | None = None) -> Endpoint:
        """Any server of the protocol. `url` is its base (http://host/v1) or its socket (ws://host/v1/responses)."""
        socket, base = _both_urls(url)
        auth = NoAuth() if key is None else auth_from(key, variable="")
        return cls(name="open_responses", url=socket, auth=auth, lanes=lanes or Lanes.single(), http_url=base)

    @classmethod
    def emulator(cls, url: str, *, key: KeyLike = None, lanes: Lanes | None = None) -> Endpoint:
        """A running `warmline emulate`, by the URL that it printed."""
        return cls.open_responses(url, key=key, lanes=lanes or Lanes.multi()).with_(name="emulator")


@frozen(kw_only=True)
class PoolSettings:
    """How the pool behaves. Times are in seconds; the source of a default stands beside it."""

    max_connections: int = field(default=8, validator=whole(1))
    # Idle lanes kept ready beyond what is in use. Warm-up happens when the pool opens and after each change.
    min_idle: int = field(default=1, validator=whole(0))
    max_waiters: int = field(default=10_000, validator=whole(0))  # above it acquire raises PoolSaturated

    # Dialling. Edges answer 403 to clients that dial too fast (claude-code-proxy#87 settled on one a second).
    # TCP, proxy, TLS and upgrade together (Codex: 15)
    dial_timeout: float = field(default=15.0, validator=above(0))
    dial_concurrency: int = field(default=8, validator=whole(1))
    # A second, sustained; adapts downwards
    dial_rate: float = field(default=20.0, validator=[above(0), finite])
    dial_burst: int = field(default=32, validator=whole(1))
    # Failures in a row before waiters are told, and dialling stops but for a single probe after each cooldown.
    dial_attempts: int = field(default=4, validator=whole(1))
    breaker_cooldown: float = field(default=2.0, validator=above(0))  # doubles with each probe that fails
    breaker_longest: float = field(default=30.0, validator=above(0))
    # A waiter that could have an idle lane of somebody else's conversation waits this long for a fresh one.
    dial_patience: float = field(default=1.0, validator=at_least(0))

    # Age. A connection is retired at endpoint.max_age - reserve - (0..jitter); both are at most a fraction of it.
    reserve: float = field(default=300.0, validator=at_least(0))  # the longest turn to expect, and a margin
    # Spreads the rotation of what was dialled together; more in a big pool, so that its dials are done by then
    jitter: float = field(default=120.0, validator=at_least(0))
    rotation_overlap: int = field(default=2, validator=whole(1))  # successors above max_connections at a time
    idle_timeout: float = field(default=600.0, validator=above(0))

    # Life. Load balancers drop what is silent for 60 s and more (CLIProxyAPI#5413, #4639).
    keepalive_interval: float = field(default=20.0, validator=above(0))  # silence after which we ping
    keepalive_timeout: float = field(default=20.0, validator=above(0))  # silence after a ping: lost

    # A connection on which messages come faster is read so often, and they together; 0: as soon as anything comes.
    # What a read costs more than a message is measured in bench/events.py
    read_interval: float = field(default=0.001, validator=at_least(0))

    # Bounds of one lane and one connection.
    # Bytes, server to client (images, snapshots)
    max_message: int = field(default=256 * MIB, validator=whole(MIB))
    # Unread events of one lane: its high watermark
    lane_events: int = field(default=10_000, validator=whole(1))
    lane_bytes: int = field(default=64 * MIB, validator=whole(1024))
    # The same of all lanes together; over it the lane that is furthest behind fails
    unread_bytes: int = field(default=256 * MIB, validator=whole(1024))
    # A frame that will not leave: connection given up
    send_timeout: float = field(default=30.0, validator=above(0))
    # A live connection on which a response makes no progress. Codex gives up after 300 s, too soon for long
    # reasoning (openai/codex#43022, #42896).
    stall_timeout: float = field(default=900.0, validator=above(0))
    # An abandoned response may run on so long
    abandon_timeout: float = field(default=20.0, validator=at_least(0))
    close_grace: float = field(default=2.0, validator=at_least(0))  # for the close handshake
    lease_warning: float = field(default=900.0, validator=above(0))  # a lease held longer is named in the log

    # A PEM bundle instead of the system's certificates (SSL_CERT_FILE works as well)
    ca_file: str | None = None
    use_proxy: bool = True  # honour HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY

    def __attrs_post_init__(self) -> None:
        if self.keepalive_timeout > 10 * self.keepalive_interval:
            raise SettingsError(
                "keepalive_timeout",
                self.keepalive_timeout,
                f"must be at most 10 times keepalive_interval ({self.keepalive_interval:g} s)",
            )

    def with_(self, **changes: Any) -> PoolSettings:
        """Return a copy with some fields changed."""
        return evolve(self, **changes)


def _split(url: object) -> SplitResult:
    """Split a URL as it is sent: one that would have to be encoded first is refused."""
    if not isinstance(url, str) or not url.isascii() or not url.isprintable() or " " in url:
        remedy = "must be a URL in ASCII without spaces; percent-encode the rest"
        raise SettingsError("url", _shown(url), remedy)
    try:
        return urlsplit(url)
    except ValueError as error:
        remedy = f"must look like wss://host/v1/responses ({error})"
        raise SettingsError("url", _shown(url), remedy) from None


def _shown(url: object) -> object:
    """Return a URL as an error may show it: a password or a token in its query stays out of sight."""
    if not isinstance(url, str):
        return url
    return "(hidden)" if "@" in url else without_query(url)


def without_query(url: str) -> str:
    """Return a URL as it may be shown: a query could hold a token."""
    return url.partition("?")[0]


def _both_urls(url: str) -> tuple[str, str]:
    """Return the socket URL and the HTTP base URL that belong to either of them."""
    parts = _split(f"wss://{url}" if isinstance(url, str) and "://" not in url else url)
    schemes = {"http": "ws", "ws": "ws", "https": "wss", "wss": "wss"}
    if parts.scheme not in schemes or not parts.hostname:
        raise SettingsError("url", _shown(url), "must look like https://host/v1 or wss://host/v1/responses")
    path = parts.path.rstrip("/")
    base = path.removesuffix("/responses") if path else "/v1"
    scheme = schemes[parts.scheme]
    socket = urlunsplit((scheme, parts.netloc, f"{base}/responses", parts.query, ""))
    return socket, urlunsplit(("https" if scheme == "wss" else "http", parts.netloc, base, "", ""))
