"""What is Redis' own: its URLs, servers that cannot keep a queue, restarts, failovers, silence. On real servers."""

from __future__ import annotations

import logging
import signal
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import pytest
import trio

from scheduler.worker import redis_link
from scheduler.worker.engines import open_queue
from scheduler.worker.errors import JobNotFound, LeaseLost, QueueRefused, QueueUnavailable
from scheduler.worker.job import Job
from scheduler.worker.patience import insist
from scheduler.worker.queue import Claim, Queue, QueueSettings, State, WorkerInfo
from scheduler.worker.redis import RedisQueue
from scheduler.worker.redis_address import read_address
from tests.support.redis import RedisServer, redis_server

ANN, BOB = WorkerInfo(id="ann", agents=("agent",)), WorkerInfo(id="bob", agents=("agent",))
SETTINGS = QueueSettings(lease=30.0)


def job(id: str, **fields: object) -> Job:  # noqa: A002
    return Job(**{"id": id, "input": "x", "agent": "agent", **fields})  # type: ignore[arg-type]  # by name


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path) as running:
        yield running


@pytest.fixture
async def queue(server: RedisServer) -> AsyncIterator[Queue]:
    async with open_queue(server.url, SETTINGS) as opened:
        yield opened


def test_what_a_url_says() -> None:
    address = read_address("redis://me:pass%2Fword@one:7000,[::1]/3?queue=mine&replicas=1")
    assert address.hosts == (("one", 7000), ("::1", 6379))
    assert (address.username, address.password, address.db) == ("me", "pass/word", 3)
    assert (address.root, address.replicas, address.tls) == ("{mine}:", 1, False)
    assert address.name == "redis://one:7000,[::1]/3?queue=mine&replicas=1"
    assert "pass" not in repr(address)
    assert read_address("rediss://host").tls
    assert read_address("unix:///run/redis.sock?db=2").db == 2
    assert read_address("unix:///run/redis.sock").socket == "/run/redis.sock"


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("redis://", "names no host"),
        ("redis://:secret@", "names no host"),
        ("redis://:secret@host:port", "is no host and port"),
        ("redis://:secret@host/first", "the database must be a whole number, not 'first'"),
        ("redis://:secret@host?queue=a:b", "without braces and colons"),
        ("redis://:secret@host?timeout=3", "unknown parameter 'timeout'; there are queue, db, ca, replicas"),
        ("unix://run/redis.sock", "names no socket"),
    ],
)
def test_a_url_that_is_wrong(url: str, problem: str) -> None:
    with pytest.raises(QueueRefused) as caught:
        read_address(url)
    assert problem in str(caught.value)
    assert "secret" not in str(caught.value)


async def refusal(url: str, kind: type[Exception] = QueueRefused) -> str:
    with pytest.raises(kind) as caught:
        async with open_queue(url):
            pytest.fail("was opened")
    assert "secret" not in str(caught.value)
    return str(caught.value)


async def test_nobody_there(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)  # not started
    assert await refusal(f"redis://:secret@127.0.0.1:{server.port}", QueueUnavailable) == (
        f"redis://127.0.0.1:{server.port}: cannot be reached: Connection refused"
    )
    assert "No such file" in await refusal(server.unix_url, QueueUnavailable)


async def test_passwords(tmp_path: Path) -> None:
    with redis_server(tmp_path, "requirepass", "right") as server:
        assert "the server wants a password: redis://:PASSWORD@HOST" in await refusal(server.url)
        wrong = await refusal(f"redis://:secret@127.0.0.1:{server.port}")
        assert "does not accept this password, or this user" in wrong
        async with open_queue(f"redis://:right@127.0.0.1:{server.port}/1") as queue:
            assert queue.name == f"redis://127.0.0.1:{server.port}/1"
            await queue.put([job("one")])
            assert await queue.take(ANN, limit=1)


async def test_a_server_or_a_database_that_is_no_good(server: RedisServer) -> None:
    assert "there is no database 99 on this server" in await refusal(f"{server.url}/99")
    server.command("SET", "{warmline}:meta", "mine")
    assert "keys of another program" in await refusal(server.url)
    server.command("HSET", "{newer}:meta", "version", "7")
    assert "layout 7, this warmline knows 1" in await refusal(f"{server.url}?queue=newer")
    server.command("ACL", "SETUSER", "reader", "on", ">secret", "~*", "+info")
    assert "this user may not do what a queue needs" in await refusal(
        f"redis://reader:secret@127.0.0.1:{server.port}?queue=other"
    )


async def answer(stream: trio.SocketStream, *, answers: list[bytes]) -> None:
    for line in answers:
        if not await stream.receive_some():
            return
        await stream.send_all(line)
    async for _ in stream:
        pass


@pytest.mark.parametrize(
    ("answers", "problem"),
    [
        ([b"HTTP/1.1 400 Bad Request\r\n\r\n"], "what answers there is no Redis server"),
        ([b"-ERR unknown command `HELLO`, with args beginning with: `3`\r\n"], "too old: it knows no HELLO"),
    ],
    ids=["HTTP", "Redis 5"],
)
async def test_something_else_answers(answers: list[bytes], problem: str) -> None:
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, partial(answer, answers=answers), 0)
        port = listeners[0].socket.getsockname()[1]
        assert problem in await refusal(f"redis://127.0.0.1:{port}")
        nursery.cancel_scope.cancel()


async def test_a_server_that_may_lose_jobs_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    options = ("appendonly", "no", "maxmemory", "50mb", "maxmemory-policy", "allkeys-lru")
    with redis_server(tmp_path, *options) as server:
        async with open_queue(server.url) as queue:
            await queue.counts()
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert ["allkeys-lru" in said[0], "appendonly yes" in said[1], len(said)] == [True, True, 2]


async def append_much(queue: Queue, claim: Claim) -> None:
    for index in range(100):
        await queue.append(claim, index, b"x" * 100_000)


async def test_memory_that_is_full_loses_nothing(tmp_path: Path) -> None:
    with redis_server(tmp_path, "maxmemory", "3mb", "maxmemory-policy", "noeviction") as server:
        async with open_queue(server.url, SETTINGS) as queue:
            await queue.put([job("one")])
            (claim,) = await queue.take(ANN, limit=1)
            with pytest.raises(QueueUnavailable, match="its memory is full"):
                await append_much(queue, claim)
            kept = len(await queue.steps("one"))
            assert 0 < kept < 100
            server.command("CONFIG", "SET", "maxmemory", "1mb")
            with pytest.raises(QueueUnavailable, match="its memory is full"):
                await queue.put([job("two")])
            assert (await queue.counts()).running == 1
            server.command("CONFIG", "SET", "maxmemory", "0")
            await queue.append(claim, kept, b"next")
            await queue.finish(claim, b"result")
            assert (await queue.get("one")).steps == kept + 1


async def test_over_a_socket(server: RedisServer) -> None:
    async with open_queue(server.unix_url) as queue:
        await queue.put([job("one")])
        assert [claim.job.id for claim in await queue.take(ANN, limit=1)] == ["one"]


async def test_an_error_of_the_block_comes_out_as_it_is(server: RedisServer) -> None:
    with pytest.raises(ValueError, match="mine"):
        async with open_queue(server.url):
            raise ValueError("mine")


async def test_queues_of_different_names_know_nothing_of_each_other(server: RedisServer) -> None:
    async with open_queue(server.url) as one, open_queue(f"{server.url}?queue=two") as two:
        await one.put([job("one")])
        assert await two.take(ANN, limit=9) == []


async def test_a_restart_loses_nothing(server: RedisServer, queue: Queue) -> None:
    await queue.put([job("one"), job("two")])
    (claim,) = await queue.take(ANN, limit=1)
    await queue.append(claim, 0, b"zero")
    server.stop()
    with pytest.raises(QueueUnavailable, match="cannot be reached"):
        await queue.append(claim, 1, b"one")
    server.start()
    await queue.append(claim, 1, b"one")
    await queue.finish(claim, b"result")
    assert [step.body for step in await queue.steps("one")] == [b"zero", b"one"]
    assert (await queue.get("one")).result == b"result"
    assert [claim.job.id for claim in await queue.take(BOB, limit=9)] == ["two"]


async def test_a_lease_does_not_run_while_the_server_is_away(server: RedisServer) -> None:
    settings = QueueSettings(lease=1.0)
    async with open_queue(server.url, settings) as queue:
        await queue.put([job("one")])
        (claim,) = await queue.take(ANN, limit=1)
        server.stop()
        await trio.sleep(1.1)  # the one thing here that only real time shows
        server.start()
        assert await queue.take(BOB, limit=1) == []
        assert await queue.beat(ANN, [claim]) == []
        assert (await queue.get("one")).strikes == 0


async def test_a_server_that_forgets_everything(tmp_path: Path) -> None:
    with redis_server(tmp_path, "appendonly", "no") as server:
        async with open_queue(server.url, SETTINGS) as queue:
            await queue.put([job("one")])
            (claim,) = await queue.take(ANN, limit=1)
            await server.restart(away=0)
            with pytest.raises(LeaseLost):
                await insist(partial(queue.append, claim, 0, b"zero"))
            assert await queue.beat(ANN, [claim]) == [claim]
            with pytest.raises(JobNotFound):
                await queue.get("one")
            # Whoever enqueues again starts anew, and the old claim does not fit the new job.
            await queue.put([job("one")])
            (new,) = await queue.take(ANN, limit=1)
            assert new.token > claim.token
            with pytest.raises(LeaseLost):
                await queue.finish(claim, b"old")


async def test_those_who_wait_for_a_change_hear_of_it_after_a_restart(
    server: RedisServer, queue: Queue
) -> None:
    await queue.take(ANN, limit=1)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery, open_queue(server.url) as other:

            async def wait() -> None:
                while not await insist(partial(queue.take, ANN, limit=1)):
                    await queue.changed(60)
                nursery.cancel_scope.cancel()

            nursery.start_soon(wait)
            await trio.to_thread.run_sync(server.wait_for, "CLIENT LIST", "cmd=xread")  # it waits
            await server.restart(away=0)
            await insist(partial(other.put, [job("one")]))
            await trio.sleep_forever()


async def test_a_cancelled_command_leaves_the_connection_in_order(queue: Queue) -> None:
    await queue.put([job(str(number)) for number in range(30)])
    for number in range(30):
        with trio.move_on_after(0):
            await queue.get(str(number))
        async with trio.open_nursery() as nursery:
            for other in range(5):
                nursery.start_soon(_get, queue, str(other))


async def _get(queue: Queue, name: str) -> None:
    assert (await queue.get(name)).job.id == name


async def test_silence(server: RedisServer, queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_link, "ANSWER_PATIENCE", 0.2)
    monkeypatch.setattr(redis_link, "DIAL_PATIENCE", 0.2)
    await queue.put([job("one")])
    server.signal(signal.SIGSTOP)
    try:
        with pytest.raises(QueueUnavailable, match=r"no answer for 0\.2 s"):
            await queue.counts()
        with pytest.raises(QueueUnavailable, match=r"no connection within 0\.2 s"):
            await queue.counts()
    finally:
        server.signal(signal.SIGCONT)
    monkeypatch.undo()
    assert (await insist(queue.counts)).due == 1


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[RedisServer, RedisServer]]:
    """A primary and its replica."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    with redis_server(tmp_path / "first") as first:
        options = (
            "appendonly",
            "no",
            "replicaof",
            f"127.0.0.1 {first.port}",
            "repl-diskless-sync-delay",
            "0",
        )
        with redis_server(tmp_path / "second", *options) as second:
            second.wait_for("INFO", "master_link_status:up")
            yield first, second


async def test_a_failover(pair: tuple[RedisServer, RedisServer]) -> None:
    first, second = pair
    url = f"redis://127.0.0.1:{second.port},127.0.0.1:{first.port}?replicas=1"
    async with open_queue(url, SETTINGS) as queue:  # the replica is passed over
        await queue.put([job("one"), job("two")])
        (claim,) = await queue.take(ANN, limit=1)
        await queue.append(claim, 0, b"zero")
        await queue.finish(claim, b"result")  # the replica has this and all before it
        first.stop()
        second.command("REPLICAOF", "NO", "ONE")
        assert (await insist(partial(queue.get, "one"))).result == b"result"
        (claim,) = await queue.take(BOB, limit=9)
        assert claim.job.id == "two"
        assert isinstance(queue, RedisQueue)
        with pytest.raises(QueueUnavailable, match="0 of 1 replicas"):
            await queue._synced(patience=0.05)


async def test_a_primary_that_becomes_a_replica(pair: tuple[RedisServer, RedisServer]) -> None:
    first, second = pair
    async with open_queue(f"redis://127.0.0.1:{first.port},127.0.0.1:{second.port}", SETTINGS) as queue:
        await queue.put([job("one")])
        second.wait_for("INFO", f"master_repl_offset:{first.fact('master_repl_offset')}")
        second.command("REPLICAOF", "NO", "ONE")
        first.command("REPLICAOF", "127.0.0.1", str(second.port))
        with trio.fail_after(20):
            (claim,) = await insist(partial(queue.take, ANN, limit=1))
            await insist(partial(queue.finish, claim, b"result"))
        assert "result" in second.command("HGET", "{warmline}:job:one", "result")


async def test_a_failover_that_loses_steps_leaves_no_hole(pair: tuple[RedisServer, RedisServer]) -> None:
    first, second = pair
    async with open_queue(f"redis://127.0.0.1:{first.port},127.0.0.1:{second.port}", SETTINGS) as queue:
        await queue.put([job("one")])
        (claim,) = await queue.take(ANN, limit=1)
        await queue.append(claim, 0, b"zero")
        second.wait_for("INFO", f"master_repl_offset:{first.fact('master_repl_offset')}")
        second.command("REPLICAOF", "NO", "ONE")
        await queue.append(claim, 1, b"one")  # acknowledged by a server that is about to go
        first.stop()
        with pytest.raises(LeaseLost):
            await insist(partial(queue.append, claim, 2, b"two"))
        (again,) = await queue.take(BOB, limit=1)
        assert (again.steps, again.strikes, again.token > claim.token) == (1, 0, True)


async def test_a_cluster(tmp_path: Path) -> None:
    for name in ("asked", "owner"):
        (tmp_path / name).mkdir()
    cluster = ("appendonly", "no", "cluster-enabled", "yes")
    with (
        redis_server(tmp_path / "asked", *cluster) as asked,
        redis_server(tmp_path / "owner", *cluster) as owner,
    ):
        slots = [str(number) for number in range(16384)]
        owner.command("CLUSTER", "ADDSLOTS", *slots)
        asked.command("CLUSTER", "MEET", "127.0.0.1", str(owner.port))
        for node in (asked, owner):
            node.wait_for("CLUSTER INFO", "cluster_state:ok")
        async with open_queue(asked.url, SETTINGS) as queue:
            await queue.put([job("a", conversation="c"), job("b", conversation="c")])
            (claim,) = await queue.take(ANN, limit=9)
            await queue.append(claim, 0, b"zero")
            await queue.finish(claim, b"result")
            assert (await queue.get("a")).state is State.DONE
            assert (await queue.counts()).due == 1
