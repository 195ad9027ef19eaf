"""Plain HTTP from Python's own client, and what REST replies look like."""

from __future__ import annotations

import gzip
import http.client
import json
from typing import Any, NamedTuple


class Reply(NamedTuple):
    """One reply. ``headers`` have lower-case names; ``body`` is as it was before its content-encoding."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The message of an error, which is all that its body holds."""
        document = self.json
        assert list(document) == ["error"], document
        return str(document["error"])


def call(address: str, method: str, path: str, body: bytes | dict[str, Any] | None = None, **headers: str) -> Reply:
    """Send one request. A body that is no bytes is sent as JSON; ``accept_encoding="gzip"`` is a header."""
    data = json.dumps(body).encode() if isinstance(body, dict) else body
    connection = http.client.HTTPConnection(address, timeout=15)
    try:
        connection.request(method, path, data, {name.replace("_", "-"): value for name, value in headers.items()})
        reply = connection.getresponse()
        found = {name.lower(): value for name, value in reply.getheaders()}
        content = reply.read()
    finally:
        connection.close()
    if found.get("content-encoding") == "gzip":
        content = gzip.decompress(content)
    return Reply(reply.status, found, content)
