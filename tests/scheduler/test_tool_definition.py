"""`@tool`: what a function becomes, and what is refused at once with a remedy."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal

import jsonschema
import pytest
import trio

from scheduler.errors import ToolDefinitionError
from scheduler.tools import Tool, ToolContext, tool

if TYPE_CHECKING:
    from decimal import Decimal


@tool
def search(
    query: Annotated[str, "what to look for"], mode: Literal["text", "regex"] = "text", limit: int = 10
) -> list[str]:
    """Search the files.

    Looks at every file below the root.

    Args:
        query: is overruled by the annotation
        limit: most hits to return
    """
    return [query, mode, str(limit)]


def test_a_function_tells_all_that_a_model_needs() -> None:
    assert search.definition == {
        "type": "function",
        "name": "search",
        "description": "Search the files.\n\nLooks at every file below the root.",
        "parameters": {
            "type": "object",
            "properties": {
                "query": {"type": "string", "description": "what to look for"},
                "mode": {"type": "string", "enum": ["regex", "text"], "default": "text"},
                "limit": {"type": "integer", "description": "most hits to return", "default": 10},
            },
            "required": ["query"],
            "additionalProperties": False,
        },
        "strict": False,
    }
    jsonschema.Draft202012Validator.check_schema(dict(search.parameters))


def test_a_tool_is_still_the_function() -> None:
    assert search("x", limit=2) == ["x", "text", "2"]


def test_options_overrule_what_the_function_says() -> None:
    @tool(name="look-up", description="Look.", timeout=5, concurrency=2, repeatable=False, fatal=(OSError,))
    def lookup(key: str) -> str:
        """Not this."""
        return key

    assert (lookup.name, lookup.description, lookup.timeout) == ("look-up", "Look.", 5)
    assert (lookup.concurrency, lookup.repeatable, lookup.fatal) == (2, False, (OSError,))
    assert lookup.decode('{"key": "k"}') == {"key": "k"}


def test_a_tool_without_parameters_or_docstring() -> None:
    @tool
    def ping() -> str:
        return "pong"

    assert ping.description == ""
    assert ping.parameters == {
        "type": "object",
        "properties": {},
        "required": [],
        "additionalProperties": False,
    }
    assert ping.decode("") == ping.decode("{}") == {}


@pytest.mark.parametrize(
    "docstring",
    [
        "Do.\n\nArgs:\n    key (str): the key\n",
        "Do.\n\nParameters\n----------\nkey : str\n    the key\n",
        "Do.\n\n:param key: the key\n",
        "Do.\n\n@param key: the key\n",
    ],
    ids=["google", "numpy", "sphinx", "epydoc"],
)
def test_every_common_docstring_style_is_read(docstring: str) -> None:
    def do(key: str) -> str:
        return key

    do.__doc__ = docstring
    made = tool(do)
    assert made.description == "Do."
    assert made.parameters["properties"]["key"]["description"] == "the key"


def test_the_context_is_not_shown_to_the_model() -> None:
    @tool
    def whoami(context: ToolContext, loud: bool = False) -> str:
        return f"{context.run}{loud}"

    assert whoami.context == "context"
    assert list(whoami.parameters["properties"]) == ["loud"]


def test_a_return_type_that_only_the_type_checker_sees_is_nobodys_business() -> None:
    @tool
    def price(item: str) -> Decimal:
        raise NotImplementedError

    assert list(price.parameters["properties"]) == ["item"]


class Store:
    """Not a docstring of `get`."""

    def get(self, key: str) -> str:
        """Get it."""
        return f"{key}!"

    def __call__(self, key: str) -> str:
        """Call it."""
        return f"{key}?"


class AsyncStore:
    async def __call__(self, key: str) -> str:
        """Await it."""
        await trio.lowlevel.checkpoint()
        return key


def test_bound_methods_partials_and_callable_objects() -> None:
    method = tool(Store().get)
    assert (method.name, method.description, list(method.parameters["properties"])) == (
        "get",
        "Get it.",
        ["key"],
    )

    def both(key: str, depth: int) -> str:
        """Both."""
        return f"{key}{depth}"

    bound = tool(name="both")(functools.partial(both, depth=3))
    assert bound.description == "Both."
    assert bound("k") == "k3"
    assert bound.parameters["properties"]["depth"]["default"] == 3
    instance = tool(Store())
    assert (instance.name, instance.description, instance("k")) == ("Store", "Call it.", "k?")


def test_async_is_recognised() -> None:
    assert tool(async_function).is_async
    assert tool(AsyncStore()).is_async
    assert tool(name="fetch")(functools.partial(async_function)).is_async
    assert not search.is_async


def test_a_wrapped_function_keeps_its_own_types() -> None:
    def retried(function: Callable[..., str]) -> Callable[..., str]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> str:
            return function(*args, **kwargs)

        return wrapper

    @tool
    @retried
    def get(key: str) -> str:
        """Get it."""
        return key

    assert list(get.parameters["properties"]) == ["key"]


def no_hint(path, depth: int) -> str:  # type: ignore[no-untyped-def]  # noqa: ANN001
    return f"{path}{depth}"


def takes_any(*paths: str) -> str:
    return "".join(paths)


def takes_keywords(**options: str) -> str:
    return str(options)


def positional(path: str, /) -> str:
    return path


def unresolvable(amount: Decimal) -> str:
    return str(amount)


def untellable(when: complex) -> str:
    return str(when)


def generator(path: str) -> Iterator[str]:
    yield path


@asynccontextmanager
async def async_generator(path: str) -> AsyncIterator[str]:
    await trio.lowlevel.checkpoint()
    yield path
    await trio.lowlevel.checkpoint()


async def async_function(path: str) -> str:
    await trio.lowlevel.checkpoint()
    return path


@pytest.mark.parametrize(
    ("function", "parameter", "problem", "remedy"),
    [
        (no_hint, "path", "no type hint", "`path: str`"),
        (takes_any, "paths", "any number", "list"),
        (takes_keywords, "options", "any keyword", "name each parameter"),
        (positional, "path", "positional-only", "remove the `/`"),
        (unresolvable, "amount", "'Decimal' cannot be resolved", "outside `if TYPE_CHECKING`"),
        (untellable, "when", "cannot be told to a model", "dataclass"),
        (Store.get, "self", "no type hint", "self"),
        (generator, None, "generator", "list"),
        (inspect.unwrap(async_generator), None, "generator", "list"),
        (Store, None, "class", "function"),
    ],
    ids=str,
)
def test_what_cannot_be_offered_is_refused_when_it_is_defined(
    function: Callable[..., Any], parameter: str | None, problem: str, remedy: str
) -> None:
    with pytest.raises(ToolDefinitionError) as caught:
        tool(function)
    error = caught.value
    assert error.tool == function.__name__
    assert error.parameter == parameter
    assert problem in error.problem
    assert remedy in error.remedy
    assert "\n" not in str(error)
    for part in (function.__name__, error.problem, error.remedy, parameter or ""):
        assert part in str(error)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"name": "two words"}, "A-Z"),
        ({"name": ""}, "A-Z"),
        ({"name": "x" * 65}, "A-Z"),
        ({"name": "été"}, "A-Z"),
        ({"timeout": 0}, "timeout = 0"),
        ({"timeout": float("nan")}, "timeout = nan"),
        ({"concurrency": 0}, "concurrency = 0"),
        ({"inline": True, "timeout": 3}, "timed out"),
    ],
    ids=str,
)
def test_options_out_of_range(options: dict[str, Any], problem: str) -> None:
    def get(key: str) -> str:
        return key

    with pytest.raises(ToolDefinitionError, match=problem):
        tool(**options)(get)


def test_inline_is_for_plain_functions() -> None:
    with pytest.raises(ToolDefinitionError, match="async tools never use a thread"):
        tool(inline=True)(async_function)


def test_something_that_is_not_a_function() -> None:
    with pytest.raises(ToolDefinitionError, match="not a function"):
        tool("search")  # type: ignore[call-overload]


def test_a_function_whose_signature_cannot_be_read() -> None:
    assert inspect.isbuiltin(print)
    with pytest.raises(ToolDefinitionError, match=r"dict.*(signature|class)"):
        tool(name="dict")(dict)
    with pytest.raises(ToolDefinitionError, match="no readable signature"):
        tool(name="getattr_")(getattr)


async def test_the_bound_on_calls_belongs_to_the_trio_run() -> None:
    @tool(concurrency=3)
    async def get(key: str) -> str:
        await trio.lowlevel.checkpoint()
        return key

    assert isinstance(get, Tool)
    assert get.limiter is get.limiter
    assert get.limiter is not None
    assert get.limiter.total_tokens == 3
    assert search.limiter is None
    await trio.lowlevel.checkpoint()
