"""A whole run from end to end, against HTTP, over a network: `python -m bench.journey --help`.

One run in a process, of so many tool calls, through a proxy that adds a round trip, with TLS. Connections are warm:
each plays a short run first. Runs of different lengths and round trips go on at once, because they mostly wait.

The server's model takes `--latency`; what HTTP, which resends the whole history, has to read anew is a matter of the
service's prompt cache, which promises nothing, so both ends are shown: no hit at all, and (`best case`) every token
that was seen before. A third way over HTTP stores the responses and continues them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import ExitStack

from attrs import evolve

from bench.compare import PEERS, Sample, Spread, Target, play_together, progress, ratios, table
from bench.job import Job
from bench.machine import describe
from bench.server import emulator, proxy
from bench.tls import trust
from bench.turn import loop

LATENCY = "base=0.35,input=0.00005,output=0.005,hydration=0.05"
SCRIPT = "output_tokens=40"
DELTAS = 10
# (peer, share of a replay that the prompt cache finds)
WAYS = {
    "warmline": ("warmline", 0.0),
    "sdk_http": ("sdk_http", 0.0),
    "sdk_http, best case": ("sdk_http", 1.0),
    "sdk_stored": ("sdk_stored", 0.0),
}
FASTER, LONG, SHORT = 0.6, 20, 2  # at most so much of HTTP's time from LONG calls on; never slower at SHORT


def main() -> None:
    """Measure, and print a table for each round trip."""
    arguments = _arguments()
    print(describe())
    print(
        f"server    {arguments.latency}; TLS; {DELTAS} deltas a turn; {arguments.repeat} runs each, by turns"
    )
    found: dict[tuple[float, int, str], list[Sample]] = {}
    with trust() as trusted:
        for repeat in range(arguments.repeat):
            for name, (peer, share) in WAYS.items():
                told = ("--latency", arguments.latency, "--prompt-cache", f"{share}", *trusted.options)
                progress(f"repeat {repeat + 1}/{arguments.repeat}: {name}")
                with emulator(*told) as server, ExitStack() as stack:
                    jobs: dict[tuple[float, int], Job] = {}
                    for rtt in arguments.rtt:
                        proxied = stack.enter_context(proxy(server, "--delay", f"{rtt / 2000:f}"))
                        for calls in arguments.calls:
                            job = loop(proxied.url, turns=calls + 1, deltas=DELTAS)
                            jobs[rtt, calls] = evolve(job, script=SCRIPT)
                    samples = play_together(peer, jobs.values(), environ=trusted.environ)
                for (rtt, calls), sample in zip(jobs, samples, strict=True):
                    found.setdefault((rtt, calls, name), []).append(sample)
    progress("")
    for rtt in arguments.rtt:
        print(f"\nround trip {rtt:g} ms: seconds of a run\n")
        print(_table(found, rtt, arguments.calls))
    print("\n" + "\n".join(str(target) for target in _targets(found)))


def _arguments() -> argparse.Namespace:
    def numbers(text: str) -> list[int]:
        return [int(word) for word in text.split(",")]

    parser = argparse.ArgumentParser(description=__doc__, prog="python -m bench.journey")
    parser.add_argument("--rtt", type=numbers, default=[0, 20, 60], help="round trips, ms (default 0,20,60)")
    parser.add_argument(
        "--calls", type=numbers, default=[2, 5, 20, 50], help="tool calls (default 2,5,20,50)"
    )
    parser.add_argument("--repeat", type=int, default=3, help="runs of each (default 3)")
    parser.add_argument("--latency", default=LATENCY, help=f"of the model, seconds (default {LATENCY})")
    return parser.parse_args()


Found = dict[tuple[float, int, str], list[Sample]]


def _walls(found: Found, rtt: float, calls: int, name: str) -> list[float]:
    return [sample.wall for sample in found[rtt, calls, name]]


def _table(found: Found, rtt: float, calls: Sequence[int]) -> str:
    rows = []
    for count in calls:
        ours = _walls(found, rtt, count, "warmline")
        row = [f"{count}", f"{Spread(ours):.2f}"]
        for name in list(WAYS)[1:]:
            theirs = _walls(found, rtt, count, name)
            row.append(f"{Spread(theirs).median:.2f}, {(1 - ratios(ours, theirs).median) * 100:+.0f} %")
        rows.append(row)
    titles = [
        name.replace("sdk_http", "HTTP").replace("sdk_stored", "HTTP, stored") for name in list(WAYS)[1:]
    ]
    return table(["tool calls", PEERS["warmline"].name, *(f"{title}, time saved" for title in titles)], rows)


def _targets(found: Found) -> list[Target]:
    targets = []
    for rtt, calls, name in found:
        if name != "sdk_http":
            continue
        if calls == SHORT or calls >= LONG:
            got = ratios(_walls(found, rtt, calls, "warmline"), _walls(found, rtt, calls, name)).median
            limit = 1.0 if calls == SHORT else FASTER
            targets.append(Target(f"warmline / HTTP, {calls} calls, {rtt:g} ms", got, limit))
    return targets


if __name__ == "__main__":
    main()
