"""`@tool`: a Python function that a model may call."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Generic, ParamSpec, TypeVar, overload

import trio
from attrs import field, frozen

from scheduler.errors import ToolDefinitionError
from scheduler.tools.signature import read_signature

P = ParamSpec("P")
R = TypeVar("R")

# The Responses API's rule for function names.
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


@frozen(kw_only=True, eq=False)
class Tool(Generic[P, R]):
    """A function with what a model needs to know to call it. Made by `@tool`; still callable as the function.

    `parameters` is the JSON Schema of its arguments; `decode` parses and checks a call's JSON text; `timeout` is in
    seconds (None: the agent's `tool_timeout`); `repeatable` says that running it twice with the same arguments
    does no harm, which lets a durable run repeat a call whose result was lost.
    """

    function: Callable[P, R] = field(repr=False)
    name: str
    description: str
    parameters: Mapping[str, Any] = field(repr=False)
    decode: Callable[[str], dict[str, Any]] = field(repr=False)
    context: str | None = None
    timeout: float | None = None
    concurrency: int | None = None
    inline: bool = False
    repeatable: bool = True
    fatal: tuple[type[Exception], ...] = ()
    is_async: bool = field(init=False)
    definition: Mapping[str, Any] = field(init=False, repr=False)
    # A limiter belongs to one `trio.run`; the tool, a module's value, may serve several.
    _limiter: trio.lowlevel.RunVar[trio.CapacityLimiter] = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "is_async", _is_async(self.function))
        # `strict` off: strict mode would force every parameter to be required; arguments are checked here anyway.
        definition = {
            "type": "function",
            "name": self.name,
            "description": self.description,
            "parameters": self.parameters,
            "strict": False,
        }
        object.__setattr__(self, "definition", definition)
        object.__setattr__(self, "_limiter", trio.lowlevel.RunVar(f"tool {self.name}"))

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function itself, unchecked, as if it had not been decorated."""
        return self.function(*args, **kwargs)

    @property
    def limiter(self) -> trio.CapacityLimiter | None:
        """What bounds this tool over all runs of the current `trio.run`; None without `concurrency`."""
        if self.concurrency is None:
            return None
        try:
            return self._limiter.get()
        except LookupError:
            self._limiter.set(limiter := trio.CapacityLimiter(self.concurrency))
            return limiter


@overload
def tool(function: Callable[P, R], /) -> Tool[P, R]: ...


@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    timeout: float | None = None,
    concurrency: int | None = None,
    inline: bool = False,
    repeatable: bool = True,
    fatal: tuple[type[Exception], ...] = (),
) -> Callable[[Callable[P, R]], Tool[P, R]]: ...


def tool(
    function: Callable[P, R] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    timeout: float | None = None,
    concurrency: int | None = None,
    inline: bool = False,
    repeatable: bool = True,
    fatal: tuple[type[Exception], ...] = (),
) -> Tool[P, R] | Callable[[Callable[P, R]], Tool[P, R]]:
    """Offer a function to a model: `@tool`, or `@tool(timeout=5)`.

    Its schema comes from the type hints, its description and its parameters' from the docstring or from
    `Annotated[T, "text"]`. An `async def` runs as a trio task. A plain function runs in a worker thread, so that one
    that blocks stalls nobody; `inline=True` runs it at once in the event loop, some hundred times cheaper: only for
    functions that return within a fraction of a millisecond, and no timeout can stop them.

    `timeout`: seconds; None takes the agent's `tool_timeout`, `math.inf` waits for ever. A thread cannot be
    stopped: after its timeout the model is told so and the thread is left to finish.
    `concurrency`: how many calls may run at once, over all runs.
    `repeatable=False`: running it twice with the same arguments does harm. A durable run whose process died while the
    tool was running repeats the call otherwise; such a one it leaves to a person. Better still, give the function a
    `ToolContext` and let its `call_id`, which stays the same, be the idempotency key.
    `fatal`: exceptions that end the run instead of being shown to the model.

    Raises:
        ToolDefinitionError: names the function, the parameter and the remedy.
    """

    def define(function: Callable[P, R]) -> Tool[P, R]:
        label = name if name is not None else getattr(function, "__name__", type(function).__name__)
        _check_options(function, label, timeout=timeout, concurrency=concurrency, inline=inline)
        signature = read_signature(function, label)
        return Tool(
            function=function,
            name=label,
            description=description if description is not None else signature.description,
            parameters=signature.parameters,
            decode=signature.decode,
            context=signature.context,
            timeout=timeout,
            concurrency=concurrency,
            inline=inline,
            repeatable=repeatable,
            fatal=fatal,
        )

    return define if function is None else define(function)


def _check_options(
    function: Callable[..., Any], name: str, *, timeout: float | None, concurrency: int | None, inline: bool
) -> None:
    if not callable(function):
        raise ToolDefinitionError(name, "is not a function", "use `@tool` or `@tool(...)` on a function")
    if not _NAME.fullmatch(name):
        raise ToolDefinitionError(
            name, "the name is not 1 to 64 of A-Z a-z 0-9 _ -", 'give it one: `@tool(name="search")`'
        )
    if inspect.isclass(function):
        raise ToolDefinitionError(name, "is a class", "offer a function that makes one")
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        raise ToolDefinitionError(name, "is a generator", "return a list, or text")
    if timeout is not None and not timeout > 0:
        raise ToolDefinitionError(
            name, f"timeout = {timeout!r}", "give seconds above 0, or math.inf for none"
        )
    if concurrency is not None and concurrency < 1:
        raise ToolDefinitionError(name, f"concurrency = {concurrency!r}", "give at least 1, or leave it out")
    if inline and _is_async(function):
        raise ToolDefinitionError(name, "is async, and async tools never use a thread", "remove inline=True")
    if inline and timeout not in (None, math.inf):
        raise ToolDefinitionError(name, "inline=True cannot be timed out", "remove one of the two")


def _is_async(function: Callable[..., Any]) -> bool:
    # An object with an async `__call__` is one too; type() because functions themselves have a `__call__`.
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)
