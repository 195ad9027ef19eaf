"""A reply as a client's caller gets it, whatever protocol it came over."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from servable.transport.exchange import Field


class Reply:
    """A complete reply. Names in ``fields`` and ``trailers`` are lower case."""

    __slots__ = ("body", "fields", "status", "trailers")

    def __init__(
        self, status: int, fields: tuple[Field, ...], body: bytes = b"", trailers: tuple[Field, ...] = ()
    ) -> None:
        self.status = status
        self.fields = fields
        self.body = body
        self.trailers = trailers

    def get(self, name: bytes) -> bytes | None:
        """Return the value of a field, several values joined by a comma, or ``None``."""
        values = [value for key, value in self.fields if key == name]
        return b", ".join(values) if values else None

    def __repr__(self) -> str:
        """Return status and size."""
        return f"<Reply {self.status}, {len(self.body)} bytes>"
