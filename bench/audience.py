"""Many clients that do as little as possible, in one process: `python -m bench.audience URL FRONT STREAMS`.

Each takes one turn on a connection of its own, as server-sent events or on a WebSocket, and counts the events.
Plain sockets and one loop, so that what is measured is not this. They begin within a second, not all in one moment.
Prints {"events", "seconds"} as JSON: how many came, and how long that took from the first request to the last event.
"""

from __future__ import annotations

import base64
import json
import os
import selectors
import socket
import sys
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from attrs import define, field

SPREAD = 1.0  # s, within which they all begin
PATIENCE = 120.0  # s, for anything to come
NAME = b"event: "
BODY = {"model": "gpt-6-astra", "input": "go on", "store": False}
HEAD = "host: 127.0.0.1\r\nauthorization: Bearer k\r\n"


@define(eq=False)
class Listener:
    """One client: what it has heard, and what of it could not be counted yet."""

    stream: socket.socket
    path: str
    events: int = field(default=0, init=False)
    begun: bool = field(default=False, init=False)
    rest: bytes = field(default=b"", init=False)

    def over_http(self, data: bytes) -> bool:
        """Take what has come; return whether the stream has ended."""
        if not self.begun:
            assert data.startswith(b"HTTP/1.1 200"), data[:300]
            self.begun = True
        data = self.rest + data
        self.events += data.count(NAME)
        self.rest = data[-len(NAME) + 1 :]  # too short to be counted twice
        return data.endswith(b"0\r\n\r\n")

    def on_socket(self, data: bytes) -> bool:
        """Likewise."""
        data = self.rest + data
        if not self.begun:
            head, found, data = data.partition(b"\r\n\r\n")
            if not found:
                self.rest = head
                return False
            assert head.startswith(b"HTTP/1.1 101"), head
            self.begun = True
            self.stream.sendall(_create_frame())
        at, size = 0, len(data)
        while at + 2 <= size:
            length, start = data[at + 1], at + 2
            if length >= 126:
                start += 2 if length == 126 else 8
                length = int.from_bytes(data[at + 2 : start], "big")
            if start + length > size:
                break
            self.events += 1
            if data.startswith(b'{"type":"response.completed"', start):
                return True
            at = start + length
        self.rest = data[at:]
        return False

    def ask(self, front: str) -> Callable[[bytes], bool]:
        """Send the request; return what is to take the answer."""
        if front == "http":
            content = json.dumps({**BODY, "stream": True}).encode()
            head = f"POST {self.path} HTTP/1.1\r\n{HEAD}content-type: application/json\r\n"
            self.stream.sendall(f"{head}content-length: {len(content)}\r\n\r\n".encode() + content)
            return self.over_http
        key = base64.b64encode(os.urandom(16)).decode()
        upgrade = "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
        head = f"GET {self.path} HTTP/1.1\r\n{HEAD}{upgrade}sec-websocket-key: {key}\r\n\r\n"
        self.stream.sendall(head.encode())
        return self.on_socket


def _create_frame() -> bytes:
    text = json.dumps({"type": "response.create", **BODY}).encode().ljust(126)
    return bytes((0x81, 0xFE)) + len(text).to_bytes(2, "big") + bytes(4) + text  # masked with zeros


def listen(url: str, front: str, streams: int) -> dict[str, float]:
    """Hold so many streams at once; return what came."""
    parts = urlsplit(url)
    selector = selectors.DefaultSelector()
    began = time.perf_counter()
    every: list[Listener] = []
    there = 0
    while there or len(every) < streams:
        due = began + len(every) * SPREAD / streams
        while len(every) < streams and due <= time.perf_counter():
            client = Listener(
                socket.create_connection((parts.hostname, parts.port)), f"{parts.path}/responses"
            )
            every.append(client)
            there += 1
            selector.register(client.stream, selectors.EVENT_READ, client.ask(front))
            due = began + len(every) * SPREAD / streams
        wait = due - time.perf_counter() if len(every) < streams else PATIENCE
        ready = selector.select(max(0.0, wait))
        assert ready or wait < PATIENCE, f"{there} streams have stopped"
        for key, _ in ready:
            stream = key.fileobj
            assert isinstance(stream, socket.socket)
            data = stream.recv(65536)
            if key.data(data):
                selector.unregister(stream)
                stream.close()
                there -= 1
            else:
                assert data, "a stream broke off"
    return {"events": sum(one.events for one in every), "seconds": time.perf_counter() - began}


if __name__ == "__main__":
    print(json.dumps(listen(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
