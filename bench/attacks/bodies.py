"""Bodies of creates that come whole, and whose reading costs more than their sending.

Each connection waits for its answer before it sends the next, so what they take of the machine is bounded: a body a
second at most, but for the small ones.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from bench.attacks.attack import Aim, Attack
from bench.attacks.wire import connected, frame, many, request, send, talk, upgraded

MIB = 1024 * 1024
SCRIPT = b'"metadata":{"emulator":"calls=0 output_tokens=1 deltas=1"}'  # little to do for the server
MODEL = b'{"model":"gpt-6-astra","store":false,' + SCRIPT + b","


def items() -> bytes:
    """a million empty items, 3 MB."""
    return MODEL + b'"input":[' + b",".join([b"{}"] * 1_000_000) + b"]}"


def messages() -> bytes:
    """300,000 messages, 13 MB."""
    return MODEL + b'"input":[' + b",".join([b'{"role":"user","content":"and so it goes"}'] * 300_000) + b"]}"


def big_item() -> bytes:
    """one item of 60 MB."""
    return MODEL + b'"input":[{"role":"user","content":"' + b"a" * (60 * MIB) + b'"}]}'


def escapes() -> bytes:
    """a text of a million escapes, 6 MB."""
    return MODEL + b'"input":"' + rb"\u00e9" * 1_000_000 + b'"}'


def deep() -> bytes:
    """a million arrays one in the other."""
    return MODEL + b'"input":' + b"[" * 1_000_000 + b"]" * 1_000_000 + b"}"


def deep_item() -> bytes:
    """2,000 items with objects 900 deep."""
    item = b'{"x":' * 900 + b"1" + b"}" * 900
    return MODEL + b'"input":[' + b",".join([item] * 2_000) + b"]}"


def parts() -> bytes:
    """a message with a million content parts."""
    return MODEL + b'"input":[{"role":"user","content":[' + b",".join([b"{}"] * 1_000_000) + b"]}]}"


def digits() -> bytes:
    """numbers with a million digits."""
    number = b"9" * 1_000_000
    return MODEL + b'"input":[{"x":' + number + b'}],"temperature":' + number + b',"store":' + number + b"}"


def members() -> bytes:
    """300,000 members."""
    names = b"".join(b'"n%d":1,' % number for number in range(300_000))
    return MODEL + names + b'"input":"hello"}'


def same_members() -> bytes:
    """one member 500,000 times."""
    return MODEL + b'"input":"a",' * 500_000 + b'"input":"hello"}'


def references() -> bytes:
    """200,000 references to items."""
    item = b'{"type":"item_reference","id":"msg_%048x"}'
    return MODEL + b'"input":[' + b",".join(item % number for number in range(200_000)) + b"]}"


def tools() -> bytes:
    """100,000 tools."""
    tool = b'{"type":"function","name":"f","parameters":{"type":"object","properties":{}}}'
    return MODEL + b'"input":"hello","tools":[' + b",".join([tool] * 100_000) + b"]}"


def posted(body: Callable[[], bytes], *, with_key: bool = True) -> Callable[[Aim], Awaitable[None]]:
    """Return an attack that posts this body, two at a time."""

    async def attack(aim: Aim) -> None:
        whole = request("/v1/responses", key=aim.key if with_key else "", content=body())

        async def one() -> None:
            async with await connected(aim.port) as stream:

                async def said(stream: trio.abc.Stream) -> None:
                    await send(stream, whole)
                    await stream.send_eof()  # type: ignore[attr-defined]  # so that the answer is the last

                await talk(stream, said)

        await many(2, one, pause=1.0)

    attack.__doc__ = f"Post {'with' if with_key else 'without'} a key, twice at once: {body.__doc__}"
    return attack


def on_socket(body: Callable[[], bytes]) -> Callable[[Aim], Awaitable[None]]:
    """Return an attack that sends this body as a message on a WebSocket."""

    async def attack(aim: Aim) -> None:
        message = frame(1, b'{"type":"response.create",' + body()[1:])

        async def one() -> None:
            async with await upgraded(aim) as stream:

                async def said(stream: trio.abc.Stream) -> None:
                    while True:
                        await send(stream, message)
                        await trio.sleep(1)

                await talk(stream, said)

        await many(2, one, pause=1.0)

    attack.__doc__ = f"Create on two WebSockets, once a second each: {body.__doc__}"
    return attack


ATTACKS = (
    Attack("items", posted(items)),
    Attack("items-no-key", posted(items, with_key=False)),
    Attack("items-socket", on_socket(items)),
    Attack("messages", posted(messages)),
    Attack("big-item", posted(big_item)),
    Attack("escapes", posted(escapes)),
    Attack("deep", posted(deep)),
    Attack("deep-items", posted(deep_item)),
    Attack("parts", posted(parts)),
    Attack("parts-socket", on_socket(parts)),
    Attack("digits", posted(digits)),
    Attack("digits-socket", on_socket(digits)),
    Attack("members", posted(members)),
    Attack("same-member", posted(same_members)),
    Attack("references", posted(references)),
    Attack("tools", posted(tools)),
)
