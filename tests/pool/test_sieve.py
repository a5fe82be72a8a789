"""A sieve and a library behind it say what the library alone would say, however the bytes are cut.

With three exceptions, which are promised too: pongs say nothing to anybody, of the pings in one read only the last is
answered, and what a binary message says is thrown away.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Ping,
    Pong,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)
from wsproto.utilities import RemoteProtocolError

from pool.wire.frame_reader import PASS_STEPS, End
from pool.wire.sieve import HEAD_LIMIT, Sieve

LIMIT = 70_000
CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def frame(
    payload: bytes, *, kind: int = TEXT, fin: bool = True, rsv: int = 0, masked: bool = False, wide: int = 0
) -> bytes:
    """Return one frame; `wide` says its length in more bytes than it needs."""
    size = len(payload)
    first = fin << 7 | rsv << 4 | kind
    if size < 126 and not wide:
        head = bytes((first, masked << 7 | size))
    elif size < 65_536 and wide < 8:
        head = bytes((first, masked << 7 | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((first, masked << 7 | 127)) + size.to_bytes(8, "big")
    return head + (b"\0\0\0\0" if masked else b"") + payload


@define
class Client:
    """A library's client, behind a sieve or alone; `said` is all that it makes of the bytes, but for messages."""

    sieve: Sieve | None
    messages: list[str | bytes] = field(factory=list)
    said: list[object] = field(factory=list)
    given: int = 0  # bytes that the library has seen
    accept: bytes = field(init=False)  # the answer to its upgrade
    _library: WSConnection = field(init=False)
    _parts: list[str | bytes | bytearray] = field(factory=list)
    _failed: bool = False

    def __attrs_post_init__(self) -> None:
        self._library = WSConnection(ConnectionType.CLIENT)
        server = WSConnection(ConnectionType.SERVER)
        server.receive_data(self._library.send(Request(host="host", target="/")))
        assert isinstance(next(server.events()), Request)
        self.accept = server.send(AcceptConnection())

    def feed(self, chunk: bytes) -> Client:
        """Take some of the server's bytes."""
        rest = chunk
        if self.sieve is not None:
            messages, rest = self.sieve.feed(chunk, 0.0)
            while self.sieve.more:
                more, told = self.sieve.feed(b"", 0.0)
                messages, rest = messages + more, rest + told
            self.messages += messages
            if (ping := self.sieve.take_ping()) is not None:
                self.said.append((Ping, ping))
        if rest and not self._failed:
            self.given += len(rest)
            self._take(rest)
        return self

    def _take(self, data: bytes) -> None:
        try:
            self._library.receive_data(data)
            for event in self._library.events():
                match event:
                    case TextMessage() | BytesMessage():
                        self._parts.append(event.data)
                        if sum(map(size, self._parts)) > LIMIT:
                            self.said.append(("close", 1009))
                            self._failed = True
                            return
                        if event.message_finished:
                            texts = [part for part in self._parts if isinstance(part, str)]
                            self.messages.append("".join(texts) if isinstance(event, TextMessage) else b"")
                            self._parts.clear()
                    case Ping() | Pong():
                        self.said.append((type(event), bytes(event.payload)))
                    case CloseConnection():
                        end = None if self.sieve is None else self.sieve.end
                        self.said.append(("close", event.code if end is None else end.code))
                    case RejectConnection():
                        self.said.append(("rejected", event.status_code))
                    case RejectData():
                        self.said.append(("body", bytes(event.data)))
                    case _:
                        self.said.append(type(event))
        except RemoteProtocolError as error:
            self._failed = True
            self.said.append(("error", str(error)))


def size(part: str | bytes | bytearray) -> int:
    return len(part.encode() if isinstance(part, str) else part)


def sieved() -> Client:
    """Return a client behind a sieve that has taken the answer to its upgrade."""
    client = Client(Sieve(LIMIT))
    return client.feed(client.accept)


TEXTS = st.one_of(
    st.text(max_size=200),
    st.sampled_from([0, 1, 125, 126, 127, 65_535, 65_536, LIMIT, LIMIT + 1]).map("x".__mul__),
)
PLAIN = TEXTS.map(lambda text: frame(text.encode()))
CONTROL = st.builds(frame, st.binary(max_size=125), kind=st.sampled_from([PING, PONG]))
ODD = st.one_of(
    st.builds(
        frame,
        st.binary(max_size=130),
        kind=st.integers(0, 15),
        fin=st.booleans(),
        rsv=st.sampled_from([0, 0, 0, 4, 2, 1]),
        masked=st.booleans(),
        wide=st.sampled_from([0, 0, 2, 8]),
    ),
    st.lists(st.text(max_size=9), min_size=2, max_size=4).map(
        lambda parts: b"".join(
            frame(part.encode(), kind=CONT if number else TEXT, fin=number == len(parts) - 1)
            for number, part in enumerate(parts)
        )
    ),
    st.just(frame((1000).to_bytes(2, "big") + b"bye", kind=CLOSE)),
    st.just(frame(b"\xff\xfe")),
)


def answered(said: Sequence[object]) -> list[object]:
    """Return what has to be answered."""
    return [one for one in said if not (isinstance(one, tuple) and one[0] in (Ping, Pong))]


@given(
    frames=st.lists(st.one_of(PLAIN, PLAIN, PLAIN, CONTROL, ODD), max_size=8),
    cuts=st.lists(st.integers(0, 1000), max_size=12),
)
def test_it_says_what_the_library_says(frames: Sequence[bytes], cuts: Sequence[int]) -> None:
    clients = Client(None), Client(Sieve(LIMIT))
    for client in clients:
        data = client.accept + b"".join(frames)
        edges = sorted({0, len(data), *(cut * len(data) // 1000 for cut in cuts)})
        for start, end in itertools.pairwise(edges):
            client.feed(data[start:end])
    alone, behind = clients
    assert behind.messages == alone.messages
    assert answered(behind.said) == answered(alone.said)
    pings = [[one for one in client.said if isinstance(one, tuple) and one[0] is Ping] for client in clients]
    every = iter(pings[0])
    assert all(one in every for one in pings[1])
    assert pings[1][-1:] == pings[0][-1:]


@given(texts=st.lists(TEXTS.filter(lambda text: len(text.encode()) <= LIMIT), min_size=1, max_size=6))
def test_the_library_sees_nothing_of_plain_messages(texts: Sequence[str]) -> None:
    client = sieved()
    for byte in b"".join(frame(text.encode()) for text in texts if len(text) < 1000):
        client.feed(bytes((byte,)))
    client.feed(b"".join(frame(text.encode()) for text in texts if len(text) >= 1000))
    assert sorted(map(str, client.messages)) == sorted(texts)
    assert client.given == len(client.accept)


@pytest.mark.parametrize("cut", range(10))
def test_pings_do_not_stop_it(cut: int) -> None:
    data = frame(b"a") + frame(b"?", kind=PING) + frame(b"b")
    client = sieved().feed(data[:cut]).feed(data[cut:])
    assert client.messages == ["a", "b"]
    assert client.said[-1] == (Ping, b"?")
    assert client.given == len(client.accept)


def test_pongs_are_for_nobody() -> None:
    client = sieved().feed(frame(b"a") + frame(b"?", kind=PONG) + frame(b"b"))
    assert client.messages == ["a", "b"]
    assert client.given == len(client.accept)


def test_of_the_pings_in_one_read_the_last_is_answered() -> None:
    client = sieved().feed(b"".join(frame(b"%d" % number, kind=PING) for number in range(1000)))
    assert client.said[1:] == [(Ping, b"999")]


def test_many_frames_in_one_read_are_taken_in_passes() -> None:
    sieve = Sieve(LIMIT)
    sieve.feed(sieved().accept, 0.0)
    messages, _ = sieve.feed(b"".join(frame(b"%d" % number) for number in range(1000)), 0.0)
    assert len(messages) == PASS_STEPS
    while sieve.more:
        more, _ = sieve.feed(b"", 0.0)
        assert len(more) <= PASS_STEPS
        messages += more
    assert messages == [str(number) for number in range(1000)]


def test_after_a_close_nothing_is_read() -> None:
    client = sieved().feed(frame((4321).to_bytes(2, "big") + b"bye", kind=CLOSE) + frame(b"after"))
    assert client.said[-1] == ("close", 4321)
    assert client.messages == []
    assert client.sieve is not None
    assert client.sieve.end == End(4321, "bye")


def test_a_violation_is_told_to_both() -> None:
    client = sieved().feed(frame(b"before") + frame(b"x", masked=True) + frame(b"after"))
    assert client.messages == ["before"]
    assert client.said[-1] == ("close", 1002)
    assert client.sieve is not None
    assert client.sieve.end == End(1002, "a frame is masked", violation=True)


def test_a_refused_upgrade_is_the_librarys() -> None:
    sieve = Sieve(LIMIT)
    answer = b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 2\r\n\r\n"
    assert sieve.feed(answer + frame(b"x"), 0.0) == ([], answer + frame(b"x"))
    assert sieve.through


@pytest.mark.parametrize("piece", [b"x", b"garbage" * 1000])
def test_an_answer_without_an_end_is_the_librarys(piece: bytes) -> None:
    sieve = Sieve(LIMIT)
    for _ in range(HEAD_LIMIT // len(piece) + 1):
        assert sieve.feed(piece, 0.0) == ([], piece)
    assert sieve.through
