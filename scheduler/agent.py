"""An agent: a model with instructions, tools and limits. A value; what happens to it is in `scheduler.run`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from attrs import Attribute, evolve, field, frozen
from attrs.validators import optional

from pool.errors import SettingsError
from pool.settings import whole
from scheduler.conversation import Conversation
from scheduler.errors import ToolDefinitionError
from scheduler.run import Input, Run, RunResult, run_agent
from scheduler.scheduler import Scheduler
from scheduler.stream import RunStream, open_stream
from scheduler.tools import OnRunEvent, Tool, Toolbox, tool
from scheduler.tools.strict import OutputFormat, output_format
from scheduler.turns import TurnRequest

ToolLike = Tool[..., Any] | Mapping[str, Any] | Callable[..., Any]

_NOT_OPTIONS: Mapping[str, str] = {
    "input": "pass it to run()",
    "previous_response_id": "the conversation keeps it",
    "stream": "every turn streams",
    "stream_id": "the pool chooses the lane",
    "generate": "warm-ups are the scheduler's business",
    "background": "it does not exist over WebSocket",
    "conversation": "it cannot go with previous_response_id; pass a Conversation to run()",
    "instructions": "use Agent(instructions=...)",
    "tools": "use Agent(tools=...)",
    "model": "use Agent(model=...)",
    "store": "use Agent(store=...)",
}


def _text(_instance: object, attribute: Attribute[Any], value: Any) -> None:
    if not isinstance(value, str) or not value.strip():
        raise SettingsError(attribute.name, value, "must be a text that is not empty")


def _as_tools(tools: Iterable[ToolLike]) -> tuple[Tool[..., Any] | Mapping[str, Any], ...]:
    if isinstance(tools, str | Mapping | Tool) or not isinstance(tools, Iterable):
        raise SettingsError("tools", tools, "must be a sequence: tools=[search, read]")
    return tuple(_as_tool(entry) for entry in tools)


def _as_tool(entry: ToolLike) -> Tool[..., Any] | Mapping[str, Any]:
    if isinstance(entry, Tool):
        return entry
    if isinstance(entry, Mapping):
        kind = entry.get("type")
        if not isinstance(kind, str):
            raise SettingsError(
                "tools", dict(entry), 'a hosted tool needs a "type", as {"type": "web_search"}'
            )
        if kind in ("function", "custom"):
            raise SettingsError(
                "tools", dict(entry), "nothing here would run it: write a function with @tool"
            )
        return dict(entry)
    return tool(entry)


@frozen(kw_only=True)
class Agent:
    """A model with instructions, tools and limits. Frozen and without state: one serves any number of runs.

    `tools`: functions made with `@tool` (a plain function is taken as one), or hosted tools as the API's own
    dictionaries. `output_type`: the answer must be JSON of this type, and is returned as its value; a model that
    gets it wrong is told so and asked again `output_retries` times. `options`: any other field of the request
    (`reasoning`, `metadata`, `tool_choice`, `max_output_tokens` ...).

    Limits of a run: `max_turns`, and `max_tokens` over all its turns (None: none); both are checked before a turn is
    sent. Limits of a tool call: `tool_timeout` in seconds (None: none) where the tool has none of its own,
    `tool_concurrency` calls of one turn at once, `tool_output_limit` bytes of text.

    `store`: let the server keep the responses, so that any connection can go on with them. `compact_threshold`:
    tokens of context at which the server compacts it (None: never).
    """

    model: str = field(validator=_text)
    name: str = field(default="agent", validator=_text)
    instructions: str | None = field(default=None, validator=optional(_text), repr=False)
    tools: tuple[Tool[..., Any] | Mapping[str, Any], ...] = field(default=(), converter=_as_tools, repr=False)
    output_type: Any = None
    output_retries: int = field(default=2, validator=whole(0))
    max_turns: int = field(default=100, validator=whole(1))
    max_tokens: int | None = field(default=None, validator=optional(whole(1)))
    tool_timeout: float | None = field(default=300.0)
    tool_concurrency: int = field(default=16, validator=whole(1))
    tool_output_limit: int = field(default=256 * 1024, validator=whole(1))
    options: Mapping[str, Any] = field(factory=dict, repr=False)
    store: bool = False
    compact_threshold: int | None = field(default=None, validator=optional(whole(1)))
    toolbox: Toolbox = field(init=False, repr=False, eq=False)
    output_format: OutputFormat | None = field(init=False, repr=False, eq=False)
    _request: TurnRequest = field(init=False, repr=False, eq=False)

    @tool_timeout.validator
    def _check_tool_timeout(self, _attribute: object, value: Any) -> None:
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, int | float) or not value > 0
        ):
            raise SettingsError("tool_timeout", value, "must be seconds above 0, or None for no limit")

    @options.validator
    def _check_options(self, _attribute: object, value: Any) -> None:
        if not isinstance(value, Mapping):
            raise SettingsError("options", value, 'must be a mapping, as {"reasoning": {"effort": "low"}}')
        for key, remedy in _NOT_OPTIONS.items():
            if key in value:
                raise SettingsError(f"options[{key!r}]", value[key], f"warmline sets it: {remedy}")

    def __attrs_post_init__(self) -> None:
        functions = [entry for entry in self.tools if isinstance(entry, Tool)]
        by_name = {entry.name: entry for entry in functions}
        if len(by_name) < len(functions):
            names = [entry.name for entry in functions]
            twice = next(name for name in names if names.count(name) > 1)
            raise ToolDefinitionError(
                twice, f"agent {self.name!r} has two tools of this name", "rename one: `@tool(name=...)`"
            )
        _set(self, "output_format", _make_output_format(self.output_type))
        _set(
            self,
            "toolbox",
            Toolbox(
                tools=by_name,
                timeout=float("inf") if self.tool_timeout is None else self.tool_timeout,
                concurrency=self.tool_concurrency,
                output_limit=self.tool_output_limit,
            ),
        )
        _set(self, "_request", self._make_request())

    def request(self, metadata: Mapping[str, str] | None = None) -> TurnRequest:
        """Return what every turn of a run says beside its input.

        Without `metadata` it is the same object for all runs, so that its encoding is shared by them.
        """
        if not metadata:
            return self._request
        options = {**self._request.options, "metadata": {**self.options.get("metadata", {}), **metadata}}
        return evolve(self._request, options=options)

    async def run(
        self,
        scheduler: Scheduler,
        input: Input,
        *,
        conversation: Conversation | None = None,
        metadata: Mapping[str, str] | None = None,
        on_event: OnRunEvent | None = None,
        run: Run | None = None,
        tenant: str | None = None,
        priority: float | None = None,
        deadline: float | None = None,
    ) -> RunResult:
        """Run on `input` until the agent has answered: see `run_agent`."""
        return await run_agent(
            scheduler,
            self,
            input,
            conversation=conversation,
            metadata=metadata,
            on_event=on_event,
            run=run,
            tenant=tenant,
            priority=priority,
            deadline=deadline,
        )

    def stream(
        self,
        scheduler: Scheduler,
        input: Input,
        *,
        conversation: Conversation | None = None,
        metadata: Mapping[str, str] | None = None,
        run: Run | None = None,
        tenant: str | None = None,
        priority: float | None = None,
        deadline: float | None = None,
        buffer: int = 64,
    ) -> AbstractAsyncContextManager[RunStream]:
        """Run, and read the events as they come: see `open_stream`.

        async with agent.stream(scheduler, "Hello") as stream:
            async for event in stream:
                ...
        print(stream.result.output)
        """
        return open_stream(
            scheduler,
            self,
            input,
            conversation=conversation,
            metadata=metadata,
            run=run,
            tenant=tenant,
            priority=priority,
            deadline=deadline,
            buffer=buffer,
        )

    def _make_request(self) -> TurnRequest:
        options = dict(self.options)
        if self.output_format is not None:
            text = options.get("text", {})
            if "format" in text:
                raise SettingsError(
                    "options['text']['format']", text["format"], "output_type sets it; use one of them"
                )
            options["text"] = {**text, "format": self.output_format.text}
        if self.compact_threshold is not None:
            if "context_management" in options:
                given = options["context_management"]
                raise SettingsError(
                    "options['context_management']", given, "compact_threshold sets it; use one of them"
                )
            options["context_management"] = [
                {"type": "compaction", "compact_threshold": self.compact_threshold}
            ]
        return TurnRequest(
            model=self.model,
            instructions=self.instructions,
            tools=tuple(entry.definition if isinstance(entry, Tool) else entry for entry in self.tools),
            options=options,
        )


def _make_output_format(output_type: Any) -> OutputFormat | None:
    if output_type is None or output_type is str:
        return None
    try:
        return output_format(output_type)
    except Exception as exc:
        problem = " ".join(str(exc).split())
        raise SettingsError("output_type", output_type, f"cannot be told to a model: {problem}") from exc


def _set(agent: Agent, name: str, value: object) -> None:
    # Derived once, in a frozen value: attrs' own way around its lock.
    object.__setattr__(agent, name, value)
