"""Checkpoints at rest: encrypted when there is a key, and bound to their place.

AES-256-GCM by `cryptography`. The job's id and the step's index are authenticated with it, so no step can be put in
another's place. Several keys may be given, for changing them: the first encrypts, any decrypts.
"""

from __future__ import annotations

import base64
import hashlib
import os
from binascii import Error as Base64Error
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import define, field

from pool.errors import SettingsError
from pool.redaction import PROCESS
from scheduler.worker.errors import CheckpointUnreadable

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_VARIABLE = "WARMLINE_CHECKPOINT_KEY"
KEY_BYTES, NAME_BYTES, NONCE_BYTES = 32, 4, 12
SEALED = b"\x01"  # what is not sealed is JSON, and begins with another byte
HOW = "32 random bytes in base64: python -c 'import base64, os; print(base64.b64encode(os.urandom(32)).decode())'"


@define(eq=False)
class Seal:
    """Seals and opens. Without a key it passes everything through, and opens nothing that is sealed."""

    keys: Sequence[bytes] = field(factory=tuple, repr=False)
    _ciphers: dict[bytes, AESGCM] = field(factory=dict, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        for key in self.keys:
            PROCESS.keep(base64.b64encode(key).decode())
        if self.keys:
            try:
                from cryptography.hazmat.primitives.ciphers.aead import AESGCM
            except ImportError:
                raise SettingsError(
                    "checkpoint key", "(given)", "needs a library: pip install 'warmline[encryption]'"
                ) from None
            self._ciphers = {_name(key): AESGCM(key) for key in self.keys}

    @classmethod
    def found(cls, file: str | None = None) -> Seal:
        """Take the keys from `file`, one a line, or from WARMLINE_CHECKPOINT_KEY; none is none.

        Raises:
            SettingsError: what is there is no key.
        """
        if file is not None:
            try:
                lines = Path(file).read_text().split()
            except (OSError, UnicodeDecodeError) as error:
                raise SettingsError("checkpoint key file", file, f"cannot be read: {error}") from None
            return cls(_keys(lines, file))
        return cls(_keys(os.environ.get(KEY_VARIABLE, "").split(), KEY_VARIABLE, some=False))

    def close(self, body: bytes, job_id: str, index: int) -> bytes:
        """Seal a step."""
        if not self._ciphers:
            return body
        name, cipher = next(iter(self._ciphers.items()))
        nonce = os.urandom(NONCE_BYTES)
        return SEALED + name + nonce + cipher.encrypt(nonce, body, _place(job_id, index))

    def open(self, sealed: bytes, job_id: str, index: int) -> bytes:
        """Return what was sealed.

        Raises:
            CheckpointUnreadable: it cannot be.
        """
        if not sealed.startswith(SEALED):
            return sealed
        name, nonce = sealed[1 : 1 + NAME_BYTES], sealed[1 + NAME_BYTES : 1 + NAME_BYTES + NONCE_BYTES]
        cipher = self._ciphers.get(name)
        if cipher is None:
            raise CheckpointUnreadable(
                job_id,
                f"is encrypted with another key; give it with --checkpoint-key-file, or in {KEY_VARIABLE}",
            )
        from cryptography.exceptions import InvalidTag

        try:
            return cipher.decrypt(nonce, sealed[1 + NAME_BYTES + NONCE_BYTES :], _place(job_id, index))
        except InvalidTag:
            raise CheckpointUnreadable(job_id, f"is damaged, or not its own (step {index})") from None


def _place(job_id: str, index: int) -> bytes:
    return f"warmline:{index}:{job_id}".encode()


def _name(key: bytes) -> bytes:
    return hashlib.sha256(b"warmline key name" + key).digest()[:NAME_BYTES]


def _keys(lines: Sequence[str], where: str, *, some: bool = True) -> list[bytes]:
    keys = []
    for line in lines:
        try:
            key = base64.b64decode(line, validate=True)
        except (Base64Error, ValueError):
            key = b""
        if len(key) != KEY_BYTES:
            raise SettingsError("checkpoint key", f"({where})", f"must be {HOW}")
        keys.append(key)
    if some and not keys:
        raise SettingsError("checkpoint key", f"({where})", f"is empty; it must be {HOW}")
    return keys
