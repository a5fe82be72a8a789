"""One response from its first event to its last: a generator of events, with no I/O and no clock of its own.

Theory of operation. `Turn.events` yields `Step`s: an event, and how many output tokens the model needed
before it could be said (the shell turns those into time). The turn keeps what it has said, so that whatever
ends it (the plan, a token limit, steering, a failure) leaves an output that fits the events. After the
terminal event `remembered` is what a connection may keep of it; it stays None when the response failed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from attrs import define, field, frozen

from pool.emulator.context import Context
from pool.emulator.memory import Remembered
from pool.emulator.plan import Call, Plan
from pool.emulator.request import Request
from pool.emulator.response import Tokens, completed, failed, incomplete
from pool.emulator.sealed import seal

_SUMMARY = ("**Looking", " at", " the", " context**")


@frozen
class Step:
    """An event, and the output tokens that were made for it."""

    event: dict[str, Any]
    tokens: float = 0.0


@define(eq=False)
class Turn:
    """A response being made."""

    request: Request
    context: Context  # before the output
    plan: Plan
    base: Mapping[str, Any]  # the response object at its start
    now: int  # Unix time, seconds
    input_tokens: int
    cached_tokens: int
    prefix: bytes  # fingerprint of instructions and tools
    compact: bool = False
    empty_terminal: bool = False
    fail_at: int | None = None  # the event before which the response fails
    stop: bool = field(default=False, init=False)  # set by steering: stop where it is safe
    output: list[dict[str, Any]] = field(init=False, factory=list)
    remembered: Remembered | None = field(init=False, default=None)
    terminal: dict[str, Any] | None = field(init=False, default=None)  # the response as it ended
    _sequence: int = field(init=False, default=0)
    _spent: float = field(init=False, default=0.0)
    _cut: bool = field(init=False, default=False)  # max_output_tokens was reached

    @property
    def id(self) -> str:
        """The response's id."""
        return str(self.base["id"])

    @property
    def open_calls(self) -> Sequence[Call]:
        """The calls that the client has to answer before the model can go on."""
        done = {item["call_id"] for item in self.output if item["type"] == "function_call"}
        return [call for call in self.plan.calls if call.call_id in done]

    def event(self, kind: str, **fields: Any) -> dict[str, Any]:
        """Number an event of this response; also used for the acknowledgements of steering."""
        event = {"type": kind, "sequence_number": self._sequence, **fields}
        self._sequence += 1
        return event

    def events(self) -> Iterator[Step]:
        """Yield every event in order."""
        for step in self._said():
            if self.fail_at is not None and self._sequence > self.fail_at:
                self._sequence -= 1  # the event that was not said gives its number to the failure
                yield self._failed()
                return
            yield step
        if self.fail_at is not None:
            yield self._failed()
            return
        yield self._ended()

    def _said(self) -> Iterator[Step]:
        yield Step(self.event("response.created", response=self.base))
        yield Step(self.event("response.in_progress", response=self.base))
        if not self.request.generate:
            return
        if self.compact:
            yield from self._compaction()
        for index in range(self.plan.reasoning):
            yield from self._reasoning(index)
        if self.plan.text:
            yield from self._message()
        for index, call in enumerate(self.plan.calls):
            if self._cut or (self.stop and index):
                return
            yield from self._call(index, call)

    def _added(self, item: dict[str, Any]) -> dict[str, Any]:
        return self.event("response.output_item.added", output_index=len(self.output), item=item)

    def _done(self, item: dict[str, Any]) -> dict[str, Any]:
        event = self.event("response.output_item.done", output_index=len(self.output), item=item)
        self.output.append(item)
        return event

    def _item_id(self, prefix: str, index: int = 0) -> str:
        return f"{prefix}_{self.id.removeprefix('resp_')[:40]}{index:02x}"

    def _compaction(self) -> Iterator[Step]:
        item = {
            "id": self._item_id("cmp"),
            "type": "compaction",
            "encrypted_content": self.context.sealed(self.id),
        }
        yield Step(self._added(item))
        yield Step(self._done(item))

    def _reasoning(self, index: int) -> Iterator[Step]:
        each = self.plan.reasoning_tokens / self.plan.reasoning
        item: dict[str, Any] = {
            "id": self._item_id("rs", index),
            "type": "reasoning",
            "summary": [],
            "status": "in_progress",
        }
        yield Step(self._added(dict(item)), each)
        summary = []
        if self.request.raw.get("reasoning", {}).get("summary"):
            at = {"item_id": item["id"], "output_index": len(self.output), "summary_index": 0}
            text = "".join(_SUMMARY)
            kind = "response.reasoning_summary"
            empty = {"type": "summary_text", "text": ""}
            summary = [{"type": "summary_text", "text": text}]
            yield Step(self.event(f"{kind}_part.added", **at, part=empty))
            for piece in _SUMMARY:
                yield Step(self.event(f"{kind}_text.delta", **at, delta=piece))
            yield Step(self.event(f"{kind}_text.done", **at, text=text))
            yield Step(self.event(f"{kind}_part.done", **at, part=summary[0]))
        item["summary"], item["status"] = summary, "completed"
        if "reasoning.encrypted_content" in self.request.include:
            item["encrypted_content"] = seal({"of": item["id"], "steps": index})
        yield Step(self._done(item))

    def _pieces(self, pieces: Sequence[str]) -> Iterator[tuple[str, float]]:
        """Yield pieces with their cost until something stops the model."""
        spoken = self.plan.output_tokens - self.plan.reasoning_tokens
        each = spoken / max(1, self.plan.deltas)
        limit = self.request.max_output_tokens
        if not self._spent:
            self._spent = float(self.plan.reasoning_tokens)
        for piece in pieces:
            if limit is not None and self._spent + each > limit + 1e-6:
                self._cut = True
                return
            self._spent += each
            yield piece, each

    def _message(self) -> Iterator[Step]:
        item: dict[str, Any] = {
            "id": self._item_id("msg"),
            "type": "message",
            "status": "in_progress",
            "role": "assistant",
            "content": [],
        }
        at = {"item_id": item["id"], "output_index": len(self.output), "content_index": 0}
        yield Step(self._added(dict(item)))
        yield Step(self.event("response.content_part.added", **at, part=_text_part("")))
        said: list[str] = []
        for piece, tokens in self._pieces(self.plan.text):
            if self.stop and said:
                break
            said.append(piece)
            yield Step(self.event("response.output_text.delta", **at, delta=piece, logprobs=[]), tokens)
        text = "".join(said)
        whole = len(said) == len(self.plan.text)
        item["status"], item["content"] = "completed" if whole else "incomplete", [_text_part(text)]
        yield Step(self.event("response.output_text.done", **at, text=text, logprobs=[]))
        yield Step(self.event("response.content_part.done", **at, part=_text_part(text)))
        yield Step(self._done(item))

    def _call(self, index: int, call: Call) -> Iterator[Step]:
        item: dict[str, Any] = {
            "id": self._item_id("fc", index),
            "type": "function_call",
            "status": "in_progress",
            "call_id": call.call_id,
            "name": call.name,
            "arguments": "",
        }
        at = {"item_id": item["id"], "output_index": len(self.output)}
        kind = "response.function_call_arguments"
        yield Step(self._added(dict(item)))
        said: list[str] = []
        for piece, tokens in self._pieces(call.pieces):
            said.append(piece)
            yield Step(self.event(f"{kind}.delta", **at, delta=piece), tokens)
        item["arguments"] = "".join(said)
        item["status"] = "completed" if len(said) == len(call.pieces) else "incomplete"
        yield Step(self.event(f"{kind}.done", **at, name=call.name, arguments=item["arguments"]))
        yield Step(self._done(item))

    def _tokens(self) -> Tokens:
        plan = self.plan
        if not self.request.generate:
            return Tokens(input=self.input_tokens, cached=self.cached_tokens)
        stopped = self._cut or self.stop
        return Tokens(
            input=self.input_tokens,
            cached=self.cached_tokens,
            output=min(plan.output_tokens, round(self._spent)) if stopped else plan.output_tokens,
            reasoning=plan.reasoning_tokens,
        )

    def _ended(self) -> Step:
        tokens = self._tokens()
        steered = self.stop and not self.open_calls
        if self._cut or steered:
            reason = "max_output_tokens" if self._cut else "steered"
            self.terminal = incomplete(self.base, output=self.output, tokens=tokens, reason=reason)
            kind = "response.incomplete"
        else:
            self.terminal = completed(self.base, output=self.output, tokens=tokens, now=self.now)
            kind = "response.completed"
        self.remembered = Remembered(
            response_id=self.id,
            context=self._after(),
            prefix=self.prefix,
            tokens=tokens.input + tokens.output,
        )
        shown = {**self.terminal, "output": []} if self.empty_terminal else self.terminal
        return Step(self.event(kind, response=shown))

    def _after(self) -> Context:
        """Return the context as it is with this output; a compaction item stands for all before it."""
        if not self.compact or not self.output:
            return self.context.extended(self.output)
        return Context().extended(self.output)

    def _failed(self) -> Step:
        message = "The server had an error while processing your request. Sorry about that!"
        self.terminal = failed(self.base, output=self.output, code="server_error", message=message)
        return Step(self.event("response.failed", response=self.terminal))


def _text_part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
