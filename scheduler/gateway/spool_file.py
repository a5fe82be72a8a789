"""What the gateway remembers, in a file: points with the pages that they share, as in the library. Blocks.

Theory of operation
    SQLite keeps it, because it has all that is needed here, and comes with Python: indexes by response, by hash and
    by age, transactions that a crash leaves whole or not begun, and locks between processes. So two gateways may
    share a directory: for a moment while one takes the other's place, or all the time, and either finds what the
    other has kept. Every statement asks the file, and not what this process remembers of it.

    A point refers to its page, and a page to the one before it, as in memory. A page has a random name by which a
    page in memory is known to be on disk: of a turn that goes on from there only what it has added is written. Items
    are written as the text that they are. The file is bounded by its own size: while it is over that, the points that
    were not used for longest go, and the pages that nothing refers to any more.

    Whose a point is stands in its scope, a keyed digest of the caller's id and of the server; the key is the file's
    own. No key of the API is in the file, nor a digest that others could compare with one. A page carries a digest of
    its contents, and a point with a page that is not what it was is not found and goes.

    One thread at a time.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

from scheduler.gateway.library import MOST_TRIED, History, Page, Point
from scheduler.gateway.marks import SIZE, Mark
from scheduler.gateway.spool_rows import (
    Stored,
    StoredPage,
    cut,
    packed_mark,
    packed_page,
    unpacked_mark,
    unpacked_page,
)
from scheduler.gateway.spool_schema import connect, file_in, is_damaged, remove

AT_ONCE = 256  # values in one statement
GO_AT_ONCE = 1000  # points that go in one transaction; who reads waits for no more than that
# A turn that would fill more than this part of the file is not kept: everything else would have to go for it
SHARE = 4
_WARM_UP = 8  # where it stands in a row of points
VACUUM = 1000  # pages of the file given back at a time
OWNED = 1_000_000  # ids of what callers have created beside responses; the oldest go


@frozen(kw_only=True)
class Written:
    """What a transaction has done: pages that are new on disk, points that had to go, bytes of the file now."""

    pages: Sequence[Page]
    kept: int
    removed: int
    size: int
    more: bool  # have to go with the next one


@define(eq=False)
class SpoolFile:
    """The file of a spool, open. `max_bytes` and `max_age` (s) bound it."""

    path: Path
    max_bytes: int
    max_age: float | None = None
    damaged: int = field(default=0, init=False)  # points, or files, that could not be read any more
    _connection: sqlite3.Connection | None = field(default=None, init=False, repr=False)
    _salt: bytes = field(default=b"", init=False, repr=False)
    _unreadable: list[int] = field(factory=list, init=False)  # points that go with the next transaction

    @classmethod
    def open(cls, folder: Path, *, max_bytes: int, max_age: float | None = None) -> SpoolFile:
        """Open the spool in a folder; it is made if need be, and made anew when it is damaged.

        Raises:
            SettingsError: the folder cannot be used, or holds something else.
            sqlite3.Error: SQLite cannot use it at present.
        """
        file = cls(file_in(folder), max_bytes, max_age)
        file.reopen()
        return file

    def reopen(self) -> None:
        """Open the file again, after an error. Raises as `open`."""
        self.close()
        file_in(self.path.parent)
        try:
            self._connection, self._salt = connect(self.path)
        except sqlite3.Error as error:
            if not is_damaged(error):
                raise
            self._discard()
            file_in(self.path.parent)
            self._connection, self._salt = connect(self.path)

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Have the file open while the block runs; close it when the block fails, and remove it when it is damaged.

        Raises:
            SettingsError: as `open`.
            sqlite3.Error: likewise, or the block's.
        """
        if self._connection is None:
            self.reopen()
        try:
            yield
        except sqlite3.Error as error:
            self.close()
            if is_damaged(error):
                self._discard()
            raise

    def _discard(self) -> None:
        remove(self.path)
        self.damaged += 1
        self._unreadable.clear()

    def close(self) -> None:
        """Close the file. Nothing can be asked of it until it is opened again."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.close()

    def _run(self, statement: str, *values: object) -> sqlite3.Cursor:
        if self._connection is None:
            raise sqlite3.OperationalError("the spool is not open")
        return self._connection.execute(statement, values)

    def scope(self, owner: str, realm: str) -> bytes:
        """Return what a caller's points are kept under; `realm` is the server that they are of."""
        return self._keyed(b"realm", realm) + self._keyed(b"owner", owner)

    def _keyed(self, what: bytes, value: str) -> bytes:
        return hashlib.blake2b(value.encode(), key=self._salt, person=what, digest_size=SIZE).digest()

    def _seal(self, scope: bytes, name: str) -> bytes:
        """Return what binds an id to its scope."""
        return self._keyed(b"owned", f"{scope.hex()}:{name}")

    @property
    def size(self) -> int:
        """Bytes of the file that are in use."""
        return (self._pragma("page_count") - self._pragma("freelist_count")) * self._pragma("page_size")

    def _pragma(self, name: str) -> int:
        return int(self._run(f"PRAGMA {name}").fetchone()[0])

    def _shrink(self) -> None:
        """Give back some of what is free, when that is much; a little of it is soon used again."""
        if self._pragma("freelist_count") > self._pragma("page_count") // SHARE:
            self._run(f"PRAGMA incremental_vacuum({VACUUM})").fetchall()

    # Written

    def write(
        self,
        points: Sequence[tuple[bytes, Point]],
        forgotten: Sequence[tuple[bytes, str]],
        now: float,
        owned: Sequence[tuple[bytes, str]] = (),
    ) -> Written:
        """Forget points, keep others with all that they build on, and make room; in one transaction.

        Args:
            points: with their scopes; one that is there already was used now.
            forgotten: scopes and response ids.
            now: the wall clock's time.
            owned: scopes, and ids of what their callers have created.

        Raises:
            sqlite3.Error: nothing was changed.
        """
        pages: list[Page] = []
        unreadable = list(self._unreadable)
        self._run("BEGIN IMMEDIATE")
        try:
            for one in unreadable:
                self._drop("id = ?", one)
            for scope, response_id in forgotten:
                self._drop("response = ? AND scope = ?", response_id, scope)
                self._run("DELETE FROM owned WHERE name = ? AND scope = ?", response_id, scope)
            self._note(owned)
            kept = sum(self._keep(scope, point, now, pages) for scope, point in points)
            removed = self._make_room(now)
            size = self.size
            more = removed >= GO_AT_ONCE
            self._run("COMMIT")
            del self._unreadable[: len(unreadable)]
        except BaseException:
            if self._connection is not None and self._connection.in_transaction:
                self._run("ROLLBACK")
            raise
        self._shrink()
        return Written(pages=pages, kept=kept, removed=removed, size=size, more=more)

    def _note(self, owned: Sequence[tuple[bytes, str]]) -> None:
        last = None
        for scope, name in owned:
            values = (name, scope, self._seal(scope, name))
            last = self._run(
                "INSERT OR REPLACE INTO owned (name, scope, seal) VALUES (?, ?, ?)", *values
            ).lastrowid
        if last is not None:
            self._run("DELETE FROM owned WHERE id <= ?", last - OWNED)

    def _keep(self, scope: bytes, point: Point, now: float, new: list[Page]) -> bool:
        page = self._keep_page(point.page, new)
        if page is None:
            return False
        found = self._run(
            "SELECT id, page FROM points WHERE response = ? AND scope = ?", point.response_id, scope
        ).fetchone()
        if found is not None and found[1] == page:
            self._run("UPDATE points SET used = ? WHERE id = ?", now, found[0])
            return True
        if found is not None:  # a server that gives an id twice: the later one counts
            self._drop("id = ?", found[0])
        number = self._run(
            "INSERT INTO points (response, scope, model, heads, page, store, tokens, warm_up, used) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            *(point.response_id, scope, point.model, b"".join(point.heads), page),
            *(point.store, point.tokens, point.warm_up, now),
        ).lastrowid
        for head in set(point.heads):
            self._run("INSERT INTO heads VALUES (?, ?)", head, number)
        for name, one in point.items.items():
            self._run("INSERT INTO marks VALUES (?, ?, ?)", name, number, packed_mark(one))
        return True

    def _keep_page(self, page: Page, new: list[Page]) -> int | None:
        """Write a page and those before it, as far as they are not there; None when they are too large."""
        number: int | None = None
        fresh: list[Page] = []
        for one in page:
            number = self._number(one)
            if number is not None:
                break
            fresh.append(one)
        if sum(one.size for one in fresh) > self.max_bytes // SHARE:
            return None
        for one in reversed(fresh):
            if one.name is None:
                one.name = os.urandom(SIZE)
            number = self._run(
                "INSERT INTO pages (name, before, lengths, items, evidence, seal) VALUES (?, ?, ?, ?, ?, ?)",
                *(one.name, number, *packed_page(one)),
            ).lastrowid
        new += fresh
        return number

    def _number(self, page: Page) -> int | None:
        if page.name is None:
            return None
        found = self._run("SELECT id FROM pages WHERE name = ?", page.name).fetchone()
        return None if found is None else int(found[0])

    def _make_room(self, now: float) -> int:
        removed = 0
        if self.max_age is not None:
            old = "id IN (SELECT id FROM points WHERE used < ? ORDER BY used LIMIT ?)"
            removed += self._drop(old, now - self.max_age, GO_AT_ONCE)
        while self.size > self.max_bytes and removed < GO_AT_ONCE:
            if not self._drop("id = (SELECT id FROM points ORDER BY used, id LIMIT 1)"):
                break
            removed += 1
        return removed

    def _drop(self, which: str, *values: object) -> int:
        """Forget points, and the pages that nothing refers to any more; return how many points those were."""
        points = self._run(f"DELETE FROM points WHERE {which} RETURNING page", *values).fetchall()
        for (page,) in points:
            while page is not None:
                gone = self._run(
                    "DELETE FROM pages WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM points WHERE page = ?1) "
                    "AND NOT EXISTS (SELECT 1 FROM pages WHERE before = ?1) RETURNING before",
                    page,
                ).fetchone()
                page = None if gone is None else gone[0]
        return len(points)

    # Read

    def recall(self, scope: bytes, response_id: str) -> Stored | None:
        """Return the point of a response. Raises `sqlite3.Error`, as all that reads."""
        row = self._run(
            "SELECT * FROM points WHERE response = ? AND scope = ?", response_id, scope
        ).fetchone()
        return None if row is None else self._stored(row)

    def owners(self, scope: bytes, names: Sequence[str]) -> dict[str, bool]:
        """Return of responses, items and resources, by their ids, whether they are this caller's or another's.

        Those that are not here, or are another server's, are left out.
        """
        found: dict[str, bool] = {}
        for start in range(0, len(names), AT_ONCE):
            some = names[start : start + AT_ONCE]
            among = f"IN ({', '.join('?' * len(some))})"
            for name, whose, seal in self._run(
                f"SELECT response, scope, NULL FROM points WHERE response {among} "
                "UNION ALL SELECT name, scope, NULL FROM marks JOIN points ON points.id = marks.point "
                f"WHERE name {among} "
                f"UNION ALL SELECT name, scope, seal FROM owned WHERE name {among}",
                *(*some, *some, *some),
            ):
                sealed = seal is None or hmac.compare_digest(seal, self._seal(whose, name))
                if sealed and hmac.compare_digest(whose[:SIZE], scope[:SIZE]):
                    found[name] = found.get(name, False) or hmac.compare_digest(whose, scope)
        return found

    def find(self, scope: bytes, history: History, beyond: int) -> tuple[Stored, int] | None:
        """Return the latest point that a history goes on from, and how many of its items stand before it.

        Only one that covers more than `beyond` items.
        """
        tried = 0
        for count, row in self._candidates(scope, history, beyond):
            if not history.may_end(count, warm_up=bool(row[_WARM_UP])):
                continue
            if tried == MOST_TRIED:
                break
            point = self._stored(row)
            if point is None:
                continue
            tried += 1
            evidence = [page.evidence for page in point.pages]
            covered = history.covered(count, lambda evidence=evidence: evidence, warm_up=point.warm_up)  # type: ignore[misc]  # a default
            if covered is not None:
                return point, covered
        return None

    def _candidates(
        self, scope: bytes, history: History, beyond: int
    ) -> Iterator[tuple[int, tuple[Any, ...]]]:
        counts = list(history.counts(beyond))
        for start in range(0, len(counts), AT_ONCE):
            some = {history.heads[count]: count for count in counts[start : start + AT_ONCE]}
            rows = self._run(
                "SELECT heads.head, points.* FROM heads JOIN points ON points.id = heads.point "
                f"WHERE heads.head IN ({', '.join('?' * len(some))}) AND scope = ?",
                *(*some, scope),
            ).fetchall()
            rows.sort(
                key=lambda row: (some[row[0]], row[1]), reverse=True
            )  # the longest; of those the latest
            for head, *row in rows:
                yield some[head], tuple(row)

    def marks(self, scope: bytes, names: Sequence[str]) -> dict[str, Mark]:
        """Return the marks of items that this caller was given, by their ids."""
        found: dict[str, Mark] = {}
        for start in range(0, len(names), AT_ONCE):
            some = names[start : start + AT_ONCE]
            for name, mark in self._run(
                "SELECT name, mark FROM marks JOIN points ON points.id = marks.point "
                f"WHERE name IN ({', '.join('?' * len(some))}) AND scope = ? ORDER BY point",
                *(*some, scope),
            ):
                found[name] = unpacked_mark(mark)
        return found

    def _stored(self, row: Sequence[Any]) -> Stored | None:
        """Return a point with its pages; None when they are not what they were."""
        number, response_id, _scope, model, heads, page, store, tokens, warm_up, _used = row
        pages = self._chain(page)
        if pages is None:
            self.damaged += 1
            self._unreadable.append(number)
            return None
        return Stored(
            response_id=response_id,
            model=model,
            heads=cut(heads),
            store=bool(store),
            tokens=tokens,
            warm_up=bool(warm_up),
            items={
                name: unpacked_mark(mark)
                for name, mark in self._run("SELECT name, mark FROM marks WHERE point = ?", number)
            },
            pages=tuple(pages),
        )

    def _chain(self, number: int | None) -> list[StoredPage] | None:
        """Return a page and those before it, the first first; None when one of them is not what it was."""
        pages: list[StoredPage] = []
        while number is not None:
            row = self._run(
                "SELECT before, name, lengths, items, evidence, seal FROM pages WHERE id = ?", number
            ).fetchone()
            if row is None:
                return None
            before, *packed = row
            page = unpacked_page(*packed)
            if page is None or (
                before is not None and before >= number
            ):  # a page is written after what it builds on
                return None
            pages.append(page)
            number = before
        return pages[::-1]
