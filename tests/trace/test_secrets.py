"""A trace never holds a key, whatever the server says and whatever is recorded."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from pool.dial import Dialer
from pool.errors import DialFailed, ResponseFailed
from pool.pool import open_pool
from pool.settings import Endpoint, PoolSettings
from scheduler.trace import open_trace
from tests.support.world import World, asking, take
from tests.trace.support import lines_of, record

KEY = "hunter2-and-a-long-tail"
HEADER = "tenant-secret-value"


@pytest.mark.parametrize("contents", [False, True])
def test_a_key_that_a_server_echoes(tmp_path: Path, contents: bool) -> None:
    async def refuse(stream: trio.abc.Stream) -> None:
        await stream.receive_some()
        body = f"no such key: {KEY} of {HEADER}".encode()
        head = b"HTTP/1.1 401 No\r\ncontent-length: %d\r\n\r\n" % len(body)
        await stream.send_all(head + body)

    async def main() -> None:
        point = Endpoint.open_responses("http://server/v1", key=KEY).with_(headers={"x-tenant": HEADER})
        async with trio.open_nursery() as nursery:

            async def connect() -> trio.abc.Stream:
                client, server = trio.testing.memory_stream_pair()
                nursery.start_soon(refuse, server)
                await trio.lowlevel.checkpoint()
                return client

            settings = PoolSettings(min_idle=0)
            async with open_pool(point, settings, dial=Dialer(point, settings, connect)) as pool:
                with pytest.raises(DialFailed, match="no such key") as raised:
                    await pool.acquire()
                assert KEY not in repr(raised.value)

    path = tmp_path / "trace"
    with open_trace(path, contents=contents):
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    text = path.read_text()
    assert "dial_failed" in text
    assert "401" in text
    assert KEY not in text
    assert HEADER not in text


def test_a_key_in_what_is_said(tmp_path: Path) -> None:
    async def scene(w: World) -> None:
        conversation = w.scheduler.conversation(name="task")
        await take(conversation, f"my key is {KEY}; and sk-proj-0123456789abcdef", asking("calls=0"))

    path = record(tmp_path / "trace", scene, contents=True, headers={"x-key": KEY})
    text = Path(path).read_text()
    assert "my key is [hidden]" in text
    assert KEY not in text
    assert "sk-proj" not in text


def test_contents_stay_out_unless_asked_for(tmp_path: Path) -> None:
    async def scene(w: World) -> None:
        await take(w.scheduler.conversation(name="task"), "a private matter", asking("calls=0"))

    assert "private" not in Path(record(tmp_path / "one", scene)).read_text()
    assert "private" in Path(record(tmp_path / "two", scene, contents=True)).read_text()
    assert Path(tmp_path / "two").stat().st_mode & 0o077 == 0, "for its owner alone"


@pytest.mark.parametrize("contents", [False, True])
def test_the_words_of_an_error_are_contents(tmp_path: Path, contents: bool) -> None:
    async def scene(w: World) -> None:
        with pytest.raises(ResponseFailed, match="no knob"):
            await w.scheduler.conversation(name="task").turn("hi", asking("private=matter"))

    path = record(tmp_path / "trace", scene, contents=contents)
    (failed,) = [line for line in lines_of(path) if line.get("what") == "failed"]
    assert ("private" in failed["error"]) is contents
    assert ("private" in Path(path).read_text()) is contents
    assert "400 invalid_value" in failed["error"]
