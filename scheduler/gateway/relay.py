"""A turn told to one client as server-sent events, while it happens.

Theory of operation
    Deltas are written as they are read upstream, without waking any task, as long as the client's socket takes them.
    Everything else goes through the client's own task, in which the turn runs: a batch of events is one write. When
    the client takes no data, the task waits, and events wait for it in the lane's own queue, within its bounds.

    Nothing is sent before output begins (see `holding`), not even the head of the answer: a turn that fails until
    then is answered with the status that the server meant. Only when that takes long the head is sent, with a comment
    to keep the line open, and a failure becomes the last event of the stream.

    Beside it one task waits for the client to leave, which ends the turn, and one looks now and then whether the line
    has been silent, or stuck, for too long.
"""

from __future__ import annotations

from collections.abc import Sequence

import trio
from attrs import define, field

from pool.web import HttpConnection
from pool.wire.codec import to_json
from pool.wire.events import ServerEvent
from pool.wire.refusal import Refused
from scheduler.gateway.frames import Voice, sse
from scheduler.gateway.holding import Holding
from scheduler.gateway.settings import GatewaySettings

COMMENT = b": keep-alive\n\n"
DONE = b"data: [DONE]\n\n"
HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",  # nginx holds a stream back otherwise
}


@define(eq=False)
class Relay:
    """The answer to one client, as a stream."""

    http: HttpConnection
    voice: Voice
    settings: GatewaySettings
    headers: dict[str, str]
    holding: Holding = field(factory=Holding, init=False)
    gone: bool = field(default=False, init=False)  # the client has left, or takes no data
    _begun: bool = field(default=False, init=False)
    _last: ServerEvent | None = field(default=None, init=False)  # that the client was told of
    _sending: trio.Lock = field(factory=trio.Lock, init=False)
    _rest: bytes = field(default=b"", init=False)  # of the last write, which the socket has not taken yet
    _unfinished: trio.Event = field(factory=trio.Event, init=False)  # there is such a rest
    _since: float = field(factory=trio.current_time, init=False)  # the last write began

    @property
    def begun(self) -> bool:
        """The head of the answer has been sent."""
        return self._begun

    async def hear(self, events: Sequence[ServerEvent]) -> None:
        """Take events of the turn, and tell the client what it is to be told now."""
        await self.tell(self.holding.take(events))

    def at_once(self, event: ServerEvent) -> bool:
        """Tell the client of one more delta on the spot; False when that has to wait, or wait its turn."""
        if not self.holding.surfaced or not self.http.pushes or self._rest or self._sending.locked():
            return False
        self._since = trio.current_time()
        try:
            self._rest = self.http.push(sse(event.type, self.voice.text(event)))
        except trio.BrokenResourceError:
            return False  # the task will find out by itself
        if self._rest:
            self._unfinished.set()
        self._last = event
        return True

    async def tell(self, events: Sequence[ServerEvent]) -> None:
        """Tell the client of events."""
        if not events:
            return
        text = self.voice.text
        await self.write(b"".join([sse(event.type, text(event)) for event in events]))
        self._last = events[-1]

    async def fail(self, refused: Refused) -> None:
        """Say on a stream that has begun that it has failed: as the end of a response, where one has begun."""
        number = self._last.payload.get("sequence_number") if self._last is not None else None
        number = number + 1 if isinstance(number, int) else 0
        if self.holding.surfaced:
            ended = self.voice.broken_off(self.holding.partial, number, refused.message)
            await self.write(sse("response.failed", ended))
        else:
            error = {**refused.body()["error"], "type": "error", "sequence_number": number}
            await self.write(sse("error", to_json(error)))

    async def write(self, data: bytes) -> None:
        """Send data, and the head before it if that is due. No checkpoint when the socket takes it at once.

        Raises:
            trio.BrokenResourceError: nobody listens any more.
        """
        if self._begun and not self._rest and not self._sending.locked():
            self._since = trio.current_time()
            rest = self.http.push(data)
            if rest:
                async with self._sending:
                    await self.http.send_rest(rest)
            return
        async with self._sending:
            self._since = trio.current_time()
            if not self._begun:
                self._begun = True
                await self.http.begin(200, {**HEADERS, **self.headers})
            self._rest, rest = b"", self._rest
            await self.http.send_rest(rest + (self.http.framed(data) if data else b""))

    async def mind(self, scope: trio.CancelScope) -> None:
        """Keep a silent line open, and cut one that is stuck, which cancels `scope`."""
        keep_alive, send_timeout = self.settings.keep_alive, self.settings.send_timeout
        while True:
            stuck = self._sending.locked()
            with trio.move_on_at(self._since + (send_timeout if stuck else keep_alive)):
                await self._unfinished.wait()
                self._unfinished = trio.Event()
            silent = trio.current_time() - self._since
            if self._rest:
                await self._within(send_timeout, b"", scope)
            elif self._sending.locked():
                if silent >= send_timeout:
                    self._leave(scope)
            elif silent >= keep_alive:
                await self._within(send_timeout, COMMENT, scope)

    async def _within(self, seconds: float, data: bytes, scope: trio.CancelScope) -> None:
        """Write something for which no turn waits."""
        with trio.move_on_after(seconds):
            try:
                await self.write(data)
                return
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass
        self._leave(scope)

    async def watch(self, scope: trio.CancelScope) -> None:
        """Cancel `scope` when the client leaves."""
        await self.http.until_gone()
        self._leave(scope)

    def _leave(self, scope: trio.CancelScope) -> None:
        self.gone = True
        scope.cancel()
