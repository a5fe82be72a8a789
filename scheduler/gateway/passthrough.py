"""Everything of the API beside turns: passed on over HTTP, streamed both ways.

Theory of operation
    With a client's own key a request and its answer are passed on unchanged. With the gateway's key the caller says
    which header fields go upstream, and delivers the answer in its own way (see `lending`).
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable

import trio

from pool.answer import Answer
from pool.errors import ConnectionLost, DialFailed, PoolError
from pool.http import HttpClient
from pool.relay import kept, relay
from pool.web import BodyBroken, BodyTooLarge, Head, HttpConnection
from pool.wire.refusal import Refused
from scheduler.gateway.access import Fields
from scheduler.gateway.complaint import clean_fields, clean_refusal
from scheduler.gateway.front import ClientGone
from scheduler.gateway.routing import Route

log = logging.getLogger("warmline.gateway")

Deliver = Callable[[HttpConnection, Answer], Awaitable[None]]
"""Sends an answer to the client, as its head has come from upstream."""

REFUSED = 400  # statuses from here on
PIECE = 256 * 1024  # bytes


class AnswerBroken(Exception):
    """The answer broke off when the client had been given some of it: its connection is cut, so that it can tell."""


async def deliver(http: HttpConnection, answer: Answer) -> None:
    """Pass an answer on as it comes; what is no refusal has nobody waiting for its end."""
    await http.begin(answer.status, clean_fields(kept(answer.fields)))
    while part := await answer.chunk(started=True):
        await http.send(part)
    await http.end()


async def pass_through(
    http: HttpConnection,
    head: Head,
    route: Route,
    client: HttpClient | None,
    given: bytes | None = None,
    *,
    fields: Fields | None = None,
    answered: Deliver = deliver,
    shown: Callable[[Fields], list[tuple[bytes, bytes]]] = list,
) -> None:
    """Pass a request below `/v1` on, and its answer back.

    Args:
        http: the client's connection; its `max_body` bounds the request.
        head: of the request.
        route: its target, as it goes upstream.
        client: of the server.
        given: the body, where it has been read; its length is said anew.
        fields: the header fields to pass on, in place of those of `head`.
        answered: sends the answer to the client, unless it is a refusal.
        shown: which header fields of a refusal the client gets.

    Raises:
        Refused: nothing was sent to the client yet: the server cannot be reached (502, 504), the body is too large.
        AnswerBroken: something was.
        BodyBroken: the client's body broke off, or is no HTTP; nothing was sent to it yet.
        ClientGone: the client has left.
    """
    if client is None:
        raise Refused("This endpoint has no HTTP side.", status=501, kind="server_error")
    if head.upgrade:
        raise Refused(f"Invalid URL ({head.method} {head.path})", status=404)
    sent = trio.Event()
    body: AsyncGenerator[bytes] | None = None
    if given is not None:
        body = _read_already(given, sent)
    elif has_body(head):
        body = _body(http, sent)
    else:
        await http.body()  # nothing, but it says so
        sent.set()
    gone = False
    refused: Refused | BodyBroken | None = None

    async def watch() -> None:
        nonlocal gone
        await sent.wait()
        await http.until_gone()
        gone = True
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        try:
            await _pass(http, head, route, _fields(head, given, fields), client, body, answered, shown)
        except (Refused, BodyBroken, PoolError) as error:
            refused = _unreachable(error) if isinstance(error, PoolError) else error
        nursery.cancel_scope.cancel()
    if gone:
        raise ClientGone
    if refused is not None and http.begun:
        raise AnswerBroken
    if refused is not None:
        raise refused


async def _pass(
    http: HttpConnection,
    head: Head,
    route: Route,
    fields: Fields,
    client: HttpClient,
    body: AsyncGenerator[bytes] | None,
    answered: Deliver,
    shown: Callable[[Fields], list[tuple[bytes, bytes]]],
) -> None:
    try:
        async with relay(client, head.method, route.upstream_path, fields, body) as answer:
            if answer.status < REFUSED or head.method == "HEAD":
                await answered(http, answer)
                return
            words, content = clean_refusal(answer.status, kept(answer.fields), await answer.complaint())
            await http.begin(answer.status, shown(words))
            if content:
                await http.send(content)
            await http.end()
    except BodyTooLarge as error:
        raise Refused(f"The request body is over {error.limit} bytes.", status=413) from None


def _fields(head: Head, given: bytes | None, fields: Fields | None) -> Fields:
    chosen = head.fields if fields is None else fields
    if given is None:
        return chosen
    length = (b"content-length", b"%d" % len(given))
    left = [one for one in chosen if one[0].lower() not in (b"content-length", b"transfer-encoding")]
    return [*left, length]


async def _body(http: HttpConnection, sent: trio.Event) -> AsyncGenerator[bytes]:
    """Give the parts of the request's body, and say when there are no more."""
    async for part in http.body_parts():
        yield part
    sent.set()


async def _read_already(content: bytes, sent: trio.Event) -> AsyncGenerator[bytes]:
    sent.set()
    await trio.lowlevel.checkpoint()
    for start in range(
        0, len(content), PIECE
    ):  # each is copied, and perhaps encrypted, before anything else runs
        yield content[start : start + PIECE]


def has_body(head: Head) -> bool:
    """Whether a request has a body."""
    return "transfer-encoding" in head.headers or head.headers.get("content-length", "0") != "0"


def _unreachable(error: PoolError) -> Refused:
    log.warning("passing a request on failed: %s", error)
    wait: float | None = None
    if isinstance(error, DialFailed):
        wait = error.retry_after
        message, code = "The gateway cannot reach the API.", "upstream_unreachable"
    else:
        assert isinstance(error, ConnectionLost)
        message, code = "The gateway lost the connection to the API.", "upstream_lost"
    return Refused(
        f"{message} Please try again later.", status=502, kind="server_error", code=code, retry_after=wait
    )
