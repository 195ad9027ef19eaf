"""What options say about connections reaches the transport."""

from __future__ import annotations

from math import inf

from servable.settings import ServeSettings
from servable.transport.limits import MIB, Limits


def test_the_defaults_are_those_of_the_transport_but_for_the_grace() -> None:
    assert ServeSettings().limits() == Limits(max_connection_age_grace_s=30)
    assert ServeSettings().limits().max_connection_age_s == inf


def test_every_option_arrives() -> None:
    settings = ServeSettings(
        max_body=2,
        max_connection_age_s=60,
        max_connection_age_grace_s=7,
        keepalive_interval_s=30,
        min_ping_interval_s=1,
    )
    assert settings.limits() == Limits(
        max_body=2 * MIB,
        max_connection_age_s=60,
        max_connection_age_grace_s=7,
        keepalive_interval_s=30,
        min_ping_interval_s=1,
        min_ping_interval_idle_s=1,
    )
