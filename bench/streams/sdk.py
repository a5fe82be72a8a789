"""The official SDK over WebSocket, a connection for each stream."""

from __future__ import annotations

import asyncio

from openai import AsyncOpenAI

from bench.streams.job import MODEL, Heard, StreamJob, read_job


async def main(job: StreamJob) -> None:
    """Read them all."""
    heard = Heard()
    watching = asyncio.ensure_future(heard.watch(asyncio.sleep))
    async with AsyncOpenAI(api_key="none", base_url=job.url) as client:

        async def read() -> None:
            async with client.responses.connect() as connection:
                await connection.response.create(model=MODEL, input="go on")
                async for event in connection:
                    if event.type == "response.completed":
                        return
                    heard.events += 1

        await asyncio.gather(*(read() for _ in range(job.streams)))
        heard.report()
    watching.cancel()


if __name__ == "__main__":
    asyncio.run(main(read_job()))
