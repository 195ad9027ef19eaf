"""Who may ask for what: API keys, and the requests that are let through with them.

A key comes as ``authorization: Bearer KEY`` or ``x-api-key: KEY``, over every wire. Only digests of keys are kept. A
key is looked up again for each request, so that one that was taken away is worth nothing from that moment on.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from servable.core.errors import Code, ServingError
from servable.transport.exchange import Exchange, Field, RequestHead

log = logging.getLogger("servable.listeners")

NO_KEY = ServingError(
    Code.UNAUTHENTICATED, "this server wants an API key: authorization: Bearer KEY, or x-api-key: KEY"
)
WRONG_KEY = ServingError(Code.UNAUTHENTICATED, "this API key is not known here")
_BEARER = b"bearer "


@dataclass(frozen=True, slots=True)
class Grant:
    """What the holder of a key may do. ``models`` ``None`` is all of them; ``admin``: change what is served."""

    name: str
    models: frozenset[str] | None = None
    admin: bool = False

    def check(self, models: Iterable[str]) -> None:
        """Raise PERMISSION_DENIED for a model that is not granted. A request that names none is somebody else's."""
        if self.models is not None:
            for model in models:
                if model not in self.models:
                    raise ServingError(Code.PERMISSION_DENIED, f"the API key {self.name!r} is not for model {model!r}")


Grants = Mapping[bytes, Grant]
"""By the SHA-256 digest of the key."""


class ApiKeys:
    """The keys that count now."""

    def __init__(self, read: Callable[[], Grants]) -> None:
        """``read`` returns them; ``ServingError`` if that fails now."""
        self._read = read
        self._grants = read()

    def __repr__(self) -> str:
        """Return how many there are."""
        return f"<ApiKeys: {len(self._grants)}>"

    def reload(self) -> None:
        """Read them again. If that fails, those that counted go on."""
        try:
            self._grants = self._read()
        except ServingError as error:
            log.error("the API keys stay as they were: %s", error.message)  # noqa: TRY400  # the error says it all
        else:
            log.info("%d API keys were read", len(self._grants))

    def grant(self, head: RequestHead) -> Grant:
        """Return what a request may do; UNAUTHENTICATED without a key that counts."""
        key = key_in(head.fields)
        if key is None:
            raise NO_KEY
        found = self._grants.get(hashlib.sha256(key).digest())
        if found is None:
            raise WRONG_KEY
        return found


def key_in(fields: Iterable[Field]) -> bytes | None:
    """Return the key in a head's fields, ``None`` if there is none."""
    for name, value in fields:
        if name == b"authorization" and value[: len(_BEARER)].lower() == _BEARER:
            return value[len(_BEARER) :].strip()
        if name == b"x-api-key":
            return value
    return None


class Administration:
    """Who may change what is served over one port: holders of an admin key where there are keys, else whoever is on
    this machine; or everybody whom the port lets in, if it is the operator's own (``is_open``).
    """

    def __init__(self, keys: ApiKeys | None = None, *, is_open: bool = False) -> None:
        self._keys = keys
        self._is_open = is_open

    def check(self, exchange: Exchange) -> None:
        """Raise PERMISSION_DENIED, or UNAUTHENTICATED, for those who may not."""
        if self._keys is not None:
            grant = self._keys.grant(exchange.head)
            if not grant.admin:
                raise ServingError(
                    Code.PERMISSION_DENIED, f"the API key {grant.name!r} is not for changing what is served"
                )
        elif not self._is_open and not exchange.peer.local:
            raise ServingError(
                Code.PERMISSION_DENIED,
                "the models of this server may be changed over loopback and Unix sockets, not from "
                f"{exchange.peer.address}",
            )
