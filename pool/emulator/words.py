"""Plausible words for string arguments: found in what the model was told last, so that one call leads on
to the next (a listing names files, the next call reads one of them)."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from attrs import define, field

from pool.emulator.context import Context

_TOKEN = re.compile(r"[\w./~-]{2,200}")
_PLACE = re.compile(r"path|file|folder|dir|source|target|location|url|uri|root", re.IGNORECASE)
_WORD = re.compile(r"[^\W\d_]{3,40}")
_AT_MOST = 400  # candidates; more would not make the choice better


@define(eq=False)
class Words:
    """The candidates of one turn, found when first needed."""

    context: Context
    rng: random.Random
    _places: Sequence[str] | None = field(default=None, init=False)
    _plain: Sequence[str] | None = field(default=None, init=False)

    def pick(self, name: str) -> str:
        """Return a word for a parameter called `name`: a path where it asks for a place, else a plain word."""
        if _PLACE.search(name):
            if self._places is None:
                self._places = _places(self.context)
            return self.rng.choice(self._places) if self._places else "."
        if self._plain is None:
            self._plain = _plain(self.context)
        return self.rng.choice(self._plain) if self._plain else "text"


def _places(context: Context) -> list[str]:
    """Path-like words: from the latest listing, else from the tool outputs, else from the user's message."""
    for text in (context.listing, *reversed(context.tool_texts), context.user_text):
        found = [word for token in _TOKEN.findall(text) if (word := token.rstrip(".,:;-"))]
        # In a listing every line is a name; elsewhere only what looks like a path is.
        listed = text is context.listing and text != ""
        places = [word for word in found if listed or ("/" in word.strip("/") or "." in word.strip("."))]
        if places:
            return places[:_AT_MOST]
    return []


def _plain(context: Context) -> list[str]:
    for text in (*reversed(context.tool_texts), context.user_text):
        found = _WORD.findall(text)
        if found:
            return list(found[:_AT_MOST])
    return []
