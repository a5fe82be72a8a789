"""warmline: a conversation for each stream, whose consumer is handed every event."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from bench.streams.job import LANES, MODEL, Heard, StreamJob, read_job
from pool.settings import Endpoint, PoolSettings
from pool.wire.events import ServerEvent
from scheduler.scheduler import open_scheduler
from scheduler.turns import TurnRequest


async def main(job: StreamJob) -> None:
    """Read them all."""
    heard, request = Heard(), TurnRequest(model=MODEL)
    settings = PoolSettings(max_connections=-(-job.streams // LANES), dial_rate=1000, dial_burst=1000)

    async def on_events(events: Sequence[ServerEvent]) -> None:  # noqa: ASYNC124  # as it is called
        heard.events += len(events)

    async with open_scheduler(Endpoint.emulator(job.url), pool_settings=settings) as scheduler:

        async def read() -> None:
            await scheduler.conversation().turn("go on", request, on_events=on_events)

        async with trio.open_nursery() as watching:
            watching.start_soon(heard.watch, trio.sleep)
            async with trio.open_nursery() as nursery:
                for _ in range(job.streams):
                    nursery.start_soon(read)
            heard.report()
            watching.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, read_job())
