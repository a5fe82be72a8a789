"""The API's requests over HTTP, from a head that was read to an answer: who may ask that, and who serves it.

Theory of operation
    Each request takes the same steps in the same order, whatever it asks for: its target is parsed, its caller is
    known, the caller's key may do that, names nothing that is another's, and has requests and tokens left. Only then
    its body is read, and only what was parsed and searched goes upstream with the gateway's key.

    A create is a turn of ours, unless it builds on what the server alone knows. That, and the rest of the API,
    is passed on over HTTP; what uses tokens there waits for admission and is charged like a turn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial

import trio
from attrs import define, frozen

from pool.answer import Answer
from pool.body_budget import Account
from pool.errors import PoolError
from pool.relay import kept
from pool.web import Head, HttpConnection
from pool.wire.refusal import Refused, previous_response_not_found
from scheduler.attempts import BYTES_A_TOKEN
from scheduler.errors import SchedulerError
from scheduler.gateway.access import (
    EVERYTHING,
    Fields,
    Operation,
    check_body,
    check_endpoint,
    lent_fields,
    shown_fields,
)
from scheduler.gateway.answers import AnswerTooLarge, LentAnswer, listed_ids, without
from scheduler.gateway.asked import Asked
from scheduler.gateway.complaint import clean_fields
from scheduler.gateway.core import Core
from scheduler.gateway.errors import refused
from scheduler.gateway.front import Failed, Front
from scheduler.gateway.keys import Caller, KeyRing
from scheduler.gateway.passthrough import deliver, has_body, pass_through
from scheduler.gateway.routing import Route, encoded_body
from scheduler.turns import Usage

ReadBody = Callable[[HttpConnection, Account], Awaitable[bytes]]
UNKNOWN_MODEL = "unknown"  # in admission, where a request names none


@frozen(eq=False, kw_only=True)
class Request:
    """One request of the API. `id`: as the answer names it; `account` pays for its body until it is answered."""

    http: HttpConnection
    head: Head
    route: Route
    caller: Caller
    id: str
    account: Account


@define(eq=False)
class Requests:
    """Serves requests of the API over HTTP; `read_body` reads a body within the gateway's bounds."""

    core: Core
    front: Front
    keys: KeyRing
    counts: Counter[str]
    read_body: ReadBody

    def check(self, caller: Caller, route: Route) -> Operation:
        """Say what a request does. Raises `Refused` when its caller's key may not do that."""
        return check_endpoint(route, [EVERYTHING] if caller.key is None else caller.key.endpoints)

    async def serve(self, request: Request) -> None:
        """Answer one request.

        Raises:
            Refused: it is refused, or has failed, and nothing was sent to the client yet.
            ClientGone: the client left.
            AnswerBroken: the answer broke off.
            BodyBroken: the request's body broke off, or is no HTTP.
            BudgetExceeded: there is no room for the body.
        """
        route, caller = request.route, request.caller
        operation = self.check(caller, route)
        if operation.names is not None and await self.core.denied(caller, [operation.names]):
            kind = "Response" if route.family == "responses" else route.family
            raise Refused(f"{kind} with id '{operation.names}' not found.", status=404)
        self.keys.charge(caller, trio.current_time())
        if route.family == "responses" and route.method == "DELETE" and len(route.segments) == 2:
            self.core.forget(caller, route.segments[1])
        if route.create and encoded_body(request.head.headers) is None:
            await self._create(request, operation)
        elif caller.secret is not None:
            await self._forward(request, None)
        else:
            await self._lend(request, operation)

    async def _create(self, request: Request, operation: Operation) -> None:
        caller = request.caller
        body = await self.read_body(request.http, request.account)
        asked = await self.core.read(caller, body)
        if await self._is_turn(caller, asked):
            del body  # what was made of it is as large, and lives as long as the turn
            try:
                turn = await self.front.create(request.http, caller, asked, {"x-request-id": request.id})
            except Failed:
                self.counts["failed"] += 1
            else:
                self.keys.spent(caller, turn.usage.total_tokens, trio.current_time())
        elif caller.secret is not None:
            await self._forward(request, body)
        else:
            content = body if caller.key is None else (await self.core.search(caller, body)).text
            await self._pass(request, operation, content, asked.model)

    async def _forward(self, request: Request, body: bytes | None) -> None:
        """Pass a request on with its client's own key."""
        async with self.core.upstreams.use(request.caller) as upstream:
            await pass_through(request.http, request.head, request.route, upstream.http, body)

    async def _is_turn(self, caller: Caller, asked: Asked) -> bool:
        """Whether a create is a turn of ours; else it goes over plain HTTP."""
        parent = asked.previous_response_id
        if parent is None or await self.core.remembers(caller, parent):
            return asked.plain is None
        if await self.core.denied(caller, [parent]):
            raise previous_response_not_found(parent)
        return False

    async def _lend(self, request: Request, operation: Operation) -> None:
        """Pass a request on with the gateway's own key."""
        headers, caller = request.head.headers, request.caller
        if caller.key is None:  # alone with the key: there is nobody to keep apart
            if request.route.create:
                check_body(operation, headers, has_body=True)
            await self._pass(request, operation, None, None)
            return
        if check_body(operation, headers, has_body=has_body(request.head)) != "json":
            await self._pass(request, operation, None, None)
            return
        found = await self.core.search(caller, await self.read_body(request.http, request.account))
        await self._pass(request, operation, found.text, found.model)

    async def _pass(
        self, request: Request, operation: Operation, body: bytes | None, model: str | None
    ) -> None:
        """Pass a request on with the gateway's own key; with its tokens, if it uses some, admitted and charged."""
        caller, route = request.caller, request.route
        fields: Fields = lent_fields(request.head.fields)
        if body is not None:
            fields = [one for one in fields if one[0].lower() != b"content-type"]
            fields = [*fields, (b"content-type", b"application/json")]
        fields = [*fields, (b"accept-encoding", b"identity")]
        reading = LentAnswer(operation, route.family, len(body or b""))

        async def answered(http: HttpConnection, answer: Answer) -> None:
            if caller.key is None:
                answer.fields = shown_fields(answer.fields)
                await deliver(http, answer)
            else:
                await self._deliver(http, answer, caller, reading)

        async with self.core.upstreams.use(caller) as upstream:
            pass_on = partial(
                pass_through,
                *(request.http, request.head, route, upstream.http, body),
                fields=fields,
                answered=answered,
                shown=shown_fields,
            )
            if not operation.metered:
                await pass_on()
                return
            admission = upstream.scheduler.admission
            ticket = admission.ticket(tenant=caller.tenant, priority=caller.priority)
            cost = len(body or b"") // BYTES_A_TOKEN
            try:
                async with admission.turn(ticket, model=model or UNKNOWN_MODEL, cost=cost) as slot:
                    try:
                        await pass_on()
                    finally:
                        slot.used(Usage(total_tokens=reading.tokens))
                        self.keys.spent(caller, reading.tokens, trio.current_time())
            except (PoolError, SchedulerError) as error:
                raise refused(error) from None

    async def _deliver(
        self, http: HttpConnection, answer: Answer, caller: Caller, reading: LentAnswer
    ) -> None:
        """Pass an answer on to a caller of the gateway's key, and note what it says was created."""
        reading.begin(answer.status, answer.headers)
        fields = shown_fields(clean_fields(kept(answer.fields)))
        operation, noted = reading.operation, 0
        if operation.lists and reading.succeeded and reading.kind != "json":
            raise unreadable()
        if reading.kind != "json":
            await http.begin(answer.status, fields)
        while part := await answer.chunk(started=True):
            try:
                reading.feed(part)
            except AnswerTooLarge:
                raise unreadable() from None
            if len(reading.ids) > noted:
                self.core.created(caller, reading.ids[noted:])
                noted = len(reading.ids)
            if reading.kind != "json":
                await http.send(part)
        if reading.kind == "json":
            content, value = reading.whole()
            self.core.created(caller, reading.ids)
            if operation.lists and reading.succeeded:
                shown = without(value, await self.core.denied(caller, listed_ids(value)))
                if shown is None:
                    raise unreadable()
                content = shown
            fields = [one for one in fields if one[0].lower() != b"content-length"]
            await http.begin(answer.status, [*fields, (b"content-length", b"%d" % len(content))])
            await http.send(content)
        await http.end()


def unreadable() -> Refused:
    """An answer that has to be read before the caller may see it, and cannot be."""
    return Refused(
        "The API's answer cannot be read by the gateway, so it is not shown to this key.",
        status=502,
        kind="server_error",
        code="upstream_unreadable",
    )
