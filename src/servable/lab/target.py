"""What a URL asks to measure: wire, address, model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from urllib.parse import unquote

from servable.core.errors import invalid_argument
from servable.core.messages import ModelRef
from servable.transport.address import Address

WIRES = ("tfserving-grpc", "tfserving-rest", "kserve-grpc", "kserve-rest", "kserve-binary", "http")
_DEFAULT_WIRE = {"grpc": "tfserving-grpc", "http": "tfserving-rest"}
_DEFAULT_PORT = {
    ("grpc", "tfserving-grpc"): 8500,
    ("http", "tfserving-rest"): 8501,
    ("grpc", "kserve-grpc"): 8001,
    ("http", "kserve-rest"): 8000,
    ("http", "kserve-binary"): 8000,
}
_FORMS = "grpc(s)://HOST:PORT/MODEL or http(s)://HOST:PORT/MODEL, HOST:PORT may be unix:SOCKET:"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server, how to speak to it, and the model to ask. ``path`` is what the URL has after the address."""

    url: str
    wire: str
    address: Address
    secure: bool
    model: ModelRef
    path: str = "/"

    @property
    def authority(self) -> bytes:
        """Return what the server is called in requests."""
        return b"localhost" if self.address.path is not None else str(self.address).encode()

    @property
    def scheme(self) -> bytes:
        """Return the scheme that requests name."""
        return b"https" if self.secure else b"http"

    def with_version(self, version: int | None) -> Endpoint:
        """Ask a version instead of the newest."""
        return self if version is None else replace(self, model=ModelRef(self.model.name, version))


def parse_endpoint(url: str, wire: str = "") -> Endpoint:
    """Read a URL. ``wire`` decides where the scheme leaves a choice; the path of a REST API decides too.

    ``http://h:8501/MODEL``, ``http://h:8501/v1/models/MODEL:predict`` and ``http://h:8000/v2/models/MODEL/infer`` are
    all understood. With wire ``http`` the path is sent as it is.
    """
    scheme, separator, rest = url.partition("://")
    secure = scheme in {"grpcs", "https"}
    kind = scheme[:4]
    if not separator or scheme not in {"grpc", "grpcs", "http", "https"}:
        raise invalid_argument(f"{url!r} is no server: expected {_FORMS}")
    place, path = _split(rest)
    chosen = wire or ("kserve-rest" if kind == "http" and path.startswith("/v2/") else _DEFAULT_WIRE[kind])
    if chosen not in WIRES:
        raise invalid_argument(f"{chosen!r} is no wire: there are {', '.join(WIRES)}")
    if chosen.endswith("grpc") != (kind == "grpc"):
        raise invalid_argument(f"{url!r} cannot speak {chosen}: gRPC has grpc:// or grpcs://, the rest http(s)://")
    address = _address(url, place, kind, chosen, secure=secure)
    if chosen == "http":
        return Endpoint(url, chosen, address, secure, ModelRef(""), path or "/")
    return Endpoint(url, chosen, address, secure, _model(url, path), path)


def _split(rest: str) -> tuple[str, str]:
    if not rest.startswith("unix:"):
        place, slash, path = rest.partition("/")
        return place, slash + path
    socket, colon, path = rest.removeprefix("unix:").partition(":")
    if colon:
        return "unix:" + socket, "/" + path.lstrip("/")
    # As elsewhere on the command line: what follows the last slash is the model.
    socket, _, model = rest.rpartition("/")
    return socket, "/" + model


def _address(url: str, place: str, kind: str, wire: str, *, secure: bool) -> Address:
    if place.startswith("unix:"):
        if secure:
            raise invalid_argument(f"{url!r}: there is no TLS on Unix sockets")
        return Address.parse(place)
    has_port = place.rpartition("]")[2].rpartition(":")[1] == ":"
    port = _DEFAULT_PORT.get((kind, wire), 443 if secure else 80)
    return Address.parse(place if has_port else f"{place}:{port}")


def _model(url: str, path: str) -> ModelRef:
    words = [unquote(word) for word in path.strip("/").split("/") if word]
    if words[:2] in (["v1", "models"], ["v2", "models"]):
        words = words[2:]
    if words and words[-1] == "infer":
        words.pop()
    if words:
        words[-1] = words[-1].removesuffix(":predict")
    if len(words) == 3 and words[1] == "versions" and words[2].isdecimal():
        return ModelRef(words[0], int(words[2]))
    if len(words) == 3 and words[1] == "labels":
        return ModelRef(words[0], None, words[2])
    if len(words) != 1:
        raise invalid_argument(f"{url!r} names no model: expected {_FORMS}MODEL")
    return ModelRef(words[0])
