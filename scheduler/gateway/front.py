"""`POST /v1/responses`: one turn for one client over HTTP, as a stream or whole."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, TypeGuard

import trio
from attrs import define

from pool.errors import PoolError, ResponseFailed
from pool.web import HttpConnection
from pool.wire.codec import to_json
from pool.wire.refusal import Refused
from scheduler.errors import SchedulerError
from scheduler.gateway.asked import Asked
from scheduler.gateway.core import Core
from scheduler.gateway.errors import BAD_GATEWAY, UpstreamRefused, refused
from scheduler.gateway.frames import Voice
from scheduler.gateway.holding import OutputSurfaced
from scheduler.gateway.keys import Caller
from scheduler.gateway.relay import DONE, Relay
from scheduler.gateway.settings import GatewaySettings
from scheduler.turns import Turn

log = logging.getLogger("warmline.gateway")

GONE = (trio.BrokenResourceError, trio.ClosedResourceError)


class Failed(Exception):
    """A turn failed, and its client has been told."""


class ClientGone(Exception):
    """The client has left, or is cut off: its connection is of no more use."""


@define(eq=False)
class Front:
    """Answers creates over HTTP."""

    core: Core
    settings: GatewaySettings

    async def create(
        self, http: HttpConnection, caller: Caller, asked: Asked, headers: dict[str, str]
    ) -> Turn:
        """Take a turn and answer with it; `headers` are part of the answer.

        Raises:
            Refused: the turn failed, and nothing was sent to the client yet.
            Failed: it failed, and the client was told on the stream.
            ClientGone: the client left before the end.
        """
        voice = Voice(
            parent=asked.previous_response_id,
            hides_reasoning=not asked.stored and not asked.reasoning_included,
        )
        relay = Relay(http, voice, self.settings, headers)
        turn: Turn | None = None
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            scope = nursery.cancel_scope
            nursery.start_soon(relay.watch, scope)
            if asked.stream:
                nursery.start_soon(relay.mind, scope)
            try:
                hear, at_once = (relay.hear, relay.at_once) if asked.stream else (None, None)
                turn = await self.core.turn(caller, asked, hear=hear, at_once=at_once)
            except (PoolError, SchedulerError, Refused, OutputSurfaced, *GONE) as error:
                failure = error.with_traceback(
                    None
                )  # whose frames hold the request, and this one would hold it
            scope.cancel()
        if relay.gone or isinstance(failure, GONE):
            raise ClientGone
        try:
            if turn is None:
                assert failure is not None
                if asked.stream or not _ended_as_failed(failure):
                    await self._failed(relay, failure)
                else:
                    await self._answer(http, failure.payload, voice, headers)
                raise Failed(failure)
            if asked.stream:
                await relay.tell(relay.holding.finish())
                await relay.write(DONE)
                await http.end()
            else:
                response = turn.payload
                if not response.get("output") and turn.output:  # some servers leave it out of the end
                    response = {**response, "output": turn.output}
                await self._answer(http, response, voice, headers)
        except GONE:
            raise ClientGone from None
        return turn

    async def _answer(
        self, http: HttpConnection, response: Mapping[str, Any], voice: Voice, headers: dict[str, str]
    ) -> None:
        content = to_json(voice.response(response))
        await http.answer(200, content, {"content-type": "application/json", **headers})

    async def _failed(self, relay: Relay, failure: Exception) -> None:
        """Say that the turn has failed, on the stream where that has begun, else by raising."""
        surfaced = isinstance(failure, OutputSurfaced)
        told = _interrupted(failure) if isinstance(failure, OutputSurfaced) else refused(failure)
        words = relay.holding.last_words
        begins = isinstance(told, UpstreamRefused) and words is not None and words.type == "response.failed"
        if not relay.begun and not begins:
            raise told
        held = relay.holding.release()
        if words is None or (words.type == "error" and not surfaced):
            await relay.fail(told)
        else:
            await relay.tell(held)
        await relay.write(DONE)
        await relay.http.end()


def _ended_as_failed(failure: Exception) -> TypeGuard[ResponseFailed]:
    """Whether there is a response, and failure is how it ended, rather than a refusal."""
    return isinstance(failure, ResponseFailed) and failure.started and "id" in failure.payload


def _interrupted(failure: OutputSurfaced) -> Refused:
    return Refused(
        f"The response was interrupted upstream ({failure.reason}) after output had been sent; please try again.",
        status=BAD_GATEWAY,
        kind="server_error",
        code="upstream_interrupted",
    )
