"""`warmline plan`: how many connections, lanes and processes a load needs."""

from __future__ import annotations

from typing import Any

import click

from scheduler.commands.endpoints import NAMES

HELP = """Say how many connections, lanes and processes a load needs.

The load is what RECORDINGS have seen (.hlog files of --stats, or one file of --trace), or what the options say.
The pool is then simulated, with the code that runs in production, until the least number of connections is found
that reaches the target.

\b
A number can be a distribution, and times can have a unit:
  6    800ms    exp(3)    uniform(1,5)    lognormal(p50=1.2s,p99=9s)
\b
Examples:
  # from a recorded fleet, for three times as many runs
  warmline run tasks.jsonl --agent my:agent --stats fleet.hlog
  warmline plan fleet.hlog --runs-per-hour 900 --p99-wait 50ms --hot 95%
\b
  # from assumptions
  warmline plan --runs-per-hour 1200 --turns 'lognormal(p50=8,p99=40)' \\
      --turn-seconds 'lognormal(p50=4,p99=30)' --tool-seconds 'exp(3)'
\b
  # a fleet that keeps 64 runs going, with money and a report to pass on
  warmline plan fleet.hlog --concurrency 64 --price-input 1.25 \\
      --price-cached 0.125 --price-output 10 --report plan.html

\b
Exit status: 0 there is a plan, 2 wrong input, or no number of connections
reaches the target.
"""

QUANTITY_HELP = {
    "turns": "Turns in a run.",
    "turn-seconds": "Time of a turn on a lane that remembers its conversation.",
    "tool-seconds": "Time from a turn's end to the next one's call.",
    "first-tokens": "Tokens that a run begins with.",
    "tokens-per-turn": "Tokens that each turn adds to the context.",
    "output-tokens": "Of these, written by the model.",
    "dial-seconds": "Time to open a connection.",
}


def _quantities(function: Any) -> Any:
    for name, text in reversed(QUANTITY_HELP.items()):
        function = click.option(f"--{name}", metavar="X", help=text)(function)
    return function


@click.command(help=HELP, short_help="Say how many connections, lanes and processes a load needs.")
@click.argument("recordings", nargs=-1, metavar="[RECORDING]...")
@click.option("--model", metavar="NAME", help="Only the turns of this model in the recordings.")
@click.option("--runs-per-hour", metavar="N", help="Runs that begin in an hour, at random.")
@click.option(
    "--concurrency", type=click.IntRange(min=1), metavar="N", help="Instead: runs at a time, as in a fleet."
)
@_quantities
@click.option("--read-seconds", metavar="S", help="Time to read 1,000 tokens that nothing remembers.")
@click.option("--losses-per-hour", metavar="N", help="How often one connection is lost.")
@click.option("--p99-wait", metavar="S", help="Target: one turn in a hundred waits longer.  [default: 50ms]")
@click.option(
    "--hot",
    metavar="SHARE",
    help="Target: of the turns after a run's first.  [default: 95%]  Naming one of the two drops the other.",
)
@click.option(
    "--endpoint",
    type=click.Choice(NAMES),
    default="openai",
    show_default=True,
    help="Whose limits: lanes and cap.",
)
@click.option("--lanes", type=click.Choice(["single", "multi"]), help="Instead of what the endpoint can.")
@click.option("--cap", metavar="TIME", help="Instead of its limit on a connection's life, e.g. 15min.")
@click.option("--tokens-per-minute", metavar="N", help="The account's budget, e.g. 4M.")
@click.option("--max-connections", type=click.IntRange(min=1), metavar="N", help="No more, for each process.")
@click.option("--price-input", type=click.FloatRange(min=0), metavar="P", help="Of a million tokens.")
@click.option("--price-cached", type=click.FloatRange(min=0), metavar="P", help="Of those that were cached.")
@click.option("--price-output", type=click.FloatRange(min=0), metavar="P", help="Of those that were written.")
@click.option("--cpu-per-turn", metavar="TIME", help="Of one process.  [default: 1.257ms, as measured]")
@click.option(
    "--effort",
    type=click.IntRange(min=500, max=1_000_000),
    default=10_000,
    show_default=True,
    metavar="N",
    help="Turns in each simulation: more are slower and surer.",
)
@click.option(
    "--what-if/--no-what-if", default=True, show_default=True, help="Try what could turn out otherwise."
)
@click.option("--report", metavar="FILE.html", help="Write a page with charts; it needs no network.")
@click.option("--png", metavar="DIR", help="Write each chart as a picture.")
@click.option("--json", "as_json", is_flag=True, help="The plan as one JSON object on stdout.")
@click.option("--quiet", "-q", is_flag=True, help="No progress on stderr.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.pass_context
def plan(context: click.Context, /, **options: Any) -> None:
    """See HELP."""
    state = context.find_root().ensure_object(dict)
    debug = state["debug"] = options.pop("debug") or state.get("debug", False)
    from scheduler.commands.planning import execute  # the pool and all: not for --help

    context.exit(execute(options, debug=debug))
