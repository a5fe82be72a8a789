"""Placement when lanes are scarce: expected cost against the alternatives, in virtual time.

    python -m bench.placement [--lanes 8] [--loads 1,1.5,2,3,4] [--gap 2] [--seed 1]

So many conversations per lane, closed loop: each takes its turns with tools between them, and a new one takes the
place of one that is over. The emulator answers with its latency model, the clock is trio's mock clock, so an hour
takes seconds and the figures repeat to the digit. `fresh` replays every turn, as a client without a pool does; its
dials are not even counted.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from collections.abc import Callable, Iterable

import trio
import trio.testing
from attrs import define, field, frozen

from pool import Endpoint, Lanes, PoolSettings
from pool.dial import Dialer
from pool.emulator import Emulator, EmulatorSettings, Latency
from pool.ledger import Shelf
from pool.placement import Ladder, Placement
from pool.slots import Lane, Waiter
from scheduler.policy import ByCost
from scheduler.scheduler import Scheduler, open_scheduler
from scheduler.turns import TurnRequest

LATENCY = Latency(base=0.35, input=0.00005, output=0.012)
TOOL = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}


class AtRandom(Ladder):
    """Takes any idle lane when the pool cannot grow."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def instead(self, shelf: Shelf, waiter: Waiter, *, now: float) -> Lane | float:
        """Return any lane."""
        return self._rng.choice(tuple(shelf.held))


@frozen(kw_only=True)
class Load:
    """What a run of the benchmark does. Times in seconds."""

    lanes: int
    per_lane: float
    gap: float
    tokens: int
    turns: int
    runs_per_slot: int
    seed: int


@define
class Outcome:
    """What came of it."""

    latencies: list[float] = field(factory=list)
    reasons: Counter[str] = field(factory=Counter)
    replayed_tokens: int = 0
    seconds: float = 0.0

    @property
    def mean(self) -> float:
        """Seconds of a turn, waiting included."""
        return sum(self.latencies) / len(self.latencies)

    @property
    def p99(self) -> float:
        """The same, of the slowest hundredth's fastest."""
        return sorted(self.latencies)[int(len(self.latencies) * 0.99)]


async def converse(
    scheduler: Scheduler, load: Load, rng: random.Random, outcome: Outcome, *, fresh: bool
) -> None:
    """One conversation, from its first turn to its answer."""
    turns = rng.randint(load.turns // 2, load.turns * 3 // 2)
    script = f"calls={turns - 1} output_tokens={rng.randint(10, 60)}"
    request = TurnRequest(model="emulated", tools=[TOOL], options={"metadata": {"emulator": script}})
    conversation = scheduler.conversation()
    given: str | list[dict[str, str]] = "x" * int(4 * load.tokens * rng.lognormvariate(0.0, 0.8) / 1.377)
    while True:
        before = conversation._at.chain.tokens
        turn = await conversation.turn(given, request)
        outcome.latencies.append(turn.seconds)
        outcome.reasons[turn.placement.reason] += 1
        if turn.placement.kind == "replay":
            outcome.replayed_tokens += before
        if not turn.calls:
            break
        if fresh:
            conversation._at.chain.forget_tip()
            conversation.close()
        await trio.sleep(rng.lognormvariate(0.0, 0.7) * load.gap / 1.278)  # the mean of that distribution
        output = "y" * int(rng.lognormvariate(8.0, 0.8))
        given = [
            {"type": "function_call_output", "call_id": call.call_id, "output": output} for call in turn.calls
        ]
    conversation.close()


async def measure(load: Load, placement: Placement, *, fresh: bool = False) -> Outcome:
    """Run one load under one policy, in virtual time."""
    emulator = Emulator(EmulatorSettings(lanes=Lanes.single(), latency=LATENCY, max_age=1e8))
    outcome = Outcome()
    endpoint = Endpoint.emulator("http://emulator/v1", lanes=Lanes.single()).with_(max_age=1e8)
    settings = PoolSettings(max_connections=load.lanes, min_idle=load.lanes, keepalive_interval=1e6)

    async with trio.open_nursery() as servers:

        async def transport() -> trio.abc.Stream:
            await trio.lowlevel.checkpoint()
            ours, theirs = trio.testing.memory_stream_pair()
            servers.start_soon(emulator.handle, theirs)
            return ours

        dial = Dialer(endpoint, settings, transport)
        rng = random.Random(load.seed)
        async with open_scheduler(
            endpoint, pool_settings=settings, dial=dial, placement=placement, rng=rng
        ) as scheduler:

            async def slot(number: int) -> None:
                own = random.Random(f"{load.seed} {number}")
                for _ in range(load.runs_per_slot):
                    await converse(scheduler, load, own, outcome, fresh=fresh)

            began = trio.current_time()
            async with trio.open_nursery() as slots:
                for number in range(round(load.lanes * load.per_lane)):
                    slots.start_soon(slot, number)
            outcome.seconds = trio.current_time() - began
        servers.cancel_scope.cancel()
    return outcome


def compare(load: Load) -> dict[str, Outcome]:
    """Run one load under every policy."""
    policies: dict[str, Callable[[], Placement]] = {
        "expected cost": ByCost,
        "least recent": Ladder,
        "random": lambda: AtRandom(random.Random(load.seed)),
        "fresh": Ladder,
    }

    def run(name: str, make: Callable[[], Placement]) -> Outcome:
        async def main() -> Outcome:
            return await measure(load, make(), fresh=name == "fresh")

        return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))

    return {name: run(name, make) for name, make in policies.items()}


def rows(load: Load, outcomes: dict[str, Outcome]) -> Iterable[str]:
    """Describe one load's outcomes, each against the least recently used."""
    base = outcomes["least recent"]
    for name, one in outcomes.items():
        turns = len(one.latencies)
        hot = one.reasons["hot"] / turns
        yield (
            f"{load.per_lane:>5g}  {name:14} {one.mean:6.2f} ({one.mean / base.mean:4.2f})  "
            f"{one.p99:6.2f} ({one.p99 / base.p99:4.2f})  {one.replayed_tokens / turns:8,.0f}  {hot:4.0%}  "
            f"{turns / one.seconds:6.2f}"
        )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lanes", type=int, default=8)
    parser.add_argument("--loads", default="1,1.5,2,3,4", help="conversations per lane")
    parser.add_argument("--gap", type=float, default=2.0, help="mean seconds that tools take")
    parser.add_argument("--tokens", type=int, default=20_000, help="mean context at a conversation's start")
    parser.add_argument("--turns", type=int, default=12)
    parser.add_argument("--runs", type=int, default=4, help="conversations one after the other in each place")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    print(f"{arguments.lanes} single-lane connections, {LATENCY}")
    print(f"tools {arguments.gap:g} s, contexts from {arguments.tokens} tokens on, seed {arguments.seed}")
    print(" load  policy           mean s (ratio)    p99 s (ratio)  replayed   hot  turns/s")
    print("                        of a turn                        tokens/turn")
    for per_lane in (float(text) for text in arguments.loads.split(",")):
        load = Load(
            lanes=arguments.lanes,
            per_lane=per_lane,
            gap=arguments.gap,
            tokens=arguments.tokens,
            turns=arguments.turns,
            runs_per_slot=arguments.runs,
            seed=arguments.seed,
        )
        for row in rows(load, compare(load)):
            print(row, flush=True)


if __name__ == "__main__":
    main()
