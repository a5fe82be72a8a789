"""The steps of a job, as they are kept, and the run that they add up to. Pure.

Theory of operation
    A step is one JSON object. `turn`: what was asked and what came back. `begun`: a call that must not run twice is
    about to run. `results`: calls have their answers. `allowed`: a person has said that calls that had begun may run
    again.

    Read back in order they give the transcript as the worker had it, by the same `Chain` that a conversation uses,
    and the facts of the run, so that its budgets and its report go on where they were.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from attrs import asdict, define, field, frozen

from pool.wire.codec import to_json
from pool.wire.events import Encoded
from scheduler.chain import Chain, Past
from scheduler.outcome import calls_of, text_of
from scheduler.tools.toolbox import ToolResult
from scheduler.turns import FunctionCall, Placement, Turn, Usage
from scheduler.worker.errors import CheckpointUnreadable
from scheduler.worker.shapes import step_of

ALLOWED = to_json({"step": "allowed"})


def turn_step(given: Sequence[Encoded], turn: Turn) -> bytes:
    """Return the step of a finished turn."""
    return b"".join(
        (
            b'{"step":"turn","given":[',
            b",".join(item.text for item in given),
            b'],"output":',
            to_json(turn.output),
            b',"facts":',
            to_json(_facts(turn)),
            b"}",
        )
    )


def _facts(turn: Turn) -> dict[str, Any]:
    placement = turn.placement
    return {
        "id": turn.response_id,
        "status": turn.status,
        "why": turn.incomplete_reason,
        "usage": list(asdict(turn.usage).values()),
        "way": [placement.kind, placement.reason, placement.connection, placement.lane],
        "bytes": [placement.bytes_sent, placement.bytes_saved, placement.tokens_saved],
        "seconds": [round(turn.first_event, 6), round(turn.seconds, 6)],
        "attempts": turn.attempts,
    }


def begun_step(call: FunctionCall) -> bytes:
    """Return the step of a call that is about to run and must not run twice."""
    return to_json({"step": "begun", "call_id": call.call_id})


def results_step(results: Sequence[ToolResult]) -> bytes:
    """Return the step of calls that have been answered."""
    kept = [
        {
            "call_id": result.call.call_id,
            "output": result.output,
            "executed": result.executed,
            "failed": result.failed,
            "seconds": round(result.seconds, 6),
        }
        for result in results
    ]
    return to_json({"step": "results", "results": kept})


def answer_step(call_id: str, output: str) -> bytes:
    """Return the step by which a person answers a call."""
    answer = {"call_id": call_id, "output": output, "executed": False, "failed": False, "seconds": 0.0}
    return to_json({"step": "results", "results": [answer]})


def draft_step(text: str) -> bytes:
    """Return what is told of a turn that is not finished. It is never recorded."""
    return to_json({"step": "draft", "text": text})


@define(eq=False)
class Story:
    """What the steps of one job say."""

    job_id: str
    turns: list[tuple[Turn, dict[str, ToolResult]]] = field(factory=list)
    begun: set[str] = field(factory=set)  # calls that may have run to their end or not

    def read(self, body: bytes, chain: Chain) -> None:
        """Add a step; a turn goes into the chain too. Raises `CheckpointUnreadable`."""
        value = step_of(body, self.job_id)
        match value["step"]:
            case "turn":
                given = [Encoded(to_json(item)) for item in value["given"]]
                turn = _turn(value["output"], value["facts"])
                chain.commit(given, turn.output, turn.response_id, tokens=turn.usage.total_tokens)
                self.turns.append((turn, {}))
            case "begun":
                self.begun.add(value["call_id"])
            case "results":
                self._answer(value["results"])
            case "allowed":
                self.begun.clear()

    def _answer(self, kept: Iterable[Mapping[str, Any]]) -> None:
        turn, results = self.turns[-1] if self.turns else (None, {})
        calls = {call.call_id: call for call in turn.calls} if turn is not None else {}
        for answer in kept:
            if answer["call_id"] not in calls:
                problem = "is damaged: it has the answer of a call that its last turn has not asked for"
                raise CheckpointUnreadable(self.job_id, problem)
            self.begun.discard(answer["call_id"])
            facts = {name: answer[name] for name in ("output", "executed", "failed", "seconds")}
            results[answer["call_id"]] = ToolResult(call=calls[answer["call_id"]], **facts)

    @property
    def open_calls(self) -> list[FunctionCall]:
        """The calls of the last turn that have no answer."""
        if not self.turns:
            return []
        turn, results = self.turns[-1]
        return [call for call in turn.calls if call.call_id not in results]

    @property
    def in_doubt(self) -> list[FunctionCall]:
        """The calls that must not run twice and may have run already."""
        return [call for call in self.open_calls if call.call_id in self.begun]

    def so_far(self) -> list[tuple[Turn, list[ToolResult]]]:
        """Return what `Run.resume` takes: each turn with its answers, in the order of its calls."""
        return [
            (turn, [results[call.call_id] for call in turn.calls if call.call_id in results])
            for turn, results in self.turns
        ]


@frozen(kw_only=True)
class Resumed:
    """Where a job stands: the transcript to go on from, and its own story."""

    past: Past
    story: Story


def resumed(
    job_id: str, before: Iterable[bytes], own: Iterable[bytes], *, store: bool, why: str = "resumed"
) -> Resumed:
    """Read the steps of a conversation's earlier jobs, and the job's own.

    Raises:
        CheckpointUnreadable: one of them is damaged.
    """
    chain = Chain(store)
    earlier, story = Story(job_id), Story(job_id)
    for body in before:
        earlier.read(body, chain)
    for body in own:
        story.read(body, chain)
    # What the server was not asked to store it remembers on one connection only, and that is not ours.
    past = Past(items=chain.encoded, tip=chain.tip if store else None, tokens=chain.tokens, why=why)
    return Resumed(past=past, story=story)


def _turn(output: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]) -> Turn:
    kind, reason, connection, lane = facts["way"]
    sent, saved, tokens = facts["bytes"]
    first_event, seconds = facts["seconds"]
    return Turn(
        response_id=facts["id"],
        status=facts["status"],
        incomplete_reason=facts["why"],
        output=tuple(output),
        text=text_of(output),
        calls=calls_of(output),
        usage=Usage(**dict(zip(asdict(Usage()), facts["usage"], strict=True))),
        placement=Placement(
            kind=kind,
            reason=reason,
            connection=connection,
            lane=lane,
            bytes_sent=sent,
            bytes_saved=saved,
            tokens_saved=tokens,
        ),
        first_event=first_event,
        seconds=seconds,
        attempts=facts["attempts"],
        payload={"id": facts["id"], "status": facts["status"], "output": output},
    )
