"""Where to listen or connect: a TCP port or a Unix socket."""

from __future__ import annotations

import re
from dataclasses import dataclass

from servable.core.errors import invalid_argument

_TCP = re.compile(r"(?:(\[[^\[\]]*\]|[^:\[\]]*):)?([0-9]{1,5})", re.ASCII)
_MAX_UNIX_PATH = 107  # bytes; the kernel's sun_path less its NUL


@dataclass(frozen=True, slots=True)
class Address:
    """``host`` and ``port``, or ``path`` of a Unix socket (``@name`` is one without a file)."""

    host: str = "127.0.0.1"
    port: int = 0
    path: str | None = None

    @classmethod
    def parse(cls, text: str, default_host: str = "127.0.0.1") -> Address:
        """Read ``[HOST:]PORT`` (an IPv6 host in brackets, port 0 = any free one) or ``unix:PATH``."""
        if text.startswith("unix:"):
            return cls._unix(text, text.removeprefix("unix:"))
        match = _TCP.fullmatch(text)
        if match is None:
            raise invalid_argument(
                f"{text!r} is no address: [HOST:]PORT is, with an IPv6 HOST in brackets, and unix:PATH"
            )
        port = int(match[2])
        if port > 65535:
            raise invalid_argument(f"{text!r} is no address: ports end at 65535")
        return cls(host=(match[1] or default_host).strip("[]"), port=port)

    @classmethod
    def _unix(cls, text: str, path: str) -> Address:
        path = path.removeprefix("//") if path.startswith("///") else path
        if not path or "\0" in path:
            raise invalid_argument(f"{text!r} is no address: unix: needs the path of a socket")
        if len(path.encode()) > _MAX_UNIX_PATH:
            raise invalid_argument(f"{text!r} is no address: a socket's path has at most {_MAX_UNIX_PATH} bytes")
        return cls(host="", path=path)

    @property
    def kernel_path(self) -> str:
        """Return the path of a Unix socket as the kernel takes it."""
        assert self.path is not None
        return "\0" + self.path[1:] if self.path.startswith("@") else self.path

    def __str__(self) -> str:
        """Return the form that ``parse`` reads."""
        if self.path is not None:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
