"""The page in a real browser: what it says, that it keeps up, and that it can be used without a mouse."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import frozen

from pool.settings import Lanes
from scheduler.dashboard import server
from scheduler.telemetry.address import Address
from tests.dashboard.stage import Stage, served, silent
from tests.support.chromium import Page, open_browser
from tests.support.world import take, world

LIVE = "document.querySelector('#link').dataset.state === 'live'"


@frozen
class Seen:
    """A page over a silent pool."""

    page: Page
    stage: Stage
    url: str


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "TICK", 0.1)
    monkeypatch.setattr(server, "STEP", 0.2)


@asynccontextmanager
async def browsing(folder: Path, **options: Any) -> AsyncIterator[Seen]:
    """Open a browser on a dashboard over a silent pool. Ends with: nothing went wrong in the page."""
    async with AsyncExitStack() as stack:
        stage = await stack.enter_async_context(silent(**options))
        url = await stack.enter_async_context(served({"": stage.scheduler}))
        browser = await stack.enter_async_context(open_browser(folder))
        page = await stack.enter_async_context(browser.page())
        await page.look()
        await page.goto(url)
        await page.until(LIVE)
        yield Seen(page, stage, url)
        assert page.errors == []


def text(selector: str) -> str:
    """Return the script that reads an element."""
    return f"document.querySelector({selector!r}).innerText"


async def test_what_it_says_and_that_it_keeps_up(tmp_path: Path) -> None:
    async with browsing(tmp_path, connections=2) as seen, trio.open_nursery() as nursery:
        page = seen.page
        await page.until(f"{text('#headline-text')}.startsWith('Idle: no connection is open')")
        assert await page.run("document.querySelector('#none').hidden") is False
        await seen.stage.lease("review the diff", "plan the release")
        nursery.start_soon(seen.stage.lease, "one too many")
        await page.until(
            f"{text('#headline-text')} === '1 waiter: all 2 lanes are busy (2 connections, the maximum).'"
        )
        assert await page.run("document.querySelector('#headline').dataset.level") == "warn"
        assert (await page.run(text("[data-figure=lanes] b"))).split() == ["2", "of", "2"]
        assert "one too many" in await page.run(text("#waiters"))
        assert "review the diff" in await page.run(text("#longest"))
        assert await page.run("document.title") == "(1 waiting) silent \u2013 warmline"
        assert await page.run("document.querySelectorAll('#grid > .cell').length") == 2
        seen.stage.wires[0].ended.set()
        await page.until(f"{text('#losses')}.includes('closed by the server (1011: deploying)')")
        await page.until(f"{text('.verdict')}.includes('1 connection was lost')")
        nursery.cancel_scope.cancel()


async def test_turns_that_are_taken(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        there = await stack.enter_async_context(world())
        url = await stack.enter_async_context(served({"fleet": there.scheduler, "other": there.scheduler}))
        browser = await stack.enter_async_context(open_browser(tmp_path))
        page = await stack.enter_async_context(browser.page())
        await page.goto(url)
        await page.until(LIVE)
        conversation = there.scheduler.conversation(name="a talk")
        for _ in range(3):
            await take(conversation, "go on")
        await page.until(f"{text('#reasons')}.includes('hot') && {text('#reasons')}.includes('replay:new')")
        assert (await page.run(text("[data-figure=hot] b"))) == "100 %"
        await page.until("document.querySelectorAll('[data-chart=turn] circle').length > 0")
        assert "p99" in await page.run("document.querySelector('[data-chart=turn] svg').ariaLabel")
        assert "default" in await page.run(text("#tenants"))
        # Two schedulers: the other one can be chosen, and the URL says which.
        await page.press("s")
        await page.until("document.querySelector('#source').value === 'other'")
        assert (await page.run("location.search")) == "?source=other"
        assert page.errors == []


async def test_the_keyboard_alone(tmp_path: Path) -> None:
    async with browsing(tmp_path, connections=8, warm=8) as seen:
        page = seen.page
        (lease,) = await seen.stage.lease("review the diff")
        busy = lease.lane.conn.id
        await page.until("document.querySelectorAll('#grid > .cell').length === 8")
        focused = "document.activeElement.dataset.key"
        assert await page.run("document.querySelectorAll('#grid > [tabindex=\"0\"]').length") == 1, (
            "one stop for Tab"
        )
        await page.press("g")
        assert await page.run(focused) == "1"
        await page.press("ArrowRight", "ArrowRight", "ArrowLeft")
        assert await page.run(focused) == "2"
        await page.press("End")
        assert await page.run(focused) == "8"
        await page.press("ArrowRight")
        assert await page.run(focused) == "8", "there is no further"
        columns = await page.run(
            "getComputedStyle(document.querySelector('#grid')).gridTemplateColumns.split(' ').length"
        )
        await page.press("Home", "ArrowDown")
        assert await page.run(focused) == (str(1 + columns) if columns < 8 else "1")
        await page.press("Home", *["ArrowRight"] * (busy - 1), "Enter")
        await page.until(f"{text('#detail-lanes')}.includes('review the diff')")
        assert await page.run("document.activeElement.ariaSelected") == "true"
        label = f"c{busy}, open, 1 of 1 in flight, 0 hot"
        await page.until(f"document.activeElement.ariaLabel === {label!r}")
        await page.press("Escape", "Escape")
        assert await page.run("document.querySelector('#detail-body').hidden") is True
        await page.press("t")
        assert await page.run("document.querySelectorAll('#table tbody tr').length") == 8
        await page.press("t", "?")
        assert await page.run("document.querySelector('#keys').open") is True
        await page.press("Escape")
        assert await page.run("document.querySelector('#keys').open") is False
        await page.press("p")
        lease.release()
        await page.until("frame.figures.busy === 0")  # it has heard of it
        assert (await page.run(text("[data-figure=lanes] b"))).startswith("1"), "it is paused"
        await page.press("p")
        await page.until(f"{text('[data-figure=lanes] b')}.startsWith('0')")


# What is painted anew while so many messages arrive
PAINTED = """new Promise((done) => {
  const painted = new Set(), start = frame.now;
  const watch = new MutationObserver((changes) => changes.forEach(({ target }) => painted.add(target.dataset.key)));
  watch.observe(document.querySelector("#grid"), { subtree: true, attributeFilter: ["aria-label"] });
  const look = () => frame.now > start + 0.5 ? done([...painted]) : setTimeout(look, 20);
  look();
})"""


async def test_a_thousand_connections(tmp_path: Path) -> None:
    async with browsing(tmp_path, connections=1000, warm=1000) as seen:
        page = seen.page
        await page.until("document.querySelectorAll('#grid > .cell').length === 1000")
        leases = await seen.stage.lease(*(f"task {number}" for number in range(400)))
        busy = "document.querySelectorAll('#grid > [data-load=busy]').length"
        await page.until(f"{busy} === 400")
        # With every message only what has changed is drawn.
        assert await page.run(PAINTED) == []
        leases[0].release()
        assert await page.run(PAINTED) == [str(leases[0].lane.conn.id)]
        wide = await page.run("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide == 0
        await page.look(width=375, height=800, phone=True)
        assert await page.run("document.documentElement.scrollWidth") <= 375


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
async def test_what_can_be_read(tmp_path: Path, dark: bool) -> None:
    async with browsing(tmp_path, connections=3, lanes=Lanes.multi(in_flight=2, named=3)) as seen:
        page = seen.page
        await page.look(dark=dark, calm=True)
        await seen.stage.lease("one", "two", "three")
        await page.until("document.querySelectorAll('#grid .b').length === 3")
        background = await page.run("getComputedStyle(document.body).backgroundColor")
        assert background == ("rgb(18, 20, 22)" if dark else "rgb(246, 246, 244)")
        poor = await page.run(CONTRAST)
        assert poor == [], "text that WCAG AA would not let pass"
        assert (
            await page.run("getComputedStyle(document.querySelector('.meter i')).transitionDuration") == "0s"
        )


CONTRAST = """(() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (; element; element = element.parentElement) {
      const color = rgb(getComputedStyle(element).backgroundColor);
      if (color.length === 3 || color[3] > 0) return color;
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const element of document.querySelectorAll("body *")) {
    const written = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!written || !element.checkVisibility()) continue;
    const style = getComputedStyle(element);
    const one = light(rgb(element.closest("svg") ? style.fill : style.color)), other = light(behind(element));
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (ratio < 4.5) poor.push(`${element.outerHTML.slice(0, 80)}: ${ratio.toFixed(2)}`);
  }
  return poor;
})()"""


async def test_it_says_when_nobody_answers_and_finds_its_way_back(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        stage = await stack.enter_async_context(silent(1, warm=1))
        browser = await stack.enter_async_context(open_browser(tmp_path))
        page = await stack.enter_async_context(browser.page())
        async with served({"": stage.scheduler}) as url:
            await page.goto(url)
            await page.until(LIVE)
        await page.until("document.querySelector('#link').dataset.state === 'lost'")
        assert "Trying again" in await page.run(text("#link"))
        assert await page.run("document.body.classList.contains('stale')")
        port = int(url.rstrip("/").rpartition(":")[2])
        async with served({"": stage.scheduler}, Address("127.0.0.1", port)):
            await page.until(LIVE)
            assert not await page.run("document.body.classList.contains('stale')")


async def test_the_token_goes_into_a_cookie_and_other_sites_get_nothing(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        stage = await stack.enter_async_context(silent(1, warm=1))
        url = await stack.enter_async_context(served({"": stage.scheduler}, Address("0.0.0.0", 0)))
        open_url = await stack.enter_async_context(served({"": stage.scheduler}))
        browser = await stack.enter_async_context(open_browser(tmp_path))
        page = await stack.enter_async_context(browser.page())
        await page.goto(url)
        await page.until(LIVE)
        assert await page.run("location.href") == url.partition("?")[0], "the token is not in the history"
        assert await page.run("document.cookie") == ""
        assert page.errors == []
        # A page of another origin (another port is one) can neither read the state nor put the page in a frame.
        for target in (f"{open_url}state.json", f"{open_url}events"):
            assert await page.run(f"fetch({target!r}).then(() => 'read', () => 'refused')") == "refused"
        page.errors.clear()
        async with browser.page() as stranger:
            await stranger.goto(url.partition("?")[0])
            await stranger.until("document.readyState === 'complete'")
            assert "A token is needed" in await stranger.run("document.body.innerText")
