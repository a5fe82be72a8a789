"""Pass one HTTP request on as it is, and its answer back, both in parts: whatever the API has beside turns.

Theory of operation
    Nothing is gathered: the next part of the body is asked for when the last has been taken by the server, and the
    next part of the answer is read when the caller wants it, so memory stays bounded and each side slows the other
    down through TCP. What concerns one connection only (hop-by-hop headers, RFC 9110, 7.6.1) is not passed on.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping

import trio

from pool.answer import LOST, Answer
from pool.http import HttpClient

HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
# The server's own business, or said anew for the next connection; credentials are the client's of the server.
_NOT_SENT_ON = frozenset({"host", "expect", "authorization", "api-key"})

Fields = list[tuple[bytes, bytes]]


@contextlib.asynccontextmanager
async def relay(
    client: HttpClient,
    method: str,
    path: str,
    fields: Iterable[tuple[bytes, bytes]],
    body: AsyncGenerator[bytes] | None,
) -> AsyncIterator[Answer]:
    """Pass a request on, and give the answer when its head is there; leaving the block cuts off what is left.

    Args:
        client: whose key and host replace those of the request.
        method: of the request.
        path: what comes after the API's base URL, with the query.
        fields: its header fields as they came.
        body: its parts; None: there is none. Closed here. What it raises passes through.

    Raises:
        DialFailed: no connection could be opened, or there is no key.
        ConnectionLost: no answer came back; `sent` says whether the server may have worked.
    """
    answer = Answer(client.settings.stall_timeout)
    given = kept(fields) if body is None else delimited(kept(fields))
    async with contextlib.AsyncExitStack() as stack:
        content: AsyncIterator[bytes] | None = None
        with trio.move_on_after(answer.timeout) as patience:
            if body is not None:
                content = _while_it_flows(
                    await stack.enter_async_context(contextlib.aclosing(body)), patience, answer.timeout
                )
            headers = _credited(given, await client.credentials())
            try:
                response = await stack.enter_async_context(
                    client.request(method, path, headers, content, answer)
                )
            except LOST as error:
                raise answer.lost(error) from None
            parts = await stack.enter_async_context(contextlib.aclosing(response.aiter_stream()))
            answer.begun(response.status, response.headers, parts)
        if not answer.status:
            raise answer.lost(None)
        yield answer


async def _while_it_flows(
    body: AsyncIterator[bytes], patience: trio.CancelScope, longest: float
) -> AsyncIterator[bytes]:
    """Pass the parts on; as long as there are more, nobody loses patience."""
    async for part in body:
        patience.deadline = trio.current_time() + longest
        yield part
    patience.deadline = trio.current_time() + longest


def kept(fields: Iterable[tuple[bytes, bytes]]) -> Fields:
    """Return the header fields that concern more than one connection."""
    listed = list(fields)
    dropped = set(HOP_BY_HOP)
    for name, value in listed:
        if name.lower() == b"connection":
            dropped |= {token.strip().lower() for token in value.decode("latin-1").split(",")}
    return [(name, value) for name, value in listed if name.decode("latin-1").lower() not in dropped]


def delimited(fields: Fields) -> Fields:
    """Say how a body ends: by its length where that is known, else in chunks."""
    known = any(name.lower() == b"content-length" for name, _ in fields)
    return fields if known else [*fields, (b"transfer-encoding", b"chunked")]


def _credited(fields: Fields, credentials: Mapping[str, str]) -> Fields:
    """Return the fields with the client's key and headers in place of those that came."""
    dropped = _NOT_SENT_ON | credentials.keys()
    rest = [(name, value) for name, value in fields if name.decode("latin-1").lower() not in dropped]
    return [*rest, *((name.encode("ascii"), value.encode()) for name, value in credentials.items())]
