"""Where a topic is: `kafka://HOST:PORT[,HOST:PORT…]/TOPIC?SETTING=VALUE`, `redis://HOST:PORT/DATABASE/STREAM?…`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

from homeostat.domain.errors import ConfigError, UsageError

LONGEST = 200
"""Characters of a topic's name: a message's place must fit into a prediction id."""
_VARIABLE = re.compile(r"\$\{(\w+)\}")
_SECRET = re.compile(r"password|secret|token|key\.pem|config$")
_FORMS = "kafka://HOST:PORT/TOPIC or redis://HOST:PORT/DATABASE/STREAM"


@dataclass(frozen=True, slots=True)
class Address:
    """Printing it shows no credentials. `path` is what leads to the topic: a database, or nothing."""

    scheme: str
    hosts: str
    path: str
    topic: str
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    settings: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        return "/".join(part for part in (f"{self.scheme}://{self.hosts}", self.path, self.topic) if part)

    @property
    def server(self) -> tuple[object, ...]:
        """Two addresses with the same are on one server."""
        return self.scheme, self.hosts, self.path, self.user


def parse(text: str, environment: Mapping[str, str]) -> Address:
    """`${NAME}` is taken from the environment. Errors: `UsageError`, also for a secret that stands in the address
    itself; `ConfigError` for a variable that is not set."""
    try:
        parts = urlsplit(text)
    except ValueError:
        raise _malformed(text) from None
    login, _, hosts = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    path, _, topic = parts.path.strip("/").rpartition("/")
    database = path.isdecimal() if parts.scheme in ("redis", "rediss") else parts.scheme == "kafka" and not path
    if not (database and hosts and topic):
        raise _malformed(text)
    if len(topic) > LONGEST:
        raise UsageError(f"the name of the topic is longer than {LONGEST} characters", where=topic[:LONGEST])
    settings = dict(parse_qsl(parts.query, keep_blank_values=True))
    for name, value in {"the password": password, **settings}.items():
        if value and _SECRET.search(name) and not _VARIABLE.fullmatch(unquote(value)):
            raise UsageError(
                f"{name} stands in the address, where every list of processes shows it",
                way_out="Put it in an environment variable and write '${NAME}' (in single quotes) in its place.",
            )
    known = {name: _expanded(value, environment) for name, value in settings.items()}
    names = [_expanded(unquote(one), environment) for one in (user, password)]
    return Address(parts.scheme, hosts, path, unquote(topic), names[0], names[1], known)


def _expanded(text: str, environment: Mapping[str, str]) -> str:
    for name in _VARIABLE.findall(text):
        if name not in environment:
            raise ConfigError(f"the environment variable {name} is not set")
    return _VARIABLE.sub(lambda match: environment[match[1]], text)


def _malformed(text: str) -> UsageError:
    shown = text.rpartition("@")[2].partition("?")[0]
    return UsageError(f"{shown!r} is not the address of a topic", way_out=f"Write {_FORMS}.")
