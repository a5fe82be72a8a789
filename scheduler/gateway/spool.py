"""What the gateway remembers, on disk as well: kept behind the turns, and read where memory knows nothing.

Theory of operation
    Each turn that ended well is written a moment later, together with those that ended meanwhile, because a
    transaction costs more than a turn that is in it; nobody waits for that. So what memory has to give up is on disk
    already, and a crash loses the last moment at most. A gateway that stops waits for each turn to be written before
    it tells the end of it: whoever takes its place finds the conversation. What memory gives up is written
    once more all the same: that makes it the latest that was used, and brings it back if it had to go from disk.

    Disk is asked in two cases: for a parent that memory does not know, and for a history in which a model has said
    something beyond what memory covers. A conversation that goes on has neither, so its turns never wait for a disk.

    Everything that blocks runs in a thread, one at a time. The disk is a help and no more: when it is full, broken
    or slow, that is said once, and the gateway goes on with what it has in memory; from time to time it is tried
    again. What waits to be written is bounded, too; the oldest is dropped.
"""

from __future__ import annotations

import logging
import math
import sqlite3
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar
from weakref import WeakValueDictionary

import trio
from attrs import define, field

from pool.errors import SettingsError
from pool.settings import MIB
from scheduler.gateway.library import History, Page, Point
from scheduler.gateway.marks import Mark
from scheduler.gateway.spool_file import SpoolFile, Written
from scheduler.gateway.spool_rows import Stored

log = logging.getLogger("warmline.gateway")

T = TypeVar("T")
# With the disk, or with what has been put there meanwhile: damage shows itself in any form, and the spool is a help
# that must not end the gateway
TROUBLE = (Exception,)
MOST_WAITING = 64 * MIB  # bytes of what waits to be written
GATHER = 0.25  # s in which turns gather for one transaction
MOST_IDS = 20_000  # that wait to be written
BATCH = 4 * MIB  # bytes written in one transaction; who reads waits for no more than that
PATIENCE = 2.0  # s to wait for something that is read
PAUSE = 30.0  # s after a failure until the disk is asked again
TIDY = 600.0  # s after which what is too old goes, though nothing is written
REFRESH = 3600.0  # s after which something that is used is kept once more, as the latest
AT_A_TIME = 256  # pages that are restored in one go
CLOSING = 10.0  # s to write the rest at the end


class InThread(Protocol):
    """Runs something that blocks, as `trio.to_thread.run_sync`."""

    async def __call__(
        self,
        function: Callable[..., T],
        /,
        *args: Any,
        abandon_on_cancel: bool,
        limiter: trio.CapacityLimiter,
    ) -> T:
        """Return what it returns."""
        ...


@define(eq=False)
class Spool:
    """A file of points, and what waits to be written there. `realm`: the server that everything is of."""

    file: SpoolFile
    realm: str
    in_thread: InThread = trio.to_thread.run_sync
    clock: Callable[[], float] = time.time  # lasts longer than a process
    size: int = field(default=0, init=False)  # bytes on disk
    written: int = field(default=0, init=False)
    restored: int = field(default=0, init=False)
    dropped: int = field(default=0, init=False)  # not written: too large, or the disk does not keep up
    removed: int = field(default=0, init=False)  # from disk, for age or for room
    failures: int = field(default=0, init=False)
    # By owner and id; the oldest first
    _waiting: OrderedDict[tuple[str, str], Point] = field(factory=OrderedDict, init=False)
    _waiting_size: int = field(default=0, init=False)
    _forgotten: dict[tuple[str, str], None] = field(factory=dict, init=False)
    _owned: dict[tuple[str, str], None] = field(
        factory=dict, init=False
    )  # owners and ids that wait to be written
    _pages: WeakValueDictionary[bytes, Page] = field(factory=WeakValueDictionary, init=False)  # also on disk
    _one: trio.CapacityLimiter = field(factory=lambda: trio.CapacityLimiter(1), init=False)
    _wake: trio.Event = field(factory=trio.Event, init=False)
    _hurry: trio.Event = field(factory=trio.Event, init=False)  # somebody waits for what is written
    _went_on: trio.Event = field(factory=trio.Event, init=False)  # a transaction has ended, well or not
    _rests_until: float = field(default=-math.inf, init=False)  # after a failure
    _ailing: bool = field(default=False, init=False)  # that has been said

    def __repr__(self) -> str:
        return f"<Spool {self.size} bytes, waiting={len(self._waiting)}, failures={self.failures}>"

    @property
    def damaged(self) -> int:
        """What could not be read any more, and was removed."""
        return self.file.damaged

    # Kept

    def keep(self, point: Point) -> None:
        """Write a point when there is time; one that is on disk becomes the latest that was used."""
        name = point.owner, point.response_id
        self._no_longer(name)
        self._waiting[name] = point
        self._waiting_size += point.page.size
        while self._waiting_size > MOST_WAITING:
            self._no_longer(next(iter(self._waiting)))
            self.dropped += 1
        self._wake.set()

    def used(self, point: Point) -> None:
        """A point in memory was used: on disk, too, it is to be among the last to go."""
        if point.kept_at is not None and trio.current_time() - point.kept_at > REFRESH:
            self.keep(point)

    def forget(self, owner: str, response_id: str) -> None:
        """Remove a point from disk when there is time."""
        self._no_longer((owner, response_id))
        self._owned.pop((owner, response_id), None)
        self._forgotten[owner, response_id] = None
        self._wake.set()

    def note(self, owner: str, names: Iterable[str]) -> None:
        """Write whose these resources are when there is time."""
        self._owned.update(dict.fromkeys((owner, name) for name in names))
        while len(self._owned) > MOST_IDS:
            del self._owned[next(iter(self._owned))]
            self.dropped += 1
        self._wake.set()

    def _no_longer(self, name: tuple[str, str]) -> None:
        point = self._waiting.pop(name, None)
        if point is not None:
            self._waiting_size -= point.page.size

    async def flush(self) -> None:
        """Wait until all that was given to `keep` so far is written, or the disk has failed."""
        await trio.lowlevel.checkpoint()
        last = next(reversed(self._waiting.values()), None)
        while last is not None and self._waits(last) and not self._rests:
            self._hurry.set()
            await self._went_on.wait()

    def _waits(self, point: Point) -> bool:
        return self._waiting.get((point.owner, point.response_id)) is point

    @property
    def _rests(self) -> bool:
        return trio.current_time() < self._rests_until

    async def run(self) -> None:
        """Write what waits, until cancelled."""
        while True:
            with trio.move_on_after(max(TIDY, self._rests_until - trio.current_time())):
                await self._wake.wait()
            await trio.sleep_until(self._rests_until)
            if self._waiting_size < BATCH:
                with trio.move_on_after(GATHER):
                    await self._hurry.wait()
            self._wake = trio.Event()
            await self._write()
            if self._waiting or self._forgotten or self._owned:
                self._wake.set()
            elif self._hurry.is_set():
                self._hurry = trio.Event()

    async def _write(self) -> bool:
        """Write some of what waits; return whether that went well."""
        points, forgotten, owned = list(self._some()), list(self._forgotten), list(self._owned)
        try:
            done = await self._ask(self._transaction, points, forgotten, owned, self.clock())
        except TROUBLE as error:
            self._failed(error)
            return False
        finally:
            self._went_on.set()
            self._went_on = trio.Event()
        now = trio.current_time()
        for point in points:
            if self._waits(point):
                self._no_longer((point.owner, point.response_id))
            point.kept_at = now
        for one in forgotten:
            self._forgotten.pop(one, None)
        for one in owned:
            self._owned.pop(one, None)
        for page in done.pages:
            assert page.name is not None
            self._pages[page.name] = page
        self.size, self.written = done.size, self.written + done.kept
        self.removed += done.removed
        self.dropped += len(points) - done.kept
        if done.more:
            self._wake.set()
        if self._ailing:
            self._ailing = False
            log.warning("the spool %s can be used again", self.file.path)
        return True

    def _transaction(
        self,
        points: Sequence[Point],
        forgotten: Sequence[tuple[str, str]],
        owned: Sequence[tuple[str, str]],
        now: float,
    ) -> Written:
        """Runs in the thread."""
        file, realm = self.file, self.realm
        return file.write(
            [(file.scope(point.owner, realm), point) for point in points],
            [(file.scope(owner, realm), response_id) for owner, response_id in forgotten],
            now,
            [(file.scope(owner, realm), name) for owner, name in owned],
        )

    def _some(self) -> Iterable[Point]:
        size = 0
        for point in self._waiting.values():
            size += point.page.size
            yield point
            if size > BATCH:
                return

    def _failed(self, error: Exception) -> None:
        """Go on without the disk for a while."""
        self.failures += 1
        self._rests_until = trio.current_time() + PAUSE
        if not self._ailing:
            self._ailing = True
            log.warning(
                "the spool %s cannot be used (%s): conversations are remembered in memory alone until it can",
                self.file.path,
                error,
            )

    # Read

    async def recall(self, owner: str, response_id: str) -> Point | None:
        """Return the point of a response, if it is on disk."""

        def recall() -> Stored | None:
            return self.file.recall(self.file.scope(owner, self.realm), response_id)

        waiting = self._waiting.get((owner, response_id))
        if waiting is not None:
            await trio.lowlevel.checkpoint()
            return waiting
        found = None if (owner, response_id) in self._forgotten else await self._read(recall, None)
        return None if found is None else await self._restore(owner, found)

    async def find(self, history: History, beyond: int) -> tuple[Point, int] | None:
        """Return the latest point on disk that a history goes on from, and how much of it that covers.

        Only one that covers more than `beyond` items.
        """

        def find() -> tuple[Stored, int] | None:
            return self.file.find(self.file.scope(history.owner, self.realm), history, beyond)

        found = await self._read(find, None)
        if found is None or (history.owner, found[0].response_id) in self._forgotten:
            return None
        return await self._restore(history.owner, found[0]), found[1]

    async def marks(self, owner: str, names: Sequence[str]) -> Mapping[str, Mark]:
        """Return the marks of items that a caller was given, by their ids, as far as they are on disk."""

        def marks() -> Mapping[str, Mark]:
            return self.file.marks(self.file.scope(owner, self.realm), names)

        return await self._read(marks, {})

    async def owners(self, owner: str, names: Sequence[str]) -> Mapping[str, bool]:
        """Return of each id that is on disk whether it is this caller's (True) or another's (False)."""

        def owners() -> Mapping[str, bool]:
            return self.file.owners(self.file.scope(owner, self.realm), names)

        return await self._read(owners, {})

    async def _read(self, what: Callable[[], T], nothing: T) -> T:
        """Ask the file; `nothing` when it cannot answer, or not soon enough."""
        if self._rests:
            await trio.lowlevel.checkpoint()
            return nothing
        with trio.move_on_after(PATIENCE):
            try:
                await self.flush()  # memory may have given up what is not written yet
                return await self._ask(what)
            except TROUBLE as error:
                self._failed(error)
                return nothing
        self._failed(trio.TooSlowError(f"it did not answer within {PATIENCE:g} s"))
        return nothing

    async def _ask(self, what: Callable[..., T], *args: Any) -> T:
        """Run something in the thread. After an error the file is opened anew the next time."""

        def run() -> T:
            with self.file.ready():
                return what(*args)

        # Who does not wait for the end leaves the limiter with the thread: nothing else is begun before that.
        return await self.in_thread(run, abandon_on_cancel=True, limiter=self._one)

    async def _restore(self, owner: str, stored: Stored) -> Point:
        """Return a point as the library has them. Pages that are in memory already are shared."""
        page: Page | None = None
        for number, one in enumerate(stored.pages, 1):
            if not number % AT_A_TIME:
                await trio.lowlevel.checkpoint()
            known = self._pages.get(one.name)
            if known is None:
                known = Page(page, one.items, one.evidence, one.name)
                self._pages[one.name] = known
            page = known
        assert page is not None
        self.restored += 1
        return Point(
            owner=owner,
            response_id=stored.response_id,
            model=stored.model,
            heads=stored.heads,
            page=page,
            store=stored.store,
            tokens=stored.tokens,
            items=stored.items,
            warm_up=stored.warm_up,
            kept_at=trio.current_time(),
            restored=True,
        )

    async def end(self) -> None:
        """Write the rest, and close the file. `run` has to have ended."""
        while (self._waiting or self._forgotten or self._owned) and await self._write():
            pass
        await self.in_thread(self.file.close, abandon_on_cancel=True, limiter=self._one)

    def give_up(self) -> None:
        """Say what was not written to the end."""
        if self._waiting:
            self.dropped += len(self._waiting)
            log.warning("%d responses were not written to the spool %s", len(self._waiting), self.file.path)
            self._waiting.clear()


@asynccontextmanager
async def open_spool(
    folder: Path, realm: str, *, max_bytes: int, max_age: float | None = None
) -> AsyncIterator[Spool]:
    """Keep what is remembered in a folder as well, while the block runs; at its end the rest is written.

    Its task lives in a nursery around the block, so an error of the block arrives in an `ExceptionGroup`.

    Raises:
        SettingsError: the folder cannot be used, or holds something else.
    """
    try:
        file = await trio.to_thread.run_sync(
            lambda: SpoolFile.open(folder, max_bytes=max_bytes, max_age=max_age)
        )
    except sqlite3.Error as error:
        raise SettingsError("spool", str(folder), f"cannot be used: {error}") from None
    spool = Spool(file, realm)
    spool._wake.set()  # it may be larger than it is to be, or hold what is too old
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(spool.run)
            yield spool
            nursery.cancel_scope.cancel()
    finally:
        with trio.move_on_after(CLOSING, shield=True):
            await spool.end()
        spool.give_up()
