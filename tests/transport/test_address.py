from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servable.core.errors import Code, ServingError
from servable.transport.address import Address


@pytest.mark.parametrize(
    ("text", "address", "shown"),
    [
        ("8500", Address("127.0.0.1", 8500), "127.0.0.1:8500"),
        ("0", Address("127.0.0.1", 0), "127.0.0.1:0"),
        (":8500", Address("127.0.0.1", 8500), "127.0.0.1:8500"),
        ("0.0.0.0:8500", Address("0.0.0.0", 8500), "0.0.0.0:8500"),
        ("*:8500", Address("*", 8500), "*:8500"),
        ("model.example:1", Address("model.example", 1), "model.example:1"),
        ("[::]:8500", Address("::", 8500), "[::]:8500"),
        ("[fe80::1%eth0]:8500", Address("fe80::1%eth0", 8500), "[fe80::1%eth0]:8500"),
        ("unix:/run/s.sock", Address("", 0, "/run/s.sock"), "unix:/run/s.sock"),
        ("unix:///run/s.sock", Address("", 0, "/run/s.sock"), "unix:/run/s.sock"),
        ("unix:s.sock", Address("", 0, "s.sock"), "unix:s.sock"),
        ("unix:@name", Address("", 0, "@name"), "unix:@name"),
    ],
)
def test_parse(text: str, address: Address, shown: str) -> None:
    assert Address.parse(text) == address
    assert str(address) == shown
    assert Address.parse(shown) == address


def test_the_default_host_is_the_callers() -> None:
    assert Address.parse("8500", "0.0.0.0") == Address("0.0.0.0", 8500)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "[HOST:]PORT"),
        ("a", "[HOST:]PORT"),
        ("host:", "[HOST:]PORT"),
        ("::1:8500", "IPv6 HOST in brackets"),
        ("[::1]", "[HOST:]PORT"),
        ("-1", "[HOST:]PORT"),
        ("+80", "[HOST:]PORT"),
        ("٨٠", "[HOST:]PORT"),
        ("1 ", "[HOST:]PORT"),
        ("65536", "ports end at 65535"),
        ("unix:", "needs the path"),
        ("unix:/a\0b", "needs the path"),
        ("unix:/" + "a" * 107, "at most 107 bytes"),
    ],
)
def test_parse_explains_what_is_wrong(text: str, reason: str) -> None:
    with pytest.raises(ServingError) as caught:
        Address.parse(text)
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert reason in caught.value.message
    assert repr(text) in caught.value.message


@given(st.text(max_size=20))
def test_parse_never_fails_in_another_way(text: str) -> None:
    try:
        address = Address.parse(text)
    except ServingError:
        return
    assert Address.parse(str(address)) == address
