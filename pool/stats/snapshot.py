"""Frozen snapshots: what they are made of, and what a pool's says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Self

from attrs import asdict, fields, frozen

from pool.redaction import redacted
from pool.stats.distribution import Distribution
from pool.stats.rules import Rule, counter, distribution, gauge, note, part, rule_of


@frozen(kw_only=True)
class Series:
    """One field of a snapshot, wherever in it: the way there, its labels, its nature and its value."""

    path: tuple[str, ...]
    labels: Mapping[str, str]
    rule: Rule
    value: Any


class Snapshot:
    """What all snapshots can: `a + b` merges two, `newer - older` is the interval between two of one source.

    Merging adds up counters, distributions and gauges. Subtracting keeps the gauges of the newer one, and raises
    `ValueError` when a counter would go backwards: the source has been started anew.
    """

    __slots__ = ()

    def __add__(self, other: Self) -> Self:
        if type(other) is not type(self):
            return NotImplemented
        return self._combined(other, lambda rule: rule.add)

    def __sub__(self, older: Self) -> Self:
        if type(older) is not type(self):
            return NotImplemented
        return self._combined(older, lambda rule: rule.subtract)

    def _combined(self, other: Self, how: Any) -> Self:
        combined: dict[str, Any] = {}
        for attribute in fields(type(self)):  # type: ignore[arg-type]  # its children are attrs classes
            name = attribute.name
            try:
                combined[name] = how(rule_of(attribute))(getattr(self, name), getattr(other, name))
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        return type(self)(**combined)

    def to_json(self, *, distributions: bool = True) -> dict[str, Any]:
        """Return it as JSON, without loss; or without its distributions, for what keeps them elsewhere."""
        written: dict[str, Any] = {}
        for attribute in fields(type(self)):  # type: ignore[arg-type]
            name, rule = attribute.name, rule_of(attribute)
            value = getattr(self, name)
            if rule.kind == "part" and rule.by is not None:
                written[name] = {k: one.to_json(distributions=distributions) for k, one in value.items()}
            elif rule.kind == "part":
                written[name] = value.to_json(distributions=distributions)
            elif distributions or rule.kind != "distribution":
                written[name] = rule.dump(value)
        return written

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Return what `to_json` wrote. What is missing is nothing, what is unknown is passed over.

        Raises:
            ValueError: a field holds something else; the message says which.
        """
        if not isinstance(data, Mapping):
            raise ValueError(f"{data!r} is not an object")
        found: dict[str, Any] = {}
        for attribute in fields(cls):  # type: ignore[arg-type]
            if attribute.name in data:
                try:
                    found[attribute.name] = rule_of(attribute).load(data[attribute.name])
                except ValueError as error:
                    raise ValueError(f"{attribute.name}: {error}") from None
        return cls(**found)

    def gauges(self) -> Self:
        """Return only what is of the moment."""
        return self._only("gauge", "note")

    def counters(self) -> Self:
        """Return only what runs from the opening: counters and distributions."""
        return self._only("counter", "distribution")

    def _only(self, *kinds: str) -> Self:
        kept: dict[str, Any] = {}
        for attribute in fields(type(self)):  # type: ignore[arg-type]
            name, rule = attribute.name, rule_of(attribute)
            value = getattr(self, name)
            if rule.kind == "part" and rule.by is not None:
                kept[name] = {key: one._only(*kinds) for key, one in value.items()}
            elif rule.kind == "part":
                kept[name] = value._only(*kinds)
            elif rule.kind in kinds:
                kept[name] = value
        return type(self)(**kept)

    def series(self) -> Iterator[Series]:
        """Yield every field of this snapshot and of its parts. What has no value yet for a label is not there."""
        yield from _series(self, (), {})


def _series(snapshot: Snapshot, path: tuple[str, ...], labels: Mapping[str, str]) -> Iterator[Series]:
    for attribute in fields(type(snapshot)):  # type: ignore[arg-type]
        rule, here = rule_of(attribute), (*path, attribute.name)
        value = getattr(snapshot, attribute.name)
        each = [(labels, value)]
        if rule.by is not None:
            # Some are a client's or a server's words: the name of a model, the code of an error.
            each = [({**labels, rule.by: _label(key)}, one) for key, one in value.items()]
        for labelled, one in each:
            if rule.kind == "part":
                yield from _series(one, here, labelled)
            else:
                yield Series(path=here, labels=labelled, rule=rule, value=one)


def _label(key: Any) -> Any:
    return redacted(key) if isinstance(key, str) else key


@frozen(kw_only=True)
class LeaseInfo:
    """Who holds which lane, and for how long (seconds)."""

    lane: str
    holder: str
    seconds: float


def _leases(data: Any) -> tuple[LeaseInfo, ...]:
    try:
        return tuple(LeaseInfo(**entry) for entry in data)
    except TypeError:
        raise ValueError(f"{data!r} is not a list of leases") from None


def _texts(data: Any) -> tuple[str, ...]:
    if not isinstance(data, list) or not all(isinstance(entry, str) for entry in data):
        raise ValueError(f"{data!r} is not a list of texts")
    return tuple(data)


def _joined(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted({*one, *other}))


@frozen(kw_only=True)
class HttpStats(Snapshot):
    """What went over HTTP, beside the sockets. Sizes are in bytes, times in seconds."""

    # Now.
    open: int = gauge("Open HTTP connections, in use or kept for the next request.")
    idle: int = gauge("Open HTTP connections that are kept for the next request.")
    in_flight: int = gauge("Requests under way over HTTP; each needs a connection.")
    # Since it was opened.
    opened: int = counter("HTTP connections opened.")
    dial_failures: Mapping[str, int] = counter(
        "HTTP connections that could not be opened, by HTTP status or cause.", by="cause"
    )
    requests: int = counter("Requests begun over HTTP: turns, compactions, and what is passed through.")
    turns: Mapping[str, int] = counter("Turns sent over HTTP that are over, by how they ended.", by="outcome")
    bytes_sent: int = counter("Sent on HTTP connections.", unit="bytes")
    bytes_received: int = counter("Received on HTTP connections.", unit="bytes")
    dial: Distribution = distribution("Opening of an HTTP connection.")
    first_event: Distribution = distribution("From the send of a turn over HTTP to its first event.")
    first_token: Distribution = distribution("From the send of a turn over HTTP to its first output.")
    turn: Distribution = distribution("From the send of a turn over HTTP to its terminal event.")


@frozen(kw_only=True)
class PoolStats(Snapshot):
    """One moment of a pool, or of several merged. Sizes are in bytes, times in seconds."""

    # Now.
    endpoints: tuple[str, ...] = note("Whose pools.", merge=_joined, dump=list, load=_texts)
    pools: int = gauge("Pools merged in here.")
    capacity: int = gauge("Turns that the pool can carry at a time when it has grown to its maximum.")
    dialing: int = gauge("Connections on their way.")
    open: int = gauge("Open connections that take new turns.")
    leaving: int = gauge("Connections that are being left for their successors.")
    draining: int = gauge("Connections that only wait for their last responses.")
    idle_lanes: int = gauge("Lanes that could be leased at once.")
    hot_lanes: int = gauge("Idle lanes on which a conversation is remembered.")
    leased_lanes: int = gauge("Lanes in use.")
    waiting: int = gauge("Turns that wait for a lane.")
    dial_rate: float = gauge("Dials a second that are allowed; lower after refusals.", zero=0.0)
    leases: tuple[LeaseInfo, ...] = note(
        "Who holds which lane.",
        merge=lambda one, other: one + other,
        dump=lambda leases: [asdict(lease) for lease in leases],
        load=_leases,
    )
    # Since the pool opened.
    seconds: float = counter("Time that the pool has been open.", unit="seconds", zero=0.0)
    opened: int = counter("Connections opened.")
    leased: int = counter("Leases granted.")
    losses: Mapping[str, int] = counter("Connections lost, by cause.", by="cause")
    closes: Mapping[str, int] = counter("Connections that we closed, by reason.", by="reason")
    dial_failures: Mapping[str, int] = counter("Dials that failed, by HTTP status or cause.", by="cause")
    strays: int = counter("Events that belonged to no response.")
    bytes_sent: int = counter("Sent on connections.", unit="bytes")
    bytes_received: int = counter("Received on connections.", unit="bytes")
    wait: Distribution = distribution("Wait for a lane, from the acquire to the lease.")
    dial: Distribution = distribution("Dial, from its beginning to the open connection.")
    warm_up: Distribution = distribution("Warm-up of a lane, from the send to the end of its response.")
    first_event: Distribution = distribution("From the send of a turn to its first event.")
    first_token: Distribution = distribution("From the send of a turn to its first output.")
    turn: Distribution = distribution("From the send of a turn to its terminal event.")
    rotation: Distribution = distribution(
        "From a connection's retire line (or the order to rotate) to its open successor."
    )
    loop_lag: Distribution = distribution("How late the event loop wakes a task, while lanes are in use.")
    http: HttpStats = part(HttpStats, "Over HTTP, where that was opened beside the pool.")

    @property
    def lost(self) -> int:
        """Connections ended by the other side, or by silence."""
        return sum(self.losses.values())

    @property
    def rotated(self) -> int:
        """Connections replaced before their cap."""
        return self.closes.get("rotated", 0)

    @property
    def closed(self) -> int:
        """Connections closed by us for any other reason."""
        return sum(self.closes.values()) - self.rotated

    @property
    def dials_failed(self) -> int:
        """Dials that failed."""
        return sum(self.dial_failures.values())
