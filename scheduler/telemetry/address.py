"""`[HOST:]PORT`, as it is given on a command line. Pure."""

from __future__ import annotations

import ipaddress

from attrs import frozen

from pool.numbers import whole_number

LOOPBACK = "127.0.0.1"


@frozen
class Address:
    """Where to listen. Two of the same are one listener."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """Return the address that `[HOST:]PORT` means; without a host, this machine only.

        Raises:
            ValueError: it is none; the message says why.
        """
        host, colon, port = text.rpartition(":")
        if colon and not host:
            raise ValueError(
                f"{text!r}: the host is missing; say 127.0.0.1:{port or 'PORT'} or only the port"
            )
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            raise ValueError(f"{text!r}: write an IPv6 address in brackets, as in [::1]:9100")
        number = whole_number(port, most=65535)
        if number is None:
            raise ValueError(f"{text!r}: {port!r} is no port; give a number from 0 (any free one) to 65535")
        return cls(host or LOOPBACK, number)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def loopback(self) -> bool:
        """Only this machine can reach it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"
