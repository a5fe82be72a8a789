"""The digest, and the fold that computes it turn by turn."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool.emulator import context_digest
from pool.emulator.context import Context, is_listing
from pool.emulator.sealed import seal, unseal
from pool.wire.refusal import Refused

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
contents = texts | st.lists(
    st.fixed_dictionaries({"type": st.sampled_from(["input_text", "output_text"]), "text": texts})
    | st.just({"type": "input_image", "image_url": "data:x"}),
    max_size=3,
)
messages = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "developer"]), "content": contents},
    optional={"type": st.just("message"), "id": texts, "status": st.just("completed")},
)
others = st.sampled_from(["reasoning", "web_search_call", "compaction"]).map(
    lambda kind: {"type": kind, "id": "x"}
)


def calls(call_id: str, arguments: str, output: Any) -> list[dict[str, Any]]:
    return [
        {"type": "function_call", "call_id": call_id, "name": "look", "arguments": arguments, "id": "fc_1"},
        {"type": "function_call_output", "call_id": call_id, "output": output},
    ]


items = st.lists(
    (messages | others).map(lambda item: [item]) | st.builds(calls, texts.filter(bool), texts, contents),
    max_size=8,
).map(lambda groups: [item for group in groups for item in group])


def by_the_book(transcript: list[dict[str, Any]]) -> str:
    """Compute the digest as its definition says, with nothing of the emulator's."""
    lines: list[Any] = []
    for item in transcript:
        kind = item.get("type", "message")
        if kind == "message":
            content = item["content"]
            text = content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
            lines.append(["message", item["role"], text])
        elif kind == "function_call":
            lines.append([kind, item["call_id"], item["name"], item["arguments"]])
        elif kind == "function_call_output":
            lines.append([kind, item["call_id"], item["output"]])
        else:
            lines.append([kind])
    encoded = json.dumps(lines, separators=(",", ":"), ensure_ascii=False).encode()
    return hashlib.sha256(encoded).hexdigest()[:16]


@given(items)
def test_the_digest_is_what_its_definition_says(transcript: list[dict[str, Any]]) -> None:
    assert context_digest(transcript) == by_the_book(transcript)


@given(items, st.data())
def test_folding_in_steps_gives_the_same_digest(
    transcript: list[dict[str, Any]], data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(transcript)))
    start = Context().extended(transcript[:cut])
    whole = start.extended(transcript[cut:])
    assert whole.digest == context_digest(transcript)
    assert start.digest == context_digest(transcript[:cut])  # the start is unchanged
    assert whole.count == len(transcript)


def test_known_values() -> None:
    assert context_digest([]) == hashlib.sha256(b"[]").hexdigest()[:16]
    text = '[["message","user","gr\u00fc\u00df dich\\n"]]'
    assert (
        context_digest([{"role": "user", "content": "gr\u00fc\u00df dich\n"}])
        == hashlib.sha256(text.encode()).hexdigest()[:16]
    )


def test_odd_content_counts_as_no_text() -> None:
    assert context_digest([{"role": "user", "content": None}]) == context_digest(
        [{"role": "user", "content": ""}]
    )
    assert context_digest([{"role": "user", "content": [7, {"text": 7}]}]) == by_the_book(
        [{"role": "user", "content": ""}]
    )


def test_tool_turns_are_counted_since_the_last_user_message() -> None:
    context = Context().extended([{"role": "user", "content": "go"}])
    assert (context.tool_turns, context.answered) == (0, False)
    one, out = calls("a", "{}", "x\ny\nz")
    two, out_two = calls("b", "{}", "plain words here")
    context = context.extended([{"type": "reasoning"}, one, two])
    assert context.tool_turns == 1
    assert list(context.pending) == ["a", "b"]
    context = context.extended([out, out_two])
    assert (context.tool_turns, context.answered, context.pending) == (1, True, {})
    assert context.tool_texts == ("x\ny\nz", "plain words here")
    assert context.listing == "x\ny\nz"
    context = context.extended([calls("c", "{}", "")[0]])
    assert (context.tool_turns, context.tool_texts) == (2, ())
    context = context.extended([calls("c", "{}", "")[1], {"role": "user", "content": "again"}])
    assert context.tool_turns == 0


def test_outputs_need_their_call_and_calls_their_output() -> None:
    call, output = calls("a", "{}", "x")
    with pytest.raises(Refused, match="No tool call found for function call output with call_id a"):
        Context().extended([output])
    with pytest.raises(Refused, match="No tool call found"):
        Context().extended([call, output, output])
    with pytest.raises(Refused, match="No tool output found for function call a"):
        Context().extended([call]).require_answers()
    Context().extended([call, output]).require_answers()


def test_a_compaction_item_carries_what_it_replaces() -> None:
    before = Context().extended([{"role": "user", "content": "go"}, *calls("a", "{}", "x\ny\nz")])
    item = {"type": "compaction", "encrypted_content": before.sealed("resp_1")}
    after = Context().extended([item])
    assert (after.tool_turns, after.answered, after.user_text) == (1, True, "go")
    assert after.listing == before.listing
    assert Context().extended([{"type": "compaction", "encrypted_content": "other"}]).tool_turns == 0


@given(
    st.recursive(st.none() | st.integers(-(2**53), 2**53) | texts, lambda inner: st.lists(inner, max_size=3))
)
def test_what_is_sealed_comes_back(value: Any) -> None:
    assert unseal(seal(value)) == value


@pytest.mark.parametrize(
    "text", ["", "gAAAAAB", "gAAAAAB!!", seal("x")[:-2], seal("x")[1:], seal([1]) + "AAAA"]
)
def test_what_was_altered_does_not(text: str) -> None:
    assert unseal(text) is None


def test_listings() -> None:
    assert is_listing("a.md\nb.md\n\nc d")
    assert not is_listing("one line")
    assert not is_listing("some words here\nand some more\nx")
