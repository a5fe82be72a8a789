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
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from attrs import define, field

HIDDEN = "[hidden]"
SHORTEST = 6  # characters; to replace anything shorter would garble innocent text
LONG = 24  # characters, from which on a part is as good as the whole
PART = 16  # characters of such a part
GRAM = 8  # characters, half of that: see `_Index`
FEW = 16  # long forms that are looked for one by one
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
    _values: OrderedDict[str, tuple[_Form, ...]] = field(factory=OrderedDict, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        key = id(self)
        _owners[key] = weakref.ref(self, lambda _: _owners.pop(key, None))

    def keep(self, value: str | None) -> None:
        """A secret is in use. What is too short to be found in a text is not kept."""
        global _index
        if value is None or len(value) < SHORTEST:
            return
        if value not in self._values:
            self._values[value] = _forms_of(value)
            if len(self._values) > self.limit:
                self._values.popitem(last=False)
            _index = None
        self._values.move_to_end(value)

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

    @property
    def forms(self) -> tuple[tuple[_Form, ...], ...]:
        """The ways to write each."""
        return tuple(self._values.values())


@define(frozen=True, eq=False)
class _Form:
    """One way in which a secret may be written."""

    text: str
    raw: bool  # as it is

    @property
    def long(self) -> bool:
        """A part of it is as good as the whole."""
        return len(self.text) >= LONG

    @property
    def grams(self) -> set[str]:
        """What stands in every `GRAM`-th place of a text that holds one of its ends, wherever that is."""
        ends = (self.text[:PART], self.text[-PART:])
        return {end[at : at + GRAM] for end in ends for at in range(PART - GRAM)}


@define(eq=False)
class _Index:
    """All forms, so that most texts are seen to hold none without a look for each."""

    short: list[_Form]
    long: list[_Form]
    by_gram: dict[str, list[_Form]]

    @classmethod
    def of(cls, forms: list[_Form]) -> _Index:
        """Sort them: as it is first, since of what was cut off the most goes then, and of those the longest."""
        forms = sorted(forms, key=lambda form: (not form.raw, -len(form.text)))
        index = cls([one for one in forms if not one.long], [one for one in forms if one.long], {})
        if len(index.long) > FEW:
            for form in index.long:
                for gram in form.grams:
                    index.by_gram.setdefault(gram, []).append(form)
        return index

    def candidates(self, text: str) -> list[_Form]:
        """Return the long ones of which a part may stand in a text."""
        if not self.by_gram:
            return [one for one in self.long if one.text[:PART] in text or one.text[-PART:] in text]
        found = self.by_gram.keys() & {text[at : at + GRAM] for at in range(0, len(text) - GRAM + 1, GRAM)}
        if not found:
            return []
        meant = {id(form) for gram in found for form in self.by_gram[gram]}
        return [form for form in self.long if id(form) in meant]


_owners: dict[int, weakref.ref[Secrets]] = {}
_index: _Index | None = None  # None: it has to be made anew


def _known() -> _Index:
    global _index
    if _index is None:
        alive = [owner for one in list(_owners.values()) if (owner := one()) is not None]
        forms = {form.text: form for owner in alive for one in owner.forms for form in one}
        _index = _Index.of(list(forms.values()))
    return _index


def _forms_of(value: str) -> tuple[_Form, ...]:
    return tuple(_Form(text, text == value) for text in _written(value) if len(text) >= SHORTEST)


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
    index = _known()
    if not index.short and not index.long:
        return text
    text = _taken_out(text, index)
    for sign, decoded in _CODES:
        # Every letter may have been written as an escape.
        if sign in text:
            plain = decoded(text)
            found = _taken_out(plain, index)
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
    text = data.decode("utf-8", "surrogateescape")
    found = _taken_out(text, _known())
    return data if found == text else found.encode("utf-8", "surrogateescape")


def redacted_bytes(data: bytes) -> bytes:
    """Return encoded text without the secrets in use."""
    text = data.decode("utf-8", "surrogateescape")
    found = redacted(text)
    return data if found == text else found.encode("utf-8", "surrogateescape")


def redacted_json(value: Any, depth: int = DEEPEST) -> Any:
    """Return parsed JSON without the secrets in use; the same object where there is none in it."""
    if isinstance(value, str):
        return redacted(value)
    if not isinstance(value, dict | list):
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


def _taken_out(text: str, index: _Index) -> str:
    """Return a text without these, nor parts of those that are long. Takes time in proportion to the text."""
    for form in index.short:
        text = text.replace(form.text, HIDDEN)
    candidates = index.candidates(text)
    for form in candidates:
        text = text.replace(form.text, HIDDEN)
    for form in candidates:
        text = _without_parts(text, form.text)
    return text


def _without_parts(text: str, secret: str) -> str:
    head, tail, size = secret[:PART], secret[-PART:], len(secret)
    if head in text:
        parts: list[str] = []
        done = 0
        while (at := text.find(head, done)) >= 0:
            end = at + PART
            while end - at < size and text[end : end + 1] == secret[end - at]:
                end += 1
            parts += text[done:at], HIDDEN
            done = end
        text = "".join([*parts, text[done:]])
    if tail in text:
        parts, done = [], 0
        while (at := text.find(tail, done)) >= 0:
            start, left = at, size - PART
            while start > done and left and text[start - 1] == secret[left - 1]:
                start, left = start - 1, left - 1
            parts += text[done:start], HIDDEN
            done = at + PART
        text = "".join([*parts, text[done:]])
    return text
