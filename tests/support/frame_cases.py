"""What a peer can do with frames, right and wrong, and what has to come of it: one table for every reader of frames.

The frames are made and read here by hand, so that no implementation is tested against itself. A case is the same in
both directions but for the mask. What a peer does right ends with its close 1000, which has to be answered.
"""

from __future__ import annotations

import itertools
import struct
import zlib
from collections.abc import Iterator, Sequence

from attrs import field, frozen

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
KEY = b"\x37\xfa\x21\x3d"
NOT_JSON = ""  # the name of a message that says nothing
BYTES = "bytes"  # and of a binary one
NO_CODE = 1005  # a close frame without a code


@frozen
class F:
    """One frame. `wide`: its length in 2 or 8 bytes; `claims`: another length than it has."""

    kind: int
    payload: bytes = b""
    fin: bool = field(default=True, kw_only=True)
    rsv: int = field(default=0, kw_only=True)  # 4, 2, 1: the reserved bits
    wrong_mask: bool = field(default=False, kw_only=True)
    wide: int = field(default=0, kw_only=True)
    claims: int | None = field(default=None, kw_only=True)

    def made(self, *, by_client: bool) -> bytes:
        """Return its bytes."""
        masked = by_client is not self.wrong_mask
        size = len(self.payload) if self.claims is None else self.claims
        wide = self.wide or (0 if size < 126 else 2 if size < 65_536 else 8)
        short = {0: size, 2: 126, 8: 127}[wide]
        head = bytes((self.fin << 7 | self.rsv << 4 | self.kind, masked << 7 | short))
        head += {0: b"", 2: struct.pack("!H", size & 0xFFFF), 8: struct.pack("!Q", size)}[wide]
        if not masked:
            return head + self.payload
        return head + KEY + bytes(byte ^ KEY[at % 4] for at, byte in enumerate(self.payload))


@frozen(kw_only=True)
class Case:
    """What is sent, and what comes of it: messages by name, the last pong, the close's code (None: none is due)."""

    name: str
    frames: tuple[F, ...]
    said: tuple[str, ...] = ()
    pong: bytes | None = None
    close: int | None = None
    offer: str | None = None  # of compression; it has to be agreed to

    def sent(self, *, by_client: bool) -> bytes:
        """Return the bytes of its frames, and of a close where the case has none."""
        frames = self.frames if self.close is not None else (*self.frames, closes(1000))
        return b"".join(frame.made(by_client=by_client) for frame in frames)

    @property
    def code(self) -> int:
        """The code that has to come back."""
        return 1000 if self.close is None else self.close


def event(name: str, size: int = 0) -> bytes:
    """Return an event of a type that nobody knows, of at least so many bytes: whoever answers repeats its name."""
    return b'{"type":"%b"}' % name.encode() + b" " * (size - len(name.encode()) - 11)


def closes(code: int, reason: bytes = b"") -> F:
    return F(CLOSE, code.to_bytes(2, "big") + reason)


def split(payload: bytes, *cuts: int, kind: int = TEXT, rsv: int = 0) -> list[F]:
    """Return a message in fragments."""
    edges = [0, *cuts, len(payload)]
    last = len(edges) - 2
    return [
        F(CONT if at else kind, payload[start:end], fin=at == last, rsv=0 if at else rsv)
        for at, (start, end) in enumerate(itertools.pairwise(edges))
    ]


class Deflater:
    """Compresses messages; with takeover what came before helps the next."""

    def __init__(self, bits: int = 15, *, takeover: bool = True) -> None:
        self.bits, self.takeover = bits, takeover
        self._stream = zlib.compressobj(wbits=-bits)

    def __call__(self, payload: bytes, flush: int = zlib.Z_SYNC_FLUSH) -> bytes:
        data = self._stream.compress(payload) + self._stream.flush(flush)
        if not self.takeover or flush == zlib.Z_FINISH:
            self._stream = zlib.compressobj(wbits=-self.bits)
        return data.removesuffix(b"\x00\x00\xff\xff") if flush == zlib.Z_SYNC_FLUSH else data


def _plain(limit: int) -> Iterator[Case]:
    for size in (11, 125, 126, 127, limit - 1, limit):
        yield Case(name=f"a message of {size} bytes", frames=(F(TEXT, event("a", size)),), said=("a",))
    yield Case(name="an empty message", frames=(F(TEXT),), said=(NOT_JSON,))
    yield Case(
        name="three messages", frames=tuple(F(TEXT, event(name)) for name in "abc"), said=("a", "b", "c")
    )
    yield Case(
        name="more messages than a pass takes",
        frames=tuple(F(TEXT, event(str(number))) for number in range(300)),
        said=tuple(map(str, range(300))),
    )
    yield Case(name="a binary message", frames=(F(BINARY, b"\xff"), F(TEXT, event("a"))), said=(BYTES, "a"))
    yield Case(name="an empty binary message", frames=(F(BINARY),), said=(BYTES,))
    yield Case(name="bytes in fragments", frames=tuple(split(b"\xff" * 9, 3, 6, kind=BINARY)), said=(BYTES,))


def _fragments() -> Iterator[Case]:
    whole = event("in parts")
    for count in (2, 3, len(whole)):
        cuts = [len(whole) * part // count for part in range(1, count)]
        yield Case(name=f"{count} fragments", frames=tuple(split(whole, *cuts)), said=("in parts",))
    yield Case(name="the first fragment is empty", frames=tuple(split(whole, 0)), said=("in parts",))
    yield Case(name="the last fragment is empty", frames=tuple(split(whole, len(whole))), said=("in parts",))
    yield Case(name="empty fragments within", frames=tuple(split(whole, 5, 5, 5)), said=("in parts",))
    yield Case(name="nothing but empty fragments", frames=tuple(split(b"", 0, 0)), said=(NOT_JSON,))
    for at in range(3):
        frames = split(whole, 5, 9)
        frames.insert(at + 1 if at < 2 else 0, F(PING, b"?"))
        yield Case(name=f"a ping among fragments, {at}", frames=tuple(frames), said=("in parts",), pong=b"?")
    one, two, three = split(whole, 5, 9)
    yield Case(name="a pong among fragments", frames=(one, F(PONG), two, three), said=("in parts",))
    yield Case(name="a close among fragments", frames=(one, closes(1000)), close=1000)
    yield Case(name="two messages in fragments", frames=(*split(whole, 5),) * 2, said=("in parts",) * 2)
    for kind, name in ((TEXT, "text"), (BINARY, "bytes")):
        yield Case(name=f"{name} begin within a message", frames=(one, F(kind, b"x")), close=1002)
        yield Case(
            name=f"fragments of {name} within a message", frames=(one, F(kind, b"x", fin=False)), close=1002
        )
    yield Case(name="a continuation of nothing", frames=(F(CONT, b"x"),), close=1002)
    yield Case(name="an empty continuation of nothing", frames=(F(CONT),), close=1002)
    yield Case(name="a fragment of nothing", frames=(F(CONT, b"x", fin=False),), close=1002)
    yield Case(
        name="a continuation after the end",
        frames=(*split(whole, 5), F(CONT, b"x")),
        said=("in parts",),
        close=1002,
    )
    yield Case(
        name="a continuation after a whole message",
        frames=(F(TEXT, event("a")), F(CONT, b"x")),
        said=("a",),
        close=1002,
    )


def _control() -> Iterator[Case]:
    for size in (0, 1, 124, 125):
        yield Case(name=f"a ping of {size} bytes", frames=(F(PING, b"p" * size),), pong=b"p" * size)
        yield Case(name=f"a pong of {size} bytes", frames=(F(PONG, b"p" * size),))
    yield Case(name="a ping that is no text", frames=(F(PING, b"\xff\x00"),), pong=b"\xff\x00")
    yield Case(name="ten pings", frames=tuple(F(PING, b"%d" % number) for number in range(10)), pong=b"9")
    yield Case(
        name="a ping between messages",
        frames=(F(TEXT, event("a")), F(PING, b"?"), F(TEXT, event("b"))),
        said=("a", "b"),
        pong=b"?",
    )
    for kind, name in ((PING, "ping"), (PONG, "pong"), (CLOSE, "close")):
        yield Case(name=f"a {name} in fragments", frames=(F(kind, b"\x03\xe8", fin=False),), close=1002)
        yield Case(name=f"a {name} of 126 bytes", frames=(F(kind, b"\x03\xe8" * 63),), close=1002)
        yield Case(name=f"a {name} of 65536 bytes", frames=(F(kind, b"", claims=65_536),), close=1002)
        yield Case(name=f"a {name} of few bytes, said in two", frames=(F(kind, b"", wide=2),), close=1002)
    yield Case(
        name="a fragmented ping within a message",
        frames=(F(TEXT, b"x", fin=False), F(PING, b"?", fin=False)),
        close=1002,
    )


def _heads() -> Iterator[Case]:
    for rsv in range(1, 8):
        yield Case(name=f"reserved bits {rsv:03b} on text", frames=(F(TEXT, b"x", rsv=rsv),), close=1002)
    for kind, name in ((BINARY, "bytes"), (PING, "a ping"), (PONG, "a pong"), (CLOSE, "a close")):
        for rsv in (4, 2, 1):
            yield Case(name=f"reserved bits {rsv:03b} on {name}", frames=(F(kind, b"", rsv=rsv),), close=1002)
    for rsv in (4, 2, 1):
        yield Case(
            name=f"reserved bits {rsv:03b} on a continuation",
            frames=(F(TEXT, b"x", fin=False), F(CONT, b"x", rsv=rsv)),
            close=1002,
        )
    for kind in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
        yield Case(name=f"frames of kind {kind}", frames=(F(kind, b"x"),), close=1002)
        yield Case(
            name=f"a frame of kind {kind} within a message",
            frames=(F(TEXT, b"x", fin=False), F(kind)),
            close=1002,
        )
    for size in (0, 1, 125):
        yield Case(name=f"{size} bytes, said in two", frames=(F(TEXT, b"x" * size, wide=2),), close=1002)
    for size in (0, 125, 126, 4000):
        yield Case(name=f"{size} bytes, said in eight", frames=(F(TEXT, b"x" * size, wide=8),), close=1002)
    yield Case(name="bytes beyond two, said in eight", frames=(F(BINARY, b"x", wide=8),), close=1002)
    for power in (63, 64):
        size = (1 << power) - (power == 64)
        yield Case(name=f"2^{power} bytes", frames=(F(TEXT, b"x", wide=8, claims=size),), close=1002)
    for kind, name in (
        (TEXT, "text"),
        (BINARY, "bytes"),
        (PING, "a ping"),
        (PONG, "a pong"),
        (CLOSE, "a close"),
    ):
        yield Case(name=f"{name} with the wrong mask", frames=(F(kind, b"x", wrong_mask=True),), close=1002)
    yield Case(
        name="a wrong mask after a message",
        frames=(F(TEXT, event("a")), F(TEXT, b"x", wrong_mask=True)),
        said=("a",),
        close=1002,
    )


def _closes() -> Iterator[Case]:
    yield Case(name="a close that says nothing", frames=(F(CLOSE),), close=NO_CODE)
    for code in (1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3999, 4000, 4999):
        yield Case(name=f"a close with {code}", frames=(closes(code, b"why"),), close=code)
    for code in (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535):
        yield Case(name=f"a close with {code}", frames=(closes(code, b"why"),), close=1002)
    yield Case(name="a close with one byte", frames=(F(CLOSE, b"\x03"),), close=1002)
    yield Case(name="a reason of 123 bytes", frames=(closes(1000, b"y" * 123),), close=1000)
    yield Case(name="a reason in two-byte letters", frames=(closes(1000, "ü".encode() * 61),), close=1000)
    for reason in (b"\xff", b"ok \xc3", b"\xed\xa0\x80"):
        yield Case(name=f"a reason of {reason.hex()}", frames=(closes(1000, reason),), close=1007)
    yield Case(
        name="messages after a close",
        frames=(F(TEXT, event("a")), closes(1001), F(TEXT, event("b")), F(PING)),
        said=("a",),
        close=1001,
    )
    yield Case(name="two closes", frames=(closes(1001), closes(1002)), close=1001)


RIGHT = {
    "two": "ü",
    "three": "€",
    "four": "🌍",
    "highest": "\U0010ffff",
    "before surrogates": "\ud7ff",
    "null": "\\u0000",
}
WRONG = {
    "a lone continuation": b"\x80",
    "two bytes, cut": b"\xc3",
    "three bytes, cut": b"\xe2\x82",
    "four bytes, cut": b"\xf0\x9f\x8c",
    "an overlong slash in two": b"\xc0\xaf",
    "an overlong slash in three": b"\xe0\x80\xaf",
    "an overlong slash in four": b"\xf0\x80\x80\xaf",
    "an overlong null": b"\xc0\x80",
    "a high surrogate": b"\xed\xa0\x80",
    "a low surrogate": b"\xed\xbf\xbf",
    "a pair of surrogates": b"\xed\xa0\xbc\xed\xbc\x8d",
    "beyond the last": b"\xf4\x90\x80\x80",
    "five bytes": b"\xf8\x88\x80\x80\x80",
    "a byte that never occurs": b"\xfe",
}


def _utf8() -> Iterator[Case]:
    for name, letter in RIGHT.items():
        said = "\0" if letter.startswith("\\") else letter
        yield Case(name=f"text: {name}", frames=(F(TEXT, event(letter)),), said=(said,))
        whole = event(letter)
        yield Case(
            name=f"text, a byte a fragment: {name}",
            frames=tuple(split(whole, *range(1, len(whole)))),
            said=(said,),
        )
    for name, wrong in WRONG.items():
        yield Case(name=f"no text: {name}", frames=(F(TEXT, b"ab" + wrong),), close=1007)
        yield Case(
            name=f"no text, in fragments: {name}", frames=tuple(split(b"ab" + wrong, 2, 3)), close=1007
        )
    yield Case(
        name="a fragment that is no text is not waited for",
        frames=(F(TEXT, b"ab\xff", fin=False),),
        close=1007,
    )
    yield Case(
        name="a long frame that is no text is not waited for",
        frames=(F(TEXT, b"\xff" * 20, claims=4000, fin=False),),
        close=1007,
    )
    yield Case(name="what is no text may be bytes", frames=(F(BINARY, b"\xff\xc0"),), said=(BYTES,))


def _sizes(limit: int) -> Iterator[Case]:
    for kind, name in ((TEXT, "text"), (BINARY, "bytes")):
        yield Case(name=f"{name}, too long by a byte", frames=(F(kind, b"x" * (limit + 1)),), close=1009)
        for size in (limit + 1, 2 * limit, (1 << 63) - 1):
            claim = F(kind, b"x", claims=size)
            yield Case(name=f"{name} that would have {size} bytes", frames=(claim,), close=1009)
        long = split(b"x" * (limit + 1), *(limit * part // 5 for part in range(1, 5)), kind=kind)
        yield Case(name=f"{name} in fragments, too long", frames=tuple(long), close=1009)
        yield Case(name=f"{name} in endless fragments", frames=tuple(long[:1] + long[1:2] * 9), close=1009)
    yield Case(
        name="as long as it may be, in fragments",
        frames=tuple(split(event("a", limit), *range(1000, limit, limit // 4))),
        said=("a",),
    )
    yield Case(
        name="a message that fits, then one that does not",
        frames=(F(TEXT, event("a")), F(TEXT, b"x" * (limit + 1))),
        said=("a",),
        close=1009,
    )
    wide = "€".encode() * (limit // 3 + 1)
    yield Case(name="too long in bytes, not in letters", frames=(F(TEXT, wide),), close=1009)


def _floods() -> Iterator[Case]:
    many = 5_100
    yield Case(name="a flood of pings", frames=(F(PING),) * many, close=1008)
    yield Case(name="a flood of pongs", frames=(F(PONG),) * many, close=1008)
    opening = F(TEXT, fin=False)
    yield Case(name="a flood of empty fragments", frames=(opening, *(F(CONT, fin=False),) * many), close=1008)
    tiny = (F(CONT, b"x", fin=False), F(CONT, fin=False))
    yield Case(name="a flood of tiny fragments", frames=(opening, *tiny * (many // 2)), close=1008)
    yield Case(name="a thousand pings", frames=(F(PING, b"p"),) * 1000, pong=b"p")


PLAIN_OFFER = "permessage-deflate"


def _compressed(limit: int) -> Iterator[Case]:
    deflater = Deflater()
    one, two = deflater(event("one")), deflater(event("two"))

    def case(
        name: str,
        *frames: F,
        offer: str = PLAIN_OFFER,
        said: Sequence[str] = (),
        close: int | None = None,
        pong: bytes | None = None,
    ) -> Case:
        return Case(
            name=f"compressed: {name}", frames=frames, said=tuple(said), close=close, pong=pong, offer=offer
        )

    yield case("one message", F(TEXT, one, rsv=4), said=["one"])
    yield case("two, with what is remembered", F(TEXT, one, rsv=4), F(TEXT, two, rsv=4), said=["one", "two"])
    yield case(
        "a plain one between two",
        F(TEXT, one, rsv=4),
        F(TEXT, event("plain")),
        F(TEXT, two, rsv=4),
        said=["one", "plain", "two"],
    )
    yield case("nothing", F(TEXT, b"\0", rsv=4), said=[NOT_JSON])
    yield case("nothing at all", F(TEXT, b"", rsv=4), said=[NOT_JSON])
    yield case("bytes", F(BINARY, Deflater()(b"\xff"), rsv=4), F(TEXT, event("a")), said=[BYTES, "a"])
    yield case("in fragments", *split(one, 3, 7, rsv=4), said=["one"])
    yield case("a byte a fragment", *split(one, *range(1, len(one)), rsv=4), said=["one"])
    yield case("with empty fragments", *split(one, 0, 3, 3, len(one), rsv=4), said=["one"])
    for control, name in ((F(PING, b"?"), "ping"), (F(PONG, b"?"), "pong")):
        first, *rest = split(one, 3, 7, rsv=4)
        pong = b"?" if name == "ping" else None
        yield case(f"a {name} between fragments", first, control, *rest, said=["one"], pong=pong)
        yield case(
            f"a {name} between all fragments, and two messages",
            first,
            control,
            rest[0],
            control,
            rest[1],
            control,
            F(TEXT, two, rsv=4),
            said=["one", "two"],
            pong=pong,
        )
        yield case(
            f"a {name} within a plain message",
            F(TEXT, one, rsv=4),
            *split(event("plain"), 4)[:1],
            control,
            *split(event("plain"), 4)[1:],
            F(TEXT, two, rsv=4),
            said=["one", "plain", "two"],
            pong=pong,
        )
    fresh = Deflater(takeover=False)
    pair = F(TEXT, fresh(event("one")), rsv=4), F(TEXT, fresh(event("two")), rsv=4)
    for offer in (
        *("; client_no_context_takeover", "; server_no_context_takeover"),
        "; client_no_context_takeover; server_no_context_takeover",
    ):
        yield case(f"by{offer}", *pair, offer=PLAIN_OFFER + offer, said=["one", "two"])
    for bits in (9, 10, 15):
        narrow = Deflater(bits)
        noise = event("n", 3000).replace(b"  ", b" x")
        yield case(
            f"a window of {bits} bits",
            F(TEXT, narrow(noise), rsv=4),
            F(TEXT, narrow(event("m")), rsv=4),
            offer=f"{PLAIN_OFFER}; client_max_window_bits={bits}",
            said=["", "m"],
        )
    yield case(
        "no longer known to who forgets",
        F(TEXT, one, rsv=4),
        F(TEXT, two, rsv=4),
        offer=f"{PLAIN_OFFER}; client_no_context_takeover",
        said=["one"],
        close=1007,
    )
    final = Deflater()
    yield case(
        "with a last block",
        F(TEXT, final(event("one"), zlib.Z_FINISH), rsv=4),
        F(TEXT, final(event("two")), rsv=4),
        said=["one", "two"],
    )
    yield case(
        "with a last block and its byte",
        F(TEXT, Deflater()(event("one"), zlib.Z_FINISH) + b"\0", rsv=4),
        F(TEXT, Deflater()(event("two")), rsv=4),
        said=["one", "two"],
    )
    yield case(
        "stored, not squeezed",
        F(TEXT, b"\0" + struct.pack("<HH", 12, 0xFFFF - 12) + event("x")[:12] + b"\0", rsv=4),
        said=["x"],
    )
    yield case("garbage", F(TEXT, b"\xff" * 20, rsv=4), close=1007)
    yield case(
        "garbage after a message", F(TEXT, one, rsv=4), F(TEXT, b"\xff" * 20, rsv=4), said=["one"], close=1007
    )
    yield case("garbage in fragments", *split(b"\xff" * 20, 1, 10, rsv=4), close=1007)
    yield case(
        "what follows a last block",
        F(TEXT, Deflater()(event("one"), zlib.Z_FINISH) + b"more", rsv=4),
        close=1007,
    )
    yield case("a reach before the beginning", F(TEXT, two, rsv=4), close=1007)
    yield case("no text", F(TEXT, Deflater()(b"\xff"), rsv=4), close=1007)
    yield case("no text, cut at the end", F(TEXT, Deflater()(b"ab\xc3"), rsv=4), close=1007)
    yield case(
        "a bit on a continuation", F(TEXT, one[:3], fin=False, rsv=4), F(CONT, one[3:], rsv=4), close=1002
    )
    yield case(
        "a bit on a plain message's continuation", F(TEXT, b"x", fin=False), F(CONT, one, rsv=4), close=1002
    )
    for kind, name in ((PING, "ping"), (PONG, "pong"), (CLOSE, "close")):
        yield case(f"a bit on a {name}", F(kind, b"", rsv=4), close=1002)
    for rsv in (5, 6, 7, 2, 1):
        yield case(f"reserved bits {rsv:03b}", F(TEXT, one, rsv=rsv), close=1002)
    yield case("as long as it may be", F(TEXT, Deflater()(event("a", limit)), rsv=4), said=["a"])
    yield case("too long by a byte", F(TEXT, Deflater()(event("a", limit + 1)), rsv=4), close=1009)
    yield case("a bomb", F(TEXT, Deflater()(b"x" * 4_000_000), rsv=4), close=1009)
    bomb = Deflater()(b"x" * 2_000_000)
    yield case("a bomb in fragments", *split(bomb, 10, 20, 1000, rsv=4), close=1009)
    yield case("a bomb of bytes", F(BINARY, Deflater()(bytes(2_000_000)), rsv=4), close=1009)
    yield case(
        "blocks of nothing, endlessly",
        *split(b"\0\0\0\xff\xff" * 1200, *range(500, 6000, 500), rsv=4),
        close=1009,
    )


def cases(limit: int) -> list[Case]:
    """Return all cases, for a reader that allows messages of so many bytes."""
    return [
        *_plain(limit),
        *_fragments(),
        *_control(),
        *_heads(),
        *_closes(),
        *_utf8(),
        *_sizes(limit),
        *_floods(),
        *_compressed(limit),
    ]
