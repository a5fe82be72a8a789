"""What a worker says about itself over HTTP: whether it is well, and how much waits in its queue."""

from __future__ import annotations

from typing import Any

import trio
from attrs import asdict, define, field

from pool.web import Head, HttpConnection
from pool.wire.codec import to_json
from scheduler.telemetry.listener import Listener
from scheduler.worker.errors import QueueError
from scheduler.worker.queue import Counts
from scheduler.worker.worker import Phase, Worker

QUEUE_TIMEOUT = 5.0
HELP = {
    "due": "Jobs that could be taken now.",
    "later": "Jobs that are not yet due.",
    "running": "Jobs that some worker has.",
    "done": "Results that are kept.",
    "dead": "Dead letters.",
    "oldest": "Seconds that the first due job has been waiting.",
}


@define(eq=False)
class HealthPage:
    """Answers `/healthz` (200 or 503, with the reasons), `/queue` (JSON, for scalers) and `/metrics`."""

    worker: Worker
    listener: Listener | None = field(default=None, init=False)  # on which this is served

    async def page(self, http: HttpConnection, head: Head) -> bool:
        """Answer a request if it is for here."""
        if head.method not in ("GET", "HEAD") or head.path not in ("/healthz", "/queue", "/metrics"):
            return False
        if head.path == "/healthz":
            wrong = self.wrong()
            status, value = (503 if wrong else 200), {"ok": not wrong, "wrong": wrong, **self._facts()}
            await self._say(http, head, status, to_json(value) + b"\n", "application/json")
            return True
        try:
            with trio.fail_after(QUEUE_TIMEOUT):
                counts = await self.worker.queue.counts()
        except (QueueError, trio.TooSlowError) as error:
            problem = str(error) or "the queue does not answer"
            await self._say(http, head, 503, f"{problem}\n".encode(), "text/plain; charset=utf-8")
            return True
        if head.path == "/queue":
            backlog = {"backlog": counts.due + counts.running, **asdict(counts)}
            await self._say(http, head, 200, to_json(backlog) + b"\n", "application/json")
        else:
            await self._say(http, head, 200, self.metrics(counts).encode(), "text/plain; version=0.0.4")
        return True

    def wrong(self) -> list[str]:
        """Say what is wrong with the worker; nothing, usually."""
        worker, wrong = self.worker, []
        if worker.phase >= Phase.STOPPING:
            wrong.append("stopping")
        silent = trio.current_time() - worker.heard_at
        if silent > worker.queue.settings.lease:
            wrong.append(f"the queue has not answered for {silent:.0f} s")
        if worker.fault is not None:
            wrong.append(f"paused: {worker.fault}")
        return wrong

    def metrics(self, counts: Counts) -> str:
        """Return the queue's and the worker's numbers as Prometheus reads them."""
        lines = []
        for name, value in asdict(counts).items():
            metric = "warmline_queue_oldest_seconds" if name == "oldest" else f"warmline_queue_{name}_jobs"
            lines += [f"# HELP {metric} {HELP[name]}", f"# TYPE {metric} gauge", f"{metric} {value:g}"]
        lines += [
            "# HELP warmline_worker_jobs Jobs that this worker has now.",
            "# TYPE warmline_worker_jobs gauge",
            f"warmline_worker_jobs {self.worker.running}",
            "# HELP warmline_worker_ended_jobs_total Jobs that ended here, by how.",
            "# TYPE warmline_worker_ended_jobs_total counter",
        ]
        for how, count in sorted(self.worker.ended.items()):
            lines.append(f'warmline_worker_ended_jobs_total{{how="{how}"}} {count}')
        if self.listener is not None:
            lines += [
                "# HELP warmline_listener_crashes_total Connections to this page lost by a bug of our own.",
                "# TYPE warmline_listener_crashes_total counter",
                f"warmline_listener_crashes_total {self.listener.server.crashes}",
            ]
        return "\n".join(lines) + "\n"

    def _facts(self) -> dict[str, Any]:
        worker = self.worker
        return {
            "worker": worker.info.id,
            "phase": worker.phase.name.lower(),
            "running": worker.running,
            "concurrency": worker.settings.concurrency,
            "ended": dict(worker.ended),
        }

    async def _say(self, http: HttpConnection, head: Head, status: int, content: bytes, kind: str) -> None:
        await http.answer(
            status,
            content if head.method == "GET" else b"",
            {"content-type": kind, "cache-control": "no-store"},
        )
