"""The gateway on one connection of a client: who it is, what it wants, and who serves that."""

from __future__ import annotations

import logging
import secrets
from collections import Counter

import trio
from attrs import define, evolve, field

from pool.body_budget import Account, BodyBudget, BudgetExceeded
from pool.listener import PeerServer
from pool.peers import Peer
from pool.web import BodyBroken, BodyTimeout, BodyTooLarge, Head, HttpConnection, MalformedRequest
from pool.wire.codec import to_json
from pool.wire.refusal import Refused
from scheduler.gateway.asked import Bounds
from scheduler.gateway.core import Core
from scheduler.gateway.errors import no_room, overloaded
from scheduler.gateway.front import ClientGone, Front
from scheduler.gateway.keys import Caller, KeyRing
from scheduler.gateway.library import Library
from scheduler.gateway.ownership import Ownership
from scheduler.gateway.passthrough import AnswerBroken
from scheduler.gateway.requests import Request, Requests
from scheduler.gateway.routing import route_of
from scheduler.gateway.sessions import Sessions
from scheduler.gateway.settings import GatewaySettings
from scheduler.gateway.spool import Spool
from scheduler.gateway.upstreams import Upstreams
from scheduler.gateway.websocket import serve_socket

log = logging.getLogger("warmline.gateway")

CLOSING = 2.0  # s, for the goodbye on a connection


@define(eq=False)
class Gateway:
    """Serves clients on any stream. `serve_gateway` gives it sockets."""

    upstreams: Upstreams
    settings: GatewaySettings
    keys: KeyRing
    spool: Spool | None = None
    core: Core = field(init=False)
    requests: Requests = field(init=False)
    sessions: Sessions = field(factory=Sessions, init=False)  # what callers have open
    stopping: trio.Event = field(factory=trio.Event, init=False)  # no more requests are taken
    counts: Counter[str] = field(factory=Counter, init=False)
    clients: PeerServer = field(init=False)
    bodies: BodyBudget = field(init=False)  # of requests that are read, or whose turns have not ended
    linger: float = field(default=0.0, init=False)  # s that idle connections stay open when it stops
    _idle: set[trio.CancelScope] = field(factory=set, init=False)  # connections that wait for a request
    _speaking: set[HttpConnection] = field(factory=set, init=False)  # connections that speak HTTP

    def __attrs_post_init__(self) -> None:
        library = Library(self.settings.memory_bytes, self.settings.memory_responses)
        bounds = Bounds(items=self.settings.max_items, fields=self.settings.max_fields)
        ownership = Ownership(self.settings.memory_ids)
        self.core = Core(self.upstreams, library, ownership, self.spool, bounds)
        front = Front(self.core, self.settings)
        self.requests = Requests(self.core, front, self.keys, self.counts, self._body)
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
                await self._refuse(http, overloaded("has too many connections"), last=True)
            else:
                caller = self.keys.identify(head.headers)
                route = route_of(head)
                payer = caller.id if self.keys.policy == "virtual" else peer.address
                if head.upgrade and route.socket:
                    self.requests.check(caller, evolve(route, method="POST"))  # what a socket is for
                    with self.bodies.account(payer) as account:
                        await self._socket(http, caller, account)
                    return False
                with self.bodies.account(payer) as account, self.sessions.request(caller) as scope:
                    request = Request(
                        http=http, head=head, route=route, caller=caller, id=request_id, account=account
                    )
                    await self.requests.serve(request)
                if scope.cancelled_caught:
                    raise ClientGone
        except (Refused, BodyBroken, BudgetExceeded) as error:
            self.counts["refused"] += 1
            # Its frames hold the request, and one of them holds it below: a circle that would keep 64 MB for long
            error.__traceback__ = None
            if http.begun:
                raise ClientGone from None
            # Who sends too much, or too slowly, is not read any further; nor is who may send frames already.
            last = (
                head.upgrade
                or isinstance(error, BudgetExceeded)
                or (isinstance(error, BodyBroken) and error.status == BodyTimeout.status)
            )
            await self._refuse(http, _refusal_of(error), request_id=request_id, last=last)
        return http.again()

    async def _body(self, http: HttpConnection, account: Account) -> bytes:
        """Read a body that is kept. It is paid for until its turn has ended: what is made of it is as large."""
        try:
            return await http.body(account)
        except BodyTooLarge as error:
            message = f"The request body is over {error.limit} bytes (max_body)."
            raise Refused(message, status=413, code="request_too_large") from None

    async def _socket(self, http: HttpConnection, caller: Caller, account: Account) -> None:
        await serve_socket(
            http,
            caller,
            core=self.core,
            ring=self.keys,
            settings=self.settings,
            stopping=self.stopping,
            sessions=self.sessions,
            account=account,
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


def _refusal_of(error: Refused | BodyBroken | BudgetExceeded) -> Refused:
    """Return what a client is told."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, BudgetExceeded):
        return no_room(error)
    if error.status == BodyTimeout.status:
        return Refused(f"The request body is too slow: {error}.", status=error.status, code="request_timeout")
    return Refused(f"The request body is no HTTP: {error}.", status=error.status)
