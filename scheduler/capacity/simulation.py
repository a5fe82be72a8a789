"""A pool and its scheduler in virtual time: the production roster, policy, gate and estimates, and nothing awaited.

Theory of operation
    A heap of things to come, each a time, a method and what it is about; virtual time is that of the one on top.
    Everything that decides is the code that runs in production: `Roster` with `ByCost`, `Pacer` and `Breaker` inside
    it, `Gate` with the fair queue, windows and adaptive limit, `Estimates`, `recover`. What stands here is what the
    shells do with their answers, each in a few lines and in the same order: `Conversation.turn` and `Attempts` here,
    the pool and its janitor in `sockets.py`, the migrations in `moves.py`.

    Left out: the event loop's own lag and CPU (the plan counts CPU apart), HTTP as a way around the sockets, several
    tenants, refusals by the server (so the adaptive limit never has a reason to cut), and leases held after the
    response has ended.

    It starts warm (`past.py`), and what happens before the window opens is thrown away.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from attrs import define, field

from pool.errors import ConnectionLost
from pool.roster import Roster
from pool.slots import Lane
from scheduler.admission.gate import Gate, SlotState
from scheduler.admission.tenant import DEFAULT_TENANT
from scheduler.capacity.load import Run
from scheduler.capacity.moves import Move, Moves
from scheduler.capacity.past import begin_in_the_past
from scheduler.capacity.scenario import MODEL, Scenario
from scheduler.capacity.sockets import Sockets
from scheduler.capacity.talk import Place, Seat, Talk
from scheduler.capacity.tally import NEW, Outcome, Tally
from scheduler.errors import AdmissionQueueFull
from scheduler.estimate import Average, Estimates
from scheduler.policy import ByCost
from scheduler.recovery import Again, recover

HEARTBEAT = 5.0  # s; how late an idle connection may be noticed
HEADROOM = 1.25  # turns that may be in flight, for each lane: as Scheduler._capacity has it
PATIENCE = 3600.0  # s, after the window: who has not been served by then never is


@define(eq=False)
class Simulation:
    """One scenario from one seed. `run` once."""

    scenario: Scenario
    seed: int
    turns: int  # that count
    roster: Roster = field(init=False)
    gate: Gate = field(init=False)
    sockets: Sockets = field(init=False)
    moves: Moves = field(init=False)
    estimates: Estimates = field(factory=Estimates, init=False)
    tally: Tally = field(factory=Tally, init=False)
    now: float = field(default=0.0, init=False)
    flying: dict[Lane, Seat | Move] = field(factory=dict, init=False)  # whose response is on a lane
    rng: random.Random = field(init=False)  # of the world: dials, losses
    _heap: list[tuple[float, int, Callable[[Any], None], Any]] = field(factory=list, init=False)
    _order: Iterator[int] = field(factory=itertools.count, init=False)
    runs: Iterator[Run] = field(init=False)
    arrivals: random.Random = field(init=False)
    _gate_at: float = field(default=math.inf, init=False)
    _called: int = field(default=0, init=False)
    _marks: dict[int, Callable[[], None]] = field(factory=dict, init=False)  # to do at so many turns called
    _served: int = field(default=0, init=False)  # of those that count
    _over: bool = field(default=False, init=False)
    _overloaded: bool = field(default=False, init=False)
    _crowd: int = field(default=0, init=False)  # turns in the system that mean overload

    def __attrs_post_init__(self) -> None:
        scenario, settings = self.scenario, self.scenario.settings
        world, arrivals, contents = (
            random.Random(f"{self.seed} {what}") for what in ("world", "when", "what")
        )
        self.rng, self.arrivals, self.runs = world, arrivals, scenario.load.runs(contents)
        warm = scenario.pool.with_(
            max_connections=1, min_idle=scenario.capacity * scenario.lanes.count, idle_timeout=math.inf
        )
        self.roster = Roster(endpoint=scenario.endpoint, settings=warm, rng=world, placement=ByCost())
        bound = settings.max_in_flight
        capacity = math.ceil(scenario.capacity * HEADROOM) if bound is None else bound
        self.gate = Gate(
            capacity=lambda: capacity,
            max_queued=settings.max_queued,
            ageing=settings.ageing,
            budgets=settings.budgets,
            adaptive=settings.adaptive,
        )
        self.sockets = Sockets(self)
        self.moves = Moves(self, settings.moves)
        load = scenario.load
        self._crowd = max(1000, round(20 * load.offered), 50 * capacity)
        # Everybody who was there at time 0 has had a turn, and then a quarter of what counts
        skip = round(1.5 * load.alive) + max(self.turns // 4, 200)
        self._marks = {skip: self._open_window, skip + self.turns: self._close_window}
        if scenario.outage:  # when all that is in flight counts
            self._marks[skip + min(round(2 * load.offered) + 1, self.turns // 4 + 1)] = self.sockets.outage

    def run(self) -> Outcome:
        """Simulate until so many turns have been called in the window, and all of them have been served."""
        begin_in_the_past(self)
        self.at(0.0, self._beat)
        heap, pop = self._heap, heapq.heappop
        while heap and not self._over:
            self.now, _order, act, about = pop(heap)
            act(about)
        if self.tally.opened_at is None:
            self.tally.begin(self.now)
        if self.tally.closed_at is None:
            self.tally.end(self.now)
        return self.tally.outcome(overloaded=self._overloaded)

    def at(self, when: float, act: Callable[[Any], None], about: Any = None) -> None:
        """Let something happen."""
        heapq.heappush(self._heap, (when, next(self._order), act, about))

    def _call(self, talk: Talk) -> None:
        """`Conversation.turn`, up to admission."""
        now = self.now
        self._called += 1
        mark = self._marks.get(self._called)
        if mark is not None:
            mark()
        talk.called_at, talk.waited, talk.tries, talk.busy = now, 0.0, 1, True
        talk.counted = self.tally.counting
        self.tally.in_system.add(1, now)
        if self.tally.in_system.value > self._crowd:
            self._give_up()
        self.ask(talk)

    def ask(self, talk: Talk) -> None:
        """`Attempts._admitted`: one try of a turn."""
        now, turn, gate = self.now, talk.run[talk.index], self.gate
        talk.asked_at = now
        place = talk.place = Place(
            share=gate.share(DEFAULT_TENANT),
            kind=MODEL,
            cost=talk.tokens + turn.reads + gate.expected(MODEL),
            rank=now,
            since=now,
            talk=talk,
        )
        try:
            granted = gate.ask(place, now=now)
        except AdmissionQueueFull:
            self._fail(talk)
            return
        if place.state is SlotState.GRANTED and not place.queued:
            self._acquire(talk)
        elif place.state is SlotState.WAITING and len(gate.in_flight) < gate.capacity():
            self.tally.note("held_by_tokens")
        self._admit(granted)

    def _admit(self, granted: Iterable[Any]) -> None:
        for place in granted:
            self._acquire(place.talk)
        if self.gate.waiting:
            due = self.gate.next_due()
            if due < self._gate_at:
                self._gate_at = due
                self.at(due, self._gate_tick, due)

    def _acquire(self, talk: Talk) -> None:
        if talk.ended_at is not None and talk.tries == 1:  # `Standing.wants_lane`
            away = self.now - talk.ended_at
            self.estimates.gap.add(away)
            if talk.gap is None:
                talk.gap = Average(away)
            talk.gap.add(away)
        if self.moves.make_way(talk):
            self.take_lane(talk)

    def take_lane(self, talk: Talk) -> None:
        """`Attempts._try`: wait for a lane."""
        self.sockets.apply(self.roster.enqueue(Seat(hold=talk.hold, talk=talk), now=self.now))

    def send(self, seat: Seat) -> None:
        """A lane is granted: `Attempts._try`, up to the send."""
        talk, lane, now, load = seat.talk, seat.lane, self.now, self.scenario.load
        assert lane is not None
        turn = talk.run[talk.index]
        talk.waited += now - talk.asked_at
        tokens = talk.tokens + turn.reads + turn.writes
        hold = talk.hold
        extra = 0.0
        if seat.own:
            reason = "hot"
        else:
            reason = NEW if not talk.tokens else f"replay:{hold.lost or 'lost'}"
            extra = load.replay_seconds(tokens)
        hold.lost = None
        hold.gap = self.estimates.gap.value if talk.gap is None else talk.gap.value
        hold.worth = self.estimates.replay(MODEL).of(tokens, stored=False)
        self.flying[lane] = seat
        self.tally.busy.add(1, now)
        self.at(now + turn.seconds + extra, self._end, (seat, reason, extra))

    def _end(self, about: tuple[Seat, str, float]) -> None:
        """The response has ended: `Attempts._learn` and `_finish`, and the lease's and the slot's release."""
        seat, reason, extra = about
        talk, lane, now = seat.talk, seat.lane, self.now
        assert lane is not None
        if self.flying.get(lane) is not seat:
            return  # its connection was lost
        del self.flying[lane]
        self.tally.busy.add(-1, now)
        self.sockets.apply(self.roster.release(lane, keep=True, now=now))
        turn = talk.run[talk.index]
        before, talk.tokens = talk.tokens, talk.tokens + turn.reads + turn.writes
        self.estimates.replay(MODEL).saw(
            reason, tokens=talk.tokens, seconds=self.scenario.load.first_output + extra
        )
        talk.ended_at = now
        if talk.counted:
            self._count(talk, reason, before)
        place = talk.place
        assert place is not None
        self._admit(self.gate.leave(place, tokens=talk.tokens, answer=turn.writes, now=now))
        talk.index += 1
        self._finish(talk)
        if talk.index == len(talk.run):
            self._close(talk)
            return
        if talk.hold.leaving or talk.hold.lost == "rotated":
            self.moves.begin(talk)
        self.at(now + turn.gap, self._call, talk)

    def _fail(self, talk: Talk) -> None:
        """Nothing comes of a turn, nor of its run."""
        self.tally.note("refused")
        self._finish(talk)
        self._close(talk)

    def refused(self, talk: Talk) -> None:
        """There is no lane to be had for it."""
        assert talk.place is not None
        self._admit(self.gate.leave(talk.place, now=self.now))
        self._fail(talk)

    def again(self, talk: Talk) -> None:
        """Its connection was lost: `Attempts.run`, after a failed try."""
        now = self.now
        assert talk.place is not None
        self._admit(self.gate.leave(talk.place, now=now))
        lost = ConnectionLost("simulated", sent=True, started=True)
        action = recover(
            lost, attempts=talk.tries, free_attempts=1, settings=self.scenario.settings, rng=self.rng
        )
        talk.tries += 1
        if isinstance(action, Again):
            self.at(now + action.delay, self.ask, talk)
        else:
            self._fail(talk)

    def _finish(self, talk: Talk) -> None:
        talk.busy = False
        self.tally.in_system.add(-1, self.now)
        if talk.counted:
            self._served += 1
            self._over = self.tally.closed_at is not None and self._served >= self.turns

    def _close(self, talk: Talk) -> None:
        now = self.now
        self.moves.give_up(talk)
        self.sockets.apply(self.roster.let_go(talk.hold, now=now))
        self.tally.note("runs")
        self.tally.alive.add(-1, now)
        if self.scenario.load.concurrency is not None:
            self.enter(next(self.runs), now)

    def _count(self, talk: Talk, reason: str, before: int) -> None:
        tally, turn = self.tally, talk.run[talk.index]
        tally.waits.append(talk.waited)
        tally.turn_seconds.append(self.now - talk.called_at)
        tally.reasons[reason] += 1
        counts = tally.counts
        counts["fresh_tokens"] += turn.reads
        counts["written_tokens"] += turn.writes
        counts["cached_tokens" if reason == "hot" else "replayed_tokens"] += before

    def _gate_tick(self, due: float) -> None:
        if due == self._gate_at:
            self._gate_at = math.inf
            self._admit(self.gate.tick(now=self.now))

    def _beat(self, _about: None) -> None:
        self.sockets.watch()
        closed = self.tally.closed_at
        if closed is not None and self.now - closed > PATIENCE:
            self._give_up()
        self.at(self.now + HEARTBEAT, self._beat)

    def _give_up(self) -> None:
        self._overloaded = self._over = True

    def _open_window(self) -> None:
        self.tally.begin(self.now)
        self.sockets.apply(self.roster.resize(self.scenario.pool, now=self.now))
        self.sockets.watch()

    def _close_window(self) -> None:
        self.tally.end(self.now)
        self._over = self._served >= self.turns

    def enter(self, run: Run, when: float, *, index: int = 0, tokens: int = 0) -> None:
        """Let a run call its next turn at some time."""
        talk = Talk(run, self.moves, index, tokens)
        self.tally.alive.add(1, max(0.0, self.now))
        self.at(when, self._call, talk)

    def arrive(self, _about: None = None) -> None:
        """A run begins, and some time later the next one."""
        self.enter(next(self.runs), self.now)
        self.at(self.now + self.arrivals.expovariate(self.scenario.load.rate), self.arrive)


def simulate(scenario: Scenario, *, seed: int = 0, turns: int = 10_000) -> Outcome:
    """Simulate a scenario until so many turns have been counted."""
    return Simulation(scenario, seed, turns).run()
