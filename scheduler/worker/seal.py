"""Checkpoints at rest: encrypted when there is a key, else with a checksum, and bound to their place either way.

Theory of operation
    With a key: AES-256-GCM by `cryptography`. The job's id and the step's index are authenticated with it, so no step
    can be put in another's place. Several keys may be given, for changing them: the first encrypts, any decrypts. A
    step that is not encrypted is refused then, or whoever can write to the queue could say what a model has said;
    `accept_unsealed` takes it, for as long as there are jobs from before there was a key.

    Without one: a digest of the same place and the step stands before it. That keeps out nobody, but damage is found:
    a queue's file, or server, has no checksums of its own. A step that begins as JSON is from before there were
    digests, and is taken as it is.
"""

from __future__ import annotations

import base64
import hashlib
import os
from binascii import Error as Base64Error
from collections.abc import Sequence
from typing import TYPE_CHECKING

from attrs import define, field

from pool.errors import SettingsError
from pool.private_files import read_secret
from pool.redaction import PROCESS
from scheduler.worker.errors import CheckpointUnreadable
from scheduler.worker.queue import Step

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_VARIABLE = "WARMLINE_CHECKPOINT_KEY"
KEY_BYTES, NAME_BYTES, NONCE_BYTES = 32, 4, 12
DIGEST_BYTES = TAG_BYTES = 16
LEAST_SEALED = 1 + NAME_BYTES + NONCE_BYTES + TAG_BYTES
SEALED, CHECKED, PLAIN = b"\x01", b"\x02", b"{"  # the first byte of a step
HOW = "32 random bytes in base64: python -c 'import base64, os; print(base64.b64encode(os.urandom(32)).decode())'"


@define(eq=False)
class Seal:
    """Seals and opens. Without a key it only adds a checksum, and opens nothing that is encrypted.

    `accept_unsealed`: with a key, open what is not encrypted too.
    """

    keys: Sequence[bytes] = field(factory=tuple, repr=False)
    accept_unsealed: bool = False
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
    def found(cls, file: str | None = None, *, accept_unsealed: bool = False) -> Seal:
        """Take the keys from `file`, one a line, or from WARMLINE_CHECKPOINT_KEY; none is none.

        Raises:
            SettingsError: what is there is no key.
        """
        if file is not None:
            try:
                lines = read_secret(file).split()
            except (OSError, UnicodeDecodeError) as error:
                raise SettingsError("checkpoint key file", file, f"cannot be read: {error}") from None
            return cls(_keys(lines, file), accept_unsealed)
        keys = _keys(os.environ.get(KEY_VARIABLE, "").split(), KEY_VARIABLE, some=False)
        return cls(keys, accept_unsealed)

    def close(self, body: bytes, job_id: str, index: int) -> bytes:
        """Seal a step."""
        if not self._ciphers:
            return CHECKED + _digest(body, job_id, index) + body
        name, cipher = next(iter(self._ciphers.items()))
        nonce = os.urandom(NONCE_BYTES)
        return SEALED + name + nonce + cipher.encrypt(nonce, body, _place(job_id, index))

    def open(self, sealed: bytes, job_id: str, index: int) -> bytes:
        """Return what was sealed.

        Raises:
            CheckpointUnreadable: it cannot be.
        """
        if not isinstance(sealed, bytes):  # SQLite keeps a value of any type
            raise CheckpointUnreadable(job_id, f"is damaged: step {index} is no bytes")
        first = sealed[:1]
        if first == SEALED:
            return self._decrypted(sealed, job_id, index)
        if first not in (CHECKED, PLAIN):
            raise CheckpointUnreadable(job_id, f"is damaged (step {index})")
        if self._ciphers and not self.accept_unsealed:
            problem = f"has a step {index} that is not encrypted, and there is a key: whoever can write to the queue "
            remedy = "may have put it there. If it is from before there was a key, --accept-unsealed takes it"
            raise CheckpointUnreadable(job_id, problem + remedy)
        if first == PLAIN:
            return sealed
        digest, body = sealed[1 : 1 + DIGEST_BYTES], sealed[1 + DIGEST_BYTES :]
        if digest != _digest(body, job_id, index):
            raise CheckpointUnreadable(job_id, f"is damaged, or not its own (step {index})")
        return body

    def _decrypted(self, sealed: bytes, job_id: str, index: int) -> bytes:
        name, nonce = sealed[1 : 1 + NAME_BYTES], sealed[1 + NAME_BYTES : 1 + NAME_BYTES + NONCE_BYTES]
        cipher = self._ciphers.get(name)
        if len(sealed) < LEAST_SEALED:
            raise CheckpointUnreadable(job_id, f"is damaged (step {index})")
        if cipher is None:
            how = "with another key" if self._ciphers else "and there is no key here"
            problem = f"is encrypted {how}; give it with --checkpoint-key-file, or in {KEY_VARIABLE}"
            raise CheckpointUnreadable(job_id, problem, elsewhere=True)
        from cryptography.exceptions import InvalidTag

        try:
            return cipher.decrypt(nonce, sealed[1 + NAME_BYTES + NONCE_BYTES :], _place(job_id, index))
        except (InvalidTag, ValueError):
            raise CheckpointUnreadable(job_id, f"is damaged, or not its own (step {index})") from None


def in_order(steps: Sequence[Step], job_id: str, *, first: int = 0) -> None:
    """Raise `CheckpointUnreadable` unless the steps follow each other from this one on."""
    for index, step in enumerate(steps, first):
        if step.index != index:
            raise CheckpointUnreadable(job_id, f"is damaged: step {index} is missing")


def _place(job_id: str, index: int) -> bytes:
    return f"warmline:{index}:{job_id}".encode("utf-8", "surrogatepass")


def _digest(body: bytes, job_id: str, index: int) -> bytes:
    digest = hashlib.blake2b(_place(job_id, index) + b"\0", digest_size=DIGEST_BYTES)
    digest.update(body)
    return digest.digest()


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
