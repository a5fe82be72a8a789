"""The secrets that this process has in use, and how they are taken out of what somebody else says.

Theory of operation
    A server may repeat what it was sent: a 401 that quotes the key, a proxy that quotes its credentials, a reason for
    closing. So whoever uses a secret keeps it in a `Secrets` of its own, anew each time that it is used, because
    tokens change; the most recent ones are remembered, as long as their owner lives. `redacted` knows those of all
    owners: a text does not say on whose behalf it came.

    It is applied where text comes in, once, rather than wherever it may go: by the base class of all errors
    (`pool.errors`, `scheduler.errors`), to `error` events and failed responses (`pool.wire.codec`), and to the
    refusals that a gateway passes on. What a model says is not looked through: that would cost something for every
    delta, and a model has not seen the key.

    A secret is found as it is, percent-encoded, as a JSON string or HTML holds it, and within base64, where each of
    its three positions gives other letters. A long one is found also when it was cut off at either end, as in the
    123 bytes of a close reason.
"""

from __future__ import annotations

import base64
import html
import re
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, AnyStr
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from attrs import define, field

HIDDEN = "[hidden]"
_HIDDEN = HIDDEN.encode()
SHORTEST = 6  # characters; to replace anything shorter would garble innocent text
LONG = 24  # characters, from which on a part is as good as the whole
PART = 16  # characters of such a part
GIVEN = 64  # secrets that are remembered of one endpoint, beside its keys: headers, parameters of its URL
UNNAMED = 12  # characters, from which on the value of a header that names no secret is one all the same
DEEPEST = 64  # levels of JSON; what lies below is left out
_SECRET = re.compile("key|token|secret|auth|cookie|pass|credential|signature|session|^sig$", re.IGNORECASE)
_PUBLIC = frozenset(
    {
        *(
            "accept",
            "accept-encoding",
            "accept-language",
            "content-type",
            "user-agent",
            "api-version",
            "model",
        ),
        *("openai-beta", "openai-organization", "openai-project"),
    }
)
_SCHEME = re.compile(r"(?:bearer|basic|token|key|digest|apikey)\s+", re.IGNORECASE)
_ESCAPED = re.compile(r"\\u00([0-7][0-9a-fA-F])")


@define(eq=False)
class Secrets:
    """The secrets of one owner, the `limit` that were used last. Forgotten with their owner."""

    limit: int = 16
    _values: OrderedDict[str, None] = field(factory=OrderedDict, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        key = id(self)
        _owners[key] = weakref.ref(self, lambda _: _owners.pop(key, None))

    def keep(self, value: str | None) -> None:
        """A secret is in use. What is too short to be found in a text is not kept."""
        if value is None or len(value) < SHORTEST:
            return
        known = value in self._values
        self._values[value] = None
        self._values.move_to_end(value)
        if not known:
            if len(self._values) > self.limit:
                self._values.popitem(last=False)
            _renew()

    def keep_header(self, name: str, value: str) -> None:
        """Keep what is secret in a header, or in a parameter of a URL: by its name, or because it may well be."""
        if name.lower() in _PUBLIC:
            return
        scheme = _SCHEME.match(value)
        bare = value[scheme.end() :] if scheme is not None else value
        if _SECRET.search(name) or (len(bare) >= UNNAMED and " " not in bare):
            self.keep(bare)
            if scheme is not None and scheme[0].lower().startswith("basic"):
                self.keep(_password(bare))

    def keep_headers(self, headers: Mapping[str, str]) -> None:
        """Keep what is secret in headers."""
        for name, value in headers.items():
            self.keep_header(name, value)

    def keep_url(self, url: str | None) -> None:
        """Keep what is secret in a URL: a password, the values of its query."""
        try:
            parts = urlsplit(url or "")
        except ValueError:
            return
        if parts.password:
            self.keep(unquote(parts.password))
        elif parts.username:  # some take a token in place of the name
            self.keep(unquote(parts.username))
        for name, value in parse_qsl(parts.query):
            self.keep_header(name, value)

    def __len__(self) -> int:
        return len(self._values)

    @property
    def values(self) -> tuple[str, ...]:
        """What is kept, the most recent last."""
        return tuple(self._values)


@define(frozen=True)
class _Form:
    """One way in which a secret may be written."""

    text: str
    data: bytes
    long: bool  # a part of it is as good as the whole


_owners: dict[int, weakref.ref[Secrets]] = {}
_forms: tuple[_Form, ...] = ()


def _renew() -> None:
    global _forms
    known = [owner for one in list(_owners.values()) if (owner := one()) is not None]
    _forms = forms_of({value for owner in known for value in owner.values})


def forms_of(values: set[str]) -> tuple[_Form, ...]:
    """Return all ways to write these: as it is first, and of those the longest, since one may begin with another."""
    texts = {text for value in values for text in _written(value) if len(text) >= SHORTEST}
    # As it is first: where a part was cut off, the most of it goes.
    ordered = sorted(texts, key=lambda text: (text not in values, -len(text), text))
    return tuple(_Form(text, text.encode("utf-8", "replace"), len(text) >= LONG) for text in ordered)


def _written(value: str) -> set[str]:
    quoted = quote(value, safe="")
    data = value.encode("utf-8", "replace")
    found = {value, quoted, re.sub("%..", lambda code: code[0].lower(), quoted)}
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    found |= {escaped, escaped.replace("/", "\\/"), html.escape(value)}
    for before in range(3):
        # The letters at the edges depend on what stands around it there.
        text = base64.b64encode(bytes(before) + data).decode()
        text = text[(before * 8 + 5) // 6 : (before + len(data)) * 8 // 6]
        found |= {text, text.replace("+", "-").replace("/", "_")}
    return found


def _password(pair: str) -> str | None:
    try:
        return base64.b64decode(pair, validate=True).decode().partition(":")[2] or None
    except ValueError:
        return None


PROCESS = Secrets(limit=64)
"""Of what lives as long as the process: tokens of listeners, passwords of queues, keys of files."""

CLIENTS = Secrets(limit=256)
"""What clients have shown to be let in."""


def redacted(text: str) -> str:
    """Return a text without the secrets in use, however they are written there."""
    forms = _forms
    if not forms:
        return text
    text = taken_out(text, forms)
    for sign, decoded in _CODES:
        # Every letter may have been written as an escape.
        if sign in text:
            plain = decoded(text)
            found = taken_out(plain, forms)
            if found != plain:
                text = found
    return text


_CODES: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("\\u00", lambda text: _ESCAPED.sub(lambda code: chr(int(code[1], 16)), text)),
    ("%", lambda text: unquote(text)),
    ("&", lambda text: html.unescape(text)),
)


def known_taken_out(data: bytes) -> bytes:
    """Return encoded text without the secrets in use as they are; for much text, in which nobody hides them."""
    return taken_out(data, _forms)


def redacted_bytes(data: bytes) -> bytes:
    """Return encoded text without the secrets in use."""
    text = data.decode("utf-8", "surrogateescape")
    found = redacted(text)
    return data if found == text else found.encode("utf-8", "surrogateescape")


def redacted_json(value: Any, depth: int = DEEPEST) -> Any:
    """Return parsed JSON without the secrets in use; the same object where there is none in it."""
    if isinstance(value, str):
        return redacted(value)
    if not isinstance(value, dict | list) or not _forms:
        return value
    if not depth:
        return HIDDEN
    if isinstance(value, list):
        items = [redacted_json(one, depth - 1) for one in value]
        return items if any(new is not old for new, old in zip(items, value, strict=True)) else value
    members = {redacted(name): redacted_json(one, depth - 1) for name, one in value.items()}
    same = len(members) == len(value) and all(
        name in value and members[name] is value[name] for name in members
    )
    return value if same else members


def taken_out(text: AnyStr, forms: tuple[_Form, ...]) -> AnyStr:
    """Return a text without these, nor parts of those that are long. Takes time in proportion to the text."""
    if isinstance(text, str):
        for form in forms:
            text = text.replace(form.text, HIDDEN)
        for form in forms:
            if form.long:
                text = _without_parts(text, form.text, HIDDEN)
        return text
    for form in forms:
        text = text.replace(form.data, _HIDDEN)
    for form in forms:
        if form.long:
            text = _without_parts(text, form.data, _HIDDEN)
    return text


def _without_parts(text: AnyStr, secret: AnyStr, hidden: AnyStr) -> AnyStr:
    head, tail, size = secret[:PART], secret[-PART:], len(secret)
    if head in text:
        parts: list[AnyStr] = []
        done = 0
        while (at := text.find(head, done)) >= 0:
            end = at + PART
            while end - at < size and text[end : end + 1] == secret[end - at : end - at + 1]:
                end += 1
            parts += text[done:at], hidden
            done = end
        parts.append(text[done:])
        text = hidden[:0].join(parts)
    if tail in text:
        parts, done = [], 0
        while (at := text.find(tail, done)) >= 0:
            start, left = at, size - PART
            while start > done and left and text[start - 1 : start] == secret[left - 1 : left]:
                start, left = start - 1, left - 1
            parts += text[done:start], hidden
            done = at + PART
        parts.append(text[done:])
        text = hidden[:0].join(parts)
    return text
