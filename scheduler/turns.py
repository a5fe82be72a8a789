"""The values of one turn: what is asked, what comes back, how it travelled, what it cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from attrs import field, frozen

from pool.stats.rules import counter
from pool.stats.snapshot import Snapshot


@frozen(kw_only=True)
class TurnRequest:
    """What is said on every turn beside the input: the server inherits none of it.

    `options` holds any other field of `response.create` (`reasoning`, `text`, `metadata`, `include` ...).
    Values may be `Encoded`. `says_store` off leaves `store` out, and the server's default counts; `generate` off lets
    the server read without answering, which only a socket can ask for. Build one for a whole run and pass the same
    object each turn: its encoding is made once and kept on it, so the mappings must not be changed afterwards.
    """

    model: str
    instructions: str | None = None
    tools: Sequence[Mapping[str, Any]] = ()
    options: Mapping[str, Any] = field(factory=dict)
    says_store: bool = True
    generate: bool | None = None
    _cache: dict[str, Any] = field(factory=dict, init=False, repr=False, eq=False)


@frozen(kw_only=True)
class Usage(Snapshot):
    """Tokens, as the server counted them. Usages add up with `+`."""

    input_tokens: int = counter("Tokens read.", unit="tokens")
    cached_tokens: int = counter("Tokens read that were cached: part of the input.", unit="tokens")
    output_tokens: int = counter("Tokens written.", unit="tokens")
    reasoning_tokens: int = counter("Tokens written that are reasoning: part of the output.", unit="tokens")
    total_tokens: int = counter("Tokens read and written.", unit="tokens")

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
            total_tokens=self.total_tokens + other.total_tokens,
        )


@frozen(kw_only=True)
class FunctionCall:
    """One function call asked for by the model. `arguments` is the JSON text as it arrived, unchecked."""

    call_id: str
    name: str
    arguments: str


@frozen(kw_only=True)
class Placement:
    """How one turn travelled, and why.

    `bytes_saved` and `tokens_saved` compare with sending the whole transcript, and with the server reading it
    all again. The costs that were weighed, in seconds, as they were expected then: `waited` for the lane;
    `replay_cost`, what sending the whole transcript would take longer than a delta (0 for a first turn, and for one
    that changes what stands before it: then everything is read anew wherever it goes); `damage`,
    what the conversation that was hot on the lane would lose by giving it up (0: nobody was); and where a socket
    would have had to be dialled, `http_cost`, what the rest of the run would take longer over HTTP, and `dial_cost`.
    """

    kind: Literal["delta", "replay"]
    reason: str
    connection: str
    lane: str
    bytes_sent: int = 0
    bytes_saved: int = 0
    tokens_saved: int = 0
    waited: float = 0.0
    replay_cost: float = 0.0
    damage: float = 0.0
    http_cost: float = 0.0
    dial_cost: float = 0.0


SteerOutcome = Literal["accepted", "added", "taken", "pending", "refused", "failed"]


@frozen(kw_only=True)
class Steered:
    """What became of input that was given to a running turn.

    `accepted`: by the server; the turn will tell the rest. `added`: the turn was sent with it, or sent again.
    `taken`: a successor of the response went on with it. `pending`: the model waits for tool outputs first, and the
    next turn takes it by itself. `refused`, `failed`: `code` and `message` say why; it is not in the transcript.
    """

    outcome: SteerOutcome
    id: str | None = None
    code: str | None = None
    message: str = ""


@frozen(kw_only=True)
class Turn:
    """One finished turn.

    `text` joins the `output_text` parts of the assistant's messages; `output` and `payload` (the terminal
    `response` object) are the parsed JSON, whole. `first_event` and `seconds` are seconds from the call, so
    waiting for a lane and every failed try are in them; `attempts` counts the tries. A turn that was steered is its
    last response's; `usage` is the sum over all of them, and `steers` says what became of each piece of input.
    """

    response_id: str
    status: Literal["completed", "incomplete"]
    incomplete_reason: str | None
    output: tuple[Mapping[str, Any], ...]
    text: str
    calls: tuple[FunctionCall, ...]
    usage: Usage
    placement: Placement
    first_event: float
    seconds: float
    attempts: int
    payload: Mapping[str, Any] = field(repr=False)
    steers: tuple[Steered, ...] = ()
