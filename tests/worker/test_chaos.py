"""Real processes, one of them killed every second: nothing is lost, nothing is done twice that need not be.

The full measure is `python -m bench.worker_chaos` (200 jobs of ten turns); this is the same, shorter.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from bench.worker_chaos import Chaos, look_at_tools, unleash
from tests.support.redis import redis_server

Disturb = Callable[[], Awaitable[None]]


@pytest.fixture(params=["sqlite", "redis, restarted"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Disturb | None]]:
    """A queue's URL, and how it is disturbed."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/jobs.db", None
    else:
        with redis_server(tmp_path) as server:
            yield server.url, server.restart


async def test_killed_every_second(place: tuple[str, Disturb | None], tmp_path: Path) -> None:
    url, disturb = place
    chaos = Chaos(jobs=24, turns=10, workers=3, concurrency=4, latency=0.1, lease=1.5, patience=180)
    aftermath = await unleash(url, chaos, tmp_path, disturb=disturb)
    print(aftermath.to_text(chaos))
    assert aftermath.wrong == ()
    assert aftermath.results == chaos.jobs
    assert aftermath.kills >= 2
    assert aftermath.takes > chaos.jobs  # somebody was killed in the middle of something


def test_the_look_at_the_tools_sees_what_is_wrong() -> None:
    def line(what: str, pid: int, at: float) -> str:
        return f"{what} job call {pid} {at}"

    twice = [line("begin", 1, 0.0), line("begin", 2, 5.0), line("end", 2, 5.1)]
    assert look_at_tools(twice, {1: 0.5}) == (2, 1, [])
    (amiss,) = look_at_tools(twice, {})[2]
    assert "had not been killed" in amiss
    long_over = [line("begin", 1, 0.0), line("end", 1, 0.1), *twice[1:]]
    assert look_at_tools(long_over, {1: 0.5})[2] == []
    (amiss,) = look_at_tools(long_over, {1: 3.1})[2]
    assert "ended 3.00 s before the kill" in amiss
    assert look_at_tools(long_over, {1: 3.1}, away=(0.2, 2.9))[2] == []
    assert len(look_at_tools(long_over, {1: 3.1}, away=(0.2, 1.0))[2]) == 1
