"""A real Chromium without a system's help, and a page in it, spoken to over the DevTools protocol."""

from __future__ import annotations

import base64
import os
import platform
import subprocess
import sys
import tarfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from attrs import define, field
from trio_websocket import ConnectionClosed, WebSocketConnection, open_websocket_url

from pool.wire.codec import from_json, to_json
from tests.support.node import locked, node, npm_install, unavailable

# Headless Chromium packed for servers without libraries of a desktop; it brings those that it needs beyond glibc.
PACKAGE = "@sparticuz/chromium@153.0.0"
UNPACK = """
const fs = require('fs'), zlib = require('zlib'), [from, to] = process.argv.slice(1);
for (const name of ['chromium', 'al2023.tar', 'swiftshader.tar', 'fonts.tar'])
  fs.writeFileSync(`${to}/${name}`, zlib.brotliDecompressSync(fs.readFileSync(`${from}/${name}.br`)));
"""
FLAGS = [
    "--headless",
    "--hide-scrollbars",
    "--no-sandbox",  # for root, as in a container; it sees no page but ours
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-sync",
    "--font-render-hinting=none",
    "--remote-debugging-port=0",
]


class PageError(AssertionError):
    """A script failed in the page."""


def chromium() -> Path:
    """Return the folder of an unpacked Chromium, or skip the test."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        unavailable("Chromium", f"the package is for Linux on x86-64, this is {sys.platform}")
    packed = npm_install(PACKAGE) / "@sparticuz" / "chromium" / "bin"
    home = packed.parents[3] / "unpacked"
    with locked(home.with_name("unpacked.lock")):
        if not (home / "ready").exists():
            home.mkdir(exist_ok=True)
            subprocess.run([node(), "-e", UNPACK, str(packed), str(home)], check=True, timeout=120)
            for name in ("al2023", "swiftshader", "fonts"):
                with tarfile.open(home / f"{name}.tar") as archive:
                    archive.extractall(home, filter="data")
            (home / "chromium").chmod(0o755)
            (home / "ready").touch()
    return home


@define(eq=False)
class Page:
    """One tab. `errors` holds what scripts threw or wrote as errors, and what the policy refused."""

    _browser: Browser
    _session: str
    errors: list[str] = field(factory=list, init=False)

    async def command(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command of the protocol and return its result."""
        return await self._browser.command(method, self._session, params)

    async def goto(self, url: str) -> None:
        """Open a URL, and wait until it is there."""
        result = await self.command("Page.navigate", url=url)
        assert "errorText" not in result, result
        await self.until("document.readyState === 'complete'")

    async def run(self, script: str) -> Any:
        """Return what an expression, or a promise, comes to."""
        result = await self.command(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True
        )
        if "exceptionDetails" in result:
            raise PageError(str(result["exceptionDetails"].get("exception", result)))
        return result["result"].get("value")

    async def until(self, script: str, *, seconds: float = 10.0) -> Any:
        """Wait until an expression is true, and return it."""
        value = None
        with trio.move_on_after(seconds):
            while not (value := await self.run(script)):  # noqa: ASYNC110 - what happens in a page, no event tells
                await trio.sleep(0.02)
        assert value, f"never true: {script}\n{await self.run('document.body.innerText.slice(0, 2000)')}"
        return value

    async def press(self, *keys: str) -> None:
        """Press keys, as `ArrowRight` or `t`."""
        codes = {"Enter": 13, "Escape": 27, "Tab": 9, "End": 35, "Home": 36, "ArrowLeft": 37}
        codes |= {"ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
        for key in keys:
            text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
            code = codes.get(key, ord(key[0].upper()))
            shared: dict[str, Any] = {"key": key, "windowsVirtualKeyCode": code}
            await self.command(
                "Input.dispatchKeyEvent", type="keyDown", **shared, **({"text": text} if text else {})
            )
            await self.command("Input.dispatchKeyEvent", type="keyUp", **shared)

    async def look(
        self,
        *,
        width: int = 1280,
        height: int = 800,
        dark: bool = False,
        phone: bool = False,
        calm: bool = False,
    ) -> None:
        """Set the window's size and what the user prefers."""
        await self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )
        features = [
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce" if calm else "no-preference"},
        ]
        await self.command("Emulation.setEmulatedMedia", features=features)

    async def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """Write what is seen, or the whole page, as PNG."""
        result = await self.command("Page.captureScreenshot", captureBeyondViewport=whole)
        await trio.Path(path).write_bytes(base64.b64decode(result["data"]))


@define(eq=False)
class Browser:
    """A running Chromium."""

    _socket: WebSocketConnection
    _serial: int = field(default=0, init=False)
    _waiting: dict[int, tuple[trio.Event, list[Mapping[str, Any]]]] = field(factory=dict, init=False)
    _pages: dict[str, Page] = field(factory=dict, init=False)

    async def command(self, method: str, session: str | None, params: Mapping[str, Any]) -> dict[str, Any]:
        """Send a command and wait for its result."""
        self._serial += 1
        number, answered = self._serial, trio.Event()
        box: list[Mapping[str, Any]] = []
        self._waiting[number] = (answered, box)
        message = {"id": number, "method": method, "params": params}
        await self._socket.send_message(
            to_json({**message, **({"sessionId": session} if session else {})}).decode()
        )
        with trio.fail_after(20):
            await answered.wait()
        assert "error" not in box[0], f"{method}: {box[0]['error']}"
        return dict(box[0]["result"])

    async def read(self) -> None:
        """Hand out what Chromium says."""
        try:
            while True:
                message = from_json(await self._socket.get_message())
                if "id" in message:
                    answered, box = self._waiting.pop(message["id"])
                    box.append(message)
                    answered.set()
                elif (page := self._pages.get(message.get("sessionId", ""))) is not None:
                    self._note(page, message["method"], message["params"])
        except ConnectionClosed:
            return

    def _note(self, page: Page, method: str, params: Mapping[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            page.errors.append(str(params["exceptionDetails"].get("exception", {}).get("description")))
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            page.errors.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        elif method == "Runtime.consoleAPICalled" and params["type"] == "error":
            page.errors.append(str(params["args"]))

    @asynccontextmanager
    async def page(self) -> AsyncIterator[Page]:
        """Open a tab with no cookies but its own."""
        context = (await self.command("Target.createBrowserContext", None, {}))["browserContextId"]
        target = {"url": "about:blank", "browserContextId": context}
        target_id = (await self.command("Target.createTarget", None, target))["targetId"]
        attached = await self.command("Target.attachToTarget", None, {"targetId": target_id, "flatten": True})
        page = self._pages[attached["sessionId"]] = Page(self, attached["sessionId"])
        for domain in ("Page", "Runtime", "Log"):
            await page.command(f"{domain}.enable")
        try:
            yield page
        finally:
            with trio.move_on_after(5, shield=True):
                await self.command("Target.disposeBrowserContext", None, {"browserContextId": context})


@asynccontextmanager
async def open_browser(profile: Path) -> AsyncIterator[Browser]:
    """Run Chromium, with its files in the folder `profile`."""
    home = await trio.to_thread.run_sync(chromium)
    libraries = os.pathsep.join([str(home / "lib"), str(home)])
    said = profile / "stderr"
    with said.open("wb") as stderr:
        process = await trio.lowlevel.open_process(
            [str(home / "chromium"), *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            env={**os.environ, "LD_LIBRARY_PATH": libraries},
        )
    try:
        address = profile / "DevToolsActivePort"
        with trio.move_on_after(20):
            while process.poll() is None and len(_lines(address)) < 2:  # noqa: ASYNC110 - another process writes it
                await trio.sleep(0.01)
        if len(_lines(address)) < 2:
            unavailable("Chromium", said.read_text()[-500:] or f"it ended with {process.returncode}")
        port, path = _lines(address)
        async with trio.open_nursery() as nursery:
            async with open_websocket_url(f"ws://127.0.0.1:{port}{path}", max_message_size=2**26) as socket:
                browser = Browser(socket)
                nursery.start_soon(browser.read)
                yield browser
            nursery.cancel_scope.cancel()
    finally:
        process.kill()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 5):
            await process.wait()


def _lines(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []
