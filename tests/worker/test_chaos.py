"""Real processes, one of them killed every second: nothing is lost, nothing is done twice that need not be.

The full measure is `python -m bench.worker_chaos` (200 jobs of ten turns); this is the same, shorter.
"""

from __future__ import annotations

from pathlib import Path

from bench.worker_chaos import Chaos, look_at_tools, unleash


async def test_killed_every_second(tmp_path: Path) -> None:
    chaos = Chaos(jobs=48, turns=10, workers=4, concurrency=4, latency=0.1, lease=2.0, patience=120)
    aftermath = await unleash(f"sqlite:///{tmp_path}/jobs.db", chaos, tmp_path)
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
