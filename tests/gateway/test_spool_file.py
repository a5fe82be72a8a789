"""The file of a spool: finds what the library would, shares pages, keeps within its bounds, and survives damage."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pool.errors import SettingsError
from pool.wire.codec import encoded
from pool.wire.events import Encoded
from scheduler.gateway.library import History, Library, Point
from scheduler.gateway.marks import Mark
from scheduler.gateway.spool_file import SpoolFile
from scheduler.gateway.spool_rows import Stored
from scheduler.gateway.spool_schema import NAME
from tests.gateway.test_library import marks, point, say, think

MIB = 1024 * 1024
REALM = "wss://server/v1/responses"


@contextmanager
def spooled(
    folder: Path, *points: Point, now: float = 0.0, max_bytes: int = 64 * MIB, max_age: float | None = None
) -> Iterator[SpoolFile]:
    with closing(SpoolFile.open(folder, max_bytes=max_bytes, max_age=max_age)) as file:
        keep(file, *points, now=now)
        yield file


def keep(file: SpoolFile, *points: Point, now: float = 0.0) -> None:
    file.write([(file.scope(one.owner, REALM), one) for one in points], [], now)


def texts(found: Stored) -> list[Encoded]:
    return [item for page in found.pages for item in page.items]


def recall(file: SpoolFile, name: str, owner: str = "me", realm: str = REALM) -> Stored | None:
    return file.recall(file.scope(owner, realm), name)


def find(
    file: SpoolFile, *items: dict[str, Any], owner: str = "me", beyond: int = 0
) -> tuple[str, int] | None:
    found = file.find(file.scope(owner, REALM), History(owner, "m", marks(*items)), beyond)
    return None if found is None else (found[0].response_id, found[1])


def counts(file: SpoolFile) -> tuple[int, ...]:
    with closing(sqlite3.connect(file.path)) as other:
        return tuple(
            other.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("points", "pages", "heads", "marks")
        )


def test_what_was_kept_is_there_when_the_file_is_opened_again(tmp_path: Path) -> None:
    item = {"msg_1": Mark(b"d" * 16), "rs_1": Mark(b"", (b"e" * 16, b"f" * 16))}
    one = point("one", say("a"), think(1), say("b"), items=item, tokens=7)
    two = point("two", say("c"), before=one, warm_up=True)
    with spooled(tmp_path, one, two):
        pass
    with spooled(tmp_path) as file:
        first, second = recall(file, "one"), recall(file, "two")
        assert first is not None
        assert second is not None
        assert texts(first) == one.page.transcript
        assert texts(second) == two.page.transcript
        assert (first.model, first.heads, first.tokens, first.store, first.warm_up) == (
            *("m", one.heads, 7, False, False),
        )
        assert first.items == item
        assert second.warm_up
        assert [page.evidence for page in second.pages] == [one.page.evidence, two.page.evidence]
        assert file.marks(file.scope("me", REALM), ["rs_1", "msg_1", "msg_2"]) == item
        assert find(file, *map(say, "ab"), say("x")) == ("one", 2)
        assert find(file, say("a"), think(1), say("b"), say("c")) == ("two", 4)
        assert find(file, say("a"), think(2), say("b"), say("x")) is None
        assert find(file, *map(say, "ab"), say("x"), beyond=2) is None


def test_nothing_is_found_for_another_caller_or_of_another_server(tmp_path: Path) -> None:
    one = point("one", say("a"), say("b"), items={"msg_1": Mark(b"d" * 16)})
    with spooled(tmp_path, one) as file:
        assert recall(file, "one", owner="you") is None
        assert recall(file, "one", realm="wss://other/v1/responses") is None
        assert find(file, *map(say, "abc"), owner="you") is None
        # Not even by somebody whose history has the very same hash, were that possible.
        mine = History("me", "m", marks(*map(say, "abc")))
        assert file.find(file.scope("you", REALM), mine, 0) is None
        assert file.marks(file.scope("you", REALM), ["msg_1"]) == {}
        names = ["one", "two", "msg_1"]
        assert file.owners(file.scope("you", REALM), names) == {"one": False, "msg_1": False}
        assert file.owners(file.scope("me", REALM), names) == {"one": True, "msg_1": True}
        assert file.owners(file.scope("you", "wss://other/v1/responses"), names) == {}
        keep(file, point("one", say("x"), owner="you"))
        assert file.owners(file.scope("you", REALM), ["one"]) == {"one": True}
        assert find(file, *map(say, "abc")) == ("one", 2)


def test_whose_it_is_cannot_be_read_from_the_file(tmp_path: Path) -> None:
    owner = "8cb460c94de2cb3fb65f4f408d8c7297a9a31a07d92016f4bd702a751b85b31b"
    with spooled(tmp_path / "a", point("one", say("a"), owner=owner)) as file:
        one = file.scope(owner, REALM)
    with spooled(tmp_path / "b") as file:
        assert file.scope(owner, REALM) != one  # the digest's key is the file's own
    for path in (tmp_path / "a").iterdir():
        content = path.read_bytes()
        assert owner.encode() not in content
        assert bytes.fromhex(owner)[:8] not in content


def test_branches_share_what_they_have_in_common(tmp_path: Path) -> None:
    trunk = point("trunk", say("a" * 5000))
    with spooled(tmp_path, trunk) as file:
        before = file.size
        for number in range(20):
            keep(file, point(f"branch {number}", say("b"), before=trunk))
        assert file.size - before < 20 * 5000 / 2
        assert counts(file)[:2] == (21, 21)
        file.write([], [(file.scope("me", REALM), "trunk")], 1)  # its page stays: others build on it
        assert recall(file, "trunk") is None
        assert counts(file)[:2] == (20, 21)
        file.write([], [(file.scope("me", REALM), f"branch {number}") for number in range(20)], 1)
        assert counts(file) == (0, 0, 0, 0)


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    points = [point(f"r{number}", say(f"{number:02}" * 30_000)) for number in range(40)]
    with spooled(tmp_path, max_bytes=MIB) as file:
        for now, one in enumerate(points[:10]):
            keep(file, one, now=now)
        keep(file, points[0], now=10)  # used again
        for now, one in enumerate(points[10:20], 11):
            keep(file, one, now=now)
            assert file.size <= MIB
        left = [number for number in range(20) if recall(file, f"r{number}") is not None]
        assert left == [0, *range(20 - len(left) + 1, 20)]
        assert 13 < len(left) < 18
        for now, one in enumerate(points[20:], 21):
            keep(file, one, now=now)
            assert file.size <= MIB
            assert file.path.stat().st_size <= 1.3 * MIB
    with spooled(tmp_path, max_bytes=MIB // 4) as file:  # told to be smaller, it becomes so
        assert file.size <= MIB // 4
        assert recall(file, "r39") is not None


def test_a_turn_too_large_for_the_spool_pushes_nothing_out(tmp_path: Path) -> None:
    with spooled(tmp_path, point("small", say("a")), max_bytes=MIB) as file:
        large = point("large", say("b" * (MIB // 2)))
        done = file.write([(file.scope("me", REALM), large)], [], 1)
        assert (done.kept, done.removed) == (0, 0)
        assert recall(file, "large") is None
        assert recall(file, "small") is not None


def test_what_is_too_old_goes(tmp_path: Path) -> None:
    one, two = point("one", say("a")), point("two", say("b"))
    with spooled(tmp_path, one, two, max_age=60) as file:
        keep(file, two, now=50)
        assert file.write([], [], 61).removed == 1
        assert recall(file, "one") is None
        assert recall(file, "two") is not None
        assert file.write([], [], 111).removed == 1


def test_an_id_given_twice_counts_the_second_time(tmp_path: Path) -> None:
    with spooled(tmp_path, point("one", say("a"), say("b")), point("one", say("c"), say("d"))) as file:
        found = recall(file, "one")
        assert found is not None
        assert texts(found) == [encoded(say("c")), encoded(say("d"))]
        assert counts(file)[:3] == (1, 1, 1)


def test_two_gateways_share_a_file(tmp_path: Path) -> None:
    one = point("one", say("a"), say("b"))
    with spooled(tmp_path, one) as old, spooled(tmp_path) as new:
        keep(old, point("two", say("c"), say("d"), before=one))
        assert find(new, *map(say, "abcde")) == ("two", 4)
        new.write([], [(new.scope("me", REALM), "one"), (new.scope("me", REALM), "two")], 1)
        # What the other one has removed is written once more with what builds on it.
        keep(old, point("three", say("e"), before=one))
        assert find(new, *map(say, "abex")) == ("three", 3)
        found = recall(new, "three")
        assert found is not None
        assert texts(found) == [encoded(say(word)) for word in "abe"]


def test_the_file_is_open_to_its_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "spool"
    before = os.umask(0)
    try:
        with spooled(folder, point("one", say("a"))):
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
            assert modes == dict.fromkeys((NAME, f"{NAME}-wal", f"{NAME}-shm"), 0o600)
    finally:
        os.umask(before)


@pytest.mark.parametrize("tear", ["a byte", "a page", "an ancestor"])
def test_a_transcript_that_is_damaged_is_not_found_and_goes(tmp_path: Path, tear: str) -> None:
    one = point("one", say("a"), say("b"))
    two, other = point("two", say("c"), say("d"), before=one), point("other", say("x"))
    with spooled(tmp_path, one, two, other):
        pass
    with closing(sqlite3.connect(tmp_path / NAME)) as vandal, vandal:
        if tear == "a byte":
            vandal.execute(
                "UPDATE pages SET items = CAST(replace(CAST(items AS TEXT), '\"d\"', '\"e\"') AS BLOB)"
            )
        elif tear == "a page":
            vandal.execute("DELETE FROM pages WHERE id = 2")
        else:
            vandal.execute("UPDATE pages SET before = 2 WHERE id = 1")
    with spooled(tmp_path) as file:
        file.damaged = 0
        assert recall(file, "two") is None
        assert file.damaged == 1
        assert recall(file, "other") is not None
        # With the longer one gone, the history is found as far as it is whole.
        assert find(file, *map(say, "abcde")) == (("one", 2) if tear != "an ancestor" else None)
        file.write([], [], 1)
        assert counts(file)[0] == (2 if tear != "an ancestor" else 1)


@pytest.mark.parametrize("damage", [b"\0" * 512, None], ids=["zeros", "overwritten in the middle"])
def test_a_file_that_is_no_database_any_more_is_made_anew(tmp_path: Path, damage: bytes | None) -> None:
    many = [point(f"r{number}", say("a" * 5000)) for number in range(50)]
    with spooled(tmp_path, *many):
        pass
    path = tmp_path / NAME
    content = path.read_bytes()
    path.write_bytes(content[:100] + b"\xff" * (len(content) - 100) if damage is None else damage)
    with spooled(tmp_path) as file:
        assert file.damaged == 1
        assert recall(file, "r1") is None
        keep(file, *many)
        assert recall(file, "r1") is not None


def test_damage_that_is_met_on_the_way_makes_the_file_anew(tmp_path: Path) -> None:
    many = [point(f"r{number}", say(f"{number}" * 3000)) for number in range(200)]
    with spooled(tmp_path, *many):
        pass
    path = tmp_path / NAME
    content = path.read_bytes()
    keeps = 64 * 1024  # the tables are still known, but not what is in them
    path.write_bytes(content[:keeps] + b"\xff" * (len(content) - keeps))
    with closing(SpoolFile.open(tmp_path, max_bytes=64 * MIB)) as file:

        def forget_all() -> None:
            with file.ready():
                file.write([], [(file.scope("me", REALM), one.response_id) for one in many], 1)

        with pytest.raises(sqlite3.DatabaseError):
            forget_all()
        assert not path.exists()
        with file.ready():
            keep(file, *many)
            assert recall(file, "r7") is not None
        assert file.damaged >= 1


@pytest.mark.parametrize("content", ["text", "database"])
def test_what_is_somebody_else_s_is_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / NAME
    if content == "text":
        path.write_text("my notes " * 100)
    else:
        with closing(sqlite3.connect(path)) as other, other:
            other.execute("CREATE TABLE mine (x)")
    before = path.read_bytes()
    with pytest.raises(SettingsError, match="is no spool of warmline's; name another directory"):
        SpoolFile.open(tmp_path, max_bytes=MIB)
    assert path.read_bytes() == before


def test_a_spool_of_another_version_is_not_touched(tmp_path: Path) -> None:
    with spooled(tmp_path):
        pass
    with closing(sqlite3.connect(tmp_path / NAME)) as other, other:
        other.execute("PRAGMA user_version = 9")
    with pytest.raises(SettingsError, match="has version 9, this warmline knows 2"):
        SpoolFile.open(tmp_path, max_bytes=MIB)


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="is no directory"):
        SpoolFile.open(tmp_path / "file", max_bytes=MIB)
    (tmp_path / "folder" / NAME).mkdir(parents=True)
    (tmp_path / "folder").chmod(0o700)
    with pytest.raises(SettingsError, match="is no spool"):
        SpoolFile.open(tmp_path / "folder", max_bytes=MIB)
    (tmp_path / "everybody").mkdir()
    (tmp_path / "everybody").chmod(0o777)
    with pytest.raises(SettingsError, match="chmod 700"):
        SpoolFile.open(tmp_path / "everybody", max_bytes=MIB)
    (tmp_path / "linked").symlink_to(tmp_path / "own")
    (tmp_path / "own").mkdir(mode=0o755)
    with spooled(tmp_path / "linked", point("one", say("a"))) as file:  # as systemd's StateDirectory=
        assert recall(file, "one") is not None


def test_a_transaction_that_fails_changes_nothing(tmp_path: Path) -> None:
    one = point("one", say("a"))
    with spooled(tmp_path, one) as file, closing(sqlite3.connect(file.path)) as other:
        other.execute("CREATE TRIGGER full BEFORE INSERT ON heads BEGIN SELECT RAISE(ABORT, 'no'); END")
        with pytest.raises(sqlite3.IntegrityError):
            file.write(
                [(file.scope("me", REALM), point("two", say("b"), before=one))],
                [(file.scope("me", REALM), "one")],
                1,
            )
        assert recall(file, "one") is not None
        assert counts(file)[:2] == (1, 1)
        other.execute("DROP TRIGGER full")
        keep(file, point("two", say("b"), before=one))
        assert recall(file, "two") is not None


class Lives(RuleBasedStateMachine):
    """Points come, branch, are used and go, through two gateways with one file; a library knows what to find."""

    @initialize(small=st.booleans())
    def open(self, small: bool) -> None:
        self.folder = TemporaryDirectory()
        self.max_bytes = MIB if small else 64 * MIB
        self.files = [
            SpoolFile.open(Path(self.folder.name) / "s", max_bytes=self.max_bytes) for _ in range(2)
        ]
        self.library = Library(64 * MIB, 1000)
        self.small = small
        self.known: dict[str, Point] = {}
        self.serial = 0
        self.now = 0.0

    def file(self, data: st.DataObject) -> SpoolFile:
        return data.draw(st.sampled_from(self.files))

    def keep(self, data: st.DataObject, *points: Point) -> None:
        self.now += 1
        keep(self.file(data), *points, now=self.now)
        for one in points:
            if one.response_id not in self.known:
                self.library.add(one)
            self.known[one.response_id] = one

    @rule(data=st.data(), words=st.lists(st.sampled_from("ab"), min_size=1, max_size=3), heavy=st.booleans())
    def go_on(self, data: st.DataObject, words: list[str], heavy: bool) -> None:
        before = data.draw(st.sampled_from([None, *self.known.values()]))
        items = [say(word * (30_000 if heavy else 1)) for word in words]
        self.serial += 1
        self.keep(data, point(f"r{self.serial}", *items, before=before))

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def again(self, data: st.DataObject) -> None:
        self.keep(data, *data.draw(st.lists(st.sampled_from(list(self.known.values())), max_size=3)))

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        file = self.file(data)
        one = data.draw(st.sampled_from(list(self.known.values())))
        file.write([], [(file.scope("me", REALM), one.response_id)], self.now)
        self.library.drop(self.known.pop(one.response_id))

    @rule(which=st.integers(0, 1))
    def reopen(self, which: int) -> None:
        self.files[which].reopen()

    @rule(data=st.data(), words=st.lists(st.sampled_from("ab"), max_size=6))
    def find(self, data: st.DataObject, words: list[str]) -> None:
        history = History("me", "m", marks(*map(say, words)))
        file = self.file(data)
        found = file.find(file.scope("me", REALM), history, 0)
        expected, covered = self.library.find(history)
        if found is None:
            assert expected is None or self.small
        else:
            assert texts(found[0]) == self.known[found[0].response_id].page.transcript
            assert found[1] == covered or self.small
            assert found[1] <= covered

    @invariant()
    def it_holds_together(self) -> None:
        if not hasattr(self, "files"):
            return
        file = self.files[0]
        assert file.size <= self.max_bytes
        assert file.damaged == 0
        pages = set()
        for one in self.known.values():
            found = recall(file, one.response_id)
            assert found is not None or self.small
            if found is not None:
                assert texts(found) == one.page.transcript
                pages |= {page.name for page in found.pages}
        assert counts(file)[1] == len(pages)  # none is left that nobody needs

    def teardown(self) -> None:
        if hasattr(self, "files"):
            for file in self.files:
                file.close()
            self.folder.cleanup()


TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
