"""With virtual keys the gateway lends its key, and tenants stay apart: nobody reaches what another has created, the
account has to offer beside that, or more than its key's limits, however a request is written.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from attrs import define, evolve

from pool.emulator import EmulatorSettings
from pool.wire.codec import to_json
from scheduler.gateway.access import FAMILIES, operation_of
from scheduler.gateway.keys import VirtualKey, digest_of
from scheduler.gateway.references import references
from scheduler.gateway.routing import Route
from tests.emulator.client import Client, connected, knobs
from tests.gateway.stage import Stage, staged, until
from tests.gateway.test_spool import spool_in
from tests.gateway.web import Answer, WebClient, web_client
from tests.support.account import Account

ASKED: dict[str, Any] = {"input": "hello", "metadata": knobs("calls=0")}
CREATE = "/v1/responses"
EVERY = tuple(name for name in FAMILIES)
JSON = {"content_type": "application/json"}


def key(name: str, **fields: Any) -> VirtualKey:
    return VirtualKey(name=name, digest=digest_of(name), **fields)


def bearer(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer {name}"}


@define(eq=False)
class Tenants:
    """Two callers of one gateway, and the account that both use."""

    stage: Stage
    account: Account
    mine: WebClient
    theirs: WebClient

    async def secret(self) -> str:
        """Return the id of a response of theirs."""
        response = (await self.theirs.create(**ASKED, store=True)).response
        return str(response["id"])

    @property
    def targets(self) -> list[str]:
        """What the account was asked for over HTTP."""
        return [f"{seen.method} {seen.target}" for seen in self.account.seen]


@asynccontextmanager
async def tenants(
    *, account: Account | None = None, server: EmulatorSettings | None = None, **limits: Any
) -> AsyncIterator[Tenants]:
    """`limits`: of my key."""
    keys = [key("mine", **limits), key("theirs", endpoints=EVERY)]
    async with staged(server, policy="virtual", keys=keys) as stage:
        stage.http_side.server = account or Account()  # type: ignore[assignment]  # it has the same `handle`
        async with (
            web_client(stage, headers=bearer("mine")) as mine,
            web_client(stage, headers=bearer("theirs")) as theirs,
        ):
            yield Tenants(stage, stage.http_side.server, mine, theirs)  # type: ignore[arg-type]


async def post(client: WebClient, target: str, body: Any, **headers: str) -> Answer:
    content = body if isinstance(body, bytes) else to_json(body)
    return await client.ask("POST", target, content, **{**JSON, **headers})


# Whose a response is


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        (CREATE, {}),
        (f"{CREATE}/", {}),
        (f"{CREATE}?", {}),
        (f"{CREATE}?x=1", {}),
        (f"{CREATE}/?x=1", {}),
        ("/v1/%72esponses", {}),
        ("/v1//responses", {}),
        ("//v1/responses", {}),
        ("/v1/x/../responses", {}),
        ("/v1/%2e/responses", {}),
        ("/V1/responses", {}),
        ("/v1/responses%2f", {}),
        (f"{CREATE}#", {}),
        (CREATE, {"content_encoding": "identity"}),
        (CREATE, {"content_encoding": "identity, identity"}),
        (CREATE, {"content_encoding": "gzip"}),
        (CREATE, {"content_type": "text/plain"}),
        (CREATE, {"content_type": "multipart/form-data; boundary=x"}),
        (CREATE, {"x_http_method_override": "GET"}),
        (f"{CREATE}/compact", {}),
        (f"{CREATE}/input_tokens", {}),
        (f"{CREATE}/input_tokens?", {}),
        (f"{CREATE}/anything", {}),
    ],
)
@pytest.mark.parametrize("way", ["parent", "conversation", "reference", "background"])
async def test_no_spelling_of_a_request_reaches_anothers_response(
    autojump_clock: trio.abc.Clock, target: str, headers: dict[str, str], way: str
) -> None:
    async with tenants() as both:
        secret = await both.secret()
        item = both.stage.gateway.core.library.by_id(digest_of("theirs"), secret)
        assert item is not None
        more: dict[str, dict[str, Any]] = {
            "parent": {"previous_response_id": secret},
            "conversation": {"conversation": {"id": secret}},
            "reference": {"input": [{"type": "item_reference", "id": next(iter(item.items))}]},
            "background": {"previous_response_id": secret, "background": True},
        }
        body = {"model": "m", "input": "go", "store": True, **more[way]}
        answer = await post(both.mine, target, body, **headers)
        assert answer.status in (400, 404, 415)
        assert "error" in answer.json
        assert both.account.seen == []
        assert both.stage.emulator.stats.responses == 1
        assert both.stage.gateway.crashes == 0


@pytest.mark.parametrize("method", ["GET", "DELETE", "POST", "HEAD", "PATCH", "PUT", "OPTIONS"])
@pytest.mark.parametrize("rest", ["", "/", "?stream=true", "/input_items", "/cancel", "/anything/else"])
async def test_anothers_response_is_not_found(autojump_clock: trio.abc.Clock, method: str, rest: str) -> None:
    async with tenants() as both:
        secret = await both.secret()
        for name in (secret, "resp_nobodys", secret.replace("_", "%5F")):
            await both.mine.send(method, f"{CREATE}/{name}{rest}", b"", **JSON)
            while (event := await both.mine.next()).__class__.__name__ != "Response":
                pass
            assert event.status_code == 404
            if method == "HEAD":
                return
            while (event := await both.mine.next()).__class__.__name__ != "EndOfMessage":
                pass
        assert both.account.seen == []


@pytest.mark.parametrize(
    "text",
    [
        b'{"model":"m","input":"x","previous_response_id":"resp_mine","previous_response_id":"%s"}',
        b'{"model":"m","input":"x","previous_response_id":"%s","previous_response_id":"resp_mine"}',
        b'{"model":"m","input":"x","\\u0070revious_response_id":"%s"}',
        b'{"model":"m","input":[{"type":"item_reference","id":"%s","type":"message"}]}',
        b'{"model":"m","input":[{"\\u0074ype":"item_reference","id":"%s"}]}',
        b'{"model":"m","input":[{"id":"%s"}]}',
        b'{"model":"m","input":[{"type":"reasoning","id":"%s","summary":[]}]}',
        b'{"model":"m","input":[{"type":"image_generation_call","id":"%s"}]}',
        b'{"model":"m","input":[{"role":"user","content":[{"type":"input_file","file_id":"%s"}]}]}',
        b'{"model":"m","input":"x","tools":[{"type":"code_interpreter","container":"%s"}]}',
        b'{"model":"m","input":"x","tools":[{"type":"file_search","vector_store_ids":["vs_1","%s"]}]}',
        b'{"model":"m","input":"x","prompt":{"id":"%s"}}',
        b'{"model":"m","input":"x","prompt":{"id":"p","variables":{"a":{"type":"input_file","file_id":"%s"}}}}',
        b'{"model":"m","conversation":"%s"}',
    ],
)
async def test_what_another_parser_could_read_of_a_body_is_searched_or_gone(
    autojump_clock: trio.abc.Clock, text: bytes
) -> None:
    """Whatever goes upstream was written from what was searched: it has each name once, and no foreign id."""
    async with tenants() as both:
        answer = await post(both.mine, CREATE, text % b"file-theirs")
        upstream = b"".join(seen.body for seen in both.account.seen)
        assert b"file-theirs" not in upstream or answer.status == 200
        if answer.status != 200:
            assert answer.status in (400, 404)
            assert both.account.seen == []


async def test_duplicate_names_do_not_go_upstream(autojump_clock: trio.abc.Clock) -> None:
    body = (
        b'{"model":"m","background":true,"input":[{"role":"user","a":{"file_id":"file-x","file_id":null}}]}'
    )
    async with tenants() as both:
        assert (await post(both.mine, CREATE, body)).status == 200
        (seen,) = both.account.seen
        assert b"file-x" not in seen.body
        assert seen.json == {
            "model": "m",
            "background": True,
            "input": [{"role": "user", "a": {"file_id": None}}],
        }


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ({"file_id": "x"}, {"x"}),
        ({"file_ids": ["x", "y"]}, {"x", "y"}),
        ({"container": "c"}, {"c"}),
        ({"container": {"type": "auto", "file_ids": ["x"]}}, {"x"}),
        ({"some_id": "file-x"}, {"file-x"}),
        ({"some_id": "whatever"}, set()),
        ({"call_id": "call_1", "type": "function_call", "id": "fc_1"}, set()),
        ({"type": "message", "id": "msg_1", "role": "user", "content": []}, set()),
        ({"type": "message", "content": [{"annotations": [{"file_id": "x"}]}]}, set()),
        ({"type": "reasoning", "id": "rs_1", "encrypted_content": "e"}, set()),
        ({"type": "reasoning", "id": "rs_1"}, {"rs_1"}),
        ({"parameters": {"properties": {"file_id": {"type": "string"}}}}, set()),
        ({"metadata": {"file_id": "x"}}, set()),
        ([[{"a": [{"b": {"vector_store_ids": ["v"]}}]}]], {"v"}),
    ],
)
def test_which_ids_a_value_refers_to(value: Any, found: set[str]) -> None:
    assert set(references(value)) == found


# What of the account may be used


@pytest.mark.parametrize(
    ("method", "target"),
    [
        *(("GET", "/v1/files"), ("POST", "/v1/files"), ("GET", "/v1/files/file-1/content")),
        *(("DELETE", "/v1/files/file-1"), ("GET", "/v1/organization/admin_api_keys"), ("GET", "/v1/batches")),
        *(("POST", "/v1/fine_tuning/jobs"), ("GET", "/v1/assistants"), ("POST", "/v1/chat/completions")),
        *(("POST", "/v1/embeddings"), ("GET", "/v1/vector_stores"), ("POST", "/v1/realtime/sessions")),
        *(
            ("DELETE", "/v1/models/ft-1"),
            ("GET", "/v1/responses"),
            ("GET", "/v1/FILES"),
            ("GET", "/v1/anything"),
        ),
    ],
)
async def test_a_key_reaches_turns_and_models_and_nothing_else(
    autojump_clock: trio.abc.Clock, method: str, target: str
) -> None:
    async with tenants() as both:
        answer = await both.mine.ask(method, target, b"", **JSON)
        assert answer.status in (403, 404)
        assert both.account.seen == []
        assert (await both.mine.ask("GET", "/v1/models")).status == 200
        assert (await both.mine.ask("GET", "/v1/models/gpt")).status == 200
        assert (await both.mine.create(**ASKED)).status == 200


async def test_a_key_without_turns_opens_no_socket(autojump_clock: trio.abc.Clock) -> None:
    async with tenants(endpoints=("models",)) as both:
        answer = await both.mine.ask(
            "GET",
            CREATE,
            connection="upgrade",
            upgrade="websocket",
            sec_websocket_key="dGhlIHNhbXBsZSBub25jZQ==",
            sec_websocket_version="13",
        )
        assert (answer.status, answer.json["error"]["code"]) == (403, "endpoint_not_allowed")


@pytest.mark.parametrize(
    "family", ["files", "batches", "conversations", "vector_stores", "uploads", "containers", "chat"]
)
async def test_what_a_key_creates_is_its_own(autojump_clock: trio.abc.Clock, family: str) -> None:
    base = "/v1/chat/completions" if family == "chat" else f"/v1/{family}"
    form = {"content_type": "multipart/form-data; boundary=x"} if family == "files" else JSON
    async with tenants(endpoints=(family,)) as both:
        mine = (await post(both.mine, base, b"{}", **form)).json["id"]
        theirs = (await post(both.theirs, base, b"{}", **form)).json["id"]
        assert (await both.mine.ask("GET", f"{base}/{mine}")).json["id"] == mine
        assert (await both.mine.ask("GET", f"{base}/{theirs}")).status == 404
        assert (await both.mine.ask("DELETE", f"{base}/{theirs}")).status == 404
        assert (await both.theirs.ask("GET", f"{base}/{theirs}")).status == 200
        assert (await both.theirs.ask("GET", f"{base}/{mine}")).status == 404
        both.account.listed = [mine, theirs, "of-the-account"]
        listed = await both.mine.ask("GET", f"{base}?limit=100")
        if family != "chat":
            assert [one["id"] for one in listed.json["data"]] == [mine]
            assert (listed.json["first_id"], listed.json["last_id"]) == (mine, mine)


async def test_another_tenants_file_cannot_be_named_in_a_turn(autojump_clock: trio.abc.Clock) -> None:
    async with tenants(endpoints=("responses", "files"), resources=("file-shared",)) as both:
        form = {"content_type": "multipart/form-data; boundary=x"}
        mine = (await post(both.mine, "/v1/files", b"--x--", **form)).json["id"]
        theirs = (await post(both.theirs, "/v1/files", b"--x--", **form)).json["id"]
        for name, status in ((mine, 200), ("file-shared", 200), (theirs, 404), ("file-unknown", 404)):
            file = {"role": "user", "content": [{"type": "input_file", "file_id": name}]}
            answer = await both.mine.create(**{**ASKED, "input": [file]})
            assert answer.status == status, name


async def test_a_key_with_everything_has_everything_but_what_is_anothers(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with tenants(endpoints=("*",)) as both:
        secret = await both.secret()
        assert (await both.mine.ask("GET", "/v1/organization/users")).status == 200
        assert (await both.mine.ask("GET", f"{CREATE}/resp_of_before")).status == 200
        assert (await both.mine.ask("GET", f"{CREATE}/{secret}")).status == 404
        assert (await both.mine.create(input="x", previous_response_id=secret)).status == 400


async def test_only_the_configuration_says_whose_account_it_is(autojump_clock: trio.abc.Clock) -> None:
    account = Account(headers={"openai-organization": "org-1", "set-cookie": "a=b", "x-request-id": "req_1"})
    async with tenants(account=account) as both:
        answer = await both.mine.ask(
            "GET",
            "/v1/models",
            openai_organization="org-other",
            openai_project="proj-other",
            openai_beta="assistants=v2",
            x_http_method_override="DELETE",
            cookie="session=1",
            x_api_key="sk-other",
        )
        (seen,) = account.seen
        assert seen.headers["openai-beta"] == "assistants=v2"
        left = {"openai-organization", "openai-project", "x-http-method-override", "cookie", "x-api-key"}
        assert not left & seen.headers.keys()
        assert "wl-" not in str(seen.headers)
        assert answer.headers["x-request-id"] == "req_1"
        assert not {"openai-organization", "set-cookie"} & answer.headers.keys()


async def test_what_was_created_is_known_after_a_restart(
    autojump_clock: trio.abc.Clock, tmp_path: Path
) -> None:
    keys = [key(name, endpoints=("responses", "files")) for name in ("mine", "theirs")]
    form = {"content_type": "multipart/form-data; boundary=x"}
    name = ""
    for start in range(2):
        async with spool_in(tmp_path) as spool:
            async with staged(policy="virtual", keys=keys, spool=spool) as stage:
                account = stage.http_side.server = Account()  # type: ignore[assignment]
                async with web_client(stage, headers=bearer("mine")) as client:
                    if start == 0:
                        name = (await post(client, "/v1/files", b"--x--", **form)).json["id"]
                    assert (await client.ask("GET", f"/v1/files/{name}")).status == 200
                async with web_client(stage, headers=bearer("theirs")) as client:
                    assert (await client.ask("GET", f"/v1/files/{name}")).status == 404
            assert account.seen[-1].headers.get("authorization") != "Bearer mine"


# How much may be used


@pytest.mark.parametrize(
    ("target", "body"),
    [
        (CREATE, ASKED),
        (f"{CREATE}?x=1", ASKED),
        (CREATE, {"input": "x", "background": True}),
        (CREATE, {"input": "x", "background": True, "stream": True}),
        (f"{CREATE}/compact", {"input": "x"}),
        ("/v1/chat/completions", {"messages": []}),
        ("/v1/embeddings", {"input": "x"}),
        ("/v1/completions", {"prompt": "x"}),
    ],
)
@pytest.mark.parametrize("usage", [100, None])
async def test_no_way_upstream_is_free(
    autojump_clock: trio.abc.Clock, target: str, body: dict[str, Any], usage: int | None
) -> None:
    account = Account(usage=usage)
    async with tenants(account=account, endpoints=EVERY, tokens_per_minute=5) as both:
        first = await post(both.mine, target, {"model": "m", **body})
        assert first.status == 200
        for again in (target, CREATE, "/v1/embeddings"):
            answer = await post(both.mine, again, {"model": "m", **body})
            assert (answer.status, answer.json["error"]["code"]) == (429, "rate_limit_exceeded")
        assert float(answer.headers["retry-after"]) > 0
        await trio.sleep(61)
        assert (await both.mine.ask("GET", "/v1/models")).status == 200


async def test_counting_tokens_costs_none(autojump_clock: trio.abc.Clock) -> None:
    async with tenants(tokens_per_minute=5, account=Account(usage=None)) as both:
        for _ in range(3):
            assert (await post(both.mine, f"{CREATE}/input_tokens", {"input": "x" * 100})).status == 200


async def test_requests_are_counted_on_every_way(autojump_clock: trio.abc.Clock) -> None:
    async with tenants(requests_per_minute=2) as both:
        assert (await both.mine.ask("GET", "/v1/models")).status == 200
        assert (await both.mine.create(**ASKED)).status == 200
        for method, target in (("GET", "/v1/models"), ("POST", f"{CREATE}/compact"), ("POST", f"{CREATE}?x")):
            assert (await both.mine.ask(method, target, b"{}", **JSON)).status == 429
        assert len(both.account.seen) == 1


async def test_turns_in_flight_are_counted_on_every_way(autojump_clock: trio.abc.Clock) -> None:
    async with (
        tenants(max_in_flight=1, server=EmulatorSettings(latency="base=5")) as both,
        web_client(both.stage, headers=bearer("mine")) as other,
    ):
        await both.mine.send(
            "POST",
            CREATE,
            to_json({"model": "m", **ASKED, "metadata": knobs("calls=0")}),
            **JSON,
        )
        await until(lambda: len(both.stage.gateway.core.running) == 1)
        await trio.sleep(1)
        (scheduler,) = both.stage.gateway.upstreams.sources.values()
        assert scheduler.admission.stats().in_flight == 1
        await other.send("POST", CREATE, to_json({"model": "m", "input": "x", "background": True}), **JSON)
        await trio.sleep(1)
        assert scheduler.admission.stats().waiting == 1
        assert both.account.seen == []
        assert (await both.mine.answer()).status == 200
        assert (await other.answer()).status == 200
        assert len(both.account.seen) == 1


async def test_a_response_made_over_plain_http_is_its_makers(autojump_clock: trio.abc.Clock) -> None:
    for stream in (False, True):
        async with tenants() as both:
            answer = await post(
                both.mine, CREATE, {"model": "m", "input": "x", "background": True, "stream": stream}
            )
            name = answer.events[-1]["response"]["id"] if stream else answer.json["id"]
            container = name.replace("resp_", "cntr_")
            assert (await both.mine.ask("GET", f"{CREATE}/{name}")).status == 200
            assert (await both.mine.ask("POST", f"{CREATE}/{name}/cancel")).status == 200
            assert (await both.theirs.ask("GET", f"{CREATE}/{name}")).status == 404
            tools = [{"type": "code_interpreter", "container": container}]
            assert (await both.mine.create(**ASKED, tools=tools)).status == 200
            assert (await both.theirs.create(**ASKED, tools=tools)).status == 404
            assert (await both.theirs.ask("DELETE", f"{CREATE}/{name}")).status == 404
            assert (await both.mine.ask("DELETE", f"{CREATE}/{name}")).status == 200


# The same over a WebSocket


async def refused(client: Client, **create: Any) -> str:
    await client.send(**create)
    event = (await client.rest())[-1]
    assert event["type"] == "error"
    return str(event["error"]["code"])


async def test_a_socket_keeps_tenants_apart_as_well(autojump_clock: trio.abc.Clock) -> None:
    async with tenants() as both:
        secret = await both.secret()
        async with connected(both.stage.gateway, headers=bearer("mine")) as client:
            code = await refused(client, input="x", previous_response_id=secret, store=True)
            assert code == "previous_response_not_found"
            file = [{"role": "user", "content": [{"type": "input_file", "file_id": "file-x"}]}]
            assert await refused(client, input=file) == "resource_not_found"
            assert await refused(client, input="x", conversation="conv_x") == "resource_not_found"
        assert both.account.seen == []


# When a key is removed, changed or kicked


@pytest.mark.parametrize("change", ["removed", "digest", "endpoints"])
async def test_a_changed_key_ends_its_sockets_after_the_turn(
    autojump_clock: trio.abc.Clock, change: str
) -> None:
    one, other = key("one"), key("other")
    server = EmulatorSettings(latency="base=5")
    async with staged(server, policy="virtual", keys=[one, other]) as stage:
        gateway = stage.gateway
        async with (
            connected(gateway, headers=bearer("one")) as busy,
            connected(gateway, headers=bearer("one")) as idle,
            connected(gateway, headers=bearer("other")) as unchanged,
        ):
            await busy.send(**ASKED)
            await busy.send(**ASKED)  # waits for the lane
            await until(lambda: len(gateway.core.running) == 1)
            await trio.sleep(1)
            fresh = {
                "removed": [other],
                "digest": [evolve(one, digest=digest_of("new")), other],
                "endpoints": [evolve(one, endpoints=("models",)), other],
            }[change]
            gateway.keys.replace(fresh)
            assert gateway.sessions.revoke(lambda caller: not gateway.keys.still_valid(caller)) == 2
            assert (await idle.until_closed())[1] == 1008
            assert (await busy.rest())[-1]["type"] == "response.completed"
            assert (await busy.rest())[-1]["error"]["code"] == "key_changed"
            assert (await busy.until_closed())[1] == 1008
            assert (await unchanged.turn(**ASKED))["type"] == "response.completed"


async def test_a_limit_that_changes_ends_no_socket(autojump_clock: trio.abc.Clock) -> None:
    one = key("one")
    async with (
        staged(policy="virtual", keys=[one]) as stage,
        connected(stage.gateway, headers=bearer("one")) as client,
    ):
        stage.gateway.keys.replace([evolve(one, requests_per_minute=1)])
        assert not stage.gateway.sessions.revoke(lambda who: not stage.gateway.keys.still_valid(who))
        await client.turn(**ASKED)
        assert await refused(client, **ASKED) == "rate_limit_exceeded"


async def test_a_kick_ends_everything_of_a_key_at_once(autojump_clock: trio.abc.Clock) -> None:
    server = EmulatorSettings(latency="base=60")
    async with staged(server, policy="virtual", keys=[key("one"), key("other")]) as stage:
        async with (
            connected(stage.gateway, headers=bearer("one")) as socket,
            web_client(stage, headers=bearer("one")) as http,
            web_client(stage, headers=bearer("other")) as unchanged,
        ):
            await socket.send(**ASKED)
            await http.send("POST", CREATE, to_json({"model": "m", **ASKED}))
            await unchanged.send("POST", CREATE, to_json({"model": "m", **ASKED}))
            await until(lambda: len(stage.gateway.core.running) == 3)
            assert stage.gateway.sessions.kick("one") == 2
            assert (await socket.until_closed())[1] == 1008
            assert await http.stream.receive_some() == b""
            assert (await unchanged.answer()).status == 200
        await trio.testing.wait_all_tasks_blocked()
        stage.assert_quiet()


# The table of operations


def test_what_is_not_in_the_table_is_no_operation() -> None:
    for family in FAMILIES:
        for method in ("PUT", "PATCH", "OPTIONS", "TRACE", "HEAD", "get"):
            assert operation_of(Route(method=method, segments=(family,))) is None
    assert operation_of(Route(method="GET", segments=())) is None
    assert operation_of(Route(method="POST", segments=("images", "anything"))) is None
    assert operation_of(Route(method="GET", segments=("embeddings",))) is None
