"""The gateway on one connection of a client: who it is, what it wants, and who serves that."""

from __future__ import annotations

import io
import logging
import secrets
from collections import Counter
from urllib.parse import unquote

import trio
from attrs import define, field

from pool.web import BodyBroken, BodyTooLarge, Head, HttpConnection, MalformedRequest
from pool.wire.codec import to_json
from pool.wire.refusal import Refused, previous_response_not_found
from scheduler.gateway.asked import Asked, Bounds
from scheduler.gateway.core import Core
from scheduler.gateway.front import GONE, ClientGone, Failed, Front
from scheduler.gateway.keys import Caller, KeyRing
from scheduler.gateway.library import Library
from scheduler.gateway.passthrough import AnswerBroken, pass_through
from scheduler.gateway.settings import GatewaySettings
from scheduler.gateway.spool import Spool
from scheduler.gateway.upstreams import Upstreams
from scheduler.gateway.websocket import serve_socket

log = logging.getLogger("warmline.gateway")

PREFIX = "/v1"
CREATE = "/v1/responses"
CLOSING = 2.0  # s, for the goodbye on a connection


@define(eq=False)
class Gateway:
    """Serves clients on any stream. `serve_gateway` gives it sockets."""

    upstreams: Upstreams
    settings: GatewaySettings
    keys: KeyRing
    spool: Spool | None = None
    core: Core = field(init=False)
    front: Front = field(init=False)
    stopping: trio.Event = field(factory=trio.Event, init=False)  # no more requests are taken
    counts: Counter[str] = field(factory=Counter, init=False)
    crashes: int = field(default=0, init=False)
    linger: float = field(default=0.0, init=False)  # s that idle connections stay open when it stops
    _idle: set[trio.CancelScope] = field(factory=set, init=False)  # connections that wait for a request
    _speaking: set[HttpConnection] = field(factory=set, init=False)  # connections that speak HTTP
    _from: Counter[str] = field(factory=Counter, init=False)  # connections by the client's address
    _left: trio.Event = field(factory=trio.Event, init=False)  # a connection has ended

    def __attrs_post_init__(self) -> None:
        library = Library(self.settings.memory_bytes, self.settings.memory_responses)
        bounds = Bounds(items=self.settings.max_items, fields=self.settings.max_fields)
        self.core = Core(self.upstreams, library, self.spool, bounds)
        self.front = Front(self.core, self.settings)

    @property
    def connections(self) -> int:
        """Clients that are connected."""
        return self._from.total()

    @property
    def addresses(self) -> Counter[str]:
        """How many connections there are from each address."""
        return self._from

    def stop(self) -> None:
        """Take no more requests: connections without one are closed, the others when theirs is answered."""
        self.stopping.set()
        self.core.leaving = True
        for http in self._speaking:  # so that its client sends nothing more on it
            http.last = True
        for scope in self._idle:
            scope.deadline = min(scope.deadline, trio.current_time() + self.linger)

    async def deserted(self) -> None:
        """Wait until no client is connected."""
        await trio.lowlevel.checkpoint()
        while self.connections:
            self._left = trio.Event()
            await self._left.wait()

    async def handle(self, stream: trio.abc.Stream, address: str = "") -> None:
        """Serve a connection until it ends, and close it. Only our own bugs would raise; they are logged."""
        try:
            if self._from[address] >= self.settings.client_connections:
                await self._turn_away(stream, "This address has too many connections to the gateway.")
            elif self.connections >= self.settings.max_connections:
                await self._turn_away(stream, "The gateway has too many connections.")
            else:
                self._from[address] += 1
                try:
                    http = self._http(stream)
                    http.last = self.stopping.is_set()
                    self._speaking.add(http)
                    await self._converse(http)
                finally:
                    self._speaking.discard(http)
                    self._from[address] -= 1
                    if not self._from[address]:
                        del self._from[address]
                    self._left.set()
        except* (ClientGone, AnswerBroken, BodyBroken, *GONE):
            await trio.lowlevel.checkpoint()
        except* Exception:
            self.crashes += 1
            log.exception("a client's connection crashed")
        finally:
            with trio.move_on_after(CLOSING, shield=True):
                await _close(stream)

    def _http(self, stream: trio.abc.Stream) -> HttpConnection:
        settings = self.settings
        return HttpConnection(stream, settings.max_head, settings.max_body, settings.send_timeout)

    async def _turn_away(self, stream: trio.abc.Stream, message: str) -> None:
        self.counts["turned_away"] += 1
        refusal = Refused(
            message, status=503, kind="server_error", code="server_is_overloaded", retry_after=1
        )
        with trio.move_on_after(CLOSING):
            await self._refuse(self._http(stream), refusal, last=True)

    async def _converse(self, http: HttpConnection) -> None:
        settings = self.settings
        patience = settings.head_timeout
        while self.linger or not self.stopping.is_set():
            head: Head | None = None
            with trio.CancelScope() as waiting:
                self._idle.add(waiting)
                # It was accepted at the last moment: its first request is served. Or it has just had an answer whose
                # head was sent before it was the last: its client may be about to send another request.
                if self.stopping.is_set():
                    waiting.deadline = trio.current_time() + self.linger
                try:
                    head = await http.next_head(patience)
                except MalformedRequest as error:
                    refusal = Refused(f"The request is no HTTP: {error}.", status=error.status)
                    await self._refuse(http, refusal, last=True)
                finally:
                    self._idle.discard(waiting)
            if head is None or not await self._serve(http, head):
                return
            patience = settings.idle_timeout

    async def _serve(self, http: HttpConnection, head: Head) -> bool:
        """Answer one request; return whether the connection can carry another."""
        request_id = f"req_{secrets.token_hex(16)}"
        self.counts["requests"] += 1
        try:
            if head.path in ("/healthz", "/readyz"):
                await self._health(http, head)
            else:
                caller = self.keys.identify(head.headers)
                if head.upgrade and head.path.rstrip("/") == CREATE:
                    await self._socket(http, head, caller)
                    return False
                await self._request(http, head, caller, request_id)
        except (Refused, BodyBroken) as error:
            self.counts["refused"] += 1
            # Its frames hold the request, and one of them holds it below: a circle that would keep 64 MB for long
            error.__traceback__ = None
            if http.begun:
                raise ClientGone from None
            refusal = (
                error if isinstance(error, Refused) else Refused(f"The request body is no HTTP: {error}.")
            )
            await self._refuse(http, refusal, request_id=request_id)
        return http.again()

    async def _request(self, http: HttpConnection, head: Head, caller: Caller, request_id: str) -> None:
        segments = unquote(head.path).replace("\\", "/").split("/")
        if not head.path.startswith(f"{PREFIX}/") or not {".", ".."}.isdisjoint(segments):
            raise Refused(f"Invalid URL ({head.method} {head.path}): the API is below {PREFIX}/.", status=404)
        named = segments[3] if segments[:3] == ["", "v1", "responses"] and len(segments) > 3 else ""
        if named and await self.core.foreign(caller, named):
            raise Refused(f"Response with id '{named}' not found.", status=404)
        self.keys.charge(caller, trio.current_time())
        if named and head.method == "DELETE" and not any(segments[4:]):
            self.core.forget(caller, named)
        body: bytes | None = None
        if head.method == "POST" and head.target.rstrip("/") == CREATE and _readable(head):
            body = await self._body(http)
            asked = await self.core.read(body)
            if await self._for_sockets(caller, asked):
                try:
                    turn = await self.front.create(http, caller, asked, {"x-request-id": request_id})
                except Failed:
                    self.counts["failed"] += 1
                else:
                    self.keys.spent(caller, turn.usage.total_tokens, trio.current_time())
                return
        async with self.upstreams.use(caller) as upstream:
            await pass_through(http, head, upstream.http, body)

    async def _for_sockets(self, caller: Caller, asked: Asked) -> bool:
        """Whether a create is a turn of ours; else it goes over plain HTTP as it is."""
        parent = asked.previous_response_id
        if parent is None or await self.core.remembers(caller, parent):
            return asked.plain is None
        if await self.core.foreign(caller, parent):
            raise previous_response_not_found(parent)
        return False

    async def _body(self, http: HttpConnection) -> bytes:
        whole = io.BytesIO()  # gives what was written without copying it, so nothing is joined at the end
        with trio.CancelScope() as patience:
            patience.deadline = trio.current_time() + self.settings.head_timeout
            try:
                async for part in http.body_parts():
                    whole.write(part)
                    patience.deadline = trio.current_time() + self.settings.head_timeout
            except BodyTooLarge as error:
                message = f"The request body is over {error.limit} bytes (max_body)."
                raise Refused(message, status=413, code="request_too_large") from None
        if patience.cancelled_caught:
            raise Refused("The request body does not come.", status=408, code="request_timeout")
        return whole.getvalue()

    async def _socket(self, http: HttpConnection, head: Head, caller: Caller) -> None:
        await serve_socket(
            http,
            caller,
            core=self.core,
            ring=self.keys,
            settings=self.settings,
            stopping=self.stopping,
        )

    async def _health(self, http: HttpConnection, head: Head) -> None:
        await self._swallowed(http)
        ready = head.path == "/healthz" or not self.stopping.is_set()
        body = {"status": "ok" if ready else "stopping"}
        await http.answer(200 if ready else 503, to_json(body), {"content-type": "application/json"})

    async def _refuse(
        self, http: HttpConnection, refusal: Refused, *, request_id: str = "", last: bool = False
    ) -> None:
        """Answer with a refusal. A body that nobody wants is read first, within bounds: it would be in the way."""
        headers = {"content-type": "application/json", **refusal.headers}
        if request_id:
            headers["x-request-id"] = request_id
        unread = last or not await self._swallowed(http)
        http.last = http.last or unread
        await http.answer(refusal.status, to_json(refusal.body()), headers)
        if unread:
            await http.part(CLOSING)

    async def _swallowed(self, http: HttpConnection) -> bool:
        """Read what is left of a request; return whether that is all of it."""
        if http.body_read:
            return True
        if http.waits_to_send:
            return False
        with trio.move_on_after(CLOSING):
            try:
                async for _ in http.body_parts():
                    pass
            except (BodyTooLarge, BodyBroken):
                return False
            return True
        return False


def _readable(head: Head) -> bool:
    """Whether the body is the JSON itself, and not something that it was packed into."""
    return head.headers.get("content-encoding", "identity").lower() in ("", "identity")


async def _close(stream: trio.abc.Stream) -> None:
    try:
        await stream.aclose()
    except GONE:
        await trio.aclose_forcefully(stream)
