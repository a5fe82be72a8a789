"""Who is idle makes room for newcomers, the longest idle first; who is busy stays; the counts are right."""

from __future__ import annotations

from collections import Counter

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pool.peers import ConnectionLimits, Peer, Peers

LIMITS = ConnectionLimits(connections=4, per_address=2, reserved=1)


def admitted(peers: Peers, address: str) -> Peer:
    peer = peers.admit(address)
    assert peer is not None
    return peer


def test_the_longest_idle_makes_room() -> None:
    peers = Peers(ConnectionLimits(connections=3, per_address=3, reserved=0))
    first, second, third = (admitted(peers, "a") for _ in range(3))
    first.busy()
    first.idle()  # it has asked for something meanwhile
    admitted(peers, "b")
    assert [one.evicted for one in (first, second, third)] == [False, True, False]
    assert second.scope.cancel_called
    assert len(peers) == 3
    assert (peers.evictions, peers.turned_away) == (1, 0)


def test_an_address_that_has_all_it_may_makes_room_itself() -> None:
    peers = Peers(LIMITS)
    other, mine = admitted(peers, "other"), [admitted(peers, "mine") for _ in range(2)]
    admitted(peers, "mine")
    assert [one.evicted for one in (other, *mine)] == [False, True, False]


def test_where_all_are_busy_a_reserved_place_is_left() -> None:
    peers = Peers(LIMITS)
    for address in "aabb":
        admitted(peers, address).busy()
    first = admitted(peers, "c")
    second = admitted(peers, "a")  # which has all that it may, and is turned away like everybody
    assert first.crowded
    assert first.evicted
    assert second.crowded
    second.busy()
    assert peers.admit("d") is None
    assert peers.turned_away == 3
    assert len(peers) == 5
    assert peers.addresses == Counter("aabb")


class Machine(RuleBasedStateMachine):
    """Compared with a plain list of who is there."""

    def __init__(self) -> None:
        super().__init__()
        self.peers, self.there = Peers(LIMITS), list[Peer]()
        self.idle: list[Peer] = []  # the longest first

    @rule(address=st.sampled_from("abc"))
    def come(self, address: str) -> None:
        before = [one for one in self.idle if not one.crowded]
        plain = [one for one in self.there if not one.crowded]
        mine = sum(one.address == address for one in plain)
        peer = self.peers.admit(address)
        if mine >= LIMITS.per_address:
            leaves = next((one for one in before if one.address == address), None)
            full = leaves is None
        else:
            full = len(plain) >= LIMITS.connections and not before
            leaves = before[0] if len(plain) >= LIMITS.connections and before else None
        if full and len(self.there) > len(plain):
            leaves = next((one for one in self.idle if one.crowded), None)
            assert (peer is None) == (leaves is None)
        else:
            assert peer is not None
            assert peer.crowded == full
        if leaves is not None:
            assert leaves.evicted
            self.idle.remove(leaves)
            self.there.remove(leaves)
        if peer is not None:
            self.there.append(peer)
            self.idle.append(peer)

    @rule(data=st.data(), busy=st.booleans())
    def turn(self, data: st.DataObject, busy: bool) -> None:
        if self.there:
            peer = data.draw(st.sampled_from(self.there))
            if peer in self.idle:
                self.idle.remove(peer)
            if busy:
                peer.busy()
            else:
                peer.idle()
                self.idle.append(peer)

    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        if self.there:
            peer = data.draw(st.sampled_from(self.there))
            self.there.remove(peer)
            if peer in self.idle:
                self.idle.remove(peer)
            self.peers.remove(peer)

    @invariant()
    def agree(self) -> None:
        assert len(self.peers) == len(self.there)
        assert self.peers.addresses == Counter(one.address for one in self.there if not one.crowded)
        assert not any(one.evicted for one in self.there)
        assert all(count <= LIMITS.per_address for count in self.peers.addresses.values())
        assert self.peers.addresses.total() <= LIMITS.connections


TestMachine = Machine.TestCase
