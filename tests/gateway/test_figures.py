"""What the gateway counts of its clients, as Prometheus reads it."""

from __future__ import annotations

import trio
from prometheus_client.metrics_core import Metric

from scheduler.gateway.figures import figures_of
from scheduler.telemetry.prometheus import Metrics
from tests.emulator.client import knobs
from tests.gateway.stage import Stage, staged
from tests.gateway.web import web_client


def scraped(stage: Stage) -> dict[str, float]:
    """Return the gateway's own numbers of one scrape."""
    found: list[Metric] = list(
        Metrics(lambda: stage.gateway.upstreams.sources, lambda: figures_of(stage.gateway)).collect()
    )
    names = [metric.name for metric in found]
    assert len(set(names)) == len(names)
    return {
        sample.name.removeprefix("warmline_gateway_"): sample.value
        for metric in found
        for sample in metric.samples
        if sample.name.startswith("warmline_gateway_") and not sample.name.endswith("_created")
    }


async def test_what_clients_do_is_counted(autojump_clock: trio.abc.Clock) -> None:
    async with staged() as stage:
        assert set(scraped(stage).values()) == {0}
        async with web_client(stage) as client, web_client(stage, headers={}) as stranger:
            assert (await client.create(input="hello", metadata=knobs("calls=0"))).status == 200
            assert (await stranger.create(input="hello")).status == 401
            seen = scraped(stage)
            assert seen.pop("memory_bytes") > 100
            assert seen == {
                "connections": 2,
                "turns_running": 0,
                "upstreams": 1,
                "requests_total": 2,
                "refused_total": 1,
                "failed_total": 0,
                "turned_away_total": 0,
                "evicted_total": 0,
                "body_bytes": 0,
                "bodies_refused_total": 0,
                "crashes_total": 0,
                "remembered": 1,
                "forgotten_total": 0,
            }
        assert scraped(stage)["connections"] == 0
