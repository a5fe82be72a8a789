"""Follow a job: its steps as they are recorded, and what is said of the turn under way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import trio
from attrs import define, field

from scheduler.worker.patience import insist
from scheduler.worker.queue import Queue, State
from scheduler.worker.seal import Seal, in_order
from scheduler.worker.shapes import step_of

FOLLOW_INTERVAL = 0.25
"""Seconds between two looks; a worker tells its followers twice a second."""


@define(eq=False)
class Follower:
    """Somebody who follows one job, and how far he has come. Nothing is open between two calls of `news`."""

    job_id: str
    seal: Seal
    _seen: int = field(default=0, init=False)  # steps
    _heard: bytes = field(default=b"", init=False)  # the latest draft, as it came

    async def news(self, queue: Queue) -> list[Mapping[str, Any]]:
        """Return what is new, steps or one draft, once there is something; nothing: the job has ended.

        While the queue cannot be reached, it is waited for.

        Raises:
            CheckpointUnreadable: it is encrypted, and the key is not here; or it is damaged.
            JobNotFound: there is no such job (any more).
        """
        while True:
            # In this order: a job that had ended before its steps were read has no more of them.
            record = await insist(lambda: queue.get(self.job_id))
            draft = await insist(lambda: queue.listen(self.job_id))
            steps = await insist(lambda: queue.steps(self.job_id, after=self._seen))
            if steps:
                in_order(steps, self.job_id, first=self._seen)
                found = [self._read(step.body, step.index) for step in steps]
                self._seen += len(steps)
                return found
            if record.state in (State.DONE, State.DEAD):
                return []
            fresh = draft is not None and draft.index == self._seen and draft.body != self._heard
            if draft is not None and fresh and record.state is State.RUNNING:
                told = self._read(draft.body, draft.index)
                self._heard = draft.body
                return [told]
            await trio.sleep(FOLLOW_INTERVAL)

    def _read(self, body: bytes, index: int) -> Mapping[str, Any]:
        return step_of(self.seal.open(body, self.job_id, index), self.job_id, draft=True)
