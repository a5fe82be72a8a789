"""A tiny client of the emulator: JSON in, JSON out, over memory streams or a real socket."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Protocol
from urllib.parse import urlsplit

import trio
from attrs import define
from trio.testing import memory_stream_pair
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from pool.wire.codec import from_json, to_json

TERMINAL = ("response.completed", "response.incomplete", "response.failed", "error")
TOOL: dict[str, Any] = {
    "type": "function",
    "name": "look",
    "parameters": {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]},
}


class Server(Protocol):
    """Whoever speaks the protocol on a stream."""

    async def handle(self, stream: trio.abc.Stream) -> None:
        """Serve one connection."""
        ...


@define(eq=False)
class Client:
    """One connection's client side."""

    ws: WebSocketConnection

    async def send(self, **event: Any) -> None:
        """Send a client event; a `response.create` with a model and an input unless told otherwise."""
        full = {"type": "response.create", "model": "gpt-6-astra", "input": "hello", "store": False, **event}
        if full["type"] != "response.create":
            full = event
        await self.ws.send_message(to_json(full).decode())

    async def receive(self) -> dict[str, Any]:
        """Return the next event."""
        event = from_json(await self.ws.get_message())
        assert isinstance(event, dict)
        return event

    async def until_closed(self) -> tuple[list[dict[str, Any]], int]:
        """Return the events up to the connection's end, and its close code."""
        events: list[dict[str, Any]] = []
        try:
            while True:
                events.append(await self.receive())
        except ConnectionClosed as closed:
            await trio.lowlevel.checkpoint()
            return events, closed.reason.code if closed.reason else 0

    async def rest(self) -> list[dict[str, Any]]:
        """Return events up to the next terminal one."""
        events = [await self.receive()]
        while events[-1]["type"] not in TERMINAL:
            events.append(await self.receive())
        return events

    async def turn(self, **event: Any) -> dict[str, Any]:
        """Send a create and return its terminal event."""
        await self.send(**event)
        return (await self.rest())[-1]


@asynccontextmanager
async def connected(
    server: Server, *, headers: Mapping[str, str] | None = None, path: str = "/v1/responses"
) -> AsyncIterator[Client]:
    """Connect over memory streams; waits until the server has let go at the end."""
    near: Any
    near, far = memory_stream_pair()
    given = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.handle, far)
        async with trio.open_nursery() as client_nursery:
            ws = await wrap_client_stream(
                client_nursery,
                near,
                "localhost",
                path,
                extra_headers=given,
                max_message_size=1 << 26,
                receive_buffer_size=65536,
            )
            yield Client(ws)
            with trio.move_on_after(5):
                await ws.aclose()
            client_nursery.cancel_scope.cancel()


@asynccontextmanager
async def dialled(url: str, tls: ssl.SSLContext | None = None) -> AsyncIterator[Client]:
    """Connect over a real socket. Closes it itself, for trio-websocket leaves that out when the server ends first."""
    parts = urlsplit(url)
    tcp = await trio.open_tcp_stream(str(parts.hostname), int(parts.port or 0))
    stream: Any = tcp if tls is None else trio.SSLStream(tcp, tls, server_hostname=parts.hostname)
    try:
        async with trio.open_nursery() as nursery:
            ws = await wrap_client_stream(nursery, stream, parts.netloc, parts.path)
            yield Client(ws)
            with trio.move_on_after(5):
                await ws.aclose()
            nursery.cancel_scope.cancel()
    finally:
        await trio.aclose_forcefully(tcp)


def knobs(text: str) -> dict[str, str]:
    """Return metadata with the emulator's knobs."""
    return {"emulator": text}


def user(text: str) -> dict[str, Any]:
    """Return a user message."""
    return {"type": "message", "role": "user", "content": text}


def answers(output: Iterable[Mapping[str, Any]], text: str = "done") -> list[dict[str, Any]]:
    """Return a tool output for each call in a response's output."""
    return [
        {"type": "function_call_output", "call_id": item["call_id"], "output": text}
        for item in output
        if item["type"] == "function_call"
    ]


def said(event: Mapping[str, Any]) -> str:
    """Return the text of a terminal event's last message."""
    return str(event["response"]["output"][-1]["content"][0]["text"])
