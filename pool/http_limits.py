"""How large, and how slow, what a client sends over HTTP may be. Pure.

Theory of operation
    A time since the last byte bounds nothing: who sends one byte now and then keeps a connection, and what was read
    of its request, for as long as it likes. So a head has a time for the whole of it, and a body has three: none of
    it may be missing for `head_timeout` seconds; after that long, `least_rate` bytes must have come for every second
    more; and all of it has `body_timeout` seconds. Only the time for which the client is waited for counts, not that
    in which its body waits for whoever takes it.
"""

from __future__ import annotations

from attrs import field, frozen

from pool.settings import MIB, above, at_least, whole


@frozen(kw_only=True)
class HttpLimits:
    """Of one connection of a server. Times are in seconds, sizes in bytes."""

    # Of a request's head, and of the trailer of a body in chunks. h11 takes 10 ms for one of this size at the worst
    max_head: int = field(default=32 * 1024, validator=whole(1))
    max_fields: int = field(default=256, validator=whole(1))  # lines of a head
    max_body: int = field(default=64 * MIB, validator=whole(0))
    head_timeout: float = field(default=20.0, validator=above(0))  # for a head, and for a body to go on
    idle_timeout: float = field(default=120.0, validator=above(0))  # between two requests
    body_timeout: float = field(default=900.0, validator=above(0))  # for a whole body
    least_rate: float = field(default=16384.0, validator=at_least(0))  # of a body, bytes a second
    send_timeout: float = field(default=30.0, validator=above(0))  # without any progress of what is sent

    def body_patience(self, *, received: int, waited: float, silent: float) -> float:
        """Return the seconds for which more of a body may be waited for.

        Args:
            received: bytes of it so far.
            waited: seconds for which the client was waited for, for all of it.
            silent: those since something came.
        """
        patience = min(self.head_timeout - silent, self.body_timeout - waited)
        if self.least_rate:
            patience = min(patience, self.head_timeout + received / self.least_rate - waited)
        return patience
