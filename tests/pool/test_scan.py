"""Long JSON is taken apart as the JSON library does it, in slices that are short, no further than is sane."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool.wire import scan
from pool.wire.codec import split_array, split_object
from pool.wire.scan import Excess, complete, long_strings, outline
from pool.wire.slices import COPY, SLICE, Meter, at_once, copied, joined

MANY = 10**9
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**6), 10**6)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=90),
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3).map(ascii), inner, max_size=4)
    ),
    max_leaves=30,
)
NAMES = st.sampled_from(["input", "model", "tools", "é\n"])
STYLES = st.sampled_from([(None, (",", ":")), (None, (" , ", " : ")), (1, (",", ":")), (30, None)])
JUNK = b'{}[],:"\\ 019.-+eEtfnu\x00\x01\xff\xc3'


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look through windows that texts of a test do not fit."""
    monkeypatch.setattr(scan, "WINDOW", 64)
    monkeypatch.setattr(scan, "_LEAST_WINDOW", 16)
    monkeypatch.setattr(scan, "LONG", 80)


def by_library(text: bytes) -> dict[str, bytes] | None:
    try:
        return {name: part.text for name, part in split_object(text).items()}
    except (ValueError, RecursionError):
        return None


def by_scan(text: bytes) -> dict[str, bytes] | None:
    try:
        parts = at_once(outline(text, "input", MANY))
    except ValueError:
        return None
    given = parts.get("input")
    if given is not None and text[given.start : given.start + 1] == b"[":
        assert given.elements is not None
        elements = [text[start:end] for start, end in given.elements]
        assert elements == [part.text for part in split_array(text[given.start : given.end])]
    return {name: text[part.start : part.end] for name, part in parts.items()}


@pytest.mark.usefixtures("narrow")
class TestAgainstTheLibrary:
    @given(st.dictionaries(NAMES, JSON, max_size=4), STYLES, st.booleans())
    def test_it_finds_the_same_members_and_elements(
        self, value: dict[str, Any], style: tuple[int | None, Any], plain: bool
    ) -> None:
        text = json.dumps(value, indent=style[0], separators=style[1], ensure_ascii=plain).encode()
        assert by_scan(text) == by_library(text) != None  # noqa: E711 - both are there

    @given(
        st.dictionaries(NAMES, JSON, min_size=1, max_size=4),
        st.lists(st.tuples(st.floats(0, 1), st.sampled_from("dri"), st.sampled_from(JUNK)), max_size=3),
    )
    def test_it_accepts_the_same_texts(
        self, value: dict[str, Any], changes: list[tuple[float, str, int]]
    ) -> None:
        text = bytearray(json.dumps(value, ensure_ascii=False).encode())
        for where, how, byte in changes:
            at = int(where * (len(text) - 1)) if text else 0
            if how == "d":
                del text[at : at + 1]
            elif how == "r":
                text[at : at + 1] = bytes([byte])
            else:
                text.insert(at, byte)
        assert by_scan(bytes(text)) == by_library(bytes(text))

    @given(st.text(st.characters(exclude_categories=["Cs"]), max_size=400), st.booleans())
    def test_long_strings_are_found_whole(self, text: str, plain: bool) -> None:
        written = json.dumps({"a": [{"b": text}], "c": 1}, ensure_ascii=plain).encode()
        raw = json.dumps(text, ensure_ascii=plain).encode()[1:-1]
        found = [written[start:end] for start, end in at_once(long_strings(written))]
        assert found == ([raw] if len(raw) >= scan.LONG else [])

    @given(st.text(st.characters(exclude_categories=["Cs"]), min_size=30), st.booleans(), st.integers(13, 60))
    def test_a_string_is_cut_where_that_can_be_read(self, text: str, plain: bool, piece: int) -> None:
        raw = json.dumps(text, ensure_ascii=plain).encode()[1:-1]
        start, parts = 0, list[str]()
        while start < len(raw):
            end = complete(raw, start, min(start + piece, len(raw)))
            assert start < end
            parts.append(json.loads(b'"' + raw[start:end] + b'"'))
            start = end
        assert "".join(parts) == text


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"  ",
        b"[]",
        b"1",
        b"{",
        b'{"a":',
        b'{"a":1',
        b'{"a" 1}',
        b"{a:1}",
        b'{"a":1}{',
        b'{"a":1,}',
        b'{,"a":1}',
        b'{"a":[1,]}',
        b'{"a":[1}}',
        b'{"a":"' + b"x" * 100_000,
        b'{"a":"' + b"x" * 100_000 + b'\\x"}',
        b'{"a":"' + b"x" * 100_000 + b'\n"}',
        b'{"a":' + b"1" * 100_000 + b"}",
        b'{"a":"\xff"}',
        b'{"a":"' + b"x" * 300_000 + b'\xff"}',
    ],
    ids=lambda text: text[:20],
)
def test_what_is_no_json_object(text: bytes) -> None:
    with pytest.raises(ValueError):
        at_once(outline(text, "input", MANY))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b'{"input":[' + b"{}," * 10 + b"{}]}", "'input' has over 10"),
        (b'{"input":[' + b"1," * 10 + b"1]}", "'input' has over 10"),
        (b'{"' + b"x" * 2000 + b'":1}', "name is over 1024"),
        (b'{"' + b"x" * 100_000 + b'":1}', "name is over 1024"),
        (b"{" + b",".join(b'"%d":1' % number for number in range(1100)) + b"}", "more than 1000 parameters"),
        (b'{"a":' + b"[" * 600 + b"]" * 600 + b"}", "nested more than 512"),
        (b'{"a":[' + (b"[" * 400 + b"]" * 400 + b",") * 700 + b"1]}", "more than 500000 brackets"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_beyond_reason(text: bytes, says: str) -> None:
    with pytest.raises(Excess, match=says):
        at_once(outline(text, "input", 10))


LARGE = 6_000_000
DENSE: dict[str, Callable[[], bytes]] = {
    "a text": lambda: b'{"input":[{"a":"' + b"x" * LARGE + b'"}]}',
    "escapes": lambda: b'{"input":[{"a":"' + b"\\n" * (LARGE // 2) + b'"}]}',
    "numbers": lambda: b'{"input":[{"a":[' + b"1," * (LARGE // 2) + b"1]}]}",
    "brackets": lambda: b'{"input":[{"a":[' + b"[]," * (LARGE // 3) + b"1]}]}",
    "members": lambda: b'{"input":[{"a":{' + b'"k":1,' * (LARGE // 6) + b'"k":1}}]}',
    "spaces": lambda: b'{"input":[' + b" " * LARGE + b"]}",
    "saw teeth": lambda: b'{"input":[{"a":[' + (b"[" * 40 + b"]" * 40 + b",") * (LARGE // 8000) + b"1]}]}",
    "a name": lambda: b'{"input":[{"' + b"x" * LARGE + b'":1}]}',
}


@pytest.mark.parametrize("name", DENSE)
def test_no_slice_goes_far(name: str) -> None:
    text = DENSE[name]()
    walk = scan._Walk(text, members=True, name="input", most=MANY)
    work, at, steps, farthest, most = walk.run(), 0, 0, 0, 0
    while True:
        done = next(work, "done")
        farthest, most = max(farthest, walk._at - at), max(most, walk.steps - steps)
        at, steps = walk._at, walk.steps
        if done is not None:
            break
    assert at == len(text)
    # A long string counts when it has been passed; how far it is walked through at a time is tested below.
    assert farthest <= 400_000 or name in ("a text", "escapes", "a name")
    assert most <= SLICE / scan._STEP + 1


@pytest.mark.parametrize("name", ["a text", "escapes", "a name"])
def test_a_long_string_is_walked_through_in_slices(name: str) -> None:
    text = DENSE[name]()
    slices = sum(1 for _ in scan._Walk(text, members=True, name="input", most=MANY).run())
    assert slices >= LARGE * scan._PLAIN_BYTE / SLICE - 1
    assert sum(1 for _ in outline(text, "input", MANY)) > slices  # its encoding is checked in slices, too


@pytest.mark.parametrize("size", [0, 10, COPY, COPY + 1, 3 * COPY + 7])
def test_copies_and_joins_are_made_in_slices(size: int) -> None:
    text = bytes(range(256)) * (size // 256 + 1)
    assert at_once(copied(text, 1, 1 + size, Meter())) == text[1 : 1 + size]
    parts = [text[:size], b"", text[: size // 2], *[b"x"] * 3]
    assert at_once(joined(parts, Meter())) == b"".join(parts)
    large = bytes(40 * COPY)
    for work in (
        copied(large, 0, len(large), Meter()),
        joined([large], Meter()),
        joined([b"x" * 9] * 60_000, Meter()),
    ):
        assert sum(1 for _ in work) >= 10
