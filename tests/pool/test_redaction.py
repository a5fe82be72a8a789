"""A secret in use is taken out of a text however it is written there; the register of them is bounded and forgets."""

from __future__ import annotations

import ast
import base64
import gc
import html
import logging
import re
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool import logs, redaction
from pool.auth import KeyFromCallable
from pool.dial import Dialer
from pool.errors import (
    ConnectionLost,
    DialFailed,
    PoolError,
    RemoteProtocolError,
    ResponseFailed,
    SettingsError,
)
from pool.http import HttpClient
from pool.printable import label, printable, printable_json, printable_lines
from pool.redaction import (
    HIDDEN,
    Secrets,
    known_taken_out,
    redacted,
    redacted_bytes,
    redacted_json,
)
from pool.settings import Endpoint, PoolSettings
from pool.wire.codec import decode, event_of_peek, read, to_json
from scheduler.errors import RunIncomplete, SteerRefused

ROOT = Path(__file__).parent.parent.parent
KEY = "sk-test/ab+cd=0123456789abcdefghijklmnopqrstuvwxyz&Z"
KEYS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=8, max_size=80)


@pytest.fixture
def kept() -> Secrets:
    secrets = Secrets()
    secrets.keep(KEY)
    return secrets


@pytest.mark.parametrize(
    "written",
    [
        KEY,
        f"Bearer {KEY}",
        quote(KEY, safe=""),
        quote(KEY, safe="").lower(),
        quote(quote(KEY, safe=""), safe=""),
        "".join(f"%{ord(letter):02x}" for letter in KEY),
        "".join(f"\\u{ord(letter):04x}" for letter in KEY),
        "".join(f"&#{ord(letter)};" for letter in KEY),
        html.escape(KEY),
        KEY.replace("/", "\\/"),
        base64.b64encode(KEY.encode()).decode(),
        base64.urlsafe_b64encode(KEY.encode()).decode(),
        base64.b64encode(f"a:{KEY}".encode()).decode(),
        base64.b64encode(f"ab:{KEY}:c".encode()).decode(),
        base64.b64encode(f"Authorization: Bearer {KEY}\r\n".encode()).decode(),
        KEY[:20],
        KEY[:-1],
        KEY[1:],
        KEY[-20:],
    ],
)
def test_every_way_to_write_it(kept: Secrets, written: str) -> None:
    text = redacted(f"No such key: '{written}'!")
    assert HIDDEN in text
    assert text.startswith("No such key: '")
    middle = text.replace(HIDDEN, "")
    assert not [KEY[at : at + 6] for at in range(len(KEY) - 6) if KEY[at : at + 6] in middle]
    assert HIDDEN.encode() in redacted_bytes(f"x {written} y".encode())


@given(keys=st.lists(KEYS, min_size=1, max_size=4), around=st.lists(st.text(), min_size=5, max_size=5))
def test_no_key_gets_through(keys: list[str], around: list[str]) -> None:
    secrets = Secrets()
    for key in keys:
        secrets.keep(key)
    text = around[0].join([*keys, *around])
    for clean in (redacted(text), known_taken_out(text.encode("utf-8", "replace")).decode()):
        assert not [key for key in keys if key in clean.replace(HIDDEN, "\0")]


@given(
    key=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=24, max_size=80),
    before=st.text(max_size=20),
    after=st.text(max_size=20),
    data=st.data(),
)
def test_a_part_of_a_key_among_many(key: str, before: str, after: str, data: st.DataObject) -> None:
    """So many that texts are looked through in steps: then each place of the text has to be as good as another."""
    others, secrets = Secrets(limit=100), Secrets()
    for number in range(40):
        others.keep(f"{number:03d}-another-key-of-another-client-{number:03d}")
    secrets.keep(key)
    size = data.draw(st.integers(16, len(key)))
    for part in (key[:size], key[-size:]):
        assert part not in redacted(f"{before}{part}{after}").replace(HIDDEN, "\0")
    assert redacted(f"{before}\n034-another-key-of-another-client-034") == redacted(f"{before}\n") + HIDDEN


@given(st.text() | st.binary().map(lambda data: data.decode("latin-1")))
def test_an_innocent_text_stays_as_it_is(text: str) -> None:
    secrets = Secrets()
    secrets.keep("~~~nobody~says~this~~~")
    assert redacted(text) is text
    assert redacted_json({"a": [text]}) == {"a": [text]}


@given(st.binary())
def test_bytes_that_are_no_text_stay_as_they_are(data: bytes) -> None:
    secrets = Secrets()
    secrets.keep("~~~nobody~says~this~~~")
    assert redacted_bytes(data) == data


def test_json_keeps_its_shape(kept: Secrets) -> None:
    value = {"a": [1, None, True, 2.5, {KEY: f"x{KEY}"}], "b": {"c": "d"}}
    assert redacted_json(value) == {"a": [1, None, True, 2.5, {HIDDEN: f"x{HIDDEN}"}], "b": {"c": "d"}}
    innocent = {"a": [{"b": "c"}]}
    assert redacted_json(innocent) is innocent
    deep: object = KEY
    for _ in range(500):
        deep = [deep]
    assert KEY not in str(redacted_json(deep))


def test_text_full_of_it_takes_time_in_proportion(kept: Secrets) -> None:
    text = KEY[:16] * 20_000 + KEY[-16:] * 20_000  # quadratic would be minutes
    assert redacted(text) == HIDDEN * 40_000 or KEY[:16] not in redacted(text)


@pytest.mark.parametrize("value", ["", "a", "12345", None])
def test_what_is_too_short_garbles_nothing(value: str | None) -> None:
    secrets = Secrets()
    secrets.keep(value)
    assert len(secrets) == 0
    assert redacted("banana 12345") == "banana 12345"


def test_the_most_recent_are_remembered() -> None:
    secrets = Secrets(limit=3)
    for number in (1, 2, 3, 1, 4):
        secrets.keep(f"token-number-{number}")
    assert secrets.values == tuple(f"token-number-{number}" for number in (3, 1, 4))
    assert redacted("token-number-1 token-number-2 token-number-3") == f"{HIDDEN} token-number-2 {HIDDEN}"


def test_they_go_with_their_owner() -> None:
    gc.collect()
    owners = len(redaction._owners)
    secrets, other = Secrets(), Secrets()
    secrets.keep("a-secret-of-one-pool")
    del secrets
    gc.collect()
    other.keep("a-secret-of-another")
    assert redacted("a-secret-of-one-pool") == "a-secret-of-one-pool"
    assert redacted("a-secret-of-another") == HIDDEN
    del other
    gc.collect()
    assert len(redaction._owners) == owners


@pytest.mark.parametrize(
    ("name", "value", "hidden"),
    [
        ("api-key", "abcdef", ["abcdef"]),
        ("Authorization", "Bearer abcdefgh", ["abcdefgh"]),
        ("Authorization", "Basic " + base64.b64encode(b"me:pass-word").decode(), ["pass-word"]),
        ("X-Tenant", "a-tenant-secret", ["a-tenant-secret"]),
        ("X-Team", "blue", []),
        ("User-Agent", "my-long-program/1.0", []),
        ("OpenAI-Organization", "org-0123456789abcdef", []),  # errors name it, and it opens nothing
        ("X-Note", "several words of text", []),
    ],
)
def test_which_headers_are_secret(name: str, value: str, hidden: list[str]) -> None:
    secrets = Secrets()
    secrets.keep_headers({name: value})
    assert [secret for secret in hidden if redacted(secret) != HIDDEN] == []
    assert bool(len(secrets)) == bool(hidden)


def test_what_of_a_url_is_secret() -> None:
    secrets = Secrets()
    secrets.keep_url("wss://me:pass%2Fword@host/v1?api-version=2024-10-21-preview&sig=abc%2Bdefgh&n=1")
    assert secrets.values == ("pass/word", "abc+defgh")
    secrets.keep_url("http://token-alone@host")
    assert "token-alone" in secrets.values
    for odd in (None, "", "http://[", "::"):
        secrets.keep_url(odd)


async def test_every_key_of_an_endpoint_is_kept_as_it_changes() -> None:
    tokens = iter(f"token-of-the-hour-{number:02d}" for number in range(40))
    endpoint = Endpoint.open_responses("http://host/v1?sig=a-signature", key=lambda: next(tokens)).with_(
        headers={"x-api-key": "another-key"}
    )
    dialer = Dialer(endpoint, PoolSettings())
    for _ in range(20):
        await dialer._headers()
    client = HttpClient(endpoint.with_(http_url="http://host/v1"), PoolSettings(), 1, None)
    await client.credentials()
    for secret in ("a-signature", "another-key", *(f"token-of-the-hour-{n:02d}" for n in (19, 10, 20))):
        assert redacted(secret) == HIDDEN
    assert len(dialer._keys) == 16
    assert isinstance(endpoint.auth, KeyFromCallable)
    assert "token" not in repr((dialer, client, endpoint, dialer._keys))


ODD = f"{KEY}\x1b[2J\r\nforged\u202e\x9b\ud800[red]"


@pytest.mark.parametrize(
    "error",
    [
        PoolError(ODD),
        SettingsError("x", 1, ODD),
        DialFailed(ODD),
        ConnectionLost(ODD, sent=True, reason=ODD),
        RemoteProtocolError(ODD),
        ResponseFailed(ODD, code=ODD, kind=ODD, param=ODD, payload={"error": {ODD: ODD}}),
        SteerRefused(ODD, ODD),
        RunIncomplete(ODD, text=""),
    ],
    ids=lambda error: type(error).__name__,
)
def test_every_error_is_a_safe_line(error: Exception) -> None:
    assert str(error).isprintable()
    assert "[red]" in str(error), "nothing of it is lost"


def test_an_error_forgets_the_key_in_all_its_fields(kept: Secrets) -> None:
    for error in (
        DialFailed(ODD),
        ConnectionLost(ODD, sent=True, reason=ODD),
        RemoteProtocolError(ODD),
        ResponseFailed(ODD, code=ODD, kind=ODD, param=ODD, payload={"error": {ODD: [ODD]}}),
    ):
        assert KEY not in f"{error!s} {error!r} {error.args} {vars(error)}"
    assert ResponseFailed("a\nb").message == "a\nb", "to whom it is passed on, it is data"
    assert len(str(PoolError("x" * 10_000))) == 2000


@pytest.mark.parametrize(
    "event",
    [
        {
            "type": "error",
            "error": {"message": KEY, "code": KEY, "x": [KEY]},
            "headers": {"x-request-id": KEY},
        },
        {"type": "error", "message": KEY},
        {"type": "response.failed", "response": {"id": "r", "error": {"message": KEY}, "output": []}},
        {"type": "response.completed", "response": {"id": "r", "status": "failed", "x": KEY, "output": []}},
        {"type": "response.incomplete", "response": {"id": "r", "error": {"message": KEY}, "output": []}},
        {"type": "response.steer.failed", "steer": {}, "error": {"message": KEY}},
    ],
    ids=lambda event: event["type"],
)
@pytest.mark.parametrize("escaped", [True, False])
def test_events_that_complain(kept: Secrets, event: dict[str, object], escaped: bool) -> None:
    text = to_json(event).decode()
    if escaped:
        text = text.replace(KEY, "".join(f"\\u{ord(letter):04X}" for letter in KEY))
    for found in (event_of_peek(*read(text)), decode(text)):
        assert HIDDEN in str(found.payload)
        assert KEY not in f"{found!r} {found.payload} {found.text} {vars(type(found))}"
        assert not re.search(r"\\u00[67]", found.text)


def test_what_a_model_says_is_not_looked_at(kept: Secrets) -> None:
    text = to_json({"type": "response.output_text.delta", "delta": KEY}).decode()
    assert event_of_peek(*read(text)).text == text


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("plain öä 日本 🙂", "plain öä 日本 🙂"),
        ("a\x1b[2Jb\x07", r"a\u001b[2Jb\u0007"),
        ("a\r\nb\tc", r"a\u000d\u000ab\u0009c"),
        ("\x9b31m\x85", r"\u009b31m\u0085"),
        ("a\u202eb\u2066c\u2028d\ufeff", r"a\u202eb\u2066c\u2028d\ufeff"),
        ("\ud800x\udfff", r"\ud800x\udfff"),
        ("\U000e0041", r"\udb40\udc41"),
        ("👩\u200d🔬", "👩\u200d🔬"),  # joined by design
    ],
)
def test_a_line_that_steers_nothing(text: str, line: str) -> None:
    assert printable(text) == line
    assert printable_json({text: [text, 1, None]}) == {line: [line, 1, None]}
    printable(text).encode()


def test_lines_keep_their_breaks() -> None:
    assert printable_lines("a\r\nb\tc\n\x1b[2J\rd") == "a\nb\tc\n\\u001b[2J\\u000dd"


@given(st.text(st.characters()), st.integers(1, 50))
def test_a_limit_is_one(text: str, limit: int) -> None:
    assert len(printable(text, limit)) <= limit
    assert printable(printable(text)) == printable(text)


@given(st.text(st.characters()), st.text(st.characters()))
def test_different_labels_stay_different(one: str, other: str) -> None:
    assert (label(one) == label(other)) == (one == other)
    label(one).encode()


def test_labels_are_bounded() -> None:
    assert len(label("m" * 10_000)) < 220
    assert label("m" * 10_000) != label("m" * 10_001)


def test_a_log_record_is_a_safe_line(kept: Secrets, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="warmline")
    for name in logs.NAMES:
        try:
            raise ValueError(ODD)
        except ValueError as error:
            logging.getLogger(name).exception("%s %r %d %s", ODD, ODD, 3, error)
        logging.getLogger(name).info("%(a)s %(b)d", {"a": ODD, "b": 3})
    assert len(caplog.records) == 2 * len(logs.NAMES)
    for record in caplog.records:
        assert record.getMessage().isprintable()
        assert HIDDEN in record.getMessage()
    assert KEY not in caplog.text
    assert "\x1b" not in caplog.text
    assert "\nforged" not in caplog.text.replace("\\nforged", "") or "ValueError" in caplog.text


def test_every_logger_has_the_filter() -> None:
    named = set()
    for path in [*(ROOT / "pool").rglob("*.py"), *(ROOT / "scheduler").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "getLogger"
                and node.args
                and isinstance(node.args[0], ast.Constant)
            ):
                named.add(str(node.args[0].value))
    assert {name for name in named if name.startswith("warmline.")} <= set(logs.NAMES)
