"""Everything of the API beside turns: passed on unchanged over HTTP, streamed both ways."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator

import trio

from pool.errors import ConnectionLost, DialFailed, PoolError
from pool.http import HttpClient
from pool.relay import kept, relay
from pool.web import BodyBroken, BodyTooLarge, Head, HttpConnection
from pool.wire.refusal import Refused
from scheduler.gateway.front import ClientGone

log = logging.getLogger("warmline.gateway")

PREFIX = "/v1"
PIECE = 256 * 1024  # bytes


class AnswerBroken(Exception):
    """The answer broke off when the client had been given some of it: its connection is cut, so that it can tell."""


async def pass_through(
    http: HttpConnection, head: Head, client: HttpClient | None, given: bytes | None = None
) -> None:
    """Pass a request below `/v1` on, and its answer back.

    Args:
        http: the client's connection; its `max_body` bounds the request.
        head: of the request.
        client: of the server.
        given: the body, where it has been read.

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
    elif _has_body(head):
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
            await _pass(http, head, client, body)
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
    http: HttpConnection, head: Head, client: HttpClient, body: AsyncGenerator[bytes] | None
) -> None:
    path = head.target.removeprefix(PREFIX)
    try:
        async with relay(client, head.method, path, head.fields, body) as answer:
            await http.begin(answer.status, kept(answer.fields))
            while part := await answer.chunk(started=True):
                await http.send(part)
            await http.end()
    except BodyTooLarge as error:
        raise Refused(f"The request body is over {error.limit} bytes.", status=413) from None


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


def _has_body(head: Head) -> bool:
    return "transfer-encoding" in head.headers or head.headers.get("content-length", "0") != "0"


def _unreachable(error: PoolError) -> Refused:
    log.warning("passing a request on failed: %s", error)
    if isinstance(error, DialFailed):
        message, code = "The gateway cannot reach the API.", "upstream_unreachable"
    else:
        assert isinstance(error, ConnectionLost)
        message, code = "The gateway lost the connection to the API.", "upstream_lost"
    return Refused(f"{message} Please try again later.", status=502, kind="server_error", code=code)
