"""What a command serves TLS with: the files of `--tls-cert` and `--tls-key`."""

from __future__ import annotations

import ssl
from pathlib import Path

import click


def tls_context(cert: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """Return the context of a server, or None without files. Raises `click.UsageError` when they cannot be used."""
    if cert is None and key is None:
        return None
    if cert is None or key is None:
        raise click.UsageError("--tls-cert and --tls-key belong together; give both")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        raise click.UsageError(f"--tls-cert {cert} and --tls-key {key} cannot be used: {error}") from None
    return context
