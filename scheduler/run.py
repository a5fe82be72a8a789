"""The loop of one run: a turn, its tool calls, their outputs in the next turn, until a turn asks for nothing.

Tools run only once a turn is complete, and each once: what they gave is kept, and a turn that has to be sent again
sends it again. Recovery from lost connections is the conversation's business and not seen here; an
error that gets this far has outlived it and ends the run.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import trio
from attrs import define, field, frozen

from scheduler.chain import encode_input
from scheduler.conversation import Conversation
from scheduler.errors import BudgetExceeded, OutputInvalid, RunIncomplete, UnsupportedOutput
from scheduler.scheduler import Scheduler
from scheduler.tools.keeper import Keeper
from scheduler.tools.toolbox import OnRunEvent, ToolResult
from scheduler.turns import Placement, Turn, TurnRequest, Usage

if TYPE_CHECKING:
    from scheduler.agent import Agent

Input = str | Sequence[Mapping[str, Any]]

# Items that wait for an answer of the client's which is not a function call's output.
_UNSERVED: Mapping[str, str] = {
    "custom_tool_call": "offer a function with @tool instead of a custom tool",
    "mcp_approval_request": 'let the server decide: `"require_approval": "never"` on the mcp tool',
    "computer_call": "drive the computer tool turn by turn with Conversation.turn",
    "local_shell_call": "offer a function with @tool, or drive it turn by turn with Conversation.turn",
    "shell_call": "let it run in the server's container, or drive it turn by turn with Conversation.turn",
    "apply_patch_call": "offer a function with @tool, or drive it turn by turn with Conversation.turn",
}


@define(eq=False)
class Run:
    """What one run has done so far. The loop fills it while it goes on, so a failed run can still be accounted for.

    `timings` holds (first event, whole turn) of each turn, in seconds. `pending` is the input that the next turn was
    to carry: when a turn fails for good, `run_agent(..., run.pending, conversation=..., run=run)` goes on from there
    without running a tool again, on what is left of the budgets. A run that was begun elsewhere starts behind
    `turn`, of whose calls `results` have been answered (`resume`).
    """

    usage: Usage = field(factory=Usage)
    placements: list[Placement] = field(factory=list)
    timings: list[tuple[float, float]] = field(factory=list)
    tools_executed: int = 0
    tools_failed: int = 0
    tool_seconds: float = 0.0
    text: str = ""
    response_id: str | None = None
    seconds: float = 0.0
    pending: Input = ()
    conversation: Conversation | None = None
    turn: Turn | None = None
    results: dict[str, ToolResult] = field(factory=dict)  # by call id
    answers: int = 0  # turns without calls: but for the last, they did not fit `output_type`

    @property
    def turns(self) -> int:
        """Turns that ended, whether or not the run did."""
        return len(self.placements)

    def note_turn(self, turn: Turn) -> None:
        """Add a finished turn."""
        self.usage += turn.usage
        self.placements.append(turn.placement)
        self.timings.append((turn.first_event, turn.seconds))
        self.text = turn.text or self.text
        self.response_id = turn.response_id
        self.pending = ()
        self.answers += not turn.calls

    def resume(self, turns: Sequence[tuple[Turn, Sequence[ToolResult]]]) -> None:
        """Take over what was kept of the run elsewhere: its turns, each with what was answered of its calls.

        `run_agent` goes on behind the last of them. Its conversation must hold the same turns already.
        """
        for turn, results in turns:
            if self.turn is not None:
                self.note_results(list(self.results.values()))
            self.note_turn(turn)
            self.turn, self.results = turn, {result.call.call_id: result for result in results}

    def note_results(self, results: Sequence[ToolResult]) -> None:
        """Add what the turn's calls gave; it is what the next turn has to say."""
        for result in results:
            self.tools_executed += result.executed
            self.tools_failed += result.failed
            self.tool_seconds += result.seconds
        self.pending = [result.item for result in results]
        self.results = {}


@frozen(kw_only=True)
class RunResult:
    """A finished run. `output` is its text, or the value of the agent's `output_type`.

    `timings` holds (first event, whole turn) of each turn, `tool_seconds` the sum over all calls, `seconds` the whole
    run. `tools_executed` counts functions called, `tools_failed` the calls that the model read an error from.
    `refusal` is the model's, when it answered with one instead of text.
    """

    output: Any
    text: str
    refusal: str | None
    usage: Usage
    turns: int
    tools_executed: int
    tools_failed: int
    tool_seconds: float
    placements: tuple[Placement, ...]
    timings: tuple[tuple[float, float], ...]
    seconds: float
    response_id: str
    conversation: Conversation = field(repr=False)


async def run_agent(
    scheduler: Scheduler,
    agent: Agent,
    input: Input,
    *,
    conversation: Conversation | None = None,
    metadata: Mapping[str, str] | None = None,
    on_event: OnRunEvent | None = None,
    run: Run | None = None,
    tenant: str | None = None,
    priority: float | None = None,
    deadline: float | None = None,
    keeper: Keeper | None = None,
) -> RunResult:
    """Run `agent` on `input` until it has answered.

    `conversation`: go on with this one; it stays the caller's to close. Without it the run has its own, closed at the
    end. `metadata` is added to the agent's own on every request. `on_event` gets every event, in order and in this
    task, and slows the run down while it takes its time; without it events are not even decoded. `run` is
    filled as the run goes on: pass one to know what was done when the run fails.

    `tenant` says on whose behalf (fairness is kept between tenants), `priority` which of its turns go first (the
    higher; 0 is usual), `deadline` after how many seconds the run is cancelled. What is None is the conversation's
    own, if it is given, or that of the run in whose tool this one is. `keeper` is told of each step as it is done;
    what it raises ends the run.

    Cancelling ends the turn and the tools; tools in threads are left behind.

    Raises:
        BudgetExceeded: `max_turns` or `max_tokens` is used up and the agent has not answered.
        OutputInvalid: the answer does not fit `output_type`, also after `output_retries`.
        RunIncomplete: the server cut a turn short.
        UnsupportedOutput: the model waits for something that tools cannot give.
        PoolError: a turn failed, and recovery gave up.
        DeadlineExceeded: the deadline came first, or certainly will.
        AdmissionQueueFull: too many runs, or turns, wait.
    """
    run = Run() if run is None else run
    own = conversation is None
    if conversation is None:
        conversation = scheduler.conversation(store=agent.store)
    run.conversation = conversation
    if run.turn is None:
        run.pending = input
    before, started, ticket = run.seconds, trio.current_time(), conversation.ticket
    try:
        async with scheduler.admission.run(
            tenant=tenant, priority=priority, deadline=deadline, like=ticket
        ) as conversation.ticket:
            if conversation.tap is not None:
                waited, tenant = trio.current_time() - started, conversation.ticket.tenant
                conversation.tap.note("run", conv=conversation.name, tenant=tenant, waited=waited)
            turn, output = await _converse(agent, conversation, run, metadata, on_event, keeper)
    finally:
        run.seconds = before + trio.current_time() - started
        if conversation.tap is not None:
            facts = {"turns": run.turns, "seconds": run.seconds, "failed": sys.exc_info()[0] is not None}
            conversation.tap.note("run_over", conv=conversation.name, **facts)
        conversation.ticket = ticket
        if own:
            conversation.close()
    return RunResult(
        output=output,
        text=turn.text,
        refusal=None if turn.text else _refusal(turn),
        usage=run.usage,
        turns=run.turns,
        tools_executed=run.tools_executed,
        tools_failed=run.tools_failed,
        tool_seconds=run.tool_seconds,
        placements=tuple(run.placements),
        timings=tuple(run.timings),
        seconds=run.seconds,
        response_id=turn.response_id,
        conversation=conversation,
    )


async def _converse(
    agent: Agent,
    conversation: Conversation,
    run: Run,
    metadata: Mapping[str, str] | None,
    on_event: OnRunEvent | None,
    keeper: Keeper | None,
) -> tuple[Turn, Any]:
    request = agent.request(metadata)
    turn, run.turn = run.turn, None
    while True:
        if turn is None:
            turn = await _take_turn(agent, conversation, run, request, on_event, keeper)
        if turn.status != "completed":
            raise RunIncomplete(turn.incomplete_reason or "unknown", text=turn.text)
        _check_served(turn)
        if turn.calls:
            await _answer_calls(agent, conversation, run, turn, on_event, keeper)
            turn = None
            continue
        if agent.output_format is None:
            return turn, turn.text
        try:
            return turn, agent.output_format.parse(turn.text)
        except Exception as exc:
            # Any exception: the type's own constructors may check what they are given.
            refusal = None if turn.text else _refusal(turn)
            if refusal is not None or run.answers > agent.output_retries:
                problem = str(exc) if refusal is None else f"the model refused: {refusal}"
                raise OutputInvalid(problem, text=turn.text, attempts=run.answers) from exc
            turn = None
            run.pending = [{"role": "user", "content": f"Not a valid answer: {exc}. Answer again, in full."}]


async def _take_turn(
    agent: Agent,
    conversation: Conversation,
    run: Run,
    request: TurnRequest,
    on_event: OnRunEvent | None,
    keeper: Keeper | None,
) -> Turn:
    _check_budgets(agent, run)
    if keeper is None:
        turn = await conversation.turn(run.pending, request, on_event=on_event)
        run.note_turn(turn)
        return turn
    await keeper.ready()
    given = encode_input(run.pending)
    hearing = keeper.hearing() if on_event is None else None
    if hearing is None:
        turn = await conversation.turn(given, request, on_event=on_event)
    else:
        turn = await conversation.turn(given, request, on_events=hearing.on_events, at_once=hearing.at_once)
    run.note_turn(turn)
    await keeper.turn_ended(given, turn)
    return turn


async def _answer_calls(
    agent: Agent,
    conversation: Conversation,
    run: Run,
    turn: Turn,
    on_event: OnRunEvent | None,
    keeper: Keeper | None,
) -> None:
    """Run the calls of a turn; of a run that was taken over, those that have no answer yet."""
    toolbox, name = agent.toolbox, conversation.name
    if keeper is not None:
        await keeper.ready()
    if conversation.tap is not None:
        conversation.tap.note("tools", conv=name, calls=[call.name for call in turn.calls])
    calls = [call for call in turn.calls if call.call_id not in run.results]
    if on_event is None and toolbox.instant(calls):
        results = toolbox.run_nowait(calls, run=name, turn=run.turns)
        if keeper is not None:
            await keeper.calls_ended(results)
    else:
        results = await toolbox.run(calls, run=name, turn=run.turns, on_event=on_event, keeper=keeper)
    if conversation.tap is not None:
        for done in results:
            facts = {"name": done.call.name, "call": done.call.call_id, "seconds": done.seconds}
            conversation.tap.note("tool", conv=name, failed=done.failed, **facts)
    fresh = iter(results)
    run.note_results([run.results.get(call.call_id) or next(fresh) for call in turn.calls])


def _check_budgets(agent: Agent, run: Run) -> None:
    if run.turns >= agent.max_turns:
        raise BudgetExceeded("max_turns", run.turns, agent.max_turns)
    if agent.max_tokens is not None and run.usage.total_tokens >= agent.max_tokens:
        raise BudgetExceeded("max_tokens", run.usage.total_tokens, agent.max_tokens)


def _check_served(turn: Turn) -> None:
    for item in turn.output:
        kind = item.get("type", "")
        if kind in _UNSERVED:
            # The same kinds may be run by the server itself; then their output stands in the same turn.
            answer = (f"{kind}_output", item.get("call_id"))
            if not any((other.get("type"), other.get("call_id")) == answer for other in turn.output):
                raise UnsupportedOutput(kind, _UNSERVED[kind])


def _refusal(turn: Turn) -> str | None:
    for item in turn.output:
        if item.get("type") == "message":
            for part in item.get("content", ()):
                if part.get("type") == "refusal":
                    return str(part.get("refusal", ""))
    return None
