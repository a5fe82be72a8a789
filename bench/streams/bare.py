"""The floor: trio-websocket and msgspec, a socket for each stream."""

from __future__ import annotations

import msgspec
import trio
from trio_websocket import open_websocket_url

from bench.streams.job import MODEL, Heard, StreamJob, read_job

decode = msgspec.json.Decoder().decode


async def main(job: StreamJob) -> None:
    """Read them all."""
    heard = Heard()
    create = msgspec.json.encode({"type": "response.create", "model": MODEL, "input": "go on"}).decode()

    async def read() -> None:
        async with open_websocket_url("ws" + job.url.removeprefix("http") + "/responses") as socket:
            await socket.send_message(create)
            while decode(await socket.get_message())["type"] != "response.completed":
                heard.events += 1

    async with trio.open_nursery() as watching:
        watching.start_soon(heard.watch, trio.sleep)
        async with trio.open_nursery() as nursery:
            for _ in range(job.streams):
                nursery.start_soon(read)
        heard.report()
        watching.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, read_job())
