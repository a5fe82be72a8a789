"""The dashboard's trio shell: it looks at schedulers while somebody watches, and answers requests for the page.

Theory of operation
    One task samples every scheduler's history every few seconds: that is all it costs while nobody looks. Another
    makes frames once a second of those schedulers that somebody watches, and of no others. A watcher whose last frame
    is the one before is sent the changes, encoded once for all of them; one who is new, or was slow, the whole frame.
    So nothing is queued for anybody, and a stalled browser costs one task.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qs

import trio
from attrs import define, field

from pool.auth import Secret
from pool.boundary import Boundary
from pool.numbers import whole_number
from pool.printable import printable
from pool.redaction import redacted
from pool.web import BodyBroken, BodyTooLarge, Head, HttpConnection
from pool.wire.codec import to_json
from scheduler.dashboard.access import Access, Refusal, Welcome
from scheduler.dashboard.feed import changes, whole
from scheduler.dashboard.frame import Frame, connection_of, frame_of
from scheduler.dashboard.history import STEP, History
from scheduler.dashboard.look import look_at
from scheduler.dashboard.shown import shown
from scheduler.scheduler import Scheduler
from scheduler.telemetry.address import Address

log = logging.getLogger("warmline.telemetry")

Sources = Callable[[], Mapping[str, Scheduler]]

TICK = 1.0  # s
WATCHERS = 32  # streams at a time
SOURCES = 200  # that can be chosen from
PATIENCE = 30.0  # s, for a browser that takes no data
SCRIPTS = ("words", "grid", "charts", "dashboard")
PAGE = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/dashboard.css": ("dashboard.css", "text/css; charset=utf-8"),
    **{f"/{name}.js": (f"{name}.js", "text/javascript; charset=utf-8") for name in SCRIPTS},
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


@define(eq=False)
class _Source:
    """One scheduler as it is watched."""

    scheduler: Scheduler
    history: History = field(factory=History, init=False)
    watchers: int = field(default=0, init=False)
    number: int = field(default=0, init=False)  # of the latest frame
    frame: Frame | None = field(default=None, init=False)
    latest: bytes = field(default=b"", init=False)  # the changes that made it out of the one before
    arrived: trio.Event = field(factory=trio.Event, init=False)

    def sample(self, now: float) -> None:
        """Add to the history. Cheaper than a look."""
        stats = self.scheduler.stats()
        pool, admission = stats.pool, stats.admission
        each = pool.capacity // max(1, self.scheduler.pool.settings.max_connections)
        self.history.add(
            stats,
            busy=pool.leased_lanes,
            usable=max(pool.open * each, pool.leased_lanes),
            waiting=pool.waiting + admission.waiting,
            now=now,
        )

    def look(self, name: str, names: list[str]) -> None:
        """Make the next frame."""
        frame = shown(frame_of(look_at(self.scheduler), self.history, source=name, sources=names))
        self.number += 1
        self.latest = b"" if self.frame is None else _event(self.number, changes(self.frame, frame))
        self.frame = frame
        self.arrived.set()
        self.arrived = trio.Event()


@define(eq=False)
class Dashboard:
    """Answers the requests for one dashboard. `running` must be open around it."""

    sources: Sources
    access: Access
    boundary: Boundary = field(factory=lambda: Boundary("a look of the dashboard", log), init=False)
    _watched: dict[str, _Source] = field(factory=dict, init=False)
    _wanted: trio.Event = field(factory=trio.Event, init=False)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep the history, and look while somebody watches. Its tasks live in a nursery around the block."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._remember)
            nursery.start_soon(self._watch)
            yield
            nursery.cancel_scope.cancel()

    async def respond(self, http: HttpConnection, head: Head) -> None:
        """Answer one request, whatever it asks for."""
        try:
            await http.body()
        except (BodyTooLarge, BodyBroken) as error:
            status = error.status if isinstance(error, BodyBroken) else 413
            await self._say(http, status, "Requests here have no body.", {"connection": "close"})
            return
        verdict = self.access.check(head)
        if isinstance(verdict, Refusal):
            more = {"www-authenticate": "Bearer"} if verdict.status == 401 else {}
            await self._say(http, verdict.status, verdict.message, more)
        elif isinstance(verdict, Welcome):
            moved = {"set-cookie": verdict.cookie, "location": verdict.location}
            await self._say(http, 303, "", moved)
        elif head.path in PAGE:
            name, kind = PAGE[head.path]
            await http.answer(200, _asset(name), {**HEADERS, "content-type": kind})
        elif head.path in ("/events", "/state.json", "/connection.json"):
            await self._data(http, head)
        else:
            await self._say(http, 404, "There is nothing here. The page is at /.")

    async def _data(self, http: HttpConnection, head: Head) -> None:
        """Answer a request about one scheduler."""
        asked = {name: values[0] for name, values in parse_qs(head.query).items()}
        name, source = self._source(asked.get("source", ""))
        if source is None:
            what = f"There is no {name!r}." if name else "There is no scheduler yet."
            await self._say(http, 404, what)
        elif head.path == "/events":
            await self._stream(http, name, source)
        elif head.path == "/state.json":
            look = look_at(source.scheduler)
            await self._json(http, 200, frame_of(look, source.history, source=name, sources=self._names()))
        else:
            number = whole_number(asked.get("id", ""))
            if number is None:
                await self._say(http, 400, "id must be the number of a connection, as in ?id=3.")
                return
            found = connection_of(source.scheduler.pool.view(), number)
            await self._json(http, 404 if found is None else 200, found or {"error": "it is gone"})

    async def _stream(self, http: HttpConnection, name: str, source: _Source) -> None:
        if sum(one.watchers for one in self._watched.values()) >= WATCHERS:
            await self._say(http, 503, f"{WATCHERS} pages look already.", {"retry-after": "10"})
            return
        source.watchers += 1
        self._wanted.set()
        try:
            await http.begin(200, {**HEADERS, "content-type": "text/event-stream"})
            over = False
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_cancel_when_gone, http, nursery.cancel_scope)
                over = await self._keep_sending(http, name, source)
                nursery.cancel_scope.cancel()
            if over:
                await http.end()
        finally:
            source.watchers -= 1

    async def _keep_sending(self, http: HttpConnection, name: str, source: _Source) -> bool:
        """Send frames until the source is gone; False when the browser is, or takes no more."""
        seen = 0
        if source.frame is None or trio.current_time() - source.frame["now"] > TICK / 2:
            source.look(name, self._names())  # who has just come should not wait for the next tick
        while self._watched.get(name) is source:
            if source.number != seen:
                following = source.number == seen + 1 and seen
                assert source.frame is not None
                data = source.latest if following else _event(source.number, whole(source.frame))
                seen = source.number
                if not await _sent(http, data):
                    return False
            else:
                await source.arrived.wait()
        return True

    async def _watch(self) -> None:
        """Make frames, once a second, of what somebody watches."""
        while True:
            names = self._names()
            for name, source in self._watched.items():
                with self.boundary:
                    if source.watchers:
                        source.look(name, names)
            if not any(source.watchers for source in self._watched.values()):
                self._wanted = trio.Event()
                await self._wanted.wait()
            await trio.sleep(TICK)
            with self.boundary:
                self._follow()

    async def _remember(self) -> None:
        """Sample every scheduler, for the history."""
        while True:
            with self.boundary:
                self._follow()
            for source in tuple(self._watched.values()):
                with self.boundary:
                    source.sample(trio.current_time())
                await trio.lowlevel.checkpoint()
            await trio.sleep(STEP)

    def _follow(self) -> None:
        """Learn which schedulers there are now."""
        now = self.sources()
        for name, source in tuple(self._watched.items()):
            if now.get(name) is not source.scheduler:
                del self._watched[name]
                source.arrived.set()
        for name, scheduler in now.items():
            if name not in self._watched:
                self._watched[name] = _Source(scheduler)

    def _names(self) -> list[str]:
        return list(self._watched)[:SOURCES]

    def _source(self, name: str) -> tuple[str, _Source | None]:
        """Return a source by its name; the first one when none is named."""
        self._follow()
        name = name or next(iter(self._watched), "")
        return name, self._watched.get(name)

    async def _json(self, http: HttpConnection, status: int, value: Any) -> None:
        await http.answer(status, to_json(shown(value)), {**HEADERS, "content-type": "application/json"})

    async def _say(
        self, http: HttpConnection, status: int, text: str, headers: Mapping[str, str] | None = None
    ) -> None:
        fields = {**HEADERS, "content-type": "text/plain; charset=utf-8", **(headers or {})}
        said = f"warmline dashboard: {printable(redacted(text))}\n" if text else ""
        await http.answer(status, said.encode(), fields)


def url_of(address: Address, port: int, token: Secret | None) -> str:
    """Return where to look, with the token in it."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}/" + ("" if token is None else f"?token={token.reveal()}")


@cache
def _asset(name: str) -> bytes:
    return files("scheduler.dashboard").joinpath("page", name).read_bytes()


def _event(number: int, message: Frame) -> bytes:
    return b"id: %d\ndata: %b\n\n" % (number, to_json(message))


async def _sent(http: HttpConnection, data: bytes) -> bool:
    with trio.move_on_after(PATIENCE):
        try:
            await http.send(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return False
        return True
    return False


async def _cancel_when_gone(http: HttpConnection, scope: trio.CancelScope) -> None:
    await http.until_gone()
    scope.cancel()
