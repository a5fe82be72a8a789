"""A gateway with a spool: what memory forgets and what a process before it knew is found; a bad disk harms nobody."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trio
import trio.testing
from attrs import define, field

from pool.emulator import Emulator, EmulatorSettings, context_digest
from pool.errors import SettingsError
from scheduler.gateway import spool as spool_module
from scheduler.gateway.keys import VirtualKey, digest_of
from scheduler.gateway.library import History
from scheduler.gateway.settings import GatewaySettings
from scheduler.gateway.spool import CLOSING, GATHER, PATIENCE, PAUSE, REFRESH, TIDY, Spool, open_spool
from scheduler.gateway.spool_file import SpoolFile
from scheduler.gateway.tables import table_of
from tests.emulator.client import connected
from tests.gateway.stage import KEY, Stage, staged
from tests.gateway.test_library import marks, point, say
from tests.gateway.test_turns import Items, reasons, take, user
from tests.gateway.web import web_client

T = TypeVar("T")
MIB = 1024 * 1024


@define(eq=False)
class Disk:
    """Stands for the thread: does things at once, or fails, or hangs until it is released."""

    failure: Exception | None = None
    stuck: bool = False
    asked: int = field(default=0, init=False)

    async def __call__(
        self,
        function: Callable[..., T],
        /,
        *args: Any,
        abandon_on_cancel: bool,
        limiter: trio.CapacityLimiter,
    ) -> T:
        assert abandon_on_cancel
        async with limiter:
            self.asked += 1
            await trio.lowlevel.checkpoint()
            if self.stuck:
                await trio.sleep_forever()
            if self.failure is not None:
                raise self.failure
            return function(*args)


@asynccontextmanager
async def spool_in(folder: Path, *, disk: Disk | None = None, realm: str = "server") -> AsyncIterator[Spool]:
    """A spool of its own on a folder, without its task; closed at the end, with the rest written."""
    spool = Spool(SpoolFile.open(folder, max_bytes=64 * MIB), realm, disk or Disk(), trio.current_time)
    try:
        yield spool
    finally:
        with trio.move_on_after(CLOSING, shield=True):
            await spool.end()
        spool.give_up()
        spool.file.close()


@asynccontextmanager
async def gateway(folder: Path, *, disk: Disk | None = None, **options: Any) -> AsyncIterator[Stage]:
    """One life of a gateway with a spool."""
    async with spool_in(folder, disk=disk) as spool, staged(spool=spool, **options) as stage:
        yield stage


def spool_of(stage: Stage) -> Spool:
    assert stage.gateway.spool is not None
    return stage.gateway.spool


async def until_written(stage: Stage) -> None:
    await spool_of(stage).flush()


async def test_after_a_restart_histories_are_known_and_parents_are_found(
    autojump_clock: trio.abc.Clock, tmp_path: Path
) -> None:
    history: Items = [user("go")]
    async with gateway(tmp_path) as stage, web_client(stage) as client:
        for word in ("more", "still more", "and more"):
            done = await take(client, history)
            history += [*done["output"], user(word)]
    async with gateway(tmp_path) as stage, web_client(stage) as client:
        done = await take(client, history)
        assert reasons(stage) == {"replay:resumed": 1}
        history += [*done["output"], user("last")]
        done = await take(client, history)  # goes on as if nothing had been
        assert reasons(stage) == {"replay:resumed": 1, "hot": 1}
        assert spool_of(stage).restored == 1
    for words in ("over HTTP", "over a socket"):
        said = {"input": [user(words)], "previous_response_id": done["id"], "store": False}
        said["metadata"] = {"emulator": "calls=0"}
        history += [*done["output"], user(words)]
        async with gateway(tmp_path) as stage:
            if words == "over HTTP":
                async with web_client(stage) as client:
                    done = (await client.create(**said)).response
            else:
                async with connected(stage.gateway, headers=KEY) as socket:
                    done = (await socket.turn(**said))["response"]
            assert done["metadata"]["context"] == context_digest(history)
            assert spool_of(stage).restored == 1


async def test_two_come_back_to_the_same_conversation_at_once(
    autojump_clock: trio.abc.Clock, tmp_path: Path
) -> None:
    trunk: Items = [user("trunk")]
    async with gateway(tmp_path) as stage, web_client(stage) as client:
        trunk += (await take(client, trunk))["output"]
    async with gateway(tmp_path) as stage:

        async def branch(word: str) -> None:
            async with web_client(stage) as client:
                history = [*trunk, user(word)]
                for more in ("a", "b"):
                    done = await take(client, history)
                    history = [*history, *done["output"], user(more)]

        async with trio.open_nursery() as nursery:
            for word in ("left", "right"):
                nursery.start_soon(branch, word)
        placed = reasons(stage)
        assert placed.pop("hot") == 2
        assert sum(placed.values()) == 2
        assert "replay:new" not in placed
        assert len(stage.gateway.core.library) == 1 + 4
    stage.assert_quiet()


async def test_references_are_known_after_a_restart(autojump_clock: trio.abc.Clock, tmp_path: Path) -> None:
    history: Items = [user("go")]
    told: Items = [user("go")]
    server = Emulator(EmulatorSettings())
    for reason in ("replay:new", "hydrated", "hydrated"):
        async with gateway(tmp_path, server=server) as stage, web_client(stage) as client:
            answer = await client.create(input=told, store=True, metadata={"emulator": "calls=0 reasoning=1"})
            done = answer.json
            assert done["metadata"]["context"] == context_digest(history)
            assert reasons(stage) == {reason: 1}
            history += [*done["output"], user("more")]
            told += [{"type": "item_reference", "id": item["id"]} for item in done["output"]] + [user("more")]


async def test_what_memory_had_to_give_up_is_found_on_disk(
    autojump_clock: trio.abc.Clock, tmp_path: Path
) -> None:
    async with (
        gateway(tmp_path, settings=GatewaySettings(memory_responses=1)) as stage,
        web_client(stage) as client,
    ):
        first: Items = [user("first")]
        one = await take(client, first)
        await take(client, [user("second")])
        assert stage.gateway.core.library.by_id(one_owner(stage), one["id"]) is None
        await take(client, [*first, *one["output"], user("more")])
        assert reasons(stage) == {"replay:new": 2, "replay:resumed": 1}
        again = await client.create(
            input=[user("x")], previous_response_id=one["id"], store=False, metadata={"emulator": "calls=0"}
        )
        assert again.response["metadata"]["context"] == context_digest([*first, *one["output"], user("x")])
        assert len(stage.gateway.core.library) == 1


def one_owner(stage: Stage) -> str:
    (point, *_) = stage.gateway.core.library
    return point.owner


async def test_a_transcript_that_memory_cannot_hold_is_gone_on_with_from_disk(
    autojump_clock: trio.abc.Clock, tmp_path: Path
) -> None:
    async with (
        gateway(tmp_path, settings=GatewaySettings(memory_bytes=MIB)) as stage,
        web_client(stage) as client,
    ):
        history: Items = [user("long " * MIB)]
        for word in ("a", "b"):
            done = await take(client, history)
            assert len(stage.gateway.core.library) == 0
            await spool_of(stage).flush()
            history += [*done["output"], user(word)]
        assert reasons(stage) == {"replay:new": 1, "replay:resumed": 1}


async def test_a_conversation_that_goes_on_never_asks_the_disk(
    autojump_clock: trio.abc.Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    for name in ("find", "recall", "marks", "owners"):
        monkeypatch.setattr(SpoolFile, name, lambda *_, name=name: asked.append(name))
    keys = [VirtualKey(name="one", digest=digest_of("sk-client"))]
    async with gateway(tmp_path, policy="virtual", keys=keys) as stage, web_client(stage) as client:
        history: Items = [user("go")]
        for word in ("a", "b", "c"):
            done = await take(client, history)
            history += [*done["output"], user(word)]
        await client.create(input="d", previous_response_id=done["id"], store=False)
        assert asked == []
        await client.create(input=[*history[2:], user("e")], store=False)  # begins with what a model has said
        assert asked == ["find"]


async def test_without_a_spool_nothing_is_kept(autojump_clock: trio.abc.Clock) -> None:
    async with staged() as stage, web_client(stage) as client:
        await take(client, [user("go")])
        rows = table_of("stats", stage.gateway, now=0, settings=()).rows
        assert not any(str(name).startswith("spool") for name, _ in rows)


async def test_callers_never_meet_on_disk_either(autojump_clock: trio.abc.Clock, tmp_path: Path) -> None:
    keys = [VirtualKey(name=name, digest=digest_of(name)) for name in ("one", "two")]
    headers = [{"authorization": f"Bearer {key.name}"} for key in keys]
    history: Items = [user("mine")]
    async with (
        gateway(tmp_path, policy="virtual", keys=keys) as stage,
        web_client(stage, headers=headers[0]) as one,
    ):
        done = await take(one, history, store=True)
    history += [*done["output"], user("more")]
    async with gateway(tmp_path, policy="virtual", keys=keys) as stage:
        async with web_client(stage, headers=headers[1]) as two:
            refused = await two.create(input="x", previous_response_id=done["id"], store=True)
            assert refused.json["error"]["code"] == "previous_response_not_found"
            for method in ("GET", "DELETE"):
                assert (await two.ask(method, f"/v1/responses/{done['id']}")).status == 404
            await take(two, history)
            assert reasons(stage) == {"replay:new": 1}
        async with web_client(stage, headers=headers[0]) as one:
            await take(one, history)
            assert reasons(stage) == {"replay:new": 1, "replay:resumed": 1}


async def test_another_server_is_not_asked_for_what_this_one_said(tmp_path: Path) -> None:
    async with spool_in(tmp_path, realm="one") as one:
        one.keep(point("r", say("a"), say("b")))
    async with spool_in(tmp_path, realm="two") as two:
        assert await two.recall("me", "r") is None
        assert await two.find(History("me", "m", marks(*map(say, "abc"))), 0) is None


async def test_what_is_deleted_is_forgotten_in_memory_and_on_disk(
    autojump_clock: trio.abc.Clock, tmp_path: Path
) -> None:
    async with gateway(tmp_path) as stage, web_client(stage) as client:
        history: Items = [user("secret")]
        ids = [(await take(client, history))["id"] for _ in range(2)]
        await spool_of(stage).flush()
        await client.ask("DELETE", f"/v1/responses/{ids[0]}")  # which the emulator cannot do
        refused = await client.create(input="x", previous_response_id=ids[0], store=False)
        assert refused.status == 400
    async with gateway(tmp_path) as stage:
        owner = digest_of("sk-client")
        assert await spool_of(stage).recall(owner, ids[0]) is None
        assert await spool_of(stage).recall(owner, ids[1]) is not None


async def test_what_a_leaving_gateway_tells_is_on_disk(
    autojump_clock: trio.abc.Clock, tmp_path: Path
) -> None:
    """The client may be served by its successor at once."""
    server = EmulatorSettings(latency="base=1")
    async with gateway(tmp_path / "s", server=server) as stage, web_client(stage) as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep, 0.5)
            nursery.start_soon(stop_at, stage, 0.5)
            done = await take(client, [user("go")])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Spool, "flush", None)
            with_file = SpoolFile.open(tmp_path / "s", max_bytes=MIB)
        try:
            scope = with_file.scope(digest_of("sk-client"), "server")
            assert with_file.recall(scope, done["id"]) is not None
        finally:
            with_file.close()


async def stop_at(stage: Stage, seconds: float) -> None:
    await trio.sleep(seconds)
    stage.gateway.stop()


async def test_pages_that_are_in_memory_are_shared(tmp_path: Path) -> None:
    one = point("one", say("a"), say("b"))
    async with spool_in(tmp_path) as spool:
        spool.keep(one)
        spool.keep(point("two", say("c"), before=one))
    async with spool_in(tmp_path) as spool:
        first, second = await spool.recall("me", "one"), await spool.recall("me", "two")
        assert first is not None
        assert second is not None
        assert second.page.before is first.page
        third = point("three", say("d"), before=second)
        spool.keep(third)
        assert await spool.recall("me", "three") is third  # not on disk yet
        await spool.end()
    async with spool_in(tmp_path) as spool:
        found = await spool.recall("me", "three")
        assert found is not None
        assert found.page.transcript == third.page.transcript
        assert spool.size == 0  # nobody has written


@asynccontextmanager
async def working(spool: Spool) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(spool.run)
        yield
        nursery.cancel_scope.cancel()


async def test_a_full_disk_is_said_once_and_harms_nobody(
    autojump_clock: trio.abc.Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "warmline.gateway")
    disk = Disk()
    history: Items = [user("go")]
    async with gateway(tmp_path, disk=disk) as stage, web_client(stage) as client:
        spool = spool_of(stage)
        disk.failure = sqlite3.OperationalError("database or disk is full")
        for word in "abc":
            done = await take(client, history)
            history += [*done["output"], user(word)]
            await trio.sleep(PAUSE + 1)
        assert [record.getMessage() for record in caplog.records] == [
            f"the spool {spool.file.path} cannot be used (database or disk is full): conversations are remembered in "
            "memory alone until it can"
        ]
        assert spool.failures >= 3
        asked = disk.asked
        await client.create(input="x", previous_response_id="resp_unknown", store=False)
        assert disk.asked == asked  # it rests
        disk.failure = None
        await trio.sleep(PAUSE + 1)
        assert spool.written == 3  # nothing is lost
        assert caplog.records[-1].getMessage() == f"the spool {spool.file.path} can be used again"
    stage.assert_quiet()
    async with gateway(tmp_path) as stage, web_client(stage) as client:
        await take(client, history)
        assert reasons(stage) == {"replay:resumed": 1}


async def test_a_disk_that_cannot_be_read_is_as_one_that_knows_nothing(
    autojump_clock: trio.abc.Clock, tmp_path: Path
) -> None:
    history: Items = [user("go")]
    async with gateway(tmp_path) as stage, web_client(stage) as client:
        done = await take(client, history)
        history += [*done["output"], user("more")]
    disk = Disk()
    async with gateway(tmp_path, disk=disk) as stage, web_client(stage) as client:
        disk.failure = sqlite3.OperationalError("disk I/O error")
        await take(client, history)
        assert reasons(stage) == {"replay:new": 1}
        refused = await client.create(input="x", previous_response_id=done["id"], store=False)
        assert refused.status == 400
        disk.failure = None


async def test_a_disk_that_does_not_answer_is_not_waited_for(
    autojump_clock: trio.abc.Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    disk = Disk()
    async with gateway(tmp_path, disk=disk) as stage, web_client(stage) as client:
        disk.stuck = True
        said = user("as the model said"), {"role": "assistant", "content": "before"}, user("and now")
        for took in (PATIENCE, 0):
            began = trio.current_time()
            await take(client, list(said))
            assert trio.current_time() - began == pytest.approx(took, abs=0.1)
        assert "did not answer within 2 s" in caplog.text
        disk.stuck = False
        await trio.sleep(PAUSE + 1)
        await take(client, list(said))
        await spool_of(stage).flush()
        assert spool_of(stage).written == 3


async def test_what_waits_for_a_disk_is_bounded(
    autojump_clock: trio.abc.Clock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    one = point("r0", say("a"))
    monkeypatch.setattr(spool_module, "MOST_WAITING", 3 * one.page.size)
    disk = Disk(failure=sqlite3.OperationalError("disk I/O error"))
    async with spool_in(tmp_path, disk=disk) as spool:
        spool.keep(one)
        spool.keep(one)
        for number in range(1, 5):
            spool.keep(point(f"r{number}", say("a")))
        assert spool.dropped == 2
        assert repr(spool) == "<Spool 0 bytes, waiting=3, failures=0>"
        async with working(spool):
            await spool.flush()  # does not wait for what cannot be
        assert spool.failures == 1
        disk.failure = None
    assert spool.dropped == 2
    assert spool.written == 3
    disk.failure = sqlite3.OperationalError("disk I/O error")
    spool = Spool(spool.file, "server", disk)
    spool.keep(one)
    disk.failure = sqlite3.OperationalError("disk I/O error")
    with pytest.raises(sqlite3.OperationalError):
        await spool.end()
    spool.give_up()
    assert spool.dropped == 1
    assert "1 responses were not written" in caplog.text


async def test_a_damaged_file_is_made_anew_while_the_gateway_runs(
    autojump_clock: trio.abc.Clock, tmp_path: Path
) -> None:
    async with gateway(tmp_path) as stage, web_client(stage) as client:
        spool = spool_of(stage)
        history: Items = [user("go " * 20_000)]
        await take(client, history)
        await spool.flush()
        spool.file.close()
        content = spool.file.path.read_bytes()
        spool.file.path.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))
        for _ in range(2):
            done = await take(client, [user("again")])
            await trio.sleep(PAUSE + 1)
        assert spool.damaged > 0
        assert await spool.recall(one_owner(stage), done["id"]) is not None
        rows = [tuple(row) for row in table_of("stats", stage.gateway, now=0, settings=()).rows]
        assert ("spool_damaged", spool.damaged) in rows
        assert ("spool_bytes", spool.size) in rows
        assert spool.size > 0


async def test_what_is_used_is_among_the_last_to_go(autojump_clock: trio.abc.Clock, tmp_path: Path) -> None:
    async with spool_in(tmp_path) as spool, working(spool):
        one, two = point("one", say("a")), point("two", say("b"))
        for each in (one, two):
            spool.keep(each)
            await spool.flush()
            await trio.sleep(1)
        spool.used(one)
        assert spool.written == 2
        await trio.sleep(REFRESH)
        spool.used(one)
        await spool.flush()
        assert spool.written == 3
        spool.file.max_age = 100
        spool.keep(point("three", say("c")))
        await spool.flush()
        assert await spool.recall("me", "one") is not None
        assert await spool.recall("me", "two") is None
        assert spool.removed == 1


async def test_turns_gather_for_a_transaction_unless_somebody_waits(
    autojump_clock: trio.abc.Clock, tmp_path: Path
) -> None:
    disk = Disk()
    async with spool_in(tmp_path, disk=disk) as spool, working(spool):
        for number in range(10):
            spool.keep(point(f"r{number}", say("a")))
            await trio.sleep(GATHER / 20)
        await trio.sleep(GATHER)
        assert (spool.written, disk.asked) == (10, 1)
        began = trio.current_time()
        for number in range(10, 13):
            spool.keep(point(f"r{number}", say("a")))
            await spool.flush()
        assert trio.current_time() == began
        assert (spool.written, disk.asked) == (13, 4)
        spool.keep(point("later", say("a")))
        await trio.testing.wait_all_tasks_blocked()
        assert spool.written == 13  # nobody waits any more


async def test_what_is_too_old_goes_though_nothing_happens(
    autojump_clock: trio.abc.Clock, tmp_path: Path
) -> None:
    async with spool_in(tmp_path) as spool, working(spool):
        spool.file.max_age = 100
        spool.keep(point("one", say("a")))
        await spool.flush()
        await trio.sleep(2 * TIDY)
        assert spool.removed == 1


async def test_many_go_in_more_than_one_transaction(
    autojump_clock: trio.abc.Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.gateway.spool_file.GO_AT_ONCE", 4)
    async with spool_in(tmp_path) as spool:
        for number in range(10):
            spool.keep(point(f"r{number}", say("a")))
        await spool.end()
        spool.file.max_age = 1
        disk = spool.in_thread
        assert isinstance(disk, Disk)
        before = disk.asked
        async with working(spool):
            await trio.sleep(5)
            spool.keep(point("last", say("b")))
            await trio.sleep(5)
        assert spool.removed == 10
        assert disk.asked - before == 1 + 3


async def test_the_rest_is_written_at_the_end(tmp_path: Path) -> None:
    async with open_spool(tmp_path, "server", max_bytes=MIB) as spool:
        spool.keep(point("one", say("a")))
        spool.keep(point("gone", say("b")))
        spool.forget("me", "gone")
    async with open_spool(tmp_path, "server", max_bytes=MIB) as spool:
        assert await spool.recall("me", "one") is not None
        assert await spool.recall("me", "gone") is None


async def test_a_spool_that_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(_: object) -> None:
        raise sqlite3.OperationalError("database is locked")

    monkeypatch.setattr("scheduler.gateway.spool_file.connect", busy)
    with pytest.raises(SettingsError, match="cannot be used: database is locked"):
        async with open_spool(tmp_path, "server", max_bytes=MIB):
            raise AssertionError
