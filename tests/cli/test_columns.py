"""Tables as text: full names within eighty columns, and nothing cut off where there is no width."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.commands.columns import lines_of
from scheduler.gateway.tables import COLUMNS

KEY = "key-1a2b3c4d"
RESPONSE = "resp_" + "0123456789abcdef" * 3
ROWS: dict[str, list[list[Any]]] = {
    "pools": [
        [KEY, "probing", 120, 8, 1, 100, 128, 100, 1234, 345, 6789],
        ["gateway", "active", 1, 1, 0, 0, 1, 1, 0, 0, 0],
    ],
    "connections": [[KEY, "conn-1234", "draining", 3298.1, 12.5, 16, 32, 32]],
    "lanes": [[KEY, "conn-1234", "lane-32", "abandoned", "conversation-12345/fork", 1234.5]],
    "conversations": [[KEY, "conversation-12345", "gpt-6-astra", RESPONSE, 1234, 123_456, 512.5]],
    "waiters": [[KEY, "conversation-12345/fork", "own lane", "conn-1234/lane-32", 12, 1234.5]],
}


@pytest.mark.parametrize("what", sorted(ROWS))
def test_names_are_whole_in_eighty_columns(what: str) -> None:
    columns = ("upstream", *COLUMNS[what])
    lines = list(lines_of(columns, ROWS[what], 80))
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == list(columns)
    for line, row in zip(lines[1:], ROWS[what], strict=True):  # none takes a second line
        assert line.startswith(f"{row[0]} ")
        for name in (cell for cell in row if isinstance(cell, str) and cell != RESPONSE):
            assert name in line


def test_without_a_width_nothing_is_cut_off() -> None:
    header, line = lines_of(("upstream", *COLUMNS["conversations"]), ROWS["conversations"], None)
    assert RESPONSE in line
    assert line.endswith("1,234  123,456  512.5")
    assert header.index("idle") + len("idle") == len(line)


def test_a_long_text_goes_on_below_and_an_id_is_cut_off() -> None:
    lines = list(lines_of(("name", "value"), [["spool", "/a" * 40], ["x", None]], 50))
    assert [line[6:] for line in lines] == ["value", "/a" * 22, "/a" * 18, "-"]
    assert lines[3].startswith("x")
    header, line = lines_of(("response",), [[RESPONSE]], 20)
    assert (header, line) == ("response", RESPONSE[:19] + "…")


def test_values_as_people_read_them() -> None:
    rows = [["a", 1234567, 1234.56, None, True], ["bb", 1, 0.0, 7, False]]
    assert list(lines_of(("n", "count", "s", "none", "is"), rows, 80)) == [
        "n       count        s  none     is",
        "a   1,234,567  1,234.6     -   True",
        "bb          1      0.0     7  False",
    ]
    assert list(lines_of(("a", "b"), [], 80)) == ["a  b"]


def test_what_a_client_has_named_moves_no_cursor() -> None:
    _, line = lines_of(("model",), [["gpt\x1b[2J\r\n[bold]x[/bold]"]], 80)
    assert line == r"gpt\u001b[2J\u000d\u000a[bold]x[/bold]"


@given(
    st.integers(1, 6).flatmap(
        lambda count: st.lists(
            st.lists(
                st.one_of(st.integers(0, 10**6), st.none(), st.text("abc /", max_size=60)),
                min_size=count,
                max_size=count,
            ),
            min_size=1,
            max_size=5,
        )
    )
)
def test_it_is_never_wider_than_it_may_be(rows: list[list[Any]]) -> None:
    columns = [f"c{number}" for number in range(len(rows[0]))]
    assert max(map(len, lines_of(columns, rows, 80))) <= 80
