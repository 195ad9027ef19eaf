"""Canonical errors: one set of codes, the same numbers that gRPC uses. Wires translate them at the edge."""

from __future__ import annotations

from enum import IntEnum


class Code(IntEnum):
    """What went wrong, in the words that gRPC and TensorFlow share."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class ServingError(Exception):
    """The only exception that crosses a ring: a code and a message for the person who sent the request."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        """Return the form that TensorFlow nests in messages: ``NOT_FOUND: no such file``."""
        return f"{self.code.name}: {self.message}"

    def __reduce__(self) -> tuple[type[ServingError], tuple[Code, str]]:
        """Travel through pickle and between processes unchanged."""
        return ServingError, (self.code, self.message)


def invalid_argument(message: str) -> ServingError:
    """Return the error for a request that can never succeed as it is."""
    return ServingError(Code.INVALID_ARGUMENT, message)


def not_found(message: str) -> ServingError:
    """Return the error for a model, version or file that does not exist."""
    return ServingError(Code.NOT_FOUND, message)


def failed_precondition(message: str) -> ServingError:
    """Return the error for a request that the present state of the server forbids."""
    return ServingError(Code.FAILED_PRECONDITION, message)


def unimplemented(message: str) -> ServingError:
    """Return the error for something that this server, engine or wire does not do."""
    return ServingError(Code.UNIMPLEMENTED, message)


def unavailable(message: str) -> ServingError:
    """Return the error for a condition that passes: the same request may succeed later."""
    return ServingError(Code.UNAVAILABLE, message)


def internal(message: str) -> ServingError:
    """Return the error for a fault of ours."""
    return ServingError(Code.INTERNAL, message)
