"""A server that says exactly what a test wants, for what no decent server (and no emulator) would say."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import trio
from attrs import define, field
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_server_stream

from pool.wire.codec import from_json, to_json

Answer = Callable[["Socket", Mapping[str, Any]], Awaitable[None]]


@define(eq=False)
class Socket:
    """One connection of a scripted server. `number` counts from 1."""

    ws: WebSocketConnection
    stream: trio.abc.Stream
    number: int
    _serial: int = field(default=0, init=False)

    async def say(self, create: Mapping[str, Any], kind: str, **fields: Any) -> None:
        """Send an event on the lane of a create."""
        lane = {"stream_id": create["stream_id"]} if "stream_id" in create else {}
        await self.ws.send_message(to_json({"type": kind, **lane, **fields}).decode())

    async def refuse(self, create: Mapping[str, Any], status: int, message: str = "no", **error: Any) -> None:
        """Answer a create with an error."""
        await self.say(create, "error", status=status, error={"message": message, **error})

    async def begin(self, create: Mapping[str, Any]) -> str:
        """Send `response.created` and return the new response's id."""
        self._serial += 1
        response_id = f"resp_{self.number}_{self._serial}"
        await self.say(
            create, "response.created", response={"id": response_id, "status": "in_progress", "output": []}
        )
        return response_id

    async def end(self, create: Mapping[str, Any], response_id: str, **fields: Any) -> None:
        """Send the terminal event; `fields` go into the response."""
        response = {"id": response_id, "status": "completed", "output": [message("done")], **fields}
        await self.say(create, f"response.{response['status']}", response=response)

    async def answer(self, create: Mapping[str, Any], **fields: Any) -> None:
        """Answer a create in the shortest way."""
        await self.end(create, await self.begin(create), **fields)

    async def cut(self) -> None:
        """Cut the connection."""
        await trio.aclose_forcefully(self.stream)
        raise ConnectionClosed(None)


def message(text: str) -> dict[str, Any]:
    """Return an assistant's message."""
    content = [{"type": "output_text", "text": text, "annotations": []}]
    return {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": content}


@define(eq=False)
class ScriptedServer:
    """Calls `answer` for every create; keeps all creates in `seen`."""

    answer: Answer
    seen: list[Mapping[str, Any]] = field(factory=list, init=False)
    connections: int = field(default=0, init=False)

    async def handle(self, stream: trio.abc.Stream) -> None:
        """Serve one connection until it ends."""
        self.connections += 1
        number = self.connections
        async with trio.open_nursery() as nursery:
            try:
                request = await wrap_server_stream(nursery, stream)
                socket = Socket(await request.accept(), stream, number)
                while True:
                    create = from_json(await socket.ws.get_message())
                    self.seen.append(create)
                    nursery.start_soon(self._answer, socket, create)
            except ConnectionClosed:
                pass
            nursery.cancel_scope.cancel()

    async def _answer(self, socket: Socket, create: Mapping[str, Any]) -> None:
        try:
            await self.answer(socket, create)
        except ConnectionClosed:
            await trio.lowlevel.checkpoint()
