"""What a command serves TLS with: the files of `--tls-cert` and `--tls-key`."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

import click

from pool.private_files import warn_if_shared


def tls_context(cert: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """Return the context of a server, or None without files. Raises `click.UsageError` when they cannot be used."""
    if cert is None and key is None:
        return None
    if cert is None or key is None:
        raise click.UsageError("--tls-cert and --tls-key belong together; give both")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    for name, path in (("--tls-cert", cert), ("--tls-key", key)):
        try:
            with path.open("rb") as file:
                file.read()
                if path is key:
                    warn_if_shared(os.fstat(file.fileno()), str(path))
        except OSError as error:
            raise click.UsageError(f"{name} {path} cannot be read: {error.strerror}") from None
    try:
        context.load_cert_chain(cert, key, password=_no_password)
    except _Locked:
        raise click.UsageError(f"--tls-key {key} needs a password; give a key without one") from None
    except (OSError, ssl.SSLError, ValueError) as error:
        if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
            said = "is not the key of the certificate"
            raise click.UsageError(f"--tls-key {key} {said} in --tls-cert {cert}") from None
        raise click.UsageError(
            f"--tls-cert {cert} and --tls-key {key} cannot be used: the one must hold a PEM certificate, or a "
            "chain of them with the server's first, the other its PEM private key"
        ) from None
    return context


class _Locked(Exception):
    """The key is encrypted."""


def _no_password() -> str:  # or OpenSSL would ask for one on the terminal
    raise _Locked
