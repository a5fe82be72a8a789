"""A response over HTTP, read as it comes by whoever waits for it."""

from __future__ import annotations

import contextlib
from typing import Any

import trio
from attrs import define, field

from pool.answer import Answer
from pool.errors import ConnectionLost, RemoteProtocolError
from pool.exchange import ACTED
from pool.sse import EventReader
from pool.tap import Tap
from pool.wire.codec import event_of_peek, parse, read, to_json
from pool.wire.cycle import Cycle, Finished
from pool.wire.events import STARTED, ServerEvent
from pool.wire.peek import Peek

NAME = "http"  # what logs and placements call the connection and the lane


@define(eq=False)
class HttpExchange:
    """A response that is read as it comes. Offers what `pool.exchange.Exchange` does."""

    _answer: Answer
    _limit: int
    sent_at: float
    size: int  # bytes of the request
    name: str = NAME  # for who watches
    _tap: Tap | None = None
    first_event_at: float | None = field(default=None, init=False)
    first_output_at: float | None = field(default=None, init=False)  # the first event beyond "it has started"
    ended_at: float | None = field(default=None, init=False)
    finished: Finished | None = field(default=None, init=False)
    _cycle: Cycle = field(factory=Cycle, init=False)
    _reader: EventReader = field(init=False)
    _told: bool = field(default=False, init=False)  # a refusal has been given to the consumer as an event

    def __attrs_post_init__(self) -> None:
        self._reader = EventReader(self._limit)
        self._cycle.send()

    def refuse(self, payload: dict[str, Any]) -> None:
        """Take the one event that says that there is no response."""
        text = to_json(payload).decode()
        self._take(*read(text))

    async def batch(self) -> list[ServerEvent]:
        """Wait for events and return those at hand; empty after the terminal one.

        Raises:
            ConnectionLost: the stream broke before the response ended.
            RemoteProtocolError: what came is no stream of events, or breaks the protocol.
        """
        if self.finished is not None and self.finished.status == "refused" and not self._told:
            self._told = True
            await trio.lowlevel.checkpoint()
            return [self.finished.error] if self.finished.error is not None else []
        events: list[ServerEvent] = []
        while not events and self.finished is None:
            events = [event_of_peek(found, text) for found, text in await self._more()]
        return events

    async def result(self) -> Finished:
        """Wait for the end of the response. Raises like `batch`."""
        while self.finished is None:
            await self._more()
        return self.finished

    async def drain(self) -> None:
        """Read to the end of the stream, whatever is there."""
        with contextlib.suppress(ConnectionLost):
            while await self._answer.chunk():
                pass

    async def _more(self) -> list[tuple[Peek, str]]:
        started = self.first_event_at is not None
        chunk = await self._answer.chunk(started=started)
        if not chunk:
            self._answer.broken = True
            raise ConnectionLost("the stream ended before the response did", sent=True, started=started)
        messages: list[tuple[Peek, str]] = []
        try:
            for data in self._reader.feed(chunk):
                if self.finished is None and data != b"[DONE]":
                    found, text = read(_text(data))
                    self._take(found, text)
                    messages.append((found, text))
        except RemoteProtocolError:
            self._answer.broken = True
            raise
        return messages

    def _take(self, found: Peek, text: str) -> None:
        now = trio.current_time()
        if self._tap is not None:
            self._tap.received(self.name, parse(text), text)
        if self.first_event_at is None:
            self.first_event_at = now
        if self.first_output_at is None and found.type not in STARTED:
            self.first_output_at = now
        if found.type in ACTED:
            self.finished = self._cycle.receive(event_of_peek(found, text))
            if self.finished is not None:
                self.ended_at = now


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise RemoteProtocolError(f"a message that is not UTF-8: {error}") from None
