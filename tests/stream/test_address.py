"""Addresses of topics: what they mean, and that no secret is ever shown."""

from __future__ import annotations

import pytest

from homeostat.adapters.address import Address, parse
from homeostat.domain.errors import ConfigError, UsageError
from homeostat.wiring.stream import open_stream

SECRETS = {"WHO": "me", "PASS": "p@ss/w?rd"}
KNOWN = {
    "kafka://127.0.0.1:9092/requests": Address("kafka", "127.0.0.1:9092", "", "requests"),
    "kafka://a:1,b:2/t?security.protocol=SASL_SSL": Address(
        "kafka", "a:1,b:2", "", "t", settings={"security.protocol": "SASL_SSL"}
    ),
    "redis://127.0.0.1:6379/0/requests": Address("redis", "127.0.0.1:6379", "0", "requests"),
    "rediss://me:${PASS}@r/2/a%2Fb": Address("rediss", "r", "2", "a/b", "me", "p@ss/w?rd"),
    "kafka://${WHO}:${PASS}@k:1/t?ssl.key.password=${PASS}": Address(
        "kafka", "k:1", "", "t", "me", "p@ss/w?rd", {"ssl.key.password": "p@ss/w?rd"}
    ),
}


@pytest.mark.parametrize("text", list(KNOWN))
def test_an_address_is_read_and_shows_no_secret(text: str) -> None:
    found = parse(text, SECRETS)
    assert found == KNOWN[text]
    assert SECRETS["PASS"] not in f"{found} {found!r}"


@pytest.mark.parametrize(
    "text",
    [
        "requests",
        "http://a/b",
        "kafka://a:1",
        "kafka:///t",
        "redis://a:1/",
        "redis://u:${PASS}@/0/t",
        "kafka://[a/t",
        "redis://a:1/0",
        "kafka://a/b/t",
    ],
)
def test_what_is_no_address_is_told_the_form(text: str) -> None:
    with pytest.raises(UsageError, match="not the address of a topic") as error:
        parse(text, SECRETS)
    assert "kafka://HOST:PORT/TOPIC" in error.value.way_out


@pytest.mark.parametrize(
    "text", ["redis://u:open@r/0/t", "kafka://u:${PASS}x@k/t", "kafka://k/t?sasl.password=open", "redis://:open@r/0/t"]
)
def test_a_secret_in_the_address_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(UsageError, match="every list of processes shows it") as error:
        parse(text, SECRETS)
    assert "open" not in str(error.value)


def test_a_malformed_address_keeps_its_secret_too() -> None:
    with pytest.raises(UsageError) as error:
        parse("reddis://u:open@r/0/t?password=open", {})
    assert "open" not in str(error.value)


def test_a_variable_that_is_not_set_and_a_name_that_is_too_long() -> None:
    with pytest.raises(ConfigError, match="NOWHERE is not set"):
        parse("redis://u:${NOWHERE}@r/0/t", {})
    with pytest.raises(UsageError, match="longer than 200"):
        parse("kafka://k/" + "t" * 201, {})


def test_three_topics_must_be_three() -> None:
    for sink, dead in (("a", "d"), ("b", "b"), ("b", "a")):
        with pytest.raises(UsageError, match="three topics"):
            open_stream("redis://r/0/a", f"redis://r/0/{sink}", dead, "g", {})
