"""What the HTTP side answers to: creating, compacting and looking up responses, and the list of models."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import trio
from attrs import define, field

from pool.emulator.compaction import compact
from pool.emulator.faults import Fault
from pool.emulator.http import EmulatorHttp, authorized, route
from pool.emulator.request import checked_request
from pool.emulator.service import Prepared, Service
from pool.emulator.speaking import LineEnded, speak
from pool.emulator.streams import abort
from pool.web import BodyBroken, BodyTooLarge, Head
from pool.wire.codec import from_json
from pool.wire.refusal import Refused, invalid_type, unauthorized

MODELS = ("gpt-6-astra", "gpt-6-sol", "gpt-6-luna", "gpt-5.6-sol", "gpt-5.6-luna")


async def serve_request(service: Service, http: EmulatorHttp, head: Head, connection: int) -> None:
    """Answer one request. Raises `LineEnded` when the connection cannot go on."""
    service.stats.http_requests += 1
    try:
        if not authorized(head, service):
            await _pass_over(http)
            raise unauthorized()
        handle = _POSTS.get(route(head)) if head.method == "POST" else None
        with service.bodies.account("") as account:
            body = await http.body(account)
            if handle is not None:
                await handle(service, http, _parsed(body), connection)
            else:
                await http.answer(200, _looked_up(service, head))
    except Refused as refused:
        service.stats.refused += 1
        await http.answer(refused.status, refused.body(), refused.headers)
    except BodyBroken:  # the body broke off
        raise LineEnded from None


async def _pass_over(http: EmulatorHttp) -> None:
    """Read a body and keep nothing of it."""
    try:
        async for _ in http.web.body_parts():
            pass
    except (BodyTooLarge, BodyBroken):
        return


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        value = from_json(body)
    except (ValueError, RecursionError):
        raise Refused("We could not parse the JSON body of your request.") from None
    if not isinstance(value, dict):
        raise invalid_type("body", "an object", value)
    return value


def _looked_up(service: Service, head: Head) -> Any:
    """Return what a GET asks for. Raises `Refused` (404, 405) when there is no such thing."""
    parts = route(head).strip("/").split("/")
    if head.method != "GET":
        status = 405 if parts[0] in ("responses", "models") else 404
        raise Refused(f"Invalid method for URL ({head.method} {head.path})", status=status)
    if parts[0] == "models" and len(parts) <= 2:
        models = [
            {"id": name, "object": "model", "created": 1790000000, "owned_by": "emulator"} for name in MODELS
        ]
        if len(parts) == 1:
            return {"object": "list", "data": models}
        return {**models[0], "id": parts[1]}
    if parts[0] == "responses" and len(parts) == 2:
        found = service.store.body(parts[1])
        if found is None:
            raise Refused(f"Response with id '{parts[1]}' not found.", status=404)
        return found
    raise Refused(f"Invalid URL (GET {head.path})", status=404)


async def _compact(service: Service, http: EmulatorHttp, body: dict[str, Any], _connection: int) -> None:
    await http.answer(200, compact(service, body))


async def _create(service: Service, http: EmulatorHttp, body: dict[str, Any], connection: int) -> None:
    request = checked_request(body, socket=False)
    prepared = service.prepare(request, connection=connection, memory=None)
    line = _EventLine(http) if body.get("stream") else _WholeLine(http)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_watch, http, nursery.cancel_scope)
            await line.begin()
            await speak(service, prepared, line)
            nursery.cancel_scope.cancel()
    except* (LineEnded, trio.BrokenResourceError, trio.ClosedResourceError):
        line.dropped = True
    if prepared.turn.terminal is None or line.dropped:
        service.stats.abandoned += prepared.turn.terminal is None
        raise LineEnded
    await line.finish()


async def _watch(http: EmulatorHttp, scope: trio.CancelScope) -> None:
    """Stop the turn when the client leaves."""
    await http.web.until_gone()
    scope.cancel()


_Handler = Callable[[Service, EmulatorHttp, dict[str, Any], int], Awaitable[None]]
_POSTS: Mapping[str, _Handler] = {"/responses": _create, "/responses/compact": _compact}


@define(eq=False)
class _WholeLine:
    """An answer that is sent whole, at its end."""

    http: EmulatorHttp
    dropped: bool = field(init=False, default=False)
    _shown: Any = field(init=False, default=None)

    async def begin(self) -> None:
        await trio.lowlevel.checkpoint()

    async def say(self, event: dict[str, Any]) -> None:
        self._shown = event.get("response")
        await trio.lowlevel.checkpoint()

    async def drop(self, _fault: Fault) -> None:
        await abort(self.http.stream)
        raise LineEnded

    async def limit(self) -> None:
        """Do nothing: an HTTP connection has no such limit."""
        await trio.lowlevel.checkpoint()

    def ended(self, prepared: Prepared) -> None:
        """Do nothing: HTTP remembers nothing beside the store."""

    async def finish(self) -> None:
        await self.http.answer(200, self._shown)


@define(eq=False)
class _EventLine(_WholeLine):
    """An answer as server-sent events."""

    async def begin(self) -> None:
        headers = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}
        await self.http.web.begin(200, {**headers, "transfer-encoding": "chunked"})

    async def say(self, event: dict[str, Any]) -> None:
        await self.http.event(event)

    async def finish(self) -> None:
        await self.http.done()
