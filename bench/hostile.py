"""What attacks do to a gateway and to those who use it meanwhile: `python -m bench.hostile --help`.

Emulator, gateway and attacker are processes of their own (`warmline emulate`, `warmline serve`, `bench.attacks`),
and this one is everybody else: 20 streams of 20 events a second, half of them over HTTP and half over WebSockets; a
neighbour that asks the gateway for `/healthz` 50 times a second; and one that asks the port of metrics and dashboard
ten times a second. Both ask in an open loop, and are timed from the intended start. For each attack there is a fresh
gateway; it is watched first without the attack, then during it. All of it is on loopback, and is stopped at the end.

A machine of two cores cannot tell a gateway that is starved by an attack from one that is starved by the attacker.
So each attack has a bounded rate, which its line in `--list` says, and the attacker gives way to everybody else
(`nice`). The last column says how late this process was itself: where that is more than some milliseconds, the
machine was too busy for the figures beside it.

In the table stands the p99 of the quiet watch, an arrow, that under the attack, and their ratio. A request without
an answer counts as 30 s. The memory is what the gateway took at most beyond what it had before.
"""

from __future__ import annotations

import argparse
import json
import signal
import ssl
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence

import trio
from attrs import define, field, frozen

from bench.attacked import Attacked, attacked
from bench.attacks.attack import Attack
from bench.attacks.every import ATTACKS
from bench.compare import Target, progress, table
from bench.machine import ROOT, allow_files, describe
from bench.server import emulator
from bench.victims import Lag, Neighbour, Stream, Where, listen, worst

PACE = 0.05  # s, between two events of a stream
LONGEST = 100_000  # events of a stream: more than any run is long
HEALTH, ASIDE = 50.0, 10.0  # requests a second, to the gateway and to the listener beside it
LIMIT = 50.0  # ms, for the p99 of a neighbour
SETTLING = 1.0  # s, before it is watched, and after the last answer
OPENING = 20.0  # s, for every stream to begin
FILES = 4_096
LOOK = 0.1  # s


@frozen(kw_only=True)
class Pair:
    """The p99 in milliseconds, quiet and under attack."""

    quiet: float
    attacked: float

    def __str__(self) -> str:
        ratio = self.attacked / max(self.quiet, 0.1)
        return f"{self.quiet:.1f} → {_short(self.attacked)} ({_short(ratio)} times)"


@frozen(kw_only=True)
class Outcome:
    """What an attack came to."""

    attack: Attack
    done: Mapping[str, int]  # what the attacker did, as it counted
    ended: str | None  # the gateway's last words, if it ended
    crashes: int | None  # None: its operator got no answer
    streams: Pair
    health: Pair
    aside: Pair
    lost: int  # streams
    memory: float  # MB
    core: float  # of a core
    lag: float  # ms
    told: Sequence[str]  # whose keys are in the gateway's log

    @property
    def fate(self) -> str:
        """What became of the gateway."""
        if self.ended is not None:
            return "ENDED"
        if self.crashes is None:
            return "no answer"
        return f"{self.crashes} crashes" if self.crashes else "survived"

    @property
    def targets(self) -> list[Target]:
        """What it is held to."""
        name = self.attack.name
        crashes = (self.ended is not None) + (self.crashes or 0)
        targets = [
            Target(f"{name}: crashes", crashes, 0),
            Target(f"{name}: /healthz p99", self.health.attacked, LIMIT, unit=" ms"),
        ]
        if name.endswith(("-metrics", "-dashboard", "-queries")):
            targets.append(Target(f"{name}: metrics port p99", self.aside.attacked, LIMIT, unit=" ms"))
        return targets

    @property
    def row(self) -> list[str]:
        """A line of the table."""
        return [
            self.attack.name,
            self.fate,
            str(self.health),
            str(self.streams),
            str(self.lost),
            str(self.aside),
            f"{self.memory:.0f}",
            f"{self.core:.0%}",
            f"{self.lag:.1f}",
        ]


HEADER = (
    "attack",
    "the gateway",
    "/healthz, ms",
    "event's delay, ms",
    "streams lost",
    "metrics port, ms",
    "memory, MB",
    "of a core",
    "late itself, ms",
)


@define(eq=False)
class Watch:
    """Everybody who uses the gateway."""

    gateway: Attacked
    count: int
    tls: ssl.SSLContext | None = None
    streams: list[Stream] = field(init=False)
    health: Neighbour = field(init=False)
    aside: Neighbour = field(init=False)
    lag: Lag = field(factory=Lag, init=False)
    most: int = field(default=0, init=False)  # bytes that the gateway had at most

    def __attrs_post_init__(self) -> None:
        aim = self.gateway.aim
        self.streams = [Stream(PACE) for _ in range(self.count)]
        self.health = Neighbour(aim.port, HEALTH, self.tls)
        self.aside = Neighbour(aim.metrics, ASIDE)

    async def begin(self, nursery: trio.Nursery) -> None:
        """Start everybody, and wait until every stream has begun."""
        where = Where(self.gateway.aim.port, self.gateway.key, self.tls)
        for number, stream in enumerate(self.streams):
            nursery.start_soon(_listen, where, stream, number % 2 == 1)
            await trio.sleep(PACE / self.count)
        with trio.fail_after(OPENING):
            while not all(stream.came for stream in self.streams):  # noqa: ASYNC110 - a benchmark may look twice
                await trio.sleep(LOOK)
        for task in (self.health.run, self.aside.run, self.lag.run, self._look):
            nursery.start_soon(task)

    async def _look(self) -> None:
        while True:
            self.most = max(self.most, self.gateway.used().memory)
            await trio.sleep(LOOK)

    def delays(self, start: float, end: float) -> float:
        """Return the p99 of the events' delays in milliseconds."""
        now = trio.current_time()
        return worst([one for stream in self.streams for one in stream.delays(start, end, now)]) * 1e3


async def _listen(where: Where, stream: Stream, socket: bool) -> None:
    await listen(where, stream, socket=socket)


async def _attack(
    attack: Attack, gateway: Attacked, seconds: float, began: Callable[[], None]
) -> dict[str, int]:
    """Run the attacker for so long; return what it has counted. `began` is called when it begins."""
    argv = [sys.executable, "-m", "bench.attacks", attack.name]
    process = await trio.lowlevel.open_process(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        await process.stdin.send_all(gateway.aim.to_json().encode())
        said = bytes(await process.stdout.receive_some())
        if said.strip() != b"ready":
            raise RuntimeError(f"the attacker {attack.name} did not begin: {said!r}")
        began()
        with trio.move_on_after(seconds):
            await process.wait()
            raise RuntimeError(f"the attacker {attack.name} ended with status {process.returncode}")
        await process.stdin.aclose()
        said = b"".join([bytes(part) async for part in process.stdout])
        await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            with trio.CancelScope(shield=True):  # a process that is killed ends at once
                await process.wait()
    counted: dict[str, int] = json.loads(said or b"{}")
    return counted


async def measure(attack: Attack, gateway: Attacked, seconds: float, streams: int) -> Outcome:
    """Watch a gateway without an attack, and under it."""
    tls = ssl.create_default_context(cafile=gateway.aim.ca) if gateway.aim.ca else None
    watch = Watch(gateway, streams, tls)
    async with trio.open_nursery() as nursery:
        await watch.begin(nursery)
        await trio.sleep(SETTLING)
        quiet = trio.current_time()
        await trio.sleep(max(seconds / 2, 1.0))
        start, before = trio.current_time(), gateway.used()

        def began() -> None:
            nonlocal start, before
            start, before = trio.current_time(), gateway.used()
            watch.most = before.memory

        done = await _attack(attack, gateway, seconds, began)
        end, after = trio.current_time(), gateway.used()
        await watch.health.caught_up(end)
        await watch.aside.caught_up(end)
        await trio.sleep(SETTLING)
        crashes = await gateway.crashes()

        def pair(values: Mapping[str, float]) -> Pair:
            return Pair(quiet=values["quiet"], attacked=values["attacked"])

        def asked(one: Neighbour) -> Pair:
            return Pair(
                quiet=worst(one.seconds(quiet, start)) * 1e3, attacked=worst(one.seconds(start, end)) * 1e3
            )

        outcome = Outcome(
            attack=attack,
            done=done,
            ended=None if gateway.alive else gateway.last_words(),
            crashes=crashes,
            streams=Pair(quiet=watch.delays(quiet, start), attacked=watch.delays(start, end)),
            health=asked(watch.health),
            aside=asked(watch.aside),
            lost=sum(stream.lost for stream in watch.streams),
            memory=max(0, watch.most - before.memory) / 1e6,
            core=max(0.0, after.cpu - before.cpu) / (end - start),
            lag=worst(watch.lag.seconds(start, end)) * 1e3,
            told=gateway.told(),
        )
        nursery.cancel_scope.cancel()
    return outcome


def run(attack: Attack, seconds: float, streams: int) -> Outcome:
    """Start a server and a gateway to it, and measure that."""
    script = f"calls=0 deltas={LONGEST} output_tokens={LONGEST}"
    with (
        emulator("--latency", f"output={PACE}", "--script", script) as url,
        attacked(url, policy=attack.policy, tls=attack.tls) as gateway,
    ):
        return trio.run(measure, attack, gateway, seconds, streams)


def show(outcomes: Sequence[Outcome]) -> None:
    """Print everything."""
    print()
    print(table(HEADER, [outcome.row for outcome in outcomes]))
    print()
    for outcome in outcomes:
        did = ", ".join(f"{count:,} {what}" for what, count in sorted(outcome.done.items()))
        print(f"{outcome.attack.name}: {outcome.attack.what} Did: {did or 'nothing'}.")
        if outcome.ended is not None:
            print(f"  the gateway ended: {outcome.ended}")
        if outcome.told:
            print(f"  its log holds a key: {', '.join(outcome.told)}")
    print()
    for outcome in outcomes:
        for target in outcome.targets:
            print(target)


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def main() -> None:
    """Attack and print."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        prog="python -m bench.hostile",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--attack", metavar="NAME", action="append", help="this one; again: and that one (default all)"
    )
    parser.add_argument("--list", action="store_true", help="show what there is, and exit")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each attack (default 10)")
    parser.add_argument("--streams", type=int, default=20, help="at once (default 20)")
    arguments = parser.parse_args()
    if arguments.list:
        width = max(map(len, ATTACKS))
        for attack in ATTACKS.values():
            kind = "" if attack.policy == "virtual" else f" (--client-keys {attack.policy})"
            print(f"{attack.name:{width}}  {attack.what}{kind}{' (TLS)' if attack.tls else ''}")
        return
    if unknown := set(arguments.attack or ()) - set(ATTACKS):
        parser.error(f"no such attack: {', '.join(sorted(unknown))}; --list shows what there is")
    chosen = [ATTACKS[name] for name in arguments.attack or ATTACKS]
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    allow_files(FILES)
    print(describe())
    print(
        f"\n{arguments.streams} streams of {1 / PACE:g} events a second; each attack for {arguments.seconds:g} s"
    )
    outcomes: list[Outcome] = []
    failed: list[str] = []
    interrupted = False
    for number, attack in enumerate(chosen, 1):
        progress(f"{number} of {len(chosen)}: {attack.name}")
        try:
            outcomes.append(run(attack, arguments.seconds, arguments.streams))
        except* KeyboardInterrupt:
            interrupted = True
        except* Exception as group:  # the others can be measured all the same
            failed.append(f"{attack.name} was not measured: {group.exceptions[0]!r}")
        if interrupted:
            failed.append("interrupted")
            break
    progress("")
    show(outcomes)
    if failed:
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    main()
