"""Whoever acts when everything happens at once: each with a conversation, and a die to throw."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import trio
from attrs import define, field

from pool.emulator import context_digest
from pool.errors import PoolError
from pool.wire.events import ServerEvent
from scheduler import Agent, tool
from scheduler.conversation import Conversation
from scheduler.errors import (
    AdmissionQueueFull,
    CallsUnanswered,
    DeadlineExceeded,
    RunIncomplete,
    SteerRefused,
)
from scheduler.turns import Turn, TurnRequest
from tests.support.http_world import BothWays
from tests.support.world import asking, input_of, outputs

SCRIPTS = (
    "calls=0 output_tokens=12",
    "calls=2 parallel=2 output_tokens=6",
    "calls=0 output_tokens=40 deltas=10",
    "calls=1 reasoning=1 output_tokens=5",
)
FRAME = 32 * 1024  # bytes, at most, of a message on a socket
QUIET = 300.0  # s, within which moves, drains and cooldowns are over
MAY_HAPPEN = (PoolError, AdmissionQueueFull, DeadlineExceeded, CallsUnanswered, RunIncomplete, SteerRefused)


class WrongContext(Exception):
    """The server has shown its model something else than the transcript."""


@define(eq=False)
class Play:
    """What one seed says."""

    rng: random.Random
    w: BothWays
    harsh: float  # the share of what is done that is cancelled
    done: Counter[str] = field(factory=Counter)
    everybody: list[Conversation] = field(factory=list)

    def perhaps(self) -> trio.CancelScope:
        """Return a scope that is cancelled, at once or a little later, or not at all."""
        rng, scope = self.rng, trio.CancelScope()
        if rng.random() < self.harsh:
            scope.deadline = trio.current_time() + rng.choice((0.0, rng.uniform(0, 0.4), rng.uniform(0, 3)))
        return scope

    async def attempt(self, what: Callable[[], Awaitable[None]]) -> None:
        """Do something; it may be cancelled, or fail as things fail."""
        scope = self.perhaps()
        try:
            with scope:
                await what()
        except MAY_HAPPEN as error:
            self.done[f"({type(error).__name__})"] += 1
        except BaseExceptionGroup as group:
            if group.split(MAY_HAPPEN)[1] is not None:
                raise
            self.done["(several errors)"] += 1
        if scope.cancelled_caught:
            self.done["(cancelled)"] += 1

    def request(self) -> TurnRequest:
        """Return any request; now and then it changes what stands before the transcript."""
        rng = self.rng
        options = {"reasoning": {"effort": rng.choice(("low", "high"))}} if rng.random() < 0.1 else {}
        return asking(rng.choice(SCRIPTS), **options)

    async def disturb(self) -> None:
        """Rotate, pause, shrink, cut and slow down, for ever."""
        rng, w, pool = self.rng, self.w, self.w.scheduler.pool
        while True:
            await trio.sleep(rng.uniform(1, 12))
            match rng.randrange(9):
                case 0:
                    pool.rotate()
                case 1:
                    pool.pause()
                    await trio.sleep(rng.uniform(0, 3))
                    pool.resume()
                case 2:
                    pool.resize(max_connections=rng.randrange(1, 4))
                case 3:
                    await w.sockets.cut("up")
                case 4:
                    await w.sockets.cut("down")
                    await trio.sleep(rng.uniform(0, 15))
                    w.sockets.state = "up"
                case 5:
                    w.sockets.state = "refusing"
                    await trio.sleep(rng.uniform(0, 5))
                    w.sockets.state = "up"
                case 6:
                    await w.http.cut("up")
                case 7:
                    w.sockets.delay, w.http.delay = rng.choice((0.0, 0.5, 4.0)), rng.choice((0.0, 0.5))
                case 8 if rng.random() < 0.1:
                    pool.downgrade()

    @property
    def busy(self) -> bool:
        """Something goes on: a response, or a wait for more than a lane that a move may politely take."""
        pool = self.w.scheduler.pool
        view = pool.view()
        waiting = [one for one in view.waiters if one.wants != "a lane that nobody is hot on"]
        return bool(waiting or pool.stats().http.in_flight or any(conn.busy for conn in view.connections))

    async def quiet(self) -> None:
        """Wait until nothing goes on any more, and see that nothing is left behind."""
        pool, admission = self.w.scheduler.pool, self.w.scheduler.admission
        self.w.sockets.state = self.w.http.state = "up"
        self.w.sockets.delay = self.w.http.delay = 0.0
        pool.resume()
        with trio.fail_after(QUIET):
            while self.busy:  # noqa: ASYNC110
                await trio.sleep(1)
        stats, admitted = pool.stats(), admission.stats()
        assert (stats.leased_lanes, stats.leases) == (0, ())
        assert stats.http.idle == stats.http.open
        assert (admitted.in_flight, admitted.waiting, admitted.runs, admitted.runs_waiting) == (0, 0, 0, 0)
        for conn in pool._roster.ledger.open:
            for lane in conn.lanes:
                assert lane.hold is None or lane.hold.lane is lane
            assert {*conn.claimed} == {lane for lane in conn.lanes if lane.hold is not None}
            assert not conn.busy
        assert self.w.emulator.stats.crashes == 0


@define(eq=False)
class Actor:
    """One conversation, and the turn of it whose calls have no outputs yet."""

    play: Play
    conversation: Conversation
    open: Turn | None = None

    def __attrs_post_init__(self) -> None:
        self.play.everybody.append(self.conversation)

    async def act(self, times: int) -> None:
        """Do this and that."""
        rng = self.play.rng
        ways = (self.turn, self.turn, self.turn, self.listen, self.steer, self.fork, self.tell_all)
        for _ in range(times):
            await self.play.attempt(rng.choice((*ways, self.compact, self.close, self.nest)))
            await trio.sleep(rng.choice((0.0, 0.3, 2.0, 8.0)))

    async def turn(self, *, whole: bool = False, steered: bool = False, **how: Any) -> None:
        """Take a turn, and compare its context with what the server has seen."""
        rng, conversation = self.play.rng, self.conversation
        given = input_of(f"say {rng.random()}")
        if self.open is not None:
            given = outputs(self.open)
        elif rng.random() < 0.05:
            given = input_of("x" * FRAME)  # no frame takes that
        history = [*conversation.transcript, *given]
        if whole and self.open is None and len(history) > 4 and rng.random() < 0.4:
            history = [history[0], history[-1]]
        expected = context_digest(history)
        turn = await conversation.turn(history if whole else given, self.play.request(), whole=whole, **how)
        self.open = turn if turn.calls else None
        self.play.done[turn.placement.reason] += 1
        if not steered and turn.payload["metadata"]["context"] != expected:
            raise WrongContext(f"{conversation!r} {turn.placement}")

    async def listen(self) -> None:
        """Hear every event, at some pace."""
        rng = self.play.rng
        pause = rng.choice((0.0, 0.05, 0.4))

        async def hear(_said: ServerEvent | Sequence[ServerEvent]) -> None:
            await trio.sleep(pause)

        if rng.random() < 0.5:
            await self.turn(on_event=hear)
        else:
            await self.turn(on_events=hear, at_once=lambda _event: rng.random() < 0.5)

    async def steer(self) -> None:
        """Say something to a turn that is running."""
        rng = self.play.rng

        async def say() -> None:
            await trio.sleep(rng.uniform(0, 0.8))
            await self.conversation.steer("shorter")
            self.play.done["(steered)"] += 1

        async with trio.open_nursery() as nursery:
            for _ in range(rng.randrange(1, 3)):
                nursery.start_soon(self.play.attempt, say)
            await self.turn(steered=True)

    async def fork(self) -> None:
        """Go on in several ways; one may be taken while the turn runs."""
        rng = self.play.rng
        async with trio.open_nursery() as nursery:
            for _ in range(rng.randrange(1, 3)):
                nursery.start_soon(Actor(self.play, self.conversation.fork(), self.open).act, 2)
            before, tip = self.open, self.conversation.tip
            nursery.start_soon(self.play.attempt, self.turn)
            if rng.random() < 0.5:
                await trio.sleep(rng.uniform(0, 0.5))
                late = self.conversation.fork()
                over = late.tip != tip  # the turn was quick: the fork goes on from that
                nursery.start_soon(Actor(self.play, late, self.open if over else before).act, 2)

    async def tell_all(self) -> None:
        """The caller keeps the history, and may rewrite it."""
        await self.turn(whole=True)

    async def compact(self) -> None:
        """Compact, if nothing stands open."""
        if self.open is None and self.conversation.transcript:
            await self.conversation.compact(asking())
            self.play.done["(compacted)"] += 1

    async def close(self) -> None:
        """Give the lane up."""
        await trio.lowlevel.checkpoint()
        self.conversation.close()

    async def nest(self) -> None:
        """A run whose tools are runs."""
        play, rng, scheduler = self.play, self.play.rng, self.play.w.scheduler

        @tool
        async def peek(at: str) -> str:
            """Peek."""
            await trio.sleep(rng.uniform(0, 2))
            return at

        @tool
        async def look(at: str) -> str:
            """Look."""
            with play.perhaps():
                return (await _agent("calls=1 output_tokens=4", peek).run(scheduler, at)).text
            return "cancelled"

        outer = _agent("calls=2 parallel=2 output_tokens=4", look)
        options: Mapping[str, Any] = {
            "tenant": rng.choice(("a", "b", None)),
            "deadline": rng.choice((None, 3.0, 30.0)),
        }
        if rng.random() < 0.5:
            await outer.run(scheduler, "go", **options)
        else:
            async with outer.stream(scheduler, "go", **options) as stream:
                async for _ in stream:
                    if rng.random() < 0.02:
                        break
        play.done["(nested)"] += 1


def _agent(script: str, inner: Any) -> Agent:
    return Agent(model="emulated", tools=[inner], options={"metadata": {"emulator": script}})
