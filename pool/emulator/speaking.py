"""Saying a turn: its events one by one, with the time they take and the faults that befall them."""

from __future__ import annotations

from typing import Any, Protocol

import trio

from pool.emulator.faults import Fault, Kind
from pool.emulator.service import Prepared, Service


class Line(Protocol):
    """Where events go. Every method may raise `LineEnded`."""

    async def say(self, event: dict[str, Any]) -> None:
        """Send one event."""
        ...

    async def drop(self, fault: Fault) -> None:
        """End the connection as the fault says."""
        ...

    async def limit(self) -> None:
        """Announce that the connection is too old, and close it. A transport without such a limit ignores it."""
        ...

    def ended(self, prepared: Prepared) -> None:
        """Remember the turn: called once, before its terminal event is sent."""
        ...


class LineEnded(Exception):
    """The connection is gone; nobody listens any more."""


_AT_EVENT = frozenset({Kind.DROP, Kind.STALL, Kind.LIMIT_MID})
_DRIP = 0.05  # seconds between the events of a slow drip


async def speak(service: Service, prepared: Prepared, line: Line) -> None:
    """Say the whole turn. Returns after the terminal event was sent; raises `LineEnded`."""
    try:
        await _speak(service, prepared, line)
    finally:
        service.left(prepared)


async def _speak(service: Service, prepared: Prepared, line: Line) -> None:
    turn = prepared.turn
    per_token = service.settings.latency.output
    recorded = prepared.recorded
    aimed = [fault for fault in prepared.faults if fault.kind in _AT_EVENT]
    drip = prepared.fault(Kind.DRIP)
    await trio.sleep(prepared.wait)
    began = trio.current_time()
    number = -1
    for number, step in enumerate(turn.events()):
        for fault in aimed:
            if fault.at == number:
                await _strike(fault, line)
        if drip is not None and number >= drip.at:
            await trio.sleep(_DRIP if drip.seconds is None else drip.seconds)
        if recorded is not None:
            await trio.sleep_until(began + recorded.at(number, last=turn.terminal is not None))
        elif step.tokens and per_token:
            await trio.sleep(step.tokens * per_token)
        if turn.terminal is not None:
            service.keep(prepared)
            line.ended(prepared)
        await line.say(step.event)
    for fault in aimed:
        if fault.at > number:  # a response shorter than the fault's place breaks at its end
            await _strike(fault, line)


async def _strike(fault: Fault, line: Line) -> None:
    if fault.kind is Kind.DROP:
        await line.drop(fault)
    elif fault.kind is Kind.LIMIT_MID:
        await line.limit()
    elif fault.seconds is None:
        await trio.sleep_forever()
    else:
        await trio.sleep(fault.seconds)
