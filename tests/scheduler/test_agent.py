"""An agent is a value: what it tells the server, and what it refuses, with the field's name."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import attrs
import pytest

from pool.errors import SettingsError
from scheduler.agent import Agent
from scheduler.errors import ToolDefinitionError
from scheduler.tools import Tool, tool
from tests.support.fake_conversation import a_turn, scripted


@tool
def search(query: str) -> str:
    """Search."""
    return query


def plain(path: str) -> str:
    """Read."""
    return path


@dataclasses.dataclass
class Answer:
    text: str
    score: int


def test_the_request_says_everything_once() -> None:
    agent = Agent(
        model="gpt-5.4",
        instructions="Be brief.",
        tools=[search, plain, {"type": "web_search"}],
        options={"reasoning": {"effort": "low"}, "metadata": {"team": "a"}},
        compact_threshold=1000,
    )
    request = agent.request()
    assert (request.model, request.instructions) == ("gpt-5.4", "Be brief.")
    assert [entry.get("name", entry["type"]) for entry in request.tools] == ["search", "plain", "web_search"]
    assert request.options == {
        "reasoning": {"effort": "low"},
        "metadata": {"team": "a"},
        "context_management": [{"type": "compaction", "compact_threshold": 1000}],
    }
    assert agent.request() is request, "runs without metadata of their own share the encoding"
    assert agent.request({}) is request
    assert isinstance(agent.tools[1], Tool)
    assert list(agent.toolbox.tools) == ["search", "plain"]


def test_metadata_of_a_run_is_added_to_the_agents() -> None:
    agent = Agent(model="m", options={"metadata": {"team": "a", "task": "-"}})
    assert agent.request({"task": "7"}).options["metadata"] == {"team": "a", "task": "7"}
    assert agent.request().options["metadata"] == {"team": "a", "task": "-"}


def test_an_output_type_is_asked_for_beside_other_text_options() -> None:
    agent = Agent(model="m", output_type=Answer, options={"text": {"verbosity": "low"}})
    text = agent.request().options["text"]
    assert text["verbosity"] == "low"
    assert (text["format"]["type"], text["format"]["name"]) == ("json_schema", "Answer")
    assert Agent(model="m", output_type=str).output_format is None


def test_limits_reach_the_toolbox() -> None:
    box = Agent(model="m", tool_timeout=5, tool_concurrency=3, tool_output_limit=9).toolbox
    assert (box.timeout, box.concurrency, box.output_limit) == (5, 3, 9)
    assert Agent(model="m", tool_timeout=None).toolbox.timeout == float("inf")


@pytest.mark.parametrize(
    ("settings", "field", "remedy"),
    [
        ({"model": ""}, "model", "not empty"),
        ({"model": None}, "model", "not empty"),
        ({"name": " "}, "name", "not empty"),
        ({"instructions": ["a"]}, "instructions", "a text"),
        ({"max_turns": 0}, "max_turns", "at least 1"),
        ({"max_turns": True}, "max_turns", "whole number"),
        ({"max_tokens": 0}, "max_tokens", "at least 1"),
        ({"output_retries": -1}, "output_retries", "at least 0"),
        ({"tool_timeout": 0}, "tool_timeout", "above 0"),
        ({"tool_timeout": "5"}, "tool_timeout", "above 0"),
        ({"tool_concurrency": 0}, "tool_concurrency", "at least 1"),
        ({"tool_output_limit": 0}, "tool_output_limit", "at least 1"),
        ({"compact_threshold": 1.5}, "compact_threshold", "whole number"),
        ({"options": []}, "options", "a mapping"),
        ({"options": {"model": "x"}}, "options['model']", "Agent(model="),
        ({"options": {"stream": True}}, "options['stream']", "every turn streams"),
        ({"options": {"previous_response_id": "r"}}, "options['previous_response_id']", "conversation"),
        ({"tools": search}, "tools", "a sequence"),
        ({"tools": 5}, "tools", "a sequence"),
        ({"tools": [{"name": "x"}]}, "tools", '"type"'),
        ({"tools": [{"type": "function", "name": "x"}]}, "tools", "@tool"),
        ({"output_type": complex}, "output_type", "cannot be told"),
        (
            {"output_type": Answer, "options": {"text": {"format": {}}}},
            "options['text']['format']",
            "one of them",
        ),
        (
            {"compact_threshold": 5, "options": {"context_management": []}},
            "options['context_management']",
            "one of them",
        ),
    ],
    ids=str,
)
def test_settings_out_of_range_name_the_field_and_the_remedy(
    settings: dict[str, Any], field: str, remedy: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        Agent(**{"model": "m", **settings})
    assert caught.value.field == field
    assert remedy in caught.value.remedy


def test_two_tools_of_one_name() -> None:
    with pytest.raises(ToolDefinitionError, match=r"agent 'helper' has two tools of this name.*name="):
        Agent(model="m", name="helper", tools=[search, tool(name="search")(plain)])


def test_a_tool_that_cannot_be_offered_fails_with_the_agent() -> None:
    def bare(path) -> str:  # type: ignore[no-untyped-def]  # noqa: ANN001
        return str(path)

    with pytest.raises(ToolDefinitionError, match="no type hint"):
        Agent(model="m", tools=[bare])


def test_a_variant_is_an_agent_of_its_own() -> None:
    agent = Agent(model="m", tools=[search], max_turns=3)
    other = attrs.evolve(agent, model="n", tools=[*agent.tools, plain])
    assert (other.request().model, other.max_turns, list(other.toolbox.tools)) == (
        "n",
        3,
        ["search", "plain"],
    )
    assert (agent.request().model, list(agent.toolbox.tools)) == ("m", ["search"])


def test_its_repr_is_short() -> None:
    agent = Agent(model="m", instructions="long" * 1000, tools=[search])
    assert len(repr(agent)) < 500


def test_the_document_names_every_setting_with_its_default() -> None:
    text = (Path(__file__).parents[2] / "docs" / "agents.md").read_text()
    table = text.split("## Settings of `Agent`", 1)[1].split("\n## ", 1)[0]
    told = dict(re.findall(r"^\| `(\w+)` \| ([^|]*?) \|", table, re.MULTILINE))
    assert told == {"model": "required"} | {
        entry.name: str(getattr(Agent(model="m"), entry.name))
        for entry in attrs.fields(Agent)
        if entry.init and entry.name != "model"
    }


async def test_running_is_its_own_method_too() -> None:
    fake = scripted(a_turn("hello"))
    result = await Agent(model="m", store=True).run(fake.real, "hi")
    assert (result.output, fake.only.given, fake.store) == ("hello", ["hi"], True)
