"""``grpc.reflection``: what a server offers, from our own descriptors. Requests in, replies out, as bytes.

v1 and v1alpha differ in the names of the service and its messages, not in their bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from google.protobuf.message import DecodeError

from servable import protos
from servable.core.errors import Code, ServingError, invalid_argument

SERVICES: Final = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
METHODS: Final = tuple(f"/{service}/ServerReflectionInfo".encode() for service in SERVICES)
MAX_REQUEST: Final = 64 * 1024
"""Bytes of a request, which the reply repeats. Names are shorter by far."""
_MAX_NAME = 256


class Catalogue:
    """The services of one server, and the files that define them and all that they use. Nothing else is shown."""

    def __init__(self, services: Iterable[str]) -> None:
        """Every service must be in our descriptors."""
        self.services = sorted(services)
        self._pool = protos.pool()
        self._files: dict[str, Any] = {}
        for service in self.services:
            self._gather(self._pool.FindServiceByName(service).file)

    def _gather(self, file: Any) -> None:
        if file.name not in self._files:
            self._files[file.name] = file
            for used in file.dependencies:
                self._gather(used)

    def file(self, name: str) -> Any:
        """Return a file by its name."""
        if name not in self._files:
            raise _not_found("file", name)
        return self._files[name]

    def file_of(self, symbol: str) -> Any:
        """Return the file that defines a service, method, message, field, enum or enum value."""
        file = self._defining(symbol)
        if file is None:  # a method is none of the pool's symbols
            service, _, method = symbol.rpartition(".")
            if service in self.services and method in self._pool.FindServiceByName(service).methods_by_name:
                file = self._defining(service)
        if file is None:
            raise _not_found("symbol", symbol)
        return file

    def message(self, name: str) -> Any:
        """Return a message's descriptor."""
        if self._defining(name) is not None:
            try:
                return self._pool.FindMessageTypeByName(name)
            except KeyError:
                pass
        raise _not_found("message", name)

    def extension(self, message: str, number: int) -> Any:
        """Return the file that extends ``message`` by the field ``number``."""
        try:
            file = self._pool.FindExtensionByNumber(self.message(message), number).file
        except KeyError:
            raise ServingError(Code.NOT_FOUND, f"{message[:_MAX_NAME]} has no extension {number}") from None
        return self.file(file.name)

    def extensions(self, message: str) -> list[int]:
        """Return the numbers of a message's extensions."""
        return sorted(extension.number for extension in self._pool.FindAllExtensions(self.message(message)))

    def _defining(self, symbol: str) -> Any:
        try:
            return self._files.get(self._pool.FindFileContainingSymbol(symbol).name)
        except KeyError:
            return None


class Reflection:
    """One conversation: files that were sent in it are not sent again for those that use them."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._sent: set[str] = set()

    def answer(self, message: bytes) -> bytes:
        """Return the reply to a request; what is not found is a reply as well. INVALID_ARGUMENT if it is no request."""
        try:
            request = protos.reflection.ServerReflectionRequest.FromString(message)
        except DecodeError:
            raise invalid_argument("the message is not a ServerReflectionRequest") from None
        reply = protos.reflection.ServerReflectionResponse(valid_host=request.host, original_request=request)
        try:
            self._fill(reply, request, request.WhichOneof("message_request"))
        except ServingError as error:
            reply.error_response.error_code = int(error.code)
            reply.error_response.error_message = error.message
        encoded: bytes = reply.SerializeToString()
        return encoded

    def _fill(self, reply: Any, request: Any, asked: str | None) -> None:
        catalogue = self._catalogue
        if asked == "list_services":
            for service in catalogue.services:
                reply.list_services_response.service.add(name=service)
        elif asked == "all_extension_numbers_of_type":
            numbers = catalogue.extensions(request.all_extension_numbers_of_type)
            reply.all_extension_numbers_response.base_type_name = request.all_extension_numbers_of_type
            reply.all_extension_numbers_response.extension_number.extend(numbers)
        elif asked is None:
            raise invalid_argument("the request asks for nothing: set one field of message_request")
        else:
            file = self._asked_file(request, asked)
            self._sent.discard(file.name)
            reply.file_descriptor_response.file_descriptor_proto.extend(self._with_all_it_uses(file))

    def _asked_file(self, request: Any, asked: str) -> Any:
        if asked == "file_by_filename":
            return self._catalogue.file(request.file_by_filename)
        if asked == "file_containing_symbol":
            return self._catalogue.file_of(request.file_containing_symbol)
        wanted = request.file_containing_extension
        return self._catalogue.extension(wanted.containing_type, wanted.extension_number)

    def _with_all_it_uses(self, file: Any) -> Iterator[bytes]:
        if file.name not in self._sent:
            self._sent.add(file.name)
            yield file.serialized_pb
            for used in file.dependencies:
                yield from self._with_all_it_uses(used)


def _not_found(kind: str, name: str) -> ServingError:
    return ServingError(Code.NOT_FOUND, f"this server's services have no {kind} {name[:_MAX_NAME]!r}")
