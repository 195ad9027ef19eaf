"""A configuration that is read again: applied wholly, or the one before stays and the reason is logged once."""

from __future__ import annotations

import asyncio
import logging

import pytest

from servable.core.errors import ServingError, invalid_argument
from servable.lifecycle.reload import Reload


class Server:
    """What is applied, and what the file says."""

    def __init__(self) -> None:
        self.file: str | ServingError = "one"
        self.applied = "one"
        self.refused = ""

    def read(self) -> str:
        if isinstance(self.file, ServingError):
            raise self.file
        return self.file

    def apply(self, config: str) -> None:
        if config == self.refused:
            raise invalid_argument(f"{config} is refused")
        self.applied = config


def look(server: Server, reload: Reload[str]) -> bool:
    return asyncio.run(reload.look())


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def reload(server: Server) -> Reload[str]:
    return Reload(server.read, server.apply, lambda: server.applied)


def test_what_changed_is_applied_and_the_same_is_not(server: Server, reload: Reload[str]) -> None:
    assert not look(server, reload)
    server.file = "two"
    assert look(server, reload)
    assert server.applied == "two"
    assert not look(server, reload)


def test_what_another_applied_is_replaced_by_the_file(server: Server, reload: Reload[str]) -> None:
    server.applied = "by RPC"
    assert look(server, reload)
    assert server.applied == "one"


def test_what_cannot_be_taken_changes_nothing_and_is_logged_once(
    server: Server, reload: Reload[str], caplog: pytest.LogCaptureFixture
) -> None:
    server.file = invalid_argument("models.config:3:1: no field 'nme'")
    with caplog.at_level(logging.ERROR):
        assert not look(server, reload)
        assert not look(server, reload)
        server.file = server.refused = "two"
        assert not look(server, reload)
        assert not look(server, reload)
    assert server.applied == "one"
    assert [record.getMessage().partition(": ")[2] for record in caplog.records] == [
        "models.config:3:1: no field 'nme'", "two is refused",
    ]  # fmt: skip
    server.refused = ""
    assert look(server, reload)
