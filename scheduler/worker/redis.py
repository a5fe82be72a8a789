"""A queue in Redis or Valkey: any number of processes on any number of machines.

Theory of operation
    Every method is one Lua script, or one read: scripts run alone in the server, so what was checked still holds when
    it is acted upon, fencing tokens above all. The scripts (redis_scripts/) hold the whole state machine; what they
    are given and what they answer is put into words in redis_answers.py. Keys, and why each is what it is, are at the
    top of common.lua.

    The clock is the server's. Two connections a process: one on which everything is asked, and, once somebody waits
    for a change, one that reads the stream of events.

    After a restart or a failover (the server has another run id) the first to come back gives every lease the time
    that the server was away. A failover may make the server forget what it has acknowledged. Then the token, which is
    drawn from the clock, is still greater than those before; a claim that the server does not know is lost; and a
    step that would leave a hole in its job's transcript is refused, and the job goes on from where its steps end.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from attrs import asdict, define, field
from coredis.exceptions import NoScriptError

from pool.wire.codec import from_json, to_json
from scheduler.worker.errors import (
    JobConflict,
    JobNotFound,
    LeaseLost,
    QueueRefused,
    QueueUnavailable,
    WrongState,
)
from scheduler.worker.job import Job
from scheduler.worker.queue import (
    FOLLOWED,
    Cause,
    Claim,
    Counts,
    Filter,
    QueueSettings,
    Receipt,
    Record,
    State,
    Step,
    WorkerInfo,
)
from scheduler.worker.redis_address import RedisAddress, read_address
from scheduler.worker.redis_answers import ROW, event_id, facts, info_of, named, record_of, state_of, steps_of
from scheduler.worker.redis_fitness import fitness
from scheduler.worker.redis_link import Ask, Link

VERSION = 1
"""Of the layout of the keys; the scripts have it too."""

WATCH = 5.0
"""Seconds for which one look at the stream of events waits."""
REPLICAS_PATIENCE = 5.0
"""Seconds for replicas to have what must survive."""

log = logging.getLogger("warmline.worker")


@define(eq=False)
class Script:
    """A Lua script, by its text and the hash that the server knows it by."""

    text: str
    sha: str = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    @classmethod
    def of(cls, *parts: str) -> Script:
        """Read a script from its parts."""
        folder = Path(__file__).parent / "redis_scripts"
        return cls("".join((folder / f"{part}.lua").read_text(encoding="utf-8") for part in parts))


ASKING = Script.of("common", "asking", "dispatch")
WORKING = Script.of("common", "working", "dispatch")


@asynccontextmanager
async def open_engine(
    url: str, settings: QueueSettings, *, clock: Callable[[], float] | None = None
) -> AsyncIterator[RedisQueue]:
    """Open the queue that `url` names. `clock`: seconds since 1970, instead of the server's."""
    address = read_address(url)
    raised: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            queue = RedisQueue(address, settings, nursery, clock)
            try:
                await queue.look_at_server()
                yield queue
            except BaseException as error:
                raised = error
                raise
            finally:
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup:
        if raised is None:
            raise
        raise raised from raised.__cause__


@define(eq=False)
class RedisQueue:
    """See `Queue`."""

    address: RedisAddress
    settings: QueueSettings
    _nursery: trio.Nursery
    _clock: Callable[[], float] | None
    _link: Link = field(init=False)
    _watch: Link | None = field(default=None, init=False)
    _seen: tuple[int, int] = field(default=(0, 0), init=False)  # the latest event when jobs were last taken
    _heard: tuple[int, int] = field(default=(0, 0), init=False)  # the latest that was read
    _news: trio.Event = field(factory=trio.Event, init=False)
    _warned: set[str] = field(factory=set, init=False)

    def __attrs_post_init__(self) -> None:
        self._link = Link(self.address, self._nursery, self._greet)

    @property
    def name(self) -> str:
        return self.address.name

    async def put(self, jobs: Sequence[Job]) -> list[Receipt]:
        if not jobs:
            await trio.lowlevel.checkpoint()
            return []
        arguments: list[Any] = []
        for job in jobs:
            tenant = "" if job.tenant is None else f"={job.tenant}"
            arguments += [job.id, job.digest, job.to_json(), job.agent, tenant, job.conversation or ""]
            arguments += [repr(float(job.priority)), job.attempts]
            arguments.append("" if job.not_before is None else repr(float(job.not_before)))
        how, found = await self._do(ASKING, "put", *arguments)
        if how == b"clash":
            raise JobConflict([clash.decode() for clash in found])
        await self._synced()
        return [
            Receipt(id=job.id, new=state == b"new", state=state_of(b"queued" if state == b"new" else state))
            for job, state in zip(jobs, found, strict=True)
        ]

    async def get(self, job_id: str) -> Record:
        found = await self._link.ask("HGETALL", self._key("job", job_id))
        values = {name.decode(): value for name, value in found.items()}
        if not values:
            raise JobNotFound(job_id)
        return record_of(values)

    async def steps(self, job_id: str, *, after: int = 0) -> list[Step]:
        entries = await self._link.ask("XRANGE", self._key("steps", job_id), f"0-{after + 1}", "+")
        return steps_of(job_id, entries)

    async def listen(self, job_id: str) -> Step | None:
        index, body = await self._do(ASKING, "listen", job_id, repr(FOLLOWED)) or (None, b"")
        return None if index is None else Step(job_id=job_id, index=int(index), body=body)

    async def find(self, filter: Filter, *, limit: int, after: str | None = None) -> list[Record]:  # noqa: A002
        state = filter.state.value if filter.state is not None else None
        wanted = [
            "" if value is None else f"={value}"
            for value in (state, filter.agent, filter.tenant, filter.conversation)
        ]
        records: list[Record] = []
        place: bytes | str = ""
        while len(records) < limit:
            left = limit - len(records)
            place, *rows = await self._do(
                ASKING, "find", *wanted, filter.prefix, left, after or "", place or ""
            )
            records += [record_of(dict(zip(ROW, row, strict=True))) for row in rows]
            if not place:
                break
        return records

    async def counts(self) -> Counts:
        due, later, running, done, dead, oldest = await self._do(ASKING, "counts")
        return Counts(due=due, later=later, running=running, done=done, dead=dead, oldest=float(oldest))

    async def retry(self, job_id: str, *, steps: Sequence[bytes] = ()) -> None:
        state = await self._do(ASKING, "retry", job_id, *steps)
        if not state:
            raise JobNotFound(job_id)
        if state != b"dead":
            raise WrongState(job_id, state.decode(), "only a dead letter can be retried")
        await self._synced()

    async def drop(self, job_id: str) -> None:
        await self._do(ASKING, "drop", job_id)
        await self._synced()

    async def take(self, worker: WorkerInfo, *, limit: int, suspects: int = 1) -> list[Claim]:
        last, *taken = await self._do(
            WORKING, "take", worker.id, info_of(worker), limit, suspects, *worker.agents
        )
        self._seen = event_id(last)
        return [
            Claim(
                job=Job.from_json(body),
                worker=worker.id,
                token=token,
                strikes=strikes,
                steps=steps,
                chapter=chapter,
                age=float(age),
            )
            for body, token, strikes, steps, chapter, age in taken
        ]

    async def beat(self, worker: WorkerInfo, claims: Sequence[Claim]) -> list[Claim]:
        lost = await self._do(WORKING, "beat", worker.id, info_of(worker), *named(claims))
        return [claims[index] for index in lost]

    async def history(self, claim: Claim) -> tuple[list[Step], list[Step]]:
        story = await self._held(claim, "history")
        before = [step for job_id, entries in story[:-1] for step in steps_of(job_id.decode(), entries)]
        return before, steps_of(claim.job.id, story[-1][1])

    async def append(self, claim: Claim, index: int, body: bytes) -> None:
        await self._held(claim, "append", index, body)

    async def listened(self, claims: Sequence[Claim]) -> list[Claim]:
        followed = await self._do(WORKING, "listened", *(claim.job.id for claim in claims))
        return [claims[index] for index in followed]

    async def draft(self, claim: Claim, index: int, body: bytes) -> None:
        await self._held(claim, "draft", index, body)

    async def finish(self, claim: Claim, result: bytes, *, holds: bool = False) -> None:
        await self._held(claim, "finish", result, int(holds))
        await self._synced()

    async def fail(self, claim: Claim, cause: Cause, *, retry_in: float | None = None) -> State:
        wait = "" if retry_in is None else repr(float(retry_in))
        state = await self._held(claim, "fail", to_json(asdict(cause)), wait)
        await self._synced()
        return state_of(state)

    async def release(self, claims: Sequence[Claim]) -> None:
        for worker in {claim.worker for claim in claims}:
            mine = [claim for claim in claims if claim.worker == worker]
            await self._do(WORKING, "release", worker, *named(mine))

    async def leave(self, worker_id: str) -> None:
        await self._do(WORKING, "leave", worker_id)

    async def workers(self) -> list[WorkerInfo]:
        infos = [from_json(info) for info in await self._do(WORKING, "workers") if info]
        living = [WorkerInfo(**{**info, "agents": tuple(info["agents"])}) for info in infos]
        return sorted(living, key=lambda info: info.id)

    async def changed(self, patience: float) -> None:
        if self._watch is None:
            self._watch = Link(self.address, self._nursery, _no_greeting)
            self._nursery.start_soon(self._listen, self._watch)
        seen = self._seen
        with trio.move_on_after(patience):
            while self._heard <= seen:
                await self._news.wait()
        self._seen = max(self._seen, self._heard)
        await trio.lowlevel.checkpoint()

    async def _listen(self, link: Link) -> None:
        """Read the events, for as long as the queue is open; while the server is away there are none."""
        while True:
            last = max(self._heard, self._seen)
            try:
                found = await link.ask(
                    *("XREAD", "BLOCK", int(WATCH * 1000), "STREAMS", self._key("events")),
                    f"{last[0]}-{last[1]}",
                    patience=WATCH + 10,
                )
            except (QueueUnavailable, QueueRefused):
                await trio.sleep(0.5)
                continue
            for entries in (found or {}).values():
                self._heard = event_id(entries[-1][0])
                self._news.set()
                self._news = trio.Event()

    async def look_at_server(self) -> None:
        """Connect, and see that this server can keep a queue."""
        await self._do(ASKING, "counts")

    async def _greet(self, ask: Ask) -> None:
        told = facts(await ask("INFO"))
        for problem in fitness(told, self.name):
            self._warn(problem)
        layout = await self._run(ask, ASKING, "open", (told["run_id"],))
        if layout > VERSION:
            raise QueueRefused(
                self.name,
                f"the queue has layout {layout}, this warmline knows {VERSION}: use the newer warmline",
            )

    def _warn(self, problem: str) -> None:
        if problem not in self._warned:
            self._warned.add(problem)
            log.warning("%s: %s", self.name, problem)

    async def _held(self, claim: Claim, operation: str, *arguments: Any) -> Any:
        answer = await self._do(WORKING, operation, claim.job.id, claim.worker, repr(claim.token), *arguments)
        if answer == b"lost":
            raise LeaseLost(claim.job.id, claim.token)
        return answer

    async def _do(self, script: Script, operation: str, *arguments: Any) -> Any:
        return await self._run(self._link.ask, script, operation, arguments)

    async def _run(self, ask: Ask, script: Script, operation: str, arguments: Sequence[Any]) -> Any:
        settings = self.settings
        now = "" if self._clock is None else repr(self._clock())
        times = (settings.lease, settings.head_start, settings.retention, settings.dead_retention)
        words = (1, self._key("meta"), operation, now, *map(repr, times), *arguments)
        try:
            return await ask("EVALSHA", script.sha, *words)
        except NoScriptError:
            return await ask("EVAL", script.text, *words)

    async def _synced(self, patience: float = REPLICAS_PATIENCE) -> None:
        """Wait until so many replicas as were asked for have what must survive."""
        if not self.address.replicas:
            return
        wanted = self.address.replicas
        have = await self._link.ask("WAIT", wanted, int(patience * 1000))
        if have < wanted:
            raise QueueUnavailable(self.name, f"{have} of {wanted} replicas have what was to be kept")

    def _key(self, *parts: str) -> str:
        return self.address.root + ":".join(parts)


async def _no_greeting(_: Ask) -> None:
    await trio.lowlevel.checkpoint()
