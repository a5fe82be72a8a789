"""What is sent: whole frames, and changes that come to the same."""

from __future__ import annotations

import copy
import itertools

from hypothesis import given
from hypothesis import strategies as st

from pool.wire.codec import from_json, to_json
from scheduler.dashboard.feed import changes, merge, whole

KEYS = st.sampled_from(["1", "2", "3", "4"])
VALUES = st.lists(st.integers(0, 2), max_size=2)
FRAMES = st.fixed_dictionaries(
    {
        "now": st.integers(0, 9),
        "verdict": VALUES,
        "conns": st.dictionaries(KEYS, VALUES),
        "rows": st.dictionaries(KEYS, VALUES),
    }
)


@given(st.lists(FRAMES, min_size=1, max_size=8))
def test_changes_make_every_frame_out_of_the_one_before(frames: list[dict[str, object]]) -> None:
    seen = merge(None, from_json(to_json(whole(frames[0]))))
    assert seen == frames[0]
    for before, after in itertools.pairwise(frames):
        untouched = copy.deepcopy(seen)
        merged = merge(seen, from_json(to_json(changes(before, after))))
        assert merged == after
        assert seen == untouched, "a frame is a value"
        seen = merged


def test_what_stands_still_is_not_sent() -> None:
    before = {"now": 1, "verdict": ["ok"], "conns": {"1": [1], "2": [2]}, "rows": {}}
    after = {"now": 2, "verdict": ["ok"], "conns": {"2": [2], "3": [3]}, "rows": {}}
    assert changes(before, after) == {"now": 2, "conns": {"3": [3]}, "gone": {"conns": ["1"]}}


def test_a_whole_frame_replaces_everything() -> None:
    old = {"now": 1, "conns": {"1": [1]}, "rows": {}, "extra": True}
    new = {"now": 2, "conns": {}, "rows": {}}
    assert merge(old, whole(new)) == new
