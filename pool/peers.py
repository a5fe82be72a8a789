"""Who is connected to one server: how many, from where, who of them waits, and who has to make room. No I/O.

Theory of operation
    A connection without a request under way is idle: one that has said nothing yet, is sending a head, or is kept
    open for the next request. When there is no room for a newcomer, the one that has been idle for longest is closed
    in its favour: among those of the newcomer's address when that address has all that it may have, else among all.
    So a client that connects and says nothing takes nothing from anybody.

    When every connection has a request under way, the newcomer gets one of a few reserved places (`crowded`): its
    server says there that it is full, and may answer what is cheap, such as a sign of life. These places are filled
    and cleared in the same way. Only when they are all busy, too, a newcomer is not served at all.
"""

from __future__ import annotations

import ipaddress
from collections import Counter

import trio
from attrs import define, field, frozen

from pool.settings import above, whole


@frozen(kw_only=True)
class ConnectionLimits:
    """How many connections a server has at a time, and how long each may take to begin and to end.

    Args:
        connections: in all, beside the reserved ones.
        per_address: of one address, or one IPv6 network of 64 bits.
        reserved: further ones that are told that the server is full.
        reserved_timeout: s for those, from beginning to end.
        handshake_timeout: s for TLS.
        close_timeout: s for a goodbye.
    """

    connections: int = field(default=4096, validator=whole(1))
    per_address: int = field(default=1024, validator=whole(1))
    reserved: int = field(default=16, validator=whole(0))
    reserved_timeout: float = field(default=5.0, validator=above(0))
    handshake_timeout: float = field(default=10.0, validator=above(0))
    close_timeout: float = field(default=2.0, validator=above(0))


def payer_of(address: str) -> str:
    """Return what connections of one client are counted under: of an IPv6 address its /64, which one machine has."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address  # of a Unix socket or a test: a text
    if parsed.version == 4:
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return address if parsed.is_loopback else str(ipaddress.ip_network((parsed, 64), strict=False))


@define(eq=False)
class Peer:
    """One connection. It begins idle."""

    address: str
    peers: Peers = field(repr=False)
    crowded: bool = False  # in a reserved place
    evicted: bool = field(default=False, init=False)  # it has made room for another
    scope: trio.CancelScope = field(factory=trio.CancelScope, init=False, repr=False)  # in which it is served

    def busy(self) -> None:
        """A request is under way: it makes no room."""
        self.peers.rouse(self)

    def idle(self) -> None:
        """Nothing is under way any more."""
        self.peers.rest(self)


@define(eq=False)
class Peers:
    """The connections of one server."""

    limits: ConnectionLimits
    evictions: int = field(default=0, init=False)  # idle ones that made room
    turned_away: int = field(default=0, init=False)  # newcomers that came when there was none
    _from: Counter[str] = field(factory=Counter, init=False)  # by address, without the reserved ones
    _crowded: int = field(default=0, init=False)  # in reserved places
    # The longest idle first; all, by address, and those in reserved places
    _idle: dict[Peer, None] = field(factory=dict, init=False)
    _idle_from: dict[str, dict[Peer, None]] = field(factory=dict, init=False)
    _idle_crowded: dict[Peer, None] = field(factory=dict, init=False)
    _fewer: trio.Event = field(factory=trio.Event, init=False)

    def __len__(self) -> int:
        return self._from.total() + self._crowded

    @property
    def addresses(self) -> Counter[str]:
        """How many connections there are from each address."""
        return self._from

    def admit(self, address: str) -> Peer | None:
        """Take a newcomer in; None when there is not even a reserved place."""
        limits, address = self.limits, payer_of(address)
        if self._from[address] >= limits.per_address:
            crowded = not self._evict(self._idle_from.get(address))
        else:
            crowded = self._from.total() >= limits.connections and not self._evict(self._idle)
        if crowded:
            self.turned_away += 1
            if self._crowded >= limits.reserved and not self._evict(self._idle_crowded):
                self._tidy(address)
                return None
            self._crowded += 1
        else:
            self._from[address] += 1
        peer = Peer(address, self, crowded)
        self.rest(peer)
        self._tidy(address)
        return peer

    def evict(self) -> bool:
        """Close the connection that has been idle for longest; return whether there was one."""
        return self._evict(self._idle)

    def remove(self, peer: Peer) -> None:
        """A connection has ended."""
        if not peer.evicted:
            self._forget(peer)
        self._fewer.set()

    async def none_left(self) -> None:
        """Wait until nobody is connected."""
        await trio.lowlevel.checkpoint()
        while self:
            self._fewer = trio.Event()
            await self._fewer.wait()

    def rest(self, peer: Peer) -> None:
        """A connection is idle from now on."""
        if not peer.evicted:
            for line in self._lines(peer):
                line.pop(peer, None)
                line[peer] = None

    def rouse(self, peer: Peer) -> None:
        """A connection is not idle."""
        for line in self._lines(peer):
            line.pop(peer, None)
        if peer.address in self._idle_from and not self._idle_from[peer.address]:
            del self._idle_from[peer.address]

    def _lines(self, peer: Peer) -> tuple[dict[Peer, None], ...]:
        if peer.crowded:
            return (self._idle_crowded,)
        return self._idle, self._idle_from.setdefault(peer.address, {})

    def _evict(self, line: dict[Peer, None] | None) -> bool:
        peer = next(iter(line or ()), None)
        if peer is None:
            return False
        self.evictions += 1
        self._forget(peer)
        peer.evicted = True
        peer.scope.cancel()
        self._fewer.set()
        return True

    def _forget(self, peer: Peer) -> None:
        self.rouse(peer)
        if peer.crowded:
            self._crowded -= 1
        else:
            self._from[peer.address] -= 1
            self._tidy(peer.address)

    def _tidy(self, address: str) -> None:
        if not self._from[address]:
            del self._from[address]
