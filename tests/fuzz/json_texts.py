"""Strategies for JSON as text: shaped like creates, with wrong types anywhere, and with what is barely JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hypothesis import strategies as st

from pool.wire.codec import to_json

SCALARS = (
    *(b"null", b"true", b"false", b"0", b"-0", b"1", b"-1", b"1.5", b"1e3", b"1E-400", b"9007199254740993"),
    *(
        b"9" * 40,
        b"9" * 5000,
        b"-" + b"9" * 400,
        b"1e308",
        b"0.1e1",
        b'""',
        b'"hello"',
        b'"auto"',
        b'"resp_0"',
    ),
    *(
        rb'"\u0000"',
        rb'"\ud83d\ude00"',
        '"ünïcödé\u2028"'.encode(),
        '"\U0001f600"'.encode(),
        b'"' + b"a" * 3000 + b'"',
    ),
    *(b"[]", b"{}", b"[[]]", b"[null]", b"[" * 50 + b"]" * 50, b'{"a":' * 50 + b"1" + b"}" * 50),
)
# No JSON, or such as not everybody takes
DOUBTFUL = (
    *(
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b"1e999",
        b"01",
        b"+1",
        b".5",
        b"1.",
        b"0x10",
        b"'a'",
        b"undefined",
        b"nul",
    ),
    *(
        rb'"\ud800"',
        rb'"\udc00\ud800"',
        rb'"\uD83D"',
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b'"\x00"',
        b'"\n"',
        rb'"\x"',
        b'"',
    ),
    *(
        b"[",
        b"{",
        b"[1,]",
        b'{"a":1,}',
        b'{"a"}',
        b'{"a":}',
        b"{1:2}",
        b"[1 2]",
        b"/**/1",
        b"\xef\xbb\xbf1",
        b"",
    ),
    *(b"[" * 3000 + b"]" * 3000, b'{"a":' * 3000 + b"1" + b"}" * 3000),
)
NAMES = (
    *(
        "type",
        "model",
        "input",
        "store",
        "stream",
        "stream_id",
        "generate",
        "previous_response_id",
        "background",
    ),
    *(
        "conversation",
        "prompt",
        "include",
        "instructions",
        "tools",
        "tool_choice",
        "metadata",
        "reasoning",
        "text",
    ),
    *(
        "temperature",
        "max_output_tokens",
        "truncation",
        "parallel_tool_calls",
        "service_tier",
        "context_management",
    ),
    *(
        "user",
        "safety_identifier",
        "prompt_cache_key",
        "top_p",
        "stream_options",
        "",
        "__proto__",
        "ünknown",
        "\x00",
    ),
)
ITEM_NAMES = (
    "type",
    "role",
    "content",
    "id",
    "status",
    "call_id",
    "name",
    "arguments",
    "output",
    "summary",
    "text",
)
TYPES = (
    *(
        "message",
        "function_call",
        "function_call_output",
        "reasoning",
        "item_reference",
        "compaction",
        "input_text",
    ),
    *("output_text", "refusal", "custom_tool_call", "computer_call", "mcp_call", "nonsense", ""),
)
scalars = st.sampled_from(SCALARS)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(lambda found: array(found)),
        st.lists(st.tuples(st.sampled_from((*NAMES, *ITEM_NAMES)), inner), max_size=4).map(
            lambda found: members(found)
        ),
    ),
    max_leaves=8,
)
anything = st.one_of(values, values, values, st.sampled_from(DOUBTFUL))


def array(found: Sequence[bytes]) -> bytes:
    """Return an array of these."""
    return b"[" + b",".join(found) + b"]"


def members(found: Sequence[tuple[str, bytes]]) -> bytes:
    """Return an object of these members, in this order, as often as they come."""
    return b"{" + b",".join(to_json(name) + b":" + value for name, value in found) + b"}"


def _texts(*choice: str) -> st.SearchStrategy[bytes]:
    return st.sampled_from([to_json(one) for one in choice])


def _mostly(usual: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return st.one_of(usual, usual, usual, anything)


parts = st.one_of(
    _texts("hello", "", "ünïcödé"),
    st.lists(
        st.lists(
            st.one_of(
                st.tuples(st.just("type"), _mostly(_texts("input_text", "output_text", "refusal"))),
                st.tuples(st.just("text"), _mostly(_texts("hello", ""))),
                st.tuples(st.sampled_from(("annotations", "logprobs", "refusal", "image_url")), anything),
            ),
            max_size=4,
        ).map(members),
        max_size=3,
    ).map(array),
)
items = st.lists(
    st.one_of(
        st.tuples(st.just("type"), _mostly(_texts(*TYPES))),
        st.tuples(st.just("role"), _mostly(_texts("user", "assistant", "system", "developer"))),
        st.tuples(st.just("content"), _mostly(parts)),
        st.tuples(
            st.sampled_from(("id", "call_id", "name", "arguments", "output", "status")),
            _mostly(_texts("a", "b")),
        ),
        st.tuples(st.sampled_from(ITEM_NAMES), anything),
    ),
    max_size=5,
).map(members)
USUAL: dict[str, st.SearchStrategy[bytes]] = {
    "model": _texts("m"),
    "input": st.one_of(_texts("hello", ""), st.lists(_mostly(items), max_size=4).map(array)),
    "store": st.sampled_from([b"true", b"false", b"null"]),
    "stream": st.sampled_from([b"true", b"false", b"null"]),
    "generate": st.sampled_from([b"true", b"false", b"null"]),
    "previous_response_id": st.sampled_from([b"null", b'"resp_0"', b'"resp_' + b"9" * 200 + b'"']),
    "include": st.sampled_from([b'["reasoning.encrypted_content"]', b"[]", b"null"]),
    "instructions": _texts("Be brief.", ""),
    "tools": st.sampled_from(
        [
            b"[]",
            b'[{"type":"function","name":"f","parameters":{"type":"object"}}]',
            b'[{"type":"web_search"}]',
            b"[{}]",
        ]
    ),
    "metadata": st.sampled_from(
        [b"{}", b'{"emulator":"calls=1"}', b'{"emulator":"reasoning=1"}', b'{"emulator":"x=y"}']
    ),
    "reasoning": st.sampled_from([b"{}", b'{"effort":"low","summary":"auto"}', b"null"]),
    "max_output_tokens": st.sampled_from([b"1", b"16", b"0", b"-1", b"1e3", b"9" * 30 + b""]),
}


@st.composite
def creates(
    draw: st.DrawFn, first: Callable[[st.DrawFn], Sequence[tuple[str, bytes]]] | None = None
) -> bytes:
    """Return the text of a create, right or wrong."""
    given = list(first(draw)) if first else []
    for name in ("model", "input"):
        if draw(st.integers(0, 9)):
            given.append((name, draw(_mostly(USUAL[name]))))
    for name in draw(st.lists(st.sampled_from(sorted(USUAL)), max_size=4)):
        given.append((name, draw(_mostly(USUAL[name]))))
    for name in draw(st.lists(st.sampled_from(NAMES), max_size=2)):
        given.append((name, draw(anything)))
    return members(given)
