"""The gateway on one connection of a client: who it is, what it wants, and who serves that."""

from __future__ import annotations

import logging
import secrets
from collections import Counter
from urllib.parse import unquote

import trio
from attrs import define, field

from pool.body_budget import Account, BodyBudget, BudgetExceeded
from pool.listener import PeerServer
from pool.peers import Peer
from pool.web import BodyBroken, BodyTimeout, BodyTooLarge, Head, HttpConnection, MalformedRequest
from pool.wire.codec import to_json
from pool.wire.refusal import Refused, previous_response_not_found
from scheduler.gateway.asked import Asked, read_create
from scheduler.gateway.core import Core
from scheduler.gateway.front import ClientGone, Failed, Front
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
    clients: PeerServer = field(init=False)
    bodies: BodyBudget = field(init=False)  # of requests that are read, or whose turns have not ended
    linger: float = field(default=0.0, init=False)  # s that idle connections stay open when it stops
    _idle: set[trio.CancelScope] = field(factory=set, init=False)  # connections that wait for a request
    _speaking: set[HttpConnection] = field(factory=set, init=False)  # connections that speak HTTP

    def __attrs_post_init__(self) -> None:
        library = Library(self.settings.memory_bytes, self.settings.memory_responses)
        self.core = Core(self.upstreams, library, self.spool)
        self.front = Front(self.core, self.settings)
        self.clients = PeerServer(
            "a client's connection",
            log,
            self._client,
            self.settings.connection_limits,
            expected=(ClientGone, AnswerBroken, BodyBroken),
        )
        self.bodies = BodyBudget(self.settings.max_bodies, self.settings.client_bodies)

    @property
    def connections(self) -> int:
        """Clients that are connected."""
        return len(self.clients.peers)

    @property
    def addresses(self) -> Counter[str]:
        """How many connections there are from each address."""
        return self.clients.peers.addresses

    @property
    def crashes(self) -> int:
        """Connections that were lost by a bug of the gateway's own."""
        return self.clients.crashes

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
        await self.clients.peers.none_left()

    async def handle(self, stream: trio.abc.Stream, address: str = "") -> None:
        """Serve a connection until it ends, and close it. Nothing but a cancellation gets out."""
        await self.clients.handle(stream, address)

    async def _client(self, stream: trio.abc.Stream, peer: Peer) -> None:
        http = HttpConnection(stream, self.settings.http_limits)
        http.last = peer.crowded or self.stopping.is_set()
        self._speaking.add(http)
        try:
            await self._converse(http, peer)
        finally:
            self._speaking.discard(http)

    async def _converse(self, http: HttpConnection, peer: Peer) -> None:
        while self.linger or not self.stopping.is_set():
            head: Head | None = None
            with trio.CancelScope() as waiting:
                self._idle.add(waiting)
                # It was accepted at the last moment: its first request is served. Or it has just had an answer whose
                # head was sent before it was the last: its client may be about to send another request.
                if self.stopping.is_set():
                    waiting.deadline = trio.current_time() + self.linger
                try:
                    head = await http.next_head()
                except MalformedRequest as error:
                    refusal = Refused(f"The request is no HTTP: {error}.", status=error.status)
                    await self._refuse(http, refusal, last=True)
                finally:
                    self._idle.discard(waiting)
            if head is None:
                return
            peer.busy()
            if not await self._serve(http, head, peer):
                return
            peer.idle()

    async def _serve(self, http: HttpConnection, head: Head, peer: Peer) -> bool:
        """Answer one request; return whether the connection can carry another."""
        request_id = f"req_{secrets.token_hex(16)}"
        self.counts["requests"] += 1
        try:
            if head.path in ("/healthz", "/readyz"):
                await self._health(http, head)
            elif peer.crowded:
                await self._refuse(http, _overloaded("has too many connections"), last=True)
            else:
                caller = self.keys.identify(head.headers)
                if head.upgrade and head.path.rstrip("/") == CREATE:
                    await self._socket(http, head, caller)
                    return False
                payer = caller.id if self.keys.policy == "virtual" else peer.address
                with self.bodies.account(payer) as account:
                    await self._request(http, head, caller, request_id, account)
        except (Refused, BodyBroken, BudgetExceeded) as error:
            self.counts["refused"] += 1
            if http.begun:
                raise ClientGone from None
            # Who sends too much, or too slowly, is not read any further.
            last = isinstance(error, BudgetExceeded) or (
                isinstance(error, BodyBroken) and error.status == BodyTimeout.status
            )
            await self._refuse(http, _refusal_of(error), request_id=request_id, last=last)
        return http.again()

    async def _request(
        self, http: HttpConnection, head: Head, caller: Caller, request_id: str, account: Account
    ) -> None:
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
            body = await self._body(http, account)
            asked = read_create(body)
            if await self._for_sockets(caller, asked):
                body = None  # what was made of it is as large, and lives as long as the turn
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

    async def _body(self, http: HttpConnection, account: Account) -> bytes:
        """Read a body that is kept. It is paid for until its turn has ended: what is made of it is as large."""
        try:
            return await http.body(account)
        except BodyTooLarge as error:
            message = f"The request body is over {error.limit} bytes (max_body)."
            raise Refused(message, status=413, code="request_too_large") from None

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


def _overloaded(why: str) -> Refused:
    return Refused(
        f"The gateway {why}. Please try again later.",
        status=503,
        kind="server_error",
        code="server_is_overloaded",
        retry_after=1,
    )


def _refusal_of(error: Refused | BodyBroken | BudgetExceeded) -> Refused:
    """Return what a client is told."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, BudgetExceeded):
        return _overloaded(f"holds as much of requests as it may ({_budget(error)}): {error}")
    if error.status == BodyTimeout.status:
        return Refused(f"The request body is too slow: {error}.", status=error.status, code="request_timeout")
    return Refused(f"The request body is no HTTP: {error}.", status=error.status)


def _budget(error: BudgetExceeded) -> str:
    return "max_bodies" if error.all_used else "client_bodies"
