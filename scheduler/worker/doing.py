"""One job at one worker, from its claim to the end of it: done, failed, handed back, or lost."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import groupby
from operator import attrgetter

import trio
from attrs import define, field

from scheduler.agent import Agent
from scheduler.conversation import Conversation
from scheduler.errors import DeadlineExceeded
from scheduler.fleet.results import TaskResult
from scheduler.fleet.verdict import principal
from scheduler.run import Run, RunResult, run_agent
from scheduler.scheduler import Scheduler
from scheduler.worker.errors import CallInDoubt, CheckpointUnreadable, HandedBack, LeaseLost, ResultTooLarge
from scheduler.worker.hot import HotConversations
from scheduler.worker.keeping import JobKeeper
from scheduler.worker.patience import insist
from scheduler.worker.queue import Cause, Claim, Queue, State, Step
from scheduler.worker.seal import Seal, in_order
from scheduler.worker.settings import WorkerSettings
from scheduler.worker.steps import Story, resumed
from scheduler.worker.verdict import Unread, Verdict, delay_before, judge

HAND_BACK_TIMEOUT = 5.0
"""Seconds for handing a job back when its run is cancelled; after that its lease ends by itself."""

log = logging.getLogger("warmline.worker")


@define(eq=False)
class Bench:
    """What all jobs of a worker share."""

    queue: Queue
    scheduler: Scheduler
    agents: Mapping[str, Agent]
    settings: WorkerSettings
    seal: Seal
    hot: HotConversations
    stopping: Callable[[], bool]
    on_step: Callable[[], None]  # a suspect has cleared itself: there may be more to take
    on_fault: Callable[[Exception], None]  # the endpoint refuses everybody
    unread: Unread = field(factory=Unread)

    def agent_for(self, name: str) -> Agent:
        """Return the agent of this name; the first one for no name."""
        return self.agents[name] if name else next(iter(self.agents.values()))


@define(eq=False)
class Doing:
    """A claimed job. `ended` says how it ended, for the log and for counting."""

    bench: Bench
    claim: Claim
    scope: trio.CancelScope = field(factory=trio.CancelScope, init=False)
    suspect: bool = field(init=False)
    lost: bool = field(default=False, init=False)
    ended: str = field(default="", init=False)
    run: Run = field(factory=Run, init=False)
    keeper: JobKeeper = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.suspect = self.claim.strikes > 0
        self.keeper = JobKeeper(
            queue=self.bench.queue,
            claim=self.claim,
            seal=self.bench.seal,
            limit=self.bench.settings.checkpoint_limit,
            stopping=self.bench.stopping,
            on_step=self._cleared,
            steps=self.claim.steps,
        )

    def lose(self) -> None:
        """The lease is lost: stop."""
        self.lost = True
        self.scope.cancel()

    async def do(self) -> None:
        """Do it. Raises nothing of its own: what goes wrong with a job is the job's."""
        with self.scope:
            try:
                await self._attempt()
            except LeaseLost as error:
                self.lost = True
                log.warning("%s", error)
            except trio.Cancelled:
                if not self.lost:
                    with trio.move_on_after(HAND_BACK_TIMEOUT, shield=True):
                        await self._hand_back()
                raise
        if self.lost:
            self.ended = "lost"

    async def _attempt(self) -> None:
        job, bench = self.claim.job, self.bench
        if job.deadline is not None and self.claim.age >= job.deadline:
            await self._fail(self._too_late(job.deadline))
            return
        agent = bench.agent_for(job.agent)
        conversation: Conversation | None = None
        kept = False
        try:
            conversation = await self._conversation(agent)
            result = await run_agent(
                bench.scheduler,
                agent,
                job.input,
                conversation=conversation,
                metadata=job.metadata,
                run=self.run,
                tenant=job.tenant,
                priority=job.priority,
                deadline=None if job.deadline is None else job.deadline - self.claim.age,
                keeper=self.keeper,
            )
            kept = await self._finish(result, conversation)
        except LeaseLost:
            raise
        except HandedBack:
            await self._hand_back()
        except (Exception, BaseExceptionGroup) as error:
            cause = principal(error)
            if not isinstance(cause, Exception):
                raise
            if isinstance(cause, LeaseLost):
                raise cause from None
            await self._failed(cause)
        finally:
            if conversation is not None and not kept:
                conversation.close()

    def _too_late(self, deadline: float) -> DeadlineExceeded:
        tenant = self.claim.job.tenant or "default"
        return DeadlineExceeded("queued", tenant=tenant, allowed=deadline, elapsed=self.claim.age, turns=0)

    async def _conversation(self, agent: Agent) -> Conversation:
        """Return the conversation to go on with: the hot one, or one that is read back from the queue."""
        bench, claim, job = self.bench, self.claim, self.claim.job
        name = job.conversation
        if name is not None and not claim.steps:
            kept = bench.hot.pop(name, chapter=claim.chapter, store=agent.store, now=trio.current_time())
            if kept is not None:
                self.keeper.size = kept.size
                assert isinstance(kept.conversation, Conversation)
                return kept.conversation
        if not claim.steps and not (name and claim.chapter):
            return bench.scheduler.conversation(name=name or job.id, store=agent.store)
        before, own = await insist(partial(bench.queue.history, claim))
        if len(own) != claim.steps:
            problem = f"is damaged: {len(own)} of its {claim.steps} steps are there"
            raise CheckpointUnreadable(job.id, problem)
        state = resumed(job.id, self._opened(before), self._opened(own), store=agent.store)
        self.keeper.size = sum(len(step.body) for step in (*before, *own))
        self.keeper.steps = len(own)
        self._check(state.story, agent)
        self.run.resume(state.story.so_far())
        return bench.scheduler.conversation(name=name or job.id, store=agent.store, past=state.past)

    def _opened(self, steps: Sequence[Step]) -> list[bytes]:
        for job_id, of_job in groupby(steps, key=attrgetter("job_id")):
            in_order(list(of_job), job_id)
        return [self.bench.seal.open(step.body, step.job_id, step.index) for step in steps]

    def _check(self, story: Story, agent: Agent) -> None:
        """Stop for a person where a call may have run that must not run twice."""
        for call in story.in_doubt:
            tool = agent.toolbox.tools.get(call.name)
            if tool is not None and not tool.repeatable:
                raise CallInDoubt(self.claim.job.id, call.name, call.call_id)

    async def _finish(self, result: RunResult, conversation: Conversation) -> bool:
        """Record the result. Return whether the conversation is kept for a follow-up."""
        bench, job = self.bench, self.claim.job
        line = TaskResult.finished(job.id, result).to_line()
        if len(line) > bench.settings.result_limit:
            raise ResultTooLarge(job.id, size=len(line), limit=bench.settings.result_limit)
        hold = job.conversation is not None and bench.settings.hot_limit > 0 and not bench.stopping()
        await insist(partial(bench.queue.finish, self.claim, line, holds=hold))
        self.ended = "done"
        if hold:
            assert job.conversation is not None
            bench.hot.keep(
                job.conversation,
                conversation,
                chapter=self.claim.chapter + 1,
                store=conversation.store,
                size=self.keeper.size,
                now=trio.current_time(),
            )
        return hold

    async def _failed(self, error: Exception) -> None:
        verdict = judge(error)
        if isinstance(error, CheckpointUnreadable) and verdict is Verdict.NOT_ITS_FAULT:
            verdict = self.bench.unread.judge(self.claim.job.id, now=trio.current_time())
        if verdict is Verdict.NOT_ITS_FAULT:
            self.bench.on_fault(error)
            await self._hand_back()
        else:
            await self._fail(error, again=verdict is Verdict.AGAIN)

    async def _fail(self, error: Exception, *, again: bool = False) -> None:
        code = getattr(error, "code", None)
        cause = Cause(
            type=type(error).__name__,
            message=" ".join(str(error).split()) or "no message",
            code=None if code is None else str(code),
        )
        strikes = self.claim.strikes if self.suspect else 0
        retry_in = delay_before(strikes) if again else None
        state = await insist(partial(self.bench.queue.fail, self.claim, cause, retry_in=retry_in))
        self.ended = "failed" if state is State.DEAD else "again"
        log.warning("job %s: %s: %s (%s)", self.claim.job.id, cause.type, cause.message, self.ended)

    async def _hand_back(self) -> None:
        await insist(partial(self.bench.queue.release, [self.claim]))
        self.ended = "handed back"

    def _cleared(self) -> None:
        if self.suspect:
            self.suspect = False
            self.bench.on_step()
