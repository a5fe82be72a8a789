"""Faults: what goes wrong, where, and how often. Pure: a plan is told what happens and says what breaks.

Written as text: options separated by commas (or spaces), faults by semicolons, e.g.
`drop,at=5,how=abrupt,create=3; refuse,status=503,connection=2; rate_limit,p=0.05,retry_after=0.5`.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from enum import Enum
from typing import Any

from attrs import define, field, fields, frozen

from pool.wire.codec import from_json


class Kind(Enum):
    """What goes wrong."""

    REFUSE = "refuse"  # the upgrade (or the HTTP request) is refused with `status`
    HANG = "hang"  # the upgrade is not answered, for `seconds`; then the connection ends
    DEAF = "deaf"  # from `after` seconds on nothing that comes in is heard, not even a ping
    LIMIT_IDLE = "limit_idle"  # the connection limit comes `after` seconds, unasked, then the close
    LIMIT_CREATE = "limit_create"  # the connection limit is the answer to a create, then the close
    LIMIT_MID = "limit_mid"  # the connection limit comes at event `at` of a response, then the close
    DROP = "drop"  # the connection ends at event `at`, `how` says in which way
    STALL = "stall"  # silence at event `at`, for `seconds`
    RATE_LIMIT = "rate_limit"  # 429, with `retry_after` when it is given
    ERROR = "error"  # refused with `status`, before anything was generated
    FORGET = "forget"  # the parent is not found, whatever the memory says
    FAILED = "failed"  # response.failed at event `at`
    EMPTY = "empty"  # the terminal event's output is an empty list
    DRIP = "drip"  # `seconds` before each event from `at` on
    HUGE = "huge"  # the answer is `bytes` long


CONNECTION_KINDS = frozenset({Kind.REFUSE, Kind.HANG, Kind.DEAF, Kind.LIMIT_IDLE})
_HOW = ("close", "abrupt", "midframe")


@frozen(kw_only=True)
class Fault:
    """One fault. `connection`, `create`, `turn`, `p`, `times` and `once` say when it fires; the rest, how."""

    kind: Kind
    connection: int | None = None  # only on the nth connection, from 1
    create: int | None = None  # only on the nth create that the emulator sees, from 1
    turn: int | None = None  # only on the nth turn since the last user message, from 1
    p: float = 1.0  # probability, drawn from the seed
    times: int | None = None  # at most so often
    once: bool = False  # at most once for the same context, so that the retry succeeds
    at: int = 4  # the event (from 0) before which it happens
    how: str = "abrupt"
    code: int = 1011  # the close code of how=close
    status: int = 503
    retry_after: float | None = None  # seconds
    seconds: float | None = None  # None: for ever (stall), or 0.05 (drip)
    after: float = 0.0  # seconds
    bytes: int = 4 * 1024 * 1024

    def __attrs_post_init__(self) -> None:
        if self.how not in _HOW:
            raise ValueError(f"how={self.how} must be one of {', '.join(_HOW)}")
        if not 0 <= self.p <= 1:
            raise ValueError(f"p={self.p:g} must be from 0 to 1")
        if not 400 <= self.status <= 599:
            raise ValueError(f"status={self.status} must be from 400 to 599")
        if not (self.code in {1000, 1001, 1008, 1009, *range(1011, 1015)} or 3000 <= self.code <= 4999):
            raise ValueError(f"code={self.code} must be a close code that a server may send, e.g. 1011")
        if not 0 <= self.bytes <= 64 * 1024 * 1024:
            raise ValueError(f"bytes={self.bytes} must be from 0 to 64 MiB")
        for name in ("connection", "create", "turn", "times", "at", "retry_after", "seconds", "after"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1e9:
                raise ValueError(f"{name}={value:g} must be a number from 0 on")


_TYPES: Mapping[str, type] = {
    **dict.fromkeys(("connection", "create", "turn", "times", "at", "code", "status", "bytes"), int),
    **dict.fromkeys(("p", "retry_after", "seconds", "after"), float),
    "once": bool,
    "how": str,
}


def parse_fault(text: str) -> Fault:
    """Parse one fault, e.g. `drop,at=5,how=midframe,once`. Raises `ValueError` naming the option."""
    words = text.replace(",", " ").split()
    options: dict[str, Any] = {}
    for position, word in enumerate(words):
        name, equals, value = word.partition("=")
        if not equals:
            name, value = ("kind", word) if position == 0 else (word, "true")
        options[name] = value
    return fault_from(options)


def fault_from(options: Mapping[str, Any]) -> Fault:
    """Build a fault from its options by name, as text or as JSON values."""
    values: dict[str, Any] = {}
    for name, value in options.items():
        if name == "kind":
            values[name] = _kind(value)
        elif name in _TYPES:
            values[name] = _value(name, value)
        else:
            raise ValueError(f"{name!r} is no option; the options are kind, {', '.join(sorted(_TYPES))}")
    if "kind" not in values:
        raise ValueError("a fault needs a kind, e.g. drop,at=5")
    return Fault(**values)


def _kind(value: object) -> Kind:
    try:
        return Kind(value)
    except ValueError:
        known = ", ".join(kind.value for kind in Kind)
        raise ValueError(f"{value!r} is no kind of fault; the kinds are {known}") from None


def _value(name: str, value: object) -> object:
    wanted = _TYPES[name]
    if wanted is bool:
        if str(value).lower() not in ("true", "1", "false", "0"):
            raise ValueError(f"{name}={value} must be true or false")
        return str(value).lower() in ("true", "1")
    try:
        return wanted(str(value))
    except ValueError:
        raise ValueError(f"{name}={value} must be a number") from None


def parse_faults(text: str) -> tuple[Fault, ...]:
    """Parse faults separated by semicolons, or a JSON list of objects."""
    if text.lstrip().startswith(("[", "{")):
        parsed = from_json(text)
        entries = parsed if isinstance(parsed, list) else [parsed]
        if not all(isinstance(entry, dict) for entry in entries):
            raise ValueError("faults as JSON are a list of objects")
        return tuple(map(fault_from, entries))
    return tuple(parse_fault(part) for part in text.split(";") if part.strip())


@define(eq=False)
class FaultPlan:
    """Counts what happened and decides which faults fire. `rng` makes chance repeatable."""

    faults: tuple[Fault, ...]
    rng: random.Random
    _fired: dict[Fault, int] = field(init=False, factory=dict, repr=False)
    _seen: dict[tuple[Fault, str], None] = field(init=False, factory=dict, repr=False)
    _remember: int = 100_000  # contexts for which a `once` fault has fired

    def on_connection(self, connection: int) -> tuple[Fault, ...]:
        """Return the faults of the nth connection."""
        mine = [fault for fault in self.faults if fault.kind in CONNECTION_KINDS]
        return tuple(
            fault
            for fault in mine
            if fault.connection in (None, connection) and self._draw(fault, str(connection))
        )

    def on_create(
        self, *, connection: int, create: int, turn: int, context: str, asked: tuple[Fault, ...] = ()
    ) -> tuple[Fault, ...]:
        """Return the faults of one create: those of the settings, and those that the request asks for."""
        return tuple(
            fault
            for fault in (*self.faults, *asked)
            if fault.kind not in CONNECTION_KINDS
            and fault.connection in (None, connection)
            and fault.create in (None, create)
            and fault.turn in (None, turn)
            and self._draw(fault, context)
        )

    def _draw(self, fault: Fault, context: str) -> bool:
        if fault.p < 1 and self.rng.random() >= fault.p:
            return False
        fired = self._fired.get(fault, 0)
        if fault.times is not None and fired >= fault.times:
            return False
        if fault.once and (fault, context) in self._seen:
            return False
        if fault.once:
            if len(self._seen) >= self._remember:
                self._seen.pop(next(iter(self._seen)))
            self._seen[fault, context] = None
        if fault.times is not None:
            self._fired[fault] = fired + 1
        return True


assert set(_TYPES) | {"kind"} == {attribute.name for attribute in fields(Fault)}
