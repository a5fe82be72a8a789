"""How the gateway behaves towards its clients: frozen, validated, every unit and source named."""

from __future__ import annotations

from typing import Any

from attrs import evolve, field, frozen
from attrs.validators import optional

from pool.errors import SettingsError
from pool.http_limits import HttpLimits
from pool.peers import ConnectionLimits
from pool.settings import MIB, above, at_least, whole
from pool.wire.frame_budget import BURST, RATE


@frozen(kw_only=True)
class GatewaySettings:
    """Limits and patience. Times are in seconds, sizes in bytes."""

    # What is remembered of served responses, of all callers together; the least recently used go first.
    memory_bytes: int = field(default=512 * MIB, validator=whole(MIB))
    memory_responses: int = field(default=200_000, validator=whole(1))
    # Ids of what callers of the gateway's own key have created, which decide who may use them; likewise.
    memory_ids: int = field(default=200_000, validator=whole(1))
    # A conversation that nobody has continued for so long gives up its lane; it is remembered all the same.
    conversation_idle: float = field(default=600.0, validator=above(0))

    # One set of sockets for each key. One that nobody has used for so long is closed.
    upstream_idle: float = field(default=900.0, validator=above(0))
    max_upstreams: int = field(default=64, validator=whole(1))

    # A stream on which nothing was said for so long gets a comment, which clients skip and proxies take for life.
    keep_alive: float = field(default=15.0, validator=above(0))
    head_timeout: float = field(
        default=20.0, validator=above(0)
    )  # for a request's head, and for its body to go on
    idle_timeout: float = field(default=120.0, validator=above(0))  # between two requests on a connection
    send_timeout: float = field(default=30.0, validator=above(0))  # a client that takes no data is cut
    grace: float = field(default=30.0, validator=at_least(0))  # for the turns that run when the gateway stops

    max_head: int = field(default=32 * 1024, validator=whole(1024))
    max_body: int = field(default=64 * MIB, validator=whole(1024))
    body_timeout: float = field(default=900.0, validator=above(0))  # for a whole body
    # Bytes a second of a body, on average, when it has taken `head_timeout`; 0: any
    least_rate: float = field(default=16384.0, validator=at_least(0))
    # Of bodies that are read or whose turns have not ended: of all clients, and of one key or address
    max_bodies: int = field(default=512 * MIB, validator=whole(1024))
    client_bodies: int = field(default=256 * MIB, validator=whole(1024))
    # Of a create. A history of so many items is beyond every model's context; what stands beside the input
    # (instructions, tools) is copied, sent and echoed whole.
    max_items: int = field(default=20_000, validator=whole(1))
    max_fields: int = field(default=2 * MIB, validator=whole(1024))
    # A WebSocket of a client. Its lanes are as many as OpenAI's, whatever the upstream can.
    max_message: int = field(default=16 * MIB, validator=whole(1024))  # from the client
    # Control frames, and fragments beyond one for 64 bytes of a message; over that its connection is closed with 1008
    frame_rate: float = field(default=RATE, validator=above(0))  # a second
    frame_burst: int = field(default=BURST, validator=whole(1))  # saved up
    message_rate: float = field(default=2000.0, validator=at_least(1))  # a second; what is more waits
    in_flight: int = field(default=16, validator=whole(1))
    named_lanes: int = field(default=32, validator=whole(0))
    # Of creates that wait for their turn; over it nothing more is read
    max_waiting: int = field(default=64 * MIB, validator=whole(1024))
    # Its clients may not be told when sockets upstream grow old, so it need not either. OpenAI's: 3600.
    socket_max_age: float | None = field(default=None, validator=optional(above(0)))
    ping_interval: float = field(
        default=20.0, validator=above(0)
    )  # silence after which a client is asked for a sign
    ping_timeout: float = field(default=20.0, validator=above(0))  # and silence after that: it has gone
    max_connections: int = field(default=4096, validator=whole(1))  # of clients
    client_connections: int = field(default=1024, validator=whole(1))  # of one address
    # Further ones, for when those are busy: they get a 503, or a sign of life
    reserved_connections: int = field(default=16, validator=whole(0))

    def __attrs_post_init__(self) -> None:
        for larger in ("client_bodies", "max_bodies"):
            if getattr(self, larger) < self.max_body:
                remedy = f"must be at least max_body ({self.max_body}), or no such body could ever be read"
                raise SettingsError(larger, getattr(self, larger), remedy)

    @property
    def http_limits(self) -> HttpLimits:
        """What a client may send over HTTP."""
        return HttpLimits(
            max_head=self.max_head,
            max_body=self.max_body,
            head_timeout=self.head_timeout,
            idle_timeout=self.idle_timeout,
            body_timeout=self.body_timeout,
            least_rate=self.least_rate,
            send_timeout=self.send_timeout,
        )

    @property
    def connection_limits(self) -> ConnectionLimits:
        """How many clients may be connected."""
        return ConnectionLimits(
            connections=self.max_connections,
            per_address=self.client_connections,
            reserved=self.reserved_connections,
        )

    def with_(self, **changes: Any) -> GatewaySettings:
        """Return a copy with some fields changed."""
        return evolve(self, **changes)
