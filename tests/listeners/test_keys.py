from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import pytest

from servable.core.errors import Code, ServingError
from servable.listeners.keys import ApiKeys, Grant, Grants, key_in
from servable.settings.api_keys import read_api_keys
from servable.transport.exchange import RequestHead


def head(*fields: tuple[bytes, bytes]) -> RequestHead:
    return RequestHead(b"GET", b"/metrics", fields)


def digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


ONE: Grants = {digest("one-key"): Grant("one", frozenset({"a"}))}


@pytest.mark.parametrize(
    ("fields", "key"),
    [
        ([(b"authorization", b"Bearer one-key")], b"one-key"),
        ([(b"authorization", b"bearer  one-key ")], b"one-key"),
        ([(b"x-api-key", b"one-key")], b"one-key"),
        ([(b"authorization", b"Basic b25lLWtleQ==")], None),
        ([(b"authorization", b"Bearer")], None),
        ([], None),
    ],
)
def test_where_a_key_is_looked_for(fields: list[tuple[bytes, bytes]], key: bytes | None) -> None:
    assert key_in(fields) == key


def test_what_a_key_is_good_for() -> None:
    keys = ApiKeys(lambda: ONE)
    grant = keys.grant(head((b"x-api-key", b"one-key")))
    grant.check(["a"])
    grant.check([])
    with pytest.raises(ServingError, match="'one' is not for model 'b'") as raised:
        grant.check(["a", "b"])
    assert raised.value.code is Code.PERMISSION_DENIED
    Grant("all").check(["anything"])
    for fields in ((), ((b"x-api-key", b"One-key"),), ((b"x-api-key", b""),)):
        with pytest.raises(ServingError) as raised:
            keys.grant(head(*fields))
        assert raised.value.code is Code.UNAUTHENTICATED
        assert "one" not in raised.value.message


def test_a_key_that_was_taken_away_counts_no_more_and_a_broken_file_changes_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now: list[Grants | ServingError] = [ONE]

    def read() -> Grants:
        if isinstance(now[0], ServingError):
            raise now[0]
        return now[0]

    keys = ApiKeys(read)
    now[0] = ServingError(Code.INVALID_ARGUMENT, "no TOML")
    keys.reload()
    assert "stay as they were: no TOML" in caplog.text
    assert caplog.records[-1].levelno == logging.ERROR
    keys.grant(head((b"x-api-key", b"one-key")))
    now[0] = {}
    keys.reload()
    with pytest.raises(ServingError):
        keys.grant(head((b"x-api-key", b"one-key")))


def test_the_file_of_keys(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(
        '[[keys]]\nname = "team"\nkey = "0123456789abcdef"\nmodels = ["m"]\n\n'
        f'[[keys]]\nname = "ops"\nsha256 = "{digest("another-long-key").hex().upper()}"\nadmin = true\n'
    )
    assert read_api_keys(path) == {
        digest("0123456789abcdef"): Grant("team", frozenset({"m"})),
        digest("another-long-key"): Grant("ops", None, admin=True),
    }


GOOD = 'key = "0123456789abcdef"'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", r"expected tables, each under a line \[\[keys\]\]"),
        ("keys = 3", "expected tables"),
        ("[[key]]", "there is no table 'key'"),
        (f"[[keys]]\n{GOOD}", "name: expected a text"),
        ("[[keys]]\nname = 'a'", r"keys\[1\] \(a\): expected one of key and sha256"),
        (f"[[keys]]\nname = 'a'\n{GOOD}\nsha256 = 'x'", "one of key and sha256"),
        ("[[keys]]\nname = 'a'\nkey = 'short'", "16 printable ASCII characters"),
        ("[[keys]]\nname = 'a'\nkey = 'with spaces in it, many'", "no spaces"),
        ("[[keys]]\nname = 'a'\nsha256 = 'zz'", "64 hexadecimal digits"),
        (f"[[keys]]\nname = 'a'\n{GOOD}\nmodels = 'm'", "expected a list of names"),
        (f"[[keys]]\nname = 'a'\n{GOOD}\nadmin = 1", "admin: expected true or false"),
        (f"[[keys]]\nname = 'a'\n{GOOD}\nmodel = ['m']", "did you mean models"),
        (f"[[keys]]\nname = 'a'\n{GOOD}\n[[keys]]\nname = 'b'\n{GOOD}", "'a' and 'b' are the same key"),
        ("[[keys", "no TOML"),
    ],
)
def test_a_wrong_file_is_explained_without_showing_a_key(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(text)
    with pytest.raises(ServingError, match=words) as raised:
        read_api_keys(path)
    assert str(path) in raised.value.message
    assert "0123456789abcdef" not in raised.value.message


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ServingError, match="cannot read the API keys"):
        read_api_keys(tmp_path / "none")
