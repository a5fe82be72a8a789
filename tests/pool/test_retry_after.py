"""How long a server asks us to wait, in every way to say it, and however it exaggerates."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from pool.answer import refusal
from pool.errors import DialFailed
from pool.retry_after import LONGEST, is_date, retry_after, seconds
from pool.wire.codec import event_of
from pool.wire.cycle import Finished
from pool.wire.events import ErrorEvent
from pool.wire.refusal import Refused
from scheduler.gateway.errors import refused
from scheduler.outcome import failure_of
from tests.support.pool_server import FakeServer, pool_of

NOW = datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC)


def http_date(after: float) -> str:
    return format_datetime(NOW + timedelta(seconds=after), usegmt=True)


@pytest.mark.parametrize(
    ("text", "wait"),
    [
        ("0", 0.0),
        ("7", 7.0),
        (" 7 ", 7.0),
        ("0.25", 0.25),
        (".5", 0.5),
        ("007", 7.0),
        ("86400", LONGEST),
        ("86401", LONGEST),
        ("9" * 5000, LONGEST),
        ("0" * 5000 + "3", 3.0),
        ("1." + "3" * 5000, pytest.approx(4 / 3)),
        ("", None),
        ("-1", None),
        ("+1", None),
        ("nan", None),
        ("inf", None),
        ("1e999", None),
        ("1e3", None),
        ("1_000", None),
        ("0x10", None),
        ("٣", None),
        ("7, 8", None),
        ("7 s", None),
        ("soon", None),
        ("\x00", None),
    ],
)
def test_a_number(text: str, wait: float | None) -> None:
    assert seconds(text) == wait
    assert retry_after({"retry-after": text}, 0.0) == wait


@pytest.mark.parametrize(
    ("date", "wait"),
    [
        (http_date(30), 30.0),
        (NOW.replace(second=39).strftime("%A, %d-%b-%y %H:%M:%S GMT"), 30.0),  # RFC 850
        (NOW.replace(second=39).strftime("%a %b %d %H:%M:%S %Y"), 30.0),  # asctime
        (http_date(10_000_000), LONGEST),
        (http_date(0), None),  # as good as none: to try at once would be the opposite
        (http_date(-30), None),
        ("Fri, 31 Dec 9999 23:59:59 GMT", LONGEST),
        ("Fri, 31 Dec 99999 23:59:59 GMT", None),
        ("Fri, 99 Dec 2031 23:59:59 GMT", None),
        ("Mon, 32 Foo 2031 99:99:99 GMT", None),
        ("Tue, 06 May 2031 07:08:39 " + "G" * 5000, None),
        ("Tue, " + "1" * 5000, None),
        ("Tue, 06 May 2031 07:08:39 +99999999", None),
    ],
)
def test_a_date(date: str, wait: float | None) -> None:
    assert retry_after({"retry-after": date}, NOW.timestamp()) == wait


@pytest.mark.parametrize("skew", [-1e6, -3600.0, 0.0, 3600.0, 1e6])
def test_a_date_is_counted_from_the_servers_own_clock(skew: float) -> None:
    headers = {"retry-after": http_date(20), "date": http_date(0)}
    assert retry_after(headers, NOW.timestamp() + skew) == 20.0
    assert retry_after(headers, None) == 20.0


def test_without_any_clock_a_date_says_nothing() -> None:
    assert retry_after({"retry-after": http_date(20)}, None) is None
    assert retry_after({"retry-after": http_date(20), "date": "yesterday"}, NOW.timestamp()) == 20.0


def test_milliseconds_go_first() -> None:
    assert retry_after({"retry-after-ms": "1500", "retry-after": "9"}, None) == 1.5
    assert retry_after({"retry-after-ms": "many", "retry-after": "9"}, None) == 9.0
    assert retry_after({"retry-after-ms": 250, "retry-after": [1]}, None) == 0.25


@given(st.text(max_size=80) | st.binary(max_size=80).map(lambda data: data.decode("latin-1")))
def test_anything_is_a_bounded_number_or_nothing(text: str) -> None:
    wait = retry_after({"retry-after": text, "date": text[::-1]}, 0.0)
    assert wait is None or 0 <= wait <= LONGEST
    assert is_date(text) in (True, False)


@pytest.mark.parametrize("field", ["payload", "error"])
@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"Retry-After": "3"}, 3.0),
        ({"retry-after": 3}, 3.0),
        ({"retry-after": http_date(40), "Date": http_date(0)}, 40.0),
        ({"retry-after": http_date(40)}, 40.0),
        ({"retry-after": None}, None),
        ({"retry-after": {"a": 1}}, None),
    ],
)
def test_an_error_event_says_it_in_its_headers(field: str, headers: dict[str, object], wait: float) -> None:
    error: dict[str, object] = {"message": "no"}
    payload: dict[str, object] = {"type": "error", "status": 429, "error": error}
    (payload if field == "payload" else error)["headers"] = headers
    event = event_of(payload)
    assert isinstance(event, ErrorEvent)
    failure = failure_of(Finished(status="refused", response_id=None, error=event), NOW.timestamp())
    assert failure is not None
    assert failure.retry_after == wait
    assert refused(failure).headers == ({} if wait is None else {"retry-after": f"{wait:g}"})


def test_a_refusal_over_http_keeps_the_date_that_it_is_counted_from() -> None:
    said = refusal(503, b"", {"retry-after": http_date(5), "date": http_date(0), "server": "x"})
    assert said["headers"] == {"retry-after": http_date(5), "date": http_date(0)}
    assert refusal(503, b"", {"retry-after": "5", "date": http_date(0)})["headers"] == {"retry-after": "5"}


@pytest.mark.parametrize(
    ("wait", "header"),
    [(0.0, "0"), (0.25, "0.25"), (1.0, "1"), (1e-7, "0"), (LONGEST, "86400"), (86399.9, "86399.9")],
)
def test_what_is_passed_on_has_no_exponent(wait: float, header: str) -> None:
    assert Refused("no", retry_after=wait).headers == {"retry-after": header}


def test_a_refused_upgrade_is_passed_on_when_giving_up() -> None:
    told = refused(DialFailed("no", status=429, retry_after=33.0))
    assert (told.status, told.headers) == (429, {"retry-after": "33"})


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ([(b"Retry-After", http_date(9).encode()), (b"Date", http_date(0).encode())], 9.0),
        ([(b"Retry-After-Ms", b"4000")], 4.0),
        (
            [(b"Retry-After", b"9" * 5000)],
            300.0,
        ),  # a dial is tried again after five minutes, whatever was said
        ([(b"Retry-After", http_date(1e6).encode()), (b"Date", http_date(0).encode())], 300.0),
    ],
)
async def test_a_dial_waits_so_long(
    clock: MockClock, server: FakeServer, headers: list[tuple[bytes, bytes]], wait: float
) -> None:
    server.refuse = [(429, headers, b"")]
    async with pool_of(server, dial_attempts=10) as pool, pool.lease():
        assert server.dials[1] - server.dials[0] == pytest.approx(wait, abs=0.2)
    await trio.lowlevel.checkpoint()
