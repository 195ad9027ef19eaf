"""A configuration that is read again: applied wholly, or the one before stays and the reason is logged once."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from servable.core.errors import invalid_argument
from servable.lifecycle.reload import Reload


class Server:
    """What is applied, and what the file says."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.write("one")
        self.applied = "one"
        self.refused = ""
        self.reads = 0

    def write(self, text: str) -> None:
        new = self.path.with_suffix(".new")
        new.write_text(text)
        new.replace(self.path)

    def read(self) -> str:
        self.reads += 1
        text = self.path.read_text()
        if text.startswith("wrong"):
            raise invalid_argument(text)
        return text

    def apply(self, config: str) -> None:
        if config == self.refused:
            raise invalid_argument(f"{config} is refused")
        self.applied = config


def look(server: Server, reload: Reload[str]) -> bool:
    return asyncio.run(reload.look())


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return Server(tmp_path / "f")


@pytest.fixture
def reload(server: Server) -> Reload[str]:
    return Reload(server.path, server.read, server.apply, lambda: server.applied)


def test_what_changed_is_applied_and_the_same_is_not(server: Server, reload: Reload[str]) -> None:
    assert not look(server, reload)
    server.write("two")
    assert look(server, reload)
    assert server.applied == "two"
    assert not look(server, reload)


@pytest.mark.rule("config-2")
def test_what_another_applied_is_replaced_by_the_file(server: Server, reload: Reload[str]) -> None:
    server.applied = "by RPC"
    assert look(server, reload)
    assert server.applied == "one"


def test_what_cannot_be_taken_changes_nothing_and_is_logged_once(
    server: Server, reload: Reload[str], caplog: pytest.LogCaptureFixture
) -> None:
    server.write("wrong: no field 'nme'")
    with caplog.at_level(logging.ERROR):
        assert not look(server, reload)
        assert not look(server, reload)
        server.refused = "two"
        server.write("two")
        assert not look(server, reload)
        assert not look(server, reload)
    assert server.applied == "one"
    assert [record.getMessage().partition(": ")[2] for record in caplog.records] == [
        "wrong: no field 'nme'", "two is refused",
    ]  # fmt: skip
    server.refused = ""
    assert look(server, reload)


def test_a_file_that_was_not_written_is_not_read_again(server: Server, reload: Reload[str]) -> None:
    for _ in range(3):
        assert not look(server, reload)
    assert server.reads == 1
    server.write("one")
    assert not look(server, reload)
    assert server.reads == 2


def test_a_file_that_is_gone_leaves_what_is_applied(server: Server, reload: Reload[str]) -> None:
    def read() -> str:
        try:
            return server.path.read_text()
        except OSError as error:
            raise invalid_argument(f"cannot read: {error.strerror}") from None

    reload = Reload(server.path, read, server.apply, lambda: server.applied)
    assert not look(server, reload)
    server.path.unlink()
    assert not look(server, reload)
    server.write("two")
    assert look(server, reload)
    assert server.applied == "two"
