"""A server that streams far more events than any client can take: `python -m bench.firehose --help`.

The emulator thinks about each event, which makes it as slow as a client. This one speaks just enough WebSocket and
Responses API to be believed: each create is answered with one text message of `--deltas` deltas, made when the create
comes and then sent one event at a time, `--rate` of them a second. Plain sockets and one loop, so that a core of it
outruns a core of client.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import heapq
import itertools
import json
import selectors
import signal
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any

from attrs import define, field

MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455
TEXT, CLOSE, PING, PONG = 1, 8, 9, 10
WORDS = "and so it goes on, "


@define(eq=False)
class Client:
    """One connection: what has come of the next message, and what could not be written yet."""

    stream: socket.socket
    buffer: bytearray = field(factory=bytearray)
    backlog: bytearray = field(factory=bytearray)
    upgraded: bool = False
    closed: bool = False

    def write(self, data: bytes) -> None:
        """Write what the socket takes now; keep the rest, in order."""
        if self.closed:
            return
        if self.backlog:
            self.backlog += data
            return
        try:
            sent = self.stream.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.closed = True
            return
        self.backlog += data[sent:]

    def flush(self) -> None:
        """Try again with what was kept."""
        data, self.backlog = bytes(self.backlog), bytearray()
        self.write(data)


@define(order=True)
class Speech:
    """What is left of one response, in order of when the next event is due."""

    due: float
    tie: int
    client: Client = field(eq=False, order=False)
    events: Iterator[bytes] = field(eq=False, order=False)


def frame(text: bytes, opcode: int = TEXT) -> bytes:
    """Return one message as the server sends it: whole and unmasked."""
    size = len(text)
    if size < 126:
        return bytes((0x80 | opcode, size)) + text
    if size < 65536:
        return bytes((0x80 | opcode, 126)) + size.to_bytes(2, "big") + text
    return bytes((0x80 | opcode, 127)) + size.to_bytes(8, "big") + text


def messages(buffer: bytearray) -> Iterator[tuple[int, bytes]]:
    """Take the whole frames out of what has come, unmasked."""
    while len(buffer) >= 6:
        size, at = buffer[1] & 127, 2
        if size >= 126:
            width = 2 if size == 126 else 8
            at += width
            size = int.from_bytes(buffer[2:at], "big")
        if len(buffer) < at + 4 + size:
            return
        mask = bytes(buffer[at : at + 4])
        body = bytes(buffer[at + 4 : at + 4 + size])
        opcode = buffer[0] & 15
        del buffer[: at + 4 + size]
        key = int.from_bytes((mask * (size // 4 + 1))[:size], "big")
        yield opcode, (int.from_bytes(body, "big") ^ key).to_bytes(size, "big")


def response(create: dict[str, Any], number: int, deltas: int) -> list[bytes]:
    """Return every event of one response, framed."""
    lane = {"stream_id": create["stream_id"]} if "stream_id" in create else {}
    item_id, response_id = f"msg_{number:048x}", f"resp_{number:048x}"
    usage = {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": deltas,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": deltas + 10,
    }

    def shell(status: str, output: list[Any]) -> dict[str, Any]:
        return {
            "id": response_id,
            "object": "response",
            "created_at": 1790000000,
            "status": status,
            "model": create["model"],
            "output": output,
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "usage": usage if status == "completed" else None,
        }

    text = WORDS * deltas
    part = {"type": "output_text", "text": "", "annotations": []}
    full = {**part, "text": text}
    item = {"id": item_id, "type": "message", "role": "assistant", "status": "in_progress", "content": []}
    done = {**item, "status": "completed", "content": [full]}
    where = {"item_id": item_id, "output_index": 0, "content_index": 0}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": shell("in_progress", [])},
        {"type": "response.in_progress", "response": shell("in_progress", [])},
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        {"type": "response.content_part.added", **where, "part": part},
        *(
            {"type": "response.output_text.delta", **where, "delta": WORDS, "logprobs": []}
            for _ in range(deltas)
        ),
        {"type": "response.output_text.done", **where, "text": text, "logprobs": []},
        {"type": "response.content_part.done", **where, "part": full},
        {"type": "response.output_item.done", "output_index": 0, "item": done},
        {"type": "response.completed", "response": shell("completed", [done])},
    ]
    return [
        frame(json.dumps({**event, "sequence_number": index, **lane}).encode())
        for index, event in enumerate(events)
    ]


def serve(deltas: int, rate: float) -> None:
    """Serve on a port of its own, which is printed, until killed."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    listener.setblocking(False)
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    print(f"http://127.0.0.1:{listener.getsockname()[1]}/v1", flush=True)
    numbers = itertools.count(1)
    due: list[Speech] = []
    behind: set[Client] = set()
    while True:
        now = time.perf_counter()
        while due and due[0].due <= now:
            speech = due[0]
            event = next(speech.events, None)
            if event is None:
                heapq.heappop(due)
                continue
            speech.client.write(event)
            if speech.client.backlog:
                behind.add(speech.client)
            heapq.heapreplace(due, Speech(speech.due + 1 / rate, speech.tie, speech.client, speech.events))
        wait = min(0.01, max(0.0, due[0].due - time.perf_counter())) if due else 0.01
        for key, _ in selector.select(wait):
            if key.fileobj is listener:
                stream, _address = listener.accept()
                stream.setblocking(False)
                stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                selector.register(stream, selectors.EVENT_READ, Client(stream))
                continue
            client: Client = key.data
            if not _read(client):
                selector.unregister(client.stream)
                client.stream.close()
                client.closed = True
                continue
            for create in _creates(client):
                number = next(numbers)
                # Streams that begin together would all be due together.
                start = time.perf_counter() + (number * 0.618034 % 1) / rate
                heapq.heappush(due, Speech(start, number, client, iter(response(create, number, deltas))))
        for client in list(behind):
            client.flush()
            if not client.backlog:
                behind.discard(client)


def _read(client: Client) -> bool:
    try:
        data = client.stream.recv(1 << 18)
    except OSError:
        return False
    client.buffer += data
    return bool(data)


def _creates(client: Client) -> Iterator[dict[str, Any]]:
    if not client.upgraded:
        head, found, _ = bytes(client.buffer).partition(b"\r\n\r\n")
        if not found:
            return
        del client.buffer[: len(head) + 4]
        key = next(
            line.partition(b":")[2].strip()
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"sec-websocket-key:")
        )
        accept = base64.b64encode(hashlib.sha1(key + MAGIC).digest())
        client.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        client.upgraded = True
    for opcode, body in messages(client.buffer):
        if opcode == PING:
            client.write(frame(body, PONG))
        elif opcode == CLOSE:
            client.write(frame(body, CLOSE))
        elif opcode == TEXT:
            yield json.loads(body)


def main() -> None:
    """Read the options and serve."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m bench.firehose")
    parser.add_argument("--deltas", type=int, default=200, help="of each response (default 200)")
    parser.add_argument("--rate", type=float, default=50.0, help="events a second of each (default 50)")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    serve(arguments.deltas, arguments.rate)


if __name__ == "__main__":
    main()
